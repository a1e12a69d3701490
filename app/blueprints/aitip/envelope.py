"""aitip's envelope: `{success, data, meta}`, and its pages."""

from __future__ import annotations

from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, Field

Data = TypeVar("Data")


class Envelope(BaseModel, Generic[Data]):
    """A success."""

    success: Literal[True] = True
    data: Data


class Meta(BaseModel):
    """Where a page stands in the whole list."""

    page: int
    page_size: int
    total: int
    total_page: int


class Page(BaseModel, Generic[Data]):
    """A success that is one page of a list."""

    success: Literal[True] = True
    data: list[Data]
    meta: Meta


class PageQuery(BaseModel):
    """Which page, counted from 1."""

    page: int = Field(1, ge=1, le=10_000_000)
    page_size: int = Field(20, ge=1, le=100)


def meta_of(query: PageQuery, total: int) -> Meta:
    """The meta of this page of `total` rows."""
    pages = -(-total // query.page_size)
    return Meta(page=query.page, page_size=query.page_size, total=total, total_page=pages)
