"""What torbiz's account routes take and give."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.core.services.profiles import ProfileChanges
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


class NamesBody(BaseModel):
    """Names of an account, both of them."""

    id: RowId | None = None
    username: str = Field(min_length=1, max_length=150)
    email: Email


class NamesPatch(BaseModel):
    """Names of an account that change."""

    id: RowId | None = None
    username: str | None = Field(None, min_length=1, max_length=150)
    email: Email | None = None


class NewClientBody(BaseModel):
    """An account that an admin makes."""

    user: NamesBody
    phone_no: Phone | None = None
    user_image: Image = 0
    terms_accepted: bool | None = None


class ClientBody(NewClientBody):
    """All that is writable; the rest of the object is read-only and ignored."""

    def changes(self) -> ProfileChanges:
        """What this sets."""
        return ProfileChanges(
            username=self.user.username,
            email=self.user.email,
            phone_no=self.phone_no,
            user_image=self.user_image,
            terms_accepted=self.terms_accepted,
        )


class ClientPatch(BaseModel):
    """What changes; the rest stays."""

    user: NamesPatch | None = None
    phone_no: Phone | None = None
    user_image: Image = 0
    terms_accepted: bool | None = None

    def changes(self) -> ProfileChanges:
        """What was sent."""
        found = ProfileChanges()
        if self.user is not None and self.user.username is not None:
            found["username"] = self.user.username
        if self.user is not None and self.user.email is not None:
            found["email"] = self.user.email
        sent = self.model_fields_set
        if "phone_no" in sent:
            found["phone_no"] = self.phone_no
        if "user_image" in sent:
            found["user_image"] = self.user_image
        if "terms_accepted" in sent:
            found["terms_accepted"] = self.terms_accepted
        return found


class AccountPage(BaseModel):
    """Which page of all accounts."""

    page: int = Field(1, ge=1, le=10_000_000)
    page_size: int = Field(1000, ge=1, le=1000)


class GoogleBody(BaseModel):
    """A Google ID token."""

    token: str = Field(min_length=1, max_length=16_384)


class PasswordResetBody(BaseModel):
    """Whoever forgot a password."""

    email: Email


class NewPasswordBody(BaseModel):
    """A new password, by either name."""

    new_password: NewPassword | None = None
    password: NewPassword | None = None
    confirm_password: str | None = None

    @model_validator(mode="after")
    def _has_password(self) -> Self:
        if self.chosen is None:
            raise ValueError("Send new_password.")
        return self

    @property
    def chosen(self) -> str | None:
        """The password, whatever its name."""
        return self.new_password or self.password


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
