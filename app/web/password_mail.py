"""Asking a worker to send mails with links that set a password."""

from __future__ import annotations

import logging

import redis
from flask import current_app

from app.core.domain.errors import Unavailable
from app.core.queue import INVITATION_TASK, LINK_NOTICE_TASK, RESET_TASK
from app.web.fields import MAX_LOGIN
from app.web.live import LiveRuns
from app.web.rates import limit_by_address

log = logging.getLogger(__name__)

REQUESTS_PER_MINUTE = 20


def request_reset_mail(email: str) -> None:
    """Have whoever has this address sent a link to set a password.

    Known and unknown addresses cost the same here: the worker looks the address up. Raises
    RateLimited, and Unavailable without Redis.
    """
    limit_by_address("reset", REQUESTS_PER_MINUTE)
    _enqueue(RESET_TASK, email.strip()[:MAX_LOGIN])


def request_invitation_mail(account_id: int) -> None:
    """Have a fresh account sent a link to choose its first password.

    The account is there already: without Redis it is left to ask for the link itself.
    """
    _enqueue_or_warn(INVITATION_TASK, account_id)


def request_link_notice(account_id: int) -> None:
    """Tell an account that Google opens it now too, and how to shut out who else has a password.

    Whoever registered the address first may not be the one whom Google knows by it.
    """
    _enqueue_or_warn(LINK_NOTICE_TASK, account_id)


def _enqueue_or_warn(task: str, account_id: int) -> None:
    try:
        _enqueue(task, account_id)
    except Unavailable:
        log.warning("no mail went to account %d (%s): Redis does not answer", account_id, task)


def _enqueue(task: str, argument: str | int) -> None:
    live: LiveRuns = current_app.extensions["weft_live"]
    try:
        live.queue.enqueue(task, argument)
    except redis.RedisError as error:
        raise Unavailable("Mails cannot be sent now.") from error
