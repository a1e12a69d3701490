"""Machines as torbiz's clients describe them."""

from __future__ import annotations

from typing import Annotated, Any, cast

from pydantic import BaseModel, BeforeValidator, Field

from app.core.services.hardware import Description
from app.web.fields import RowId


def _as_text(value: Any) -> Any:
    """Numbers are taken too, and kept as the text that they were sent as."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value


GivenText = BeforeValidator(_as_text)
GpuInfo = Annotated[str, GivenText, Field(min_length=1, max_length=1000)]
CpuName = Annotated[str, GivenText, Field(min_length=1, max_length=255)]
Word = Annotated[str, GivenText, Field(min_length=1, max_length=64)]
Version = Annotated[str, GivenText, Field(min_length=1, max_length=128)]


class GpuBody(BaseModel):
    """A whole description."""

    gpu_info: GpuInfo
    cpu_name: CpuName
    cpu_core: Word
    cpu_frequency: Word
    total_memory: Word
    total_swap: Word
    ram: Word
    os_name: Word
    os_version: Version
    user: RowId

    def description(self) -> Description:
        """The texts."""
        return cast(Description, self.model_dump(exclude={"user"}))


class GpuPatch(BaseModel):
    """What changes of a description."""

    gpu_info: GpuInfo | None = None
    cpu_name: CpuName | None = None
    cpu_core: Word | None = None
    cpu_frequency: Word | None = None
    total_memory: Word | None = None
    total_swap: Word | None = None
    ram: Word | None = None
    os_name: Word | None = None
    os_version: Version | None = None
    user: RowId | None = None

    def description(self) -> Description:
        """The texts that were sent."""
        return cast(Description, self.model_dump(exclude={"user"}, exclude_none=True))


class Gpu(BaseModel):
    """A described machine."""

    id: int
    gpu_info: str
    cpu_name: str
    cpu_core: str
    cpu_frequency: str
    total_memory: str
    total_swap: str
    ram: str
    os_name: str
    os_version: str
    user: int


class GpuPage(BaseModel):
    """Which page of the list."""

    page: int = Field(1, ge=1, le=10_000_000)
    page_size: int = Field(1000, ge=1, le=1000)
