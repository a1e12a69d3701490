"""What dualquery's account routes take and give."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from app.web.fields import Email, Login, NewPassword, Password


class RegisterBody(BaseModel):
    """A new account."""

    email: Email
    password: NewPassword
    name: str = Field(min_length=1, max_length=150)


class LoginBody(BaseModel):
    """A sign-in."""

    email: Login
    password: Password


class GoogleBody(BaseModel):
    """A Google ID token."""

    token: str = Field(min_length=1, max_length=16_384)


class AccessToken(BaseModel):
    """A JWT, good for 24 hours."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - names a scheme


class User(BaseModel):
    """An account and what it has used of its plan."""

    model_config = ConfigDict(populate_by_name=True)

    object_id: str = Field(serialization_alias="_id", pattern="^[0-9a-f]{24}$")
    id: str = Field(pattern="^[0-9a-f]{24}$")
    email: str
    name: str
    username: str
    current_plan: str
    queries_used: int
    fine_tune_jobs: int
    datasets_count: int
    billing_cycle: str | None


class Health(BaseModel):
    """That the hub answers."""

    status: Literal["healthy"] = "healthy"
