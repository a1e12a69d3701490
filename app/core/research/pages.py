"""The text of a web page, without what surrounds it."""

from __future__ import annotations

import html
import logging
import re

from app.core.offload import run_off_loop_in_turn
from app.core.research.plan import one_line

HTML_TYPES = ("text/html", "application/xhtml+xml")
PAGE_TYPES = (*HTML_TYPES, "text/plain", "text/markdown")
MOST_CHARACTERS = 24_000
# Extraction takes longer than in proportion; what a page has to say stands in less than this.
_MOST_SOURCE_CHARACTERS = 400_000
_TITLE = re.compile(r"<title[^>]{0,200}>([^<]{1,1000})</title>", re.IGNORECASE)
_CHARSET = re.compile(rb"<meta[^>]{0,200}charset=[\"']?([\w-]{2,20})", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")

logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
logging.getLogger("htmldate").setLevel(logging.CRITICAL)


def read_page(body: bytes, content_type: str) -> tuple[str, str]:
    """Title and text of a page; empty where it has none. Off the event loop: it takes a while."""
    title, text = run_off_loop_in_turn(_read, body, content_type)
    return one_line(_CONTROL.sub("", title), 200), _CONTROL.sub("", text)[:MOST_CHARACTERS]


def _read(body: bytes, content_type: str) -> tuple[str, str]:
    source = _decoded(body)[:_MOST_SOURCE_CHARACTERS]
    if content_type not in HTML_TYPES:
        return "", source
    title = _TITLE.search(source)
    import trafilatura  # 13 MB, and few workers ever read a page

    found = trafilatura.extract(
        source, include_comments=False, include_tables=True, include_images=False,
        include_links=False, with_metadata=False,
    )  # fmt: skip
    return html.unescape(title[1]) if title else "", found or ""


def _decoded(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        named = _CHARSET.search(body[:4096])
    try:
        return body.decode(named[1].decode("ascii") if named else "latin-1", "replace")
    except LookupError:
        return body.decode("latin-1")
