"""A password that was lost: ask for a mail, and set a new one with its link."""

from __future__ import annotations

from flask import Response, request
from flask.typing import ResponseReturnValue

from app.blueprints.dashboard.pages import blueprint, page
from app.blueprints.dashboard.views_auth import MIN_PASSWORD
from app.core.clock import utc_now
from app.core.domain.errors import InvalidInput
from app.core.services import accounts, password_reset, passwords
from app.web.context import settings
from app.web.password_mail import request_reset_mail
from app.web.revocation import announce_revocation
from app.web.transaction import reading, unit_of_work


@blueprint.get("/forgot-password")
def show_forgot_password() -> ResponseReturnValue:
    """Ask for the address."""
    return page("forgot_password", is_sent=False, email="", errors={})


@blueprint.post("/forgot-password")
def forgot_password() -> ResponseReturnValue:
    """Have a link mailed. The page is the same for any address."""
    email = request.form.get("email", "")
    try:
        request_reset_mail(accounts.normal_email(email))
    except InvalidInput as error:
        errors = {"email": error.message}
        return page("forgot_password", status=400, is_sent=False, email=email, errors=errors)
    return page("forgot_password", is_sent=True, email=email, errors={})


@blueprint.get("/reset-password/<uidb64>/<token>")
def show_reset_password(uidb64: str, token: str) -> ResponseReturnValue:
    """The form that a mailed link leads to."""
    usable = password_reset.is_usable(reading(), uidb64, token, now=utc_now())
    return _reset_page(is_usable=usable, status=200 if usable else 400)


@blueprint.post("/reset-password/<uidb64>/<token>")
def reset_password(uidb64: str, token: str) -> ResponseReturnValue:
    """Set the password. Everybody who is signed in is signed out."""
    password = request.form.get("password", "")
    try:
        passwords.check_length(password, minimum=MIN_PASSWORD)
        with unit_of_work() as session:
            done = password_reset.complete_reset(
                session, uidb64, token, password,
                now=utc_now(), hash_profile=settings().argon2_profile,
            )  # fmt: skip
    except InvalidInput as error:
        if error.field is None:
            return _reset_page(is_usable=False, status=400)
        return _reset_page(is_usable=True, errors={error.field: error.message}, status=400)
    announce_revocation(done.account_id, [*done.ended, None])
    return _reset_page(is_usable=True, is_done=True)


def _reset_page(
    *,
    is_usable: bool,
    is_done: bool = False,
    errors: dict[str, str] | None = None,
    status: int = 200,
) -> Response:
    return page(
        "reset_password",
        status=status,
        is_usable=is_usable,
        is_done=is_done,
        errors=errors or {},
    )
