"""API keys: create, show once, list, revoke."""

from __future__ import annotations

from flask import Response, request, url_for
from flask.typing import ResponseReturnValue

from app.blueprints.dashboard.pages import blueprint, page, see_other
from app.blueprints.dashboard.presenters import NewKey, Question, key_row
from app.core.clock import utc_now
from app.core.domain.errors import Conflict, InvalidInput, NotFound
from app.core.services import credentials
from app.web.auth import current_identity
from app.web.context import base_url
from app.web.pages import wants_fragment
from app.web.revocation import announce_revocation
from app.web.transaction import reading, unit_of_work


@blueprint.get("/keys")
def show_keys() -> ResponseReturnValue:
    """The account's keys, masked."""
    return _keys_page()


def _keys_page(
    *,
    created: NewKey | None = None,
    message: str = "",
    errors: dict[str, str] | None = None,
    status: int = 200,
) -> Response:
    found = credentials.list_api_keys(reading(), current_identity().account_id)
    form = request.form if created is None else {}
    return page(
        "keys", status=status, keys=[key_row(key) for key in found], form=form, created=created,
        message=message, errors=errors or {}, limit=credentials.MAX_API_KEYS,
    )  # fmt: skip


@blueprint.post("/keys")
def create_key() -> ResponseReturnValue:
    """Make a key. Its secret stands on this answer and nowhere else."""
    try:
        with unit_of_work() as session:
            issued = credentials.issue_api_key(
                session,
                current_identity().account_id,
                name=request.form.get("name", ""),
                now=utc_now(),
            )
    except InvalidInput as error:
        return _keys_page(errors={"name": error.message}, status=400)
    except Conflict as error:
        return _keys_page(message=error.message, status=409)
    curl = f'curl {base_url()}/v1/models \\\n  -H "Authorization: Bearer {issued.secret}"'
    return _keys_page(created=NewKey(issued.credential.name, issued.secret, curl), status=201)


@blueprint.get("/keys/<uid>/revoke")
def confirm_revoke_key(uid: str) -> ResponseReturnValue:
    """Ask before a key is gone."""
    found = credentials.list_api_keys(reading(), current_identity().account_id)
    name = next((key.name for key in found if key.uid == uid), None)
    if name is None:
        raise NotFound("API key not found")
    question = Question(
        title=f"Revoke “{name}”?",
        text="Programs that use it are refused from now on, and their streams end. "
        "This can't be undone.",
        action=url_for("dashboard.revoke_key", uid=uid),
        label="Revoke the key",
        cancel=url_for("dashboard.show_keys"),
    )
    return page("confirm", question=question, is_fragment=wants_fragment())


@blueprint.post("/keys/<uid>/revoke")
def revoke_key(uid: str) -> ResponseReturnValue:
    """End a key, in every process, with the streams it opened."""
    account_id = current_identity().account_id
    with unit_of_work() as session:
        ended = credentials.revoke_api_key(session, account_id, uid, now=utc_now())
    announce_revocation(account_id, [ended])
    return see_other("show_keys")
