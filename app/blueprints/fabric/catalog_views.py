"""fabric: models that nodes may fetch, and versions of the Android apps."""

from __future__ import annotations

from flask import Response

from app.blueprints.fabric import answers, schemas, translate
from app.blueprints.fabric.answers import Envelope
from app.blueprints.fabric.api import api
from app.blueprints.fabric.translate import envelope
from app.core.clock import utc_now
from app.core.services import apks, catalog
from app.web.auth import require_admin
from app.web.transaction import reading, unit_of_work


@api.route("POST", "/api/models/insert", body=schemas.ModelBody, answer=Envelope[None])
def insert_model(body: schemas.ModelBody) -> Response:
    """Create a model version, or change it. Admins only."""
    require_admin()
    with unit_of_work() as session:
        catalog.upsert_version(session, catalog.NewVersion(**body.model_dump()), now=utc_now())
    return envelope(None)


@api.route(
    "GET",
    "/api/models/get",
    query=schemas.ModelsQuery,
    answer=Envelope[list[answers.ModelVersion]],
)
def get_models(query: schemas.ModelsQuery) -> Response:
    """Model versions, the most demanding first; `min_gpu_memory_gb` keeps what fits in that."""
    found = catalog.list_versions(
        reading(), is_active=query.is_active, fits_in_gb=query.min_gpu_memory_gb
    )
    return envelope([translate.model_version(entry) for entry in found])


@api.route("POST", "/api/apk/upsert", body=schemas.ApkBody, answer=Envelope[answers.ApkVersion])
def upsert_apk(body: schemas.ApkBody) -> Response:
    """Create an APK version, or change it. Admins only."""
    require_admin()
    with unit_of_work() as session:
        apk = apks.upsert_apk(session, apks.NewApk(**body.model_dump()), now=utc_now())
    return envelope(translate.apk_version(apk))


@api.route(
    "GET", "/api/apk/get", query=schemas.ApkQuery, answer=Envelope[answers.ApkVersion | None]
)
def get_apk(query: schemas.ApkQuery) -> Response:
    """One APK version; null when there is no such."""
    apk = apks.find_apk(reading(), query.package_name, query.version_code)
    return envelope(translate.apk_version(apk) if apk is not None else None)


@api.route(
    "GET",
    "/api/apk/list",
    query=schemas.ApkListQuery,
    answer=Envelope[list[answers.ApkVersion]],
)
def list_apks(query: schemas.ApkListQuery) -> Response:
    """APK versions, newest first."""
    found = apks.list_apks(
        reading(), package_name=query.package_name, channel=query.channel,
        is_active=query.is_active, limit=query.limit,
    )  # fmt: skip
    return envelope([translate.apk_version(apk) for apk in found])
