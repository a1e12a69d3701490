"""`flask weft …`: what an operator does from a shell."""

from __future__ import annotations

import click
from flask import Flask, current_app
from flask.cli import AppGroup
from sqlalchemy.orm import Session

from app.core.clock import utc_now
from app.core.domain.accounts import Role
from app.core.domain.errors import DomainError
from app.core.ids import new_secret
from app.core.models import Account
from app.core.services import (
    accounts,
    credentials,
    device_types,
    enrolment,
    points,
    points_check,
)
from app.extensions import db
from app.web.transaction import unit_of_work

weft = AppGroup("weft", help="Accounts, keys and nodes of this hub.")


def register_commands(app: Flask) -> None:
    """Give the app its commands, and what `flask db` needs."""
    from flask_migrate import Migrate  # with Alembic: 8 MB that no server needs

    app.cli.add_command(weft)
    Migrate(app, db, directory="migrations", render_as_batch=True, compare_type=True)


@weft.command("first-admin")
def first_admin() -> None:
    """Make the first admin with an API key; says nothing new when there is one."""
    settings = current_app.extensions["weft_settings"]
    password = settings.admin_password or new_secret("", 16)
    with unit_of_work() as session:
        admin, is_new = accounts.ensure_admin(
            session, email=settings.admin_email, password=password,
            now=utc_now(), hash_profile=settings.argon2_profile,
        )  # fmt: skip
        click.echo(f"email={admin.email}")
        if is_new:
            key = credentials.issue_api_key(session, admin.id, name="first key", now=utc_now())
            click.echo(f"password={password}")
            click.echo(f"api_key={key.secret}")


@weft.command("create-account")
@click.argument("email")
@click.option("--password", prompt=True, hide_input=True, confirmation_prompt=True)
@click.option("--role", type=click.Choice([role.value for role in Role]), default="user")
def create_account(email: str, password: str, role: str) -> None:
    """Register an account."""
    settings = current_app.extensions["weft_settings"]
    try:
        with unit_of_work() as session:
            account = accounts.register_account(
                session, accounts.NewAccount(email=email, password=password),
                now=utc_now(), hash_profile=settings.argon2_profile,
            )  # fmt: skip
            account.role = role
            click.echo(f"account {account.id}: {account.username}")
    except DomainError as error:
        raise click.ClickException(error.message) from None


@weft.command("api-key")
@click.argument("login")
@click.option("--name", default="made from the shell")
def api_key(login: str, name: str) -> None:
    """Make an API key for an account (e-mail or user name) and print it once."""
    with unit_of_work() as session:
        account = _find(session, login)
        issued = credentials.issue_api_key(
            session, account.id, name=name, now=utc_now(), limit=None
        )
        click.echo(issued.secret)


@weft.command("enrolment-token")
@click.argument("login")
@click.option("--hours", default=24, show_default=True, help="How long it is good for.")
@click.option(
    "--uses", default=1, show_default=True, help="How many machines may join with it."
)
def enrolment_token(login: str, hours: int, uses: int) -> None:
    """Print a token that lets a machine join as a node of this account."""
    with unit_of_work() as session:
        account = _find(session, login)
        _row, secret = enrolment.create_enrolment_token(
            session, account, now=utc_now(), hours=hours, uses=uses
        )
        click.echo(secret)


@weft.command("approve-provider")
@click.argument("login")
def approve_provider(login: str) -> None:
    """Approve a provider and grant the points that were held."""
    with unit_of_work() as session:
        account = _find(session, login)
        given = points.approve_provider(session, account, actor_id=None, now=utc_now())
        click.echo(f"approved {account.username}, granted {given / points.E4:.4f} points")


@weft.command("rebuild-points")
@click.option("--write", is_flag=True, help="Correct the rows that differ.")
def rebuild_points(write: bool) -> None:
    """Count points again from raw heartbeats and compare; fails when something differs."""
    kept_days = current_app.extensions["weft_settings"].beats_kept_days
    with unit_of_work() as session:
        found = points_check.rebuild_points(
            session, now=utc_now(), kept_days=kept_days, writes=write
        )
    for one in found:
        click.echo(
            f"{one.day} {one.client_id} device {one.device_index}: "
            f"stored {_shown(one.stored_e4)}, counted {_shown(one.counted_e4)}"
        )
    if found and not write:
        raise click.ClickException(f"{len(found)} rows differ; --write corrects them.")
    click.echo(f"{len(found)} rows differed." if found else "All points agree.")


def _shown(points_e4: int | None) -> str:
    return "nothing" if points_e4 is None else f"{points_e4 / points.E4:.4f}"


@weft.command("device-type")
@click.argument("vendor_id")
@click.argument("device_id")
@click.argument("vendor")
@click.argument("name")
@click.argument("tflops", type=click.FloatRange(min=0, min_open=True))
@click.option("--source", required=True, help="Where the figure comes from.")
def device_type(
    vendor_id: str, device_id: str, vendor: str, name: str, tflops: float, source: str
) -> None:
    """Add a kind of device to the table, or change one. Ids as 0x10de or 4318."""
    try:
        ids = int(vendor_id, 0), int(device_id, 0)
    except ValueError:
        raise click.ClickException("PCI ids are numbers, as 0x10de or 4318.") from None
    with unit_of_work() as session:
        device_types.set_type(
            session, device_types.KnownType(*ids, vendor, name, tflops, source)
        )


def _find(session: Session, login: str) -> Account:
    account = accounts.find_by_login(session, login)
    if account is None:
        raise click.ClickException(f"There is no account {login!r}.")
    return account
