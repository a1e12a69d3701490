"""Kinds of field that the schemas of several dialects use."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from app.core.domain.errors import InvalidInput
from app.core.services import passwords
from app.core.services.accounts import normal_email

MAX_LOGIN = 254


def _email(value: str) -> str:
    try:
        return normal_email(value)
    except InvalidInput as error:
        raise ValueError(error.message) from None


def _number_of_text(value: object) -> object:
    """`"12"` as 12: apps send ids as text in forms, queries and sometimes in JSON."""
    if isinstance(value, str) and value.isascii() and value.strip().isdigit():
        return int(value)
    return value


Email = Annotated[str, AfterValidator(_email)]
NewPassword = Annotated[
    str, Field(min_length=passwords.MIN_LENGTH, max_length=passwords.MAX_LENGTH)
]
# What somebody signs in with is checked by comparison alone; the bound keeps attacks cheap.
Login = Annotated[str, Field(min_length=1, max_length=MAX_LOGIN)]
Password = Annotated[str, Field(min_length=1, max_length=passwords.MAX_LENGTH)]
RowId = Annotated[int, BeforeValidator(_number_of_text), Field(ge=1, le=2**63 - 1, strict=True)]
