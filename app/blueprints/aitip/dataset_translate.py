"""Datasets in aitip's words."""

from __future__ import annotations

from app.blueprints.aitip.dataset_schemas import DatasetObject, DatasetQuery
from app.core.ids import uid_as_uuid
from app.core.services.datasets import DatasetRow, Order
from app.web.pages import size
from app.web.times import iso_seconds

ORDERS: dict[tuple[str, str], Order] = {
    ("created_at", "desc"): "newest",
    ("created_at", "asc"): "oldest",
    ("name", "asc"): "name",
    ("name", "desc"): "name_reversed",
    ("size_bytes", "desc"): "largest",
    ("size_bytes", "asc"): "smallest",
}


def order_of(query: DatasetQuery) -> Order:
    """The order of a list."""
    return ORDERS[query.sort_by, query.sort_order]


def dataset_object(row: DatasetRow) -> DatasetObject:
    """A dataset."""
    return DatasetObject(
        id=uid_as_uuid(row.uid),
        name=row.name,
        description=row.description,
        original_name=row.original_name,
        format=row.format,
        size_bytes=row.size_bytes,
        size_readable=size(row.size_bytes),
        checksum=row.checksum,
        status=row.status,  # type: ignore[arg-type]  # of the database, checked by the schema
        status_message=row.status_message,
        row_count=row.row_count,
        column_count=row.column_count,
        used_in_research=row.used_in_research,
        created_at=iso_seconds(row.created_at),
        updated_at=iso_seconds(row.updated_at),
    )
