"""What aitip's account routes take and give."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, Field, model_validator

from app.web.fields import Email, Login, NewPassword, Password


class RegisterBody(BaseModel):
    """A new account."""

    email: Email
    username: str = Field(min_length=3, max_length=50)
    password: NewPassword


class LoginBody(BaseModel):
    """A sign-in by e-mail or user name."""

    email: Login | None = None
    username: Login | None = None
    password: Password

    @model_validator(mode="after")
    def _names_somebody(self) -> Self:
        if not (self.email or self.username):
            raise ValueError("Send an email or a username.")
        return self

    @property
    def login(self) -> str:
        """What the caller calls itself."""
        return self.email or self.username or ""


class RefreshBody(BaseModel):
    """The refresh token of a sign-in."""

    refresh_token: str = Field(min_length=1, max_length=4096)


class ApiKeyBody(BaseModel):
    """A key to make."""

    name: str = Field(min_length=1, max_length=255)


class User(BaseModel):
    """An account."""

    id: str = Field(description="UUID")
    email: str
    username: str
    role: str
    created_at: str


class SignedIn(BaseModel):
    """An account and the JWTs that open it."""

    user: User
    token: str = Field(description="The access token.")
    access_token: str
    refresh_token: str
    expires_at: str
    token_type: str = "Bearer"  # noqa: S105 - names a scheme


class ApiKey(BaseModel):
    """A key. `key` is whole in the answer that makes it and a mask ever after."""

    id: str = Field(description="UUID")
    name: str
    key: str
    created_at: str
    last_used_at: str | None
    expires_at: str | None


class Message(BaseModel):
    """A sentence."""

    message: str
