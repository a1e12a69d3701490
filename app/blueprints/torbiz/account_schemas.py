"""What torbiz's account routes take and give."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.web.fields import Email, Login, NewPassword, Password, RowId

Phone = Annotated[str, Field(max_length=12)]
Image = Annotated[int, Field(ge=0, le=32767)]


class RegisterBody(BaseModel):
    """A new account."""

    username: str = Field(min_length=1, max_length=150)
    email: Email
    password: NewPassword
    confirm_password: str | None = None
    terms_accepted: bool | None = None

    def passwords_agree(self) -> bool:
        """Whether the password was typed twice alike, if it was typed twice."""
        return self.confirm_password is None or self.confirm_password == self.password


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


class LogoutBody(BaseModel):
    """Which device signs off; without one, the token that calls."""

    device_token: str | None = Field(None, max_length=200)


class User(BaseModel):
    """Names of an account."""

    id: RowId
    username: str
    email: str


class Client(BaseModel):
    """An account as torbiz shows it."""

    user: User
    phone_no: str | None
    user_token: str | None = Field(
        description="Whole in the answer of `register`; its owner sees a mask, others null."
    )
    user_image: int
    ip: str | None
    terms_accepted: bool | None
    role: str = Field(examples=["user", "gpu_provider", "admin"])
    profile_image_url: str | None
    is_gpu_provider_approved: bool
    provider_registration_date: str = Field(
        description="When the first node joined; before that, when the account was made."
    )


class SignedIn(BaseModel):
    """A fresh token."""

    token: str
    user_id: int
    device_token: str
    username: str
    email: str
    role: str
    profile_image: str | None
    profile_image_url: str | None


class Detail(BaseModel):
    """A sentence."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"detail": "…"}]})

    detail: str
