"""What aitip's dataset routes take and give."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from app.blueprints.aitip.envelope import PageQuery

# Every status and format that this API has names for; some of them no dataset has here.
Status = Literal["pending", "uploading", "processing", "ready", "failed", "deleted"]
Format = Literal[
    "csv", "json", "jsonl", "parquet", "txt", "zip", "tar", "gz", "md", "html", "pdf", "unknown"
]


class DatasetForm(BaseModel):
    """What may stand beside the file."""

    name: str | None = Field(
        None,
        max_length=255,
        description="Unique among yours; the file's own name when left out.",
    )
    description: str | None = Field(None, max_length=1000)


class DatasetBody(BaseModel):
    """What to change. What is left out stays."""

    name: str | None = Field(None, min_length=1, max_length=255)
    description: str | None = Field(None, max_length=1000)
    used_in_research: bool | None = Field(
        None, description="Whether deep research may read it."
    )


class DatasetQuery(PageQuery):
    """Which datasets, in which order."""

    status: Status | None = None
    format: Format | None = None
    keyword: str | None = Field(
        None, max_length=255, description="A part of the name or the description."
    )
    sort_by: Literal["created_at", "name", "size_bytes"] = "created_at"
    sort_order: Literal["asc", "desc"] = "desc"


class DatasetObject(BaseModel):
    """A dataset. `format` is told by the content, not only by the name."""

    id: str = Field(description="UUID")
    name: str
    description: str
    original_name: str
    format: str
    size_bytes: int
    size_readable: str
    checksum: str = Field(description="SHA-256 in hex.")
    status: Literal["processing", "ready", "failed"]
    status_message: str | None
    row_count: int | None = Field(description="Rows of a table without its header.")
    column_count: int | None
    used_in_research: bool
    created_at: str
    updated_at: str


class DownloadLink(BaseModel):
    """A link that needs no credential, for 15 minutes."""

    url: str
    expires_at: str
    filename: str
    content_type: str
