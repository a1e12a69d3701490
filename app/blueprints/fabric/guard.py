"""Who may call fabric: any account, and peers of trusted networks as an admin."""

from __future__ import annotations

from ipaddress import ip_address

from flask import g, request

from app.core.domain.accounts import Identity, Role
from app.core.domain.errors import Forbidden, Unauthenticated
from app.web.auth import current_identity, find_identity
from app.web.context import remote_address, settings

# Apps of a private network that can send no credential. The id is no account's.
_TRUSTED = Identity(
    account_id=0, account_uid="0" * 24, username="trusted network", email="", role=Role.ADMIN
)


def guard() -> None:
    """Close every route. A credential that is wrong is refused from trusted peers too."""
    if request.method == "OPTIONS":
        return
    identity = find_identity()
    if identity is None:
        if not _is_trusted_peer():
            raise Unauthenticated("Authentication credentials were not provided.")
        g.identity = _TRUSTED
    elif identity.model_name is not None:
        raise Forbidden(f"This key opens the model {identity.model_name} under /v1 only.")


def account_of(user_id: str) -> int:
    """The account that `user_id` names: the caller's own, or for an admin any.

    Raises Forbidden for somebody else's. What is no account's id is 0, which owns nothing.
    """
    caller = current_identity()
    text = user_id.strip()
    number = int(text) if text.isascii() and text.isdigit() else 0
    wanted = number if number < 2**31 else 0
    if not caller.is_admin and wanted != caller.account_id:
        raise Forbidden("`user_id` must be your own.")
    return wanted


def _is_trusted_peer() -> bool:
    networks = settings().fabric_trusted_networks
    if not networks:
        return False
    try:
        peer = ip_address(remote_address())
    except ValueError:
        return False
    mapped = getattr(peer, "ipv4_mapped", None)
    return any((mapped or peer) in network for network in networks)
