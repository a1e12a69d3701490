"""Signing in, up and out."""

from __future__ import annotations

from flask import Response, redirect, request
from flask.typing import ResponseReturnValue

from app.blueprints.dashboard.pages import blueprint, page, safe_next, see_other
from app.core.domain.errors import DomainError, InvalidInput, RateLimited, Unauthenticated
from app.core.services import accounts, passwords
from app.web import doors, login
from app.web.auth import find_identity
from app.web.context import remote_address, settings
from app.web.revocation import announce_revocation
from app.web.transaction import unit_of_work

MIN_PASSWORD = 8


@blueprint.get("/sign-in")
def show_sign_in() -> ResponseReturnValue:
    """The door."""
    if find_identity() is not None:
        return redirect(safe_next(request.args.get("next")), 303)
    return sign_in_page(next=request.args.get("next"))


@blueprint.post("/sign-in")
def sign_in() -> ResponseReturnValue:
    """Check the password and begin a session."""
    form = request.form
    try:
        with unit_of_work() as session:
            account = doors.sign_in(session, form.get("login", ""), form.get("password", ""))
            login.begin_session(session, account.id)
    except Unauthenticated:
        return sign_in_page(message="That name and password don't fit.", status=401)
    except RateLimited as error:
        answer = sign_in_page(message=error.message, status=429)
        answer.headers["Retry-After"] = str(error.retry_after_seconds or 60)
        return answer
    return redirect(safe_next(form.get("next")), 303)


def sign_in_page(*, message: str = "", next: str | None = None, status: int = 200) -> Response:
    """The sign-in page, with what went wrong."""
    return page(
        "sign_in", status=status, message=message, login=request.form.get("login", ""),
        next=next or request.form.get("next"), can_sign_up=settings().open_signup,
        has_google=has_google(),
    )  # fmt: skip


@blueprint.get("/sign-up")
def show_sign_up() -> ResponseReturnValue:
    """The form for a new account."""
    if find_identity() is not None:
        return see_other("show_overview")
    doors.check_signup_is_open()
    return _sign_up_page()


@blueprint.post("/sign-up")
def sign_up() -> ResponseReturnValue:
    """Make an account and sign it in."""
    form = request.form
    new = accounts.NewAccount(
        email=form.get("email", ""), password=form.get("password", ""),
        username=form.get("username", ""), ip=remote_address(),
    )  # fmt: skip
    try:
        if not new.username.strip():
            raise InvalidInput("Choose a user name.", field="username")
        passwords.check_length(new.password or "", minimum=MIN_PASSWORD)
        with unit_of_work() as session:
            account = doors.sign_up(session, new)
            login.begin_session(session, account.id)
    except DomainError as error:
        if error.field is None:
            raise
        return _sign_up_page(errors={error.field: error.message}, status=400)
    return see_other("show_overview")


def _sign_up_page(*, errors: dict[str, str] | None = None, status: int = 200) -> Response:
    return page(
        "sign_up",
        status=status,
        form=request.form,
        errors=errors or {},
        has_google=has_google(),
    )


def has_google() -> bool:
    """Whether people may sign in with Google here."""
    return bool(settings().google_client_id)


@blueprint.post("/sign-out")
def sign_out() -> ResponseReturnValue:
    """End this session, here and in every process."""
    with unit_of_work() as session:
        ended = login.end_session(session)
    if ended is not None:
        announce_revocation(*ended)
    return see_other("show_sign_in")
