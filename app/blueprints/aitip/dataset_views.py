"""aitip: datasets, from upload to download."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from flask import Response

from app.blueprints.aitip import dataset_translate as translate
from app.blueprints.aitip.account_schemas import Message
from app.blueprints.aitip.api import api
from app.blueprints.aitip.dataset_schemas import (
    DatasetBody,
    DatasetForm,
    DatasetObject,
    DatasetQuery,
    DownloadLink,
)
from app.blueprints.aitip.envelope import Envelope, Page, meta_of
from app.core.clock import utc_now
from app.core.domain.errors import NotFound
from app.core.ids import uid_from_uuid
from app.core.services import datasets
from app.web import datasets as doors
from app.web.auth import current_identity
from app.web.datasets import BINARY
from app.web.files import LINK_SECONDS
from app.web.times import iso_seconds
from app.web.transaction import reading, unit_of_work
from app.web.validation import to_response


def _uid(dataset_id: str) -> str:
    uid = uid_from_uuid(dataset_id)
    if uid is None:
        raise NotFound("There is no such dataset.")
    return uid


@api.route("GET", "/api/v1/datasets", query=DatasetQuery, answer=Page[DatasetObject])
def list_datasets(query: DatasetQuery) -> Page[DatasetObject]:
    """The account's datasets, newest first unless `sort_by` and `sort_order` say otherwise."""
    rows, total = datasets.page(
        reading(), current_identity().account_id, limit=query.page_size,
        offset=(query.page - 1) * query.page_size, order=translate.order_of(query),
        status=query.status, format=query.format, keyword=query.keyword,
    )  # fmt: skip
    found = [translate.dataset_object(row) for row in rows]
    return Page(data=found, meta=meta_of(query, total))


@api.route(
    "POST", "/api/v1/datasets", form=DatasetForm, files=("file",),
    answer=Envelope[DatasetObject], status=201,
)  # fmt: skip
def create_dataset() -> Envelope[DatasetObject]:
    """Upload a dataset: CSV, JSON, JSON Lines, Parquet, text, Markdown, HTML, PDF, zip, tar, gzip.

    The file is stored as it arrives. It can be downloaded at once; `status` is `processing`
    until it has been read for research.
    """
    row = doors.receive_dataset()
    return Envelope(data=translate.dataset_object(row))


@api.route("GET", "/api/v1/datasets/<dataset_id>", answer=Envelope[DatasetObject])
def get_dataset(dataset_id: str) -> Envelope[DatasetObject]:
    """One of the account's datasets."""
    return Envelope(data=translate.dataset_object(doors.find_dataset(_uid(dataset_id))))


@api.route(
    "PUT", "/api/v1/datasets/<dataset_id>", body=DatasetBody, answer=Envelope[DatasetObject]
)
def change_dataset(dataset_id: str, body: DatasetBody) -> Envelope[DatasetObject]:
    """Rename or describe a dataset, or keep it out of research."""
    with unit_of_work() as session:
        row = datasets.change(
            session, current_identity().account_id, _uid(dataset_id), name=body.name,
            description=body.description, used_in_research=body.used_in_research, now=utc_now(),
        )  # fmt: skip
    return Envelope(data=translate.dataset_object(row))


@api.route("DELETE", "/api/v1/datasets/<dataset_id>", answer=Envelope[Message])
def delete_dataset(dataset_id: str) -> Envelope[Message]:
    """Delete a dataset with its file; links to it end."""
    doors.delete_dataset(_uid(dataset_id))
    return Envelope(data=Message(message="Dataset deleted"))


@api.route(
    "GET", "/api/v1/datasets/<dataset_id>/download", answer=Envelope[DownloadLink],
    media_type=BINARY, also_answers=("application/json",),
)  # fmt: skip
def download_dataset(dataset_id: str) -> Response:
    """The file, whole or a range of it; for `Accept: application/json` a link to it.

    The link is good for 15 minutes and needs no credential.
    """
    row = doors.find_dataset(_uid(dataset_id))
    if not doors.wants_link():
        return doors.send_dataset(row)
    expires_at = int(time.time()) + LINK_SECONDS
    link = DownloadLink(
        url=doors.dataset_link(row, expires_at=expires_at),
        expires_at=iso_seconds(datetime.fromtimestamp(expires_at, UTC)),
        filename=doors.download_name(row),
        content_type=doors.content_type_of(row),
    )
    return to_response(Envelope(data=link))
