"""Datasets in dualquery's words."""

from __future__ import annotations

from app.blueprints.dualquery.dataset_schemas import DatasetObject, Preview
from app.core.services.datasets import DatasetRow, DatasetStatus
from app.web.times import iso_millis


def dataset_object(row: DatasetRow, user_id: str) -> DatasetObject:
    """A table of the account with this ObjectId.

    A CSV is ready here as soon as its rows are counted: that research reads it too a moment
    later is nothing that this API knows of.
    """
    is_read = row.row_count is not None and row.status == DatasetStatus.PROCESSING
    return DatasetObject(
        object_id=row.uid,
        id=row.uid,
        user_id=user_id,
        name=row.name,
        file_name=row.original_name,
        row_count=row.row_count or 0,
        column_count=row.column_count or 0,
        file_size=row.size_bytes,
        status="ready" if is_read else row.status,  # type: ignore[arg-type]  # the schema checks it
        preview_data=Preview(headers=row.headers or [], rows=row.preview_rows or []),
        uploaded_at=iso_millis(row.created_at),
    )
