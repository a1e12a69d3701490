"""fabric's envelope and spellings."""

from __future__ import annotations

from typing import Any

from flask import Response

from app.core.clock import utc_now
from app.web.validation import json_response


def envelope(
    data: Any, *, message: str = "success", status: int = 200, success: bool = True
) -> Response:
    """`{success, data, message, timestamp}`, as every answer of this API is wrapped."""
    stamp = utc_now().isoformat(timespec="microseconds").replace("+00:00", "Z")
    body = {"success": success, "data": data, "message": message, "timestamp": stamp}
    return json_response(body, status)
