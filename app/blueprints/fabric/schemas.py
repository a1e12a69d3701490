"""What fabric's clients send."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, Field

from app.core.ids import parse_client_id
from app.core.urls import parse_url


def _as_text(value: Any) -> Any:
    """Ids also come as numbers."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _client_id(value: str) -> str:
    found = parse_client_id(value.strip().strip("\"'"))
    if found is None:
        raise ValueError("a client id has 32 hex digits")
    return found


def _blank_is_none(value: Any) -> Any:
    """An empty query parameter filters nothing."""
    return None if isinstance(value, str) and not value.strip() else value


def _shows_something(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be blank")
    return value.strip()


def _http_url(value: str) -> str:
    if not value.lower().startswith(("http://", "https://")):
        raise ValueError("must be an http or https URL")
    parse_url(value)
    return value


def _hex_digest(value: str) -> str:
    if len(value) != 64 or any(char not in "0123456789abcdefABCDEF" for char in value):
        raise ValueError("must be 64 hex digits")
    return value.lower()


UserId = Annotated[str, BeforeValidator(_as_text), Field(min_length=1, max_length=32)]
ClientId = Annotated[str, Field(max_length=40), AfterValidator(_client_id)]
ClientIdFilter = Annotated[ClientId | None, BeforeValidator(_blank_is_none)]
NameFilter = Annotated[
    Annotated[str, Field(max_length=100)] | None, BeforeValidator(_blank_is_none)
]
ClientStatus = Literal["active", "online", "offline", "maintenance", "error"]
ValidStatus = Literal["valid", "invalid", "warning"]
ClientName = Annotated[
    str, Field(min_length=1, max_length=32), AfterValidator(_shows_something)
]
OsType = Annotated[str, Field(min_length=1, max_length=64)]
HttpUrl = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_http_url)]
Sha256 = Annotated[str, AfterValidator(_hex_digest)]
Code = Annotated[int, Field(ge=1, le=2**31 - 1)]
Size = Annotated[int, Field(ge=0, le=2**63 - 1)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
Flag = Annotated[bool | None, BeforeValidator(_blank_is_none)]
DateText = Annotated[
    Annotated[str, Field(max_length=40)] | None, BeforeValidator(_blank_is_none)
]


def _named(limit: int) -> Any:
    return Field(min_length=1, max_length=limit)


class InsertClientBody(BaseModel):
    """A node to create or change."""

    user_id: UserId
    client_id: ClientId
    client_status: ClientStatus
    os_type: OsType | None = None
    name: ClientName


class EditClientBody(BaseModel):
    """What changes of a node."""

    user_id: UserId
    client_id: ClientId
    os_type: OsType | None = None
    name: ClientName | None = None
    client_status: ClientStatus | None = None
    valid_status: ValidStatus | None = None


class ClientListQuery(BaseModel):
    """Which nodes; what is given must all hold."""

    user_id: UserId
    client_id: ClientIdFilter = None
    status: Annotated[ClientStatus | None, BeforeValidator(_blank_is_none)] = None
    name: NameFilter = None
    valid_status: Annotated[ValidStatus | None, BeforeValidator(_blank_is_none)] = None
    page: int = Field(1, ge=1, le=1_000_000)
    page_size: int | None = Field(None, ge=1, le=1000)


class ClientQuery(BaseModel):
    """One node of a user."""

    user_id: UserId
    client_id: ClientId
    status: str | None = None
    name: str | None = None


class UserQuery(BaseModel):
    """A user."""

    user_id: UserId


class HistoryQuery(BaseModel):
    """Days or beats of a user's nodes."""

    user_id: UserId
    client_id: ClientIdFilter = None
    start_date: DateText = None
    end_date: DateText = None


class ProgressQuery(BaseModel):
    """One node."""

    client_id: ClientId


class PointsQuery(BaseModel):
    """Points of a user's devices."""

    user_id: UserId
    client_id: ClientIdFilter = None
    client_name: NameFilter = None
    device_id: Annotated[Count | None, BeforeValidator(_blank_is_none)] = None
    start_date: DateText = None
    end_date: DateText = None
    page: int = Field(1, ge=1, le=100)
    page_size: int = Field(20, ge=1, le=100)


class ModelBody(BaseModel):
    """A model version to create or change."""

    name: Annotated[str, _named(100), AfterValidator(_shows_something)]
    version: Annotated[str, _named(50), AfterValidator(_shows_something)]
    version_code: Code
    engine_type: int = Field(ge=1, le=8)
    is_active: bool | None = None
    min_memory_mb: Count | None = None
    min_gpu_memory_gb: Count | None = None
    download_url: HttpUrl | None = None
    checksum: Annotated[str, Field(max_length=128)] | None = None
    expected_size: Size | None = None


class ModelsQuery(BaseModel):
    """Which model versions."""

    is_active: Flag = None
    min_gpu_memory_gb: Annotated[Count | None, BeforeValidator(_blank_is_none)] = None


class ApkBody(BaseModel):
    """An APK version to create or change."""

    package_name: Annotated[str, _named(255), AfterValidator(_shows_something)]
    version_name: Annotated[str, _named(64), AfterValidator(_shows_something)]
    version_code: Code
    download_url: HttpUrl
    channel: Annotated[str, _named(32)] | None = None
    min_os_version: Annotated[str, _named(32)] | None = None
    sha256: Sha256 | None = None
    file_size_bytes: Size | None = None
    is_active: bool | None = None
    released_at: AwareDatetime | None = None


class ApkQuery(BaseModel):
    """One APK version."""

    package_name: Annotated[str, _named(255)]
    version_code: Code


class ApkListQuery(BaseModel):
    """Which APK versions."""

    package_name: Annotated[
        Annotated[str, Field(max_length=255)] | None, BeforeValidator(_blank_is_none)
    ] = None
    channel: NameFilter = None
    is_active: Flag = None
    limit: int = Field(50, ge=1, le=200)
