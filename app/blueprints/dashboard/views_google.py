"""Signing in with Google: there by redirect, back with an ID token in the address's fragment.

The question lies in the session's cookie: `state` ties the answer to the browser that asked,
`nonce` the token to the question. A fragment is sent to nobody; a script of ours posts it.
"""

from __future__ import annotations

import logging
import secrets
from typing import Any, cast
from urllib.parse import urlencode, urlsplit

import redis
from flask import redirect, request, session, url_for
from flask.typing import ResponseReturnValue

from app.blueprints.dashboard.pages import blueprint, page, safe_next
from app.blueprints.dashboard.views_auth import has_google, sign_in_page
from app.core.clock import utc_now
from app.core.domain.errors import DomainError, Forbidden, NotFound, Unavailable
from app.core.services.google_signin import (
    AccountDisabled,
    EmailNotVerified,
    LinkedToAnother,
    is_same,
)
from app.web import doors, login
from app.web.auth import find_identity
from app.web.context import redis_client, settings
from app.web.transaction import unit_of_work

log = logging.getLogger(__name__)

QUESTION_SECONDS = 600
RETRY_SECONDS = 30
_QUESTION = "weft_google"
_MAX_NEXT = 1000  # it travels in a cookie
_STALE = "That sign-in began elsewhere, or too long ago. Please try again."
_CANCELLED = "You did not finish signing in with Google."
_REFUSED = "What Google sent could not be accepted. Please try again."
_STATUSES: tuple[tuple[type[DomainError], int, str], ...] = (
    (EmailNotVerified, 400, "Google has not verified your e-mail address. Verify it there first."),
    (AccountDisabled, 401, "This account is disabled. Ask the hub's admin."),
    (LinkedToAnother, 401,
     "Your e-mail address belongs to another Google account here. Sign in with that one."),
    (Forbidden, 403, "You have no account here, and registration is closed. Ask the hub's admin."),
    (Unavailable, 503, "Google can't be asked right now. Please try again in a minute."),
)  # fmt: skip


@blueprint.get("/sign-in/google")
def ask_google() -> ResponseReturnValue:
    """Send the browser to Google with a fresh question."""
    _check_is_set_up()
    target = safe_next(request.args.get("next"))
    if find_identity() is not None:
        return redirect(target, 303)
    home = settings().site_url
    if request.host != urlsplit(home).netloc and "moved" not in request.args:
        # Google sends people home, and the cookie has to be there by then.
        return redirect(home + url_for("dashboard.ask_google", next=target, moved=1), 303)
    question = {
        "state": secrets.token_urlsafe(24),
        "nonce": secrets.token_urlsafe(24),
        "next": target if len(target) <= _MAX_NEXT else safe_next(None),
        "at": int(utc_now().timestamp()),
    }
    session[_QUESTION] = question
    asked = {
        "client_id": settings().google_client_id,
        "response_type": "id_token",
        "scope": "openid email profile",
        "redirect_uri": home + url_for("dashboard.show_google_answer"),
        "state": question["state"],
        "nonce": question["nonce"],
        "prompt": "select_account",
    }
    return redirect(f"{settings().google_authorize_url}?{urlencode(asked)}", 303)


@blueprint.get("/sign-in/google/return")
def show_google_answer() -> ResponseReturnValue:
    """Where Google sends the browser: a page that hands the fragment to the route below."""
    _check_is_set_up()
    return page("google_answer")


@blueprint.post("/sign-in/google/return")
def sign_in_with_google() -> ResponseReturnValue:
    """Check Google's answer against the question and begin a session."""
    _check_is_set_up()
    form = request.form
    question = _take_question()
    target = safe_next(question.get("next"))
    if not (question and is_same(question["state"], form.get("state")) and _is_fresh(question)):
        return sign_in_page(message=_STALE, next=target, status=401)
    if form.get("error"):
        return sign_in_page(message=_CANCELLED, next=target, status=401)
    try:
        with unit_of_work() as database:
            account = doors.sign_in_with_google(
                database, form.get("id_token", ""), nonce=question["nonce"]
            )
            login.begin_session(database, account.id)
    except DomainError as error:
        status, message = _refusal(error)
        answer = sign_in_page(message=message, next=target, status=status)
        if status == 503:
            answer.headers["Retry-After"] = str(error.retry_after_seconds or RETRY_SECONDS)
        return answer
    return redirect(target, 303)


def _check_is_set_up() -> None:
    if not has_google():
        raise NotFound


def _take_question() -> dict[str, Any]:
    """The question that this browser asked; nothing when it asked none. Good for one answer."""
    found = session.pop(_QUESTION, None)
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _is_fresh(question: dict[str, Any]) -> bool:
    """Whether it was asked a moment ago and never answered, also not by a copy of the cookie."""
    if utc_now().timestamp() - question["at"] > QUESTION_SECONDS:
        return False
    try:
        kept = redis_client().set(
            f"weft:google:{question['state']}", 1, nx=True, ex=QUESTION_SECONDS
        )
    except redis.RedisError:
        log.warning("an answer of Google's may be given twice: Redis does not answer")
        return True
    return kept is not None


def _refusal(error: DomainError) -> tuple[int, str]:
    for kind, status, message in _STATUSES:
        if isinstance(error, kind):
            return status, message
    return 401, _REFUSED
