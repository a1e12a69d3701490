"""When a key was last used: written down now and then, not at every request."""

from __future__ import annotations

import logging
import time

from flask import current_app
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.core.clock import utc_now
from app.core.domain.accounts import CredentialKind, Identity
from app.core.services import credentials

log = logging.getLogger(__name__)

NOTED_EVERY_SECONDS = 300
_MAX_REMEMBERED = 50_000


def note_use(session: Session, identity: Identity) -> None:
    """Remember that this key was used, at most every few minutes in each process.

    Called before a view runs, so that its own transaction holds nothing of this.
    """
    if identity.credential_kind is not CredentialKind.API_KEY or identity.credential_id is None:
        return
    noted: dict[int, float] = current_app.extensions.setdefault("weft_keys_noted", {})
    now = time.monotonic()
    if now < noted.get(identity.credential_id, float("-inf")) + NOTED_EVERY_SECONDS:
        return
    if len(noted) >= _MAX_REMEMBERED:
        noted.clear()
    noted[identity.credential_id] = now
    try:
        credentials.touch(session, identity.credential_id, now=utc_now())
        session.commit()
    except SQLAlchemyError:
        # A busy database must not keep anybody out for the sake of a statistic.
        session.rollback()
        log.warning("the use of key %d was not noted", identity.credential_id)
