"""Who may do what."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What an account is to the network."""

    USER = "user"
    GPU_PROVIDER = "gpu_provider"
    ADMIN = "admin"


class CredentialKind(StrEnum):
    """What a caller shows to prove who it is."""

    TOKEN = "token"  # noqa: S105 - a kind, not a secret
    API_KEY = "api_key"
    JWT = "jwt"
    SESSION = "session"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls, from the credential alone.

    `credential_id` is None for Basic. `model_name` is set when the credential opens that
    one model and nothing else.
    """

    account_id: int
    account_uid: str
    username: str
    email: str
    role: Role
    credential_id: int | None = None
    credential_uid: str | None = None
    credential_kind: CredentialKind | None = None
    model_name: str | None = None

    @property
    def is_admin(self) -> bool:
        """Whether this account runs the network."""
        return self.role is Role.ADMIN

    def may_act_for(self, account_id: int) -> bool:
        """Whether rows of `account_id` are this caller's to read and change."""
        return self.is_admin or self.account_id == account_id
