"""Mails with links that set a password."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy.orm import Session

from app.config import Settings
from app.core.clock import utc_now
from app.core.database import unit_of_work
from app.core.mail import Mail, Mailer
from app.core.services import password_reset
from worker.context import WorkerContext


def send_reset(context: WorkerContext, email: str) -> None:
    """Mail a link to whoever has this address; nobody gets one who has no account."""
    site = context.settings.site_url
    _send(
        context,
        lambda session: password_reset.request_reset(
            session, email, now=utc_now(), site_url=site
        ),
    )


def send_invitation(context: WorkerContext, account_id: int) -> None:
    """Mail a fresh account the link to choose its first password."""
    site = context.settings.site_url
    _send(
        context,
        lambda session: password_reset.invite(
            session, account_id, now=utc_now(), site_url=site
        ),
    )


def send_link_notice(context: WorkerContext, account_id: int) -> None:
    """Tell an account by mail that a Google account was linked to it."""
    site = context.settings.site_url
    _send(
        context,
        lambda session: password_reset.tell_of_link(
            session, account_id, now=utc_now(), site_url=site
        ),
    )


def _send(context: WorkerContext, write: Callable[[Session], Mail | None]) -> None:
    """Send what `write` gives, if anything, once its link is committed."""
    with unit_of_work(context.sessions) as session:
        mail = write(session)
    if mail is not None:
        make_mailer(context.settings).send(mail)


def make_mailer(settings: Settings) -> Mailer:
    """The mailer that the settings name."""
    return Mailer(settings.smtp_url, settings.mail_from, settings.data_dir / "mail")
