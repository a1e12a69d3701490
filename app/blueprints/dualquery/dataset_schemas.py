"""What dualquery's dataset routes take and give."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

_OBJECT_ID = "^[0-9a-f]{24}$"


class UploadForm(BaseModel):
    """What may stand beside the file: nothing."""


class DatasetQuery(BaseModel):
    """Which part of the list."""

    limit: int = Field(100, ge=1, le=200)
    offset: int = Field(0, ge=0, le=1_000_000_000)


class Preview(BaseModel):
    """The beginning of a table, every cell as text."""

    headers: list[str]
    rows: list[list[str]] = Field(description="The first 10 rows.")


class DatasetObject(BaseModel):
    """A table. Counts are 0 and the preview is empty until it has been read."""

    model_config = ConfigDict(populate_by_name=True)

    object_id: str = Field(serialization_alias="_id", pattern=_OBJECT_ID)
    id: str = Field(pattern=_OBJECT_ID)
    user_id: str = Field(pattern=_OBJECT_ID)
    name: str
    file_name: str
    row_count: int = Field(description="Rows without the header.")
    column_count: int
    file_size: int = Field(description="Bytes.")
    status: Literal["processing", "ready", "failed"]
    preview_data: Preview
    uploaded_at: str
