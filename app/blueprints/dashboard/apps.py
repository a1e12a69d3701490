"""The APK store: the network's Android apps, their QR codes, and uploads by admins."""

from __future__ import annotations

import io
from typing import Any

import segno
from flask import Response, request, url_for
from flask.typing import ResponseReturnValue
from markupsafe import Markup

from app.blueprints.dashboard.pages import blueprint, page, see_other
from app.blueprints.dashboard.presenters import Shown, form_status
from app.core.clock import utc_now
from app.core.domain.errors import DomainError, NotFound
from app.core.services import apk_store
from app.core.services.apk_store import AppVersion
from app.core.storage import blocks_of
from app.web.auth import current_identity
from app.web.context import base_url
from app.web.files import send_stored, storage
from app.web.transaction import reading, release, unit_of_work

APK_TYPE = "application/vnd.android.package-archive"
_DAY_SECONDS = 86_400


@blueprint.get("/apps")
def show_apps() -> ResponseReturnValue:
    """All apps with their versions; admins also see what was withdrawn."""
    return _apps_page()


def _apps_page(*, errors: dict[str, str] | None = None, status: int = 200) -> Response:
    found = apk_store.list_apps(reading(), with_inactive=current_identity().is_admin)
    return page(
        "apps", status=status, errors=errors or {}, done=_just_published(found),
        apps=[_app(name, versions) for name, versions in found.items()],
    )  # fmt: skip


@blueprint.post("/apps")
def upload_apk() -> ResponseReturnValue:
    """Take an APK, read and verify it, and publish it. Admins only."""
    identity = current_identity()
    if not identity.is_admin:
        raise NotFound("There is nothing here.")
    sent = request.files.get("apk")
    if sent is None or not sent.filename:
        return _apps_page(errors={"apk": "Choose the APK file."}, status=400)
    release()  # nothing is asked of the database while the file is written and read
    files = storage()
    stored = files.put(
        apk_store.KIND, blocks_of(sent.stream), max_bytes=apk_store.MAX_APK_BYTES, suffix=".apk"
    )
    try:
        facts = apk_store.inspect_stored(files, stored.name)
        with unit_of_work() as session:
            row = apk_store.publish(
                session, stored, facts, actor_id=identity.account_id, now=utc_now(),
                url=_address(facts.package_name, facts.version_code),
            )  # fmt: skip
            is_kept = row.stored_file == stored.name
    except DomainError as error:
        files.delete(stored.name)
        return _apps_page(errors={"apk": error.message}, status=form_status(error))
    except BaseException:
        files.delete(stored.name)
        raise
    if not is_kept:
        files.delete(stored.name)  # the same file was here already
    return see_other("show_apps", done=f"{facts.package_name}/{facts.version_code}")


def _just_published(found: dict[str, list[AppVersion]]) -> str:
    """What to say after a version was published: of one that is there, and nothing else."""
    asked = request.args.get("done", "")
    for package_name, versions in found.items():
        for one in versions:
            if asked == f"{package_name}/{one.version_code}":
                return f"{package_name} {one.version_name} is published."
    return ""


@blueprint.post("/apps/<package_name>/<version_code>/active")
def set_apk_active(package_name: str, version_code: str) -> ResponseReturnValue:
    """Withdraw a version, or put it back. Admins only."""
    identity = current_identity()
    if not identity.is_admin:
        raise NotFound("There is nothing here.")
    with unit_of_work() as session:
        apk_store.set_active(
            session, package_name, _code(version_code), actor_id=identity.account_id,
            is_active=request.form.get("active") == "1", now=utc_now(),
        )  # fmt: skip
    return see_other("show_apps")


@blueprint.get("/apks/<package_name>/<version_code>.apk")
def download_apk(package_name: str, version_code: str) -> ResponseReturnValue:
    """The file of a published version, for everybody who has its address."""
    code = _code(version_code)
    found = apk_store.find_stored(reading(), package_name, code)
    release()
    return send_stored(
        found.stored_file, filename=f"{package_name}-{code}.apk", sha256=found.sha256,
        media_type=APK_TYPE, max_age_seconds=_DAY_SECONDS,
    )  # fmt: skip


def _address(package_name: str, version_code: int) -> str:
    path = url_for(
        "dashboard.download_apk", package_name=package_name, version_code=str(version_code)
    )
    return f"{base_url()}{path}"


def _app(package_name: str, versions: list[AppVersion]) -> dict[str, Any]:
    rows = [_version(package_name, one) for one in versions]
    latest = next((row for row in rows if row["is_active"]), None)
    return {
        "package": package_name,
        "versions": rows,
        "latest": latest,
        "qr": _qr(str(latest["href"])) if latest else None,
    }


def _version(package_name: str, one: AppVersion) -> dict[str, Any]:
    here = _address(package_name, one.version_code)
    signer = one.signer_sha256
    return {
        "name": one.version_name,
        "code": one.version_code,
        "href": here if one.is_stored else one.download_url,
        "is_stored": one.is_stored,
        "is_active": one.is_active,
        "state": Shown("Published", "ok") if one.is_active else Shown("Withdrawn"),
        "size": one.size_bytes,
        "needs": one.min_os_version,
        "sha256": one.sha256,
        "signer": ":".join(signer[at : at + 2] for at in range(0, 16, 2)) if signer else None,
        "released_at": one.released_at,
    }


def _qr(address: str) -> Markup:
    """The address as a picture for a phone's camera: dark on light, whatever the theme."""
    out = io.BytesIO()
    segno.make(address, micro=False).save(
        out, kind="svg", xmldecl=False, svgns=False, omitsize=True, border=3, light="#fff",
        dark="#16151c", svgclass="qr", lineclass=None, nl=False,
    )  # fmt: skip
    return Markup(out.getvalue().decode())  # noqa: S704 - squares alone; the address is only encoded


def _code(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 10 or int(text) >= 2**31:
        raise NotFound("There is no such version of an app here.")
    return int(text)
