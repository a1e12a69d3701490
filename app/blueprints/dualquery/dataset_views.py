"""dualquery: tables to chat over.

The account's tables show here whatever door they came in by, also JSON Lines and Parquet;
documents and archives, which have no rows, do not.
"""

from __future__ import annotations

from app.blueprints.dualquery import dataset_translate as translate
from app.blueprints.dualquery.api import api
from app.blueprints.dualquery.dataset_schemas import DatasetObject, DatasetQuery, UploadForm
from app.core.domain.errors import NotFound
from app.core.ids import uid_from_object_id
from app.core.services import datasets
from app.core.services.datasets import DatasetKind, DatasetRow
from app.web import datasets as doors
from app.web.auth import current_identity
from app.web.transaction import reading


@api.route(
    "POST", "/api/datasets/upload", form=UploadForm, files=("file",),
    answer=DatasetObject, status=201,
)  # fmt: skip
def upload_dataset() -> DatasetObject:
    """Upload a CSV file, with any common delimiter, in UTF-8.

    A name that is taken gets a number: `sales (2).csv`.
    """
    row = doors.receive_dataset(must_be_csv=True, suffix_when_taken=True)
    return translate.dataset_object(row, current_identity().account_uid)


@api.route("GET", "/api/datasets", query=DatasetQuery, answer=list[DatasetObject])
def list_datasets(query: DatasetQuery) -> list[DatasetObject]:
    """The account's tables, the latest upload first."""
    identity = current_identity()
    rows, _ = datasets.page(
        reading(), identity.account_id, limit=query.limit, offset=query.offset,
        kind=DatasetKind.TABLE,
    )  # fmt: skip
    return [translate.dataset_object(row, identity.account_uid) for row in rows]


@api.route("GET", "/api/datasets/<dataset_id>", answer=DatasetObject)
def get_dataset(dataset_id: str) -> DatasetObject:
    """One of the account's tables."""
    return translate.dataset_object(_table(dataset_id), current_identity().account_uid)


@api.route("DELETE", "/api/datasets/<dataset_id>", status=204)
def delete_dataset(dataset_id: str) -> None:
    """Delete a table with its file."""
    doors.delete_dataset(_table(dataset_id).uid)


def _table(dataset_id: str) -> DatasetRow:
    row = doors.find_dataset(uid_from_object_id(dataset_id))
    if row.kind != DatasetKind.TABLE:
        raise NotFound("There is no such dataset.")
    return row
