"""The account's own page: profile, password, theme, sessions."""

from __future__ import annotations

from typing import Any

from flask import Response, request, url_for
from flask.typing import ResponseReturnValue

from app.blueprints.dashboard.browsers import browser_name
from app.blueprints.dashboard.pages import blueprint, page, see_other
from app.blueprints.dashboard.presenters import ROLE_TEXTS, Question
from app.blueprints.dashboard.views_auth import MIN_PASSWORD
from app.core.clock import utc_now
from app.core.domain.accounts import CredentialKind
from app.core.domain.errors import DomainError, Unauthenticated
from app.core.services import accounts, credentials, passwords
from app.web import doors, login
from app.web.auth import current_identity
from app.web.context import settings
from app.web.pages import wants_fragment
from app.web.revocation import announce_revocation
from app.web.transaction import reading, unit_of_work

_DONE = {
    "profile": "The profile is saved.",
    "password": "The password is changed.",
    "session": "That session has ended.",
}


@blueprint.get("/account")
def show_account() -> ResponseReturnValue:
    """Who you are here."""
    return _account_page(done=_DONE.get(request.args.get("done", ""), ""))


def _account_page(
    *, done: str = "", errors: dict[str, str] | None = None, form: Any = None, status: int = 200
) -> Response:
    account = accounts.get_account(reading(), current_identity().account_id)
    shown = form or {"username": account.username, "email": account.email, "name": account.name}
    facts = {
        "id": account.id,
        "role_text": ROLE_TEXTS.get(account.role, account.role),
        "created_at": account.created_at,
        "has_password": account.password_hash is not None,
    }
    return page(
        "account", status=status, account=facts, form=shown, done=done, errors=errors or {},
        signins=_signins(),
    )  # fmt: skip


def _signins() -> list[dict[str, Any]]:
    """Who is signed in to this account, and where."""
    identity = current_identity()
    found = credentials.list_signins(reading(), identity.account_id, now=utc_now())
    return [
        {
            "uid": row.uid,
            "kind": "Browser" if row.kind == CredentialKind.SESSION else "App",
            "name": browser_name(row.name),
            "since": row.created_at,
            "is_current": row.id == identity.credential_id,
        }
        for row in found
    ]


@blueprint.post("/account/sessions/<uid>/end")
def end_session(uid: str) -> ResponseReturnValue:
    """Sign one browser or app out, in every process."""
    identity = current_identity()
    with unit_of_work() as session:
        ended = credentials.end_signin(session, identity.account_id, uid, now=utc_now())
    announce_revocation(identity.account_id, [ended])
    return see_other("show_account", done="session")


@blueprint.post("/account")
def change_profile() -> ResponseReturnValue:
    """Change names and the address."""
    form = request.form
    try:
        with unit_of_work() as session:
            account = accounts.get_account(session, current_identity().account_id)
            accounts.update_account(
                session, account, now=utc_now(), username=form.get("username"),
                email=form.get("email"), name=form.get("name"),
            )  # fmt: skip
    except DomainError as error:
        return _refused(error, form)
    return see_other("show_account", done="profile")


@blueprint.post("/account/password")
def change_password() -> ResponseReturnValue:
    """Set a new password; this browser stays signed in, all others do not."""
    current, new = (
        request.form.get("current_password", ""),
        request.form.get("new_password", ""),
    )
    identity = current_identity()
    try:
        passwords.check_length(new, minimum=MIN_PASSWORD)
        with unit_of_work() as session:
            account = doors.sign_in(session, identity.username, current)
            ended = accounts.set_password(
                session, account, new, now=utc_now(), hash_profile=settings().argon2_profile
            )
            login.begin_session(session, account.id)
    except Unauthenticated:
        return _account_page(
            errors={"current_password": "That is not your password."}, status=400
        )
    except DomainError as error:
        return _account_page(errors={"new_password": error.message}, status=400)
    announce_revocation(identity.account_id, [*ended, None])
    return see_other("show_account", done="password")


def _refused(error: DomainError, form: Any) -> Response:
    if error.field is None:
        raise error
    return _account_page(errors={error.field: error.message}, form=form, status=400)


@blueprint.get("/account/sign-out-everywhere")
def confirm_sign_out_everywhere() -> ResponseReturnValue:
    """Ask before every session ends."""
    question = Question(
        title="Sign out everywhere?",
        text="Every browser and app that is signed in to this account has to sign in again, "
        "this one too. API keys stay.",
        action=url_for("dashboard.sign_out_everywhere"),
        label="Sign out everywhere",
        cancel=url_for("dashboard.show_account"),
    )
    return page("confirm", question=question, is_fragment=wants_fragment())


@blueprint.post("/account/sign-out-everywhere")
def sign_out_everywhere() -> ResponseReturnValue:
    """End all sessions, tokens and JWTs of the account."""
    account_id = current_identity().account_id
    with unit_of_work() as session:
        login.end_session(session)
        ended = credentials.end_signins(session, account_id, now=utc_now())
    announce_revocation(account_id, [*ended, None])
    return see_other("show_sign_in")
