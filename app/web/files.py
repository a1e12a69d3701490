"""Links to stored files: signed, good for a while, opened by nobody else's browser tab.

`/files/<name>?expires=…&signature=…`. Whoever holds the link may read that one file; it
comes as an attachment in a sandbox, so that nothing in it runs on our origin.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import mimetypes
import time
from typing import BinaryIO, cast
from urllib.parse import quote, urlencode

from flask import Flask, Response, current_app, request, send_file
from werkzeug.exceptions import RequestedRangeNotSatisfiable

from app.core.domain.errors import Forbidden
from app.core.storage import Storage
from app.web.context import base_url, settings

LINK_SECONDS = 15 * 60
DAY_SECONDS = 86_400
_SANDBOX = "default-src 'none'; sandbox"


def install_files(app: Flask) -> None:
    """Add the route that signed links lead to."""
    app.add_url_rule("/files/<kind>/<leaf>", "files", serve_file, methods=["GET"])


def storage() -> Storage:
    """This app's files, opened at their first use."""
    kept = current_app.extensions
    if "weft_storage" not in kept:
        chosen = settings()
        kept["weft_storage"] = Storage(chosen.storage_url, chosen.data_dir)
    found: Storage = kept["weft_storage"]
    return found


def file_url(
    name: str, *, filename: str = "", seconds: int = LINK_SECONDS, expires_at: int | None = None
) -> str:
    """An absolute link to a stored file. `filename` is what a browser saves it as."""
    expires = expires_at or int(time.time()) + seconds
    query = {"expires": str(expires)}
    if filename:
        query["filename"] = filename
    query["signature"] = _sign(name, expires, filename)
    return f"{base_url()}/files/{quote(name)}?{urlencode(query)}"


def lasting_file_url(name: str) -> str:
    """A link that stays the same for a day, so that browsers keep what it leads to."""
    today = int(time.time()) // DAY_SECONDS
    return file_url(name, expires_at=(today + 2) * DAY_SECONDS)


def serve_file(kind: str, leaf: str) -> Response:
    """The file that a signed link names."""
    name = f"{kind}/{leaf}"
    filename = request.args.get("filename", "")
    expires = request.args.get("expires", "")
    if not expires.isascii() or not expires.isdigit() or len(expires) > 12:
        raise Forbidden("This link is not complete.")
    expected = _sign(name, int(expires), filename)
    if not hmac.compare_digest(expected.encode(), request.args.get("signature", "").encode()):
        raise Forbidden("This link is not valid.")
    if int(expires) < time.time():
        raise Forbidden("This link has expired.")
    return send_stored(name, filename=filename, max_age_seconds=int(expires) - int(time.time()))


def send_stored(
    name: str,
    *,
    filename: str = "",
    sha256: str = "",
    media_type: str = "",
    max_age_seconds: int = 0,
) -> Response:
    """A stored file as a download with ETag and Range. Raises NotFound."""
    files = storage()
    stream = files.open(name)
    size = files.size(name)
    chosen = media_type or mimetypes.guess_type(name)[0] or "application/octet-stream"
    response = send_file(
        cast(BinaryIO, stream), mimetype=chosen, as_attachment=True,
        download_name=filename or name.replace("/", "-"),
        conditional=False, etag=False, max_age=max_age_seconds,
    )  # fmt: skip
    response.set_etag(sha256 or hashlib.sha256(name.encode()).hexdigest())
    response.headers["Content-Security-Policy"] = _SANDBOX
    response.headers["Cache-Control"] = f"private, max-age={max(max_age_seconds, 0)}"
    response.content_length = size
    try:
        response.make_conditional(request.environ, accept_ranges=True, complete_length=size)
    except RequestedRangeNotSatisfiable:
        stream.close()
        raise
    if request.method == "HEAD" or response.status_code == 304:
        stream.close()  # nothing is sent, so the server has nothing to close
    return response


def _sign(name: str, expires: int, filename: str) -> str:
    key = hashlib.sha256(b"files:" + settings().secret_key.encode()).digest()
    text = f"{name}\n{expires}\n{filename}".encode()
    return base64.urlsafe_b64encode(hmac.digest(key, text, "sha256")).decode().rstrip("=")
