"""Web search by a SearxNG-compatible server, and the pages that it names."""

from __future__ import annotations

import json
import logging
import time
from typing import Any
from urllib.parse import urlencode, urlsplit

from gevent.pool import Pool

from app.core.domain.errors import DomainError
from app.core.outbound import OutboundPolicy, fetch
from app.core.research.pages import PAGE_TYPES, read_page
from app.core.research.sources import Finding, Found, Wanted

MOST_PAGES = 8
MOST_PAGE_BYTES = 1024 * 1024
MOST_RESULT_BYTES = 2 * 1024 * 1024
SEARCH_SECONDS = 10.0
PAGE_SECONDS = 10.0
TOGETHER_SECONDS = 40.0
AT_ONCE = 4
_FEWEST_CHARACTERS = 80
_MOST_QUERY_CHARACTERS = 300

NO_SEARCH = "No web search is set up on this hub."

log = logging.getLogger(__name__)


class NoSearch:
    """Stands in where SEARCH_URL is not set, so that the report says so."""

    def find(self, wanted: Wanted) -> Found:
        """Nothing, with the reason."""
        return Found(note=NO_SEARCH)


class WebSearch:
    """Searches once for each sub-question and reads the best pages of each in turn."""

    def __init__(self, search_url: str, policy: OutboundPolicy) -> None:
        self._search_url = search_url
        self._policy = policy

    def find(self, wanted: Wanted) -> Found:
        """The pages that could be read, in the order in which they were found."""
        began = time.monotonic()
        queries = list(dict.fromkeys((*wanted.sub_questions, wanted.question)))
        results = Pool(AT_ONCE).map(self._search, queries)
        if all(found is None for found in results):
            return Found(note="The web search did not answer.")
        hits = _in_turn([found or [] for found in results])
        if not hits:
            return Found(note="The web search found nothing.")
        pages: list[Finding | None] = []
        # A page that can't be read is replaced by the next one; twice as many are tried.
        for start in range(0, min(len(hits), 2 * MOST_PAGES), MOST_PAGES):
            missing = MOST_PAGES - sum(page is not None for page in pages)
            if missing <= 0 or time.monotonic() - began > TOGETHER_SECONDS:
                break
            pages += Pool(AT_ONCE).map(self._read, hits[start : start + missing])
        readable = tuple(page for page in pages if page is not None)
        note = "" if readable else "None of the pages that the web search found could be read."
        return Found(readable, note)

    def _search(self, query: str) -> list[tuple[str, str]] | None:
        """(URL, title) of each result; None when the server does not answer as it should."""
        try:
            answer = fetch(
                self._policy, _query_url(self._search_url, query), accept=("application/json",),
                max_bytes=MOST_RESULT_BYTES, timeout_seconds=SEARCH_SECONDS,
            )  # fmt: skip
            return _hits(json.loads(answer.body))
        except (DomainError, ValueError, RecursionError) as error:
            log.warning("web search failed: %s", error)
            return None

    def _read(self, hit: tuple[str, str]) -> Finding | None:
        url, title = hit
        try:
            page = fetch(
                self._policy, url, accept=PAGE_TYPES,
                max_bytes=MOST_PAGE_BYTES, timeout_seconds=PAGE_SECONDS,
            )  # fmt: skip
        except DomainError as error:
            log.info("a page was not read: %s", error)
            return None
        own_title, text = read_page(page.body, page.content_type)
        if len(text) < _FEWEST_CHARACTERS:
            return None
        return Finding(title or own_title or urlsplit(page.url).netloc, page.url, text)


def _query_url(search_url: str, query: str) -> str:
    base = search_url.rstrip("/")
    if not urlsplit(base).path.endswith("/search"):
        base += "/search"
    wanted = {"q": query[:_MOST_QUERY_CHARACTERS], "format": "json"}
    return f"{base}?{urlencode(wanted)}"


def _hits(answer: Any) -> list[tuple[str, str]]:
    """What a search server says is text from strangers: only what has the right shape counts."""
    results = answer.get("results") if isinstance(answer, dict) else None
    hits = []
    for result in results if isinstance(results, list) else []:
        url, title = (
            (result.get("url"), result.get("title"))
            if isinstance(result, dict)
            else (None, None)
        )
        if isinstance(url, str) and url.startswith(("http://", "https://")):
            hits.append((url, " ".join(title.split())[:200] if isinstance(title, str) else ""))
    return hits


def _in_turn(lists: list[list[tuple[str, str]]]) -> list[tuple[str, str]]:
    """The first of each, then the second of each, …, every URL once."""
    longest = max(map(len, lists), default=0)
    merged = [hits[at] for at in range(longest) for hits in lists if at < len(hits)]
    return list({url: (url, title) for url, title in reversed(merged)}.values())[::-1]
