"""The web search: which pages are read, and what an odd or hostile server can do."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import pytest

from app.core.outbound import OutboundPolicy
from app.core.research.search import MOST_PAGE_BYTES, MOST_PAGES, NO_SEARCH, NoSearch, WebSearch
from app.core.research.sources import Finding, Found, Wanted, gather
from tests.research.engine import Web, page, serve_web

LOOPBACK = OutboundPolicy((ipaddress.ip_network("127.0.0.0/8"),))
WANTED = Wanted(1, "The whole?", ("Part one?", "Part two?"))


@pytest.fixture
def web() -> Iterator[Web]:
    """An empty web."""
    found = Web()
    with serve_web(found) as server:
        found.url = server.url
        yield found


def article(name: str) -> tuple[str, bytes]:
    return page(name, f"This page is about {name} and says a number of things about it. " * 3)


def test_pages_are_found_for_each_question_and_read(web: Web) -> None:
    web.pages = {"/a": article("alpha"), "/b": article("beta")}

    found = WebSearch(web.url, LOOPBACK).find(WANTED)

    assert [finding.url for finding in found.findings] == [f"{web.url}/a", f"{web.url}/b"]
    assert sorted(web.queries) == ["Part one?", "Part two?", "The whole?"]
    assert found.note == ""


def test_a_search_url_may_name_the_search_itself(web: Web) -> None:
    web.pages = {"/a": article("alpha")}
    assert WebSearch(f"{web.url}/search", LOOPBACK).find(WANTED).findings


def test_at_most_eight_pages_are_read_and_bad_ones_are_replaced(web: Web) -> None:
    web.pages = {f"/{number}": article(f"page {number}") for number in range(14)}
    web.pages["/0"] = ("text/html", b"<p>short</p>")
    web.pages["/1"] = ("application/pdf", b"%PDF-")
    web.pages["/2"] = ("text/html", b"<p>" + b"x" * MOST_PAGE_BYTES)

    found = WebSearch(web.url, LOOPBACK).find(WANTED)

    assert len(found.findings) == MOST_PAGES
    assert f"{web.url}/3" in [finding.url for finding in found.findings]


@pytest.mark.parametrize(
    "results",
    [
        [{"url": "file:///etc/passwd"}, {"url": "gopher://x"}, {"url": 7}, "x", None, {}],
        [{"url": "http://169.254.169.254/latest/meta-data/"}, {"url": "http://10.0.0.1/"}],
        [{"url": "http://[::1]:80/", "title": ["x"]}, {"url": "http://user@host/"}],
    ],
)
def test_results_that_lead_where_nobody_may_go_are_not_followed(
    web: Web, results: list
) -> None:  # type: ignore[type-arg]
    web.results = results

    found = WebSearch(web.url, LOOPBACK).find(WANTED)

    assert found.findings == ()
    assert found.note


def test_a_search_that_fails_is_said(web: Web) -> None:
    web.status = 500
    assert WebSearch(web.url, LOOPBACK).find(WANTED).note == "The web search did not answer."
    web.status, web.results = 200, []
    assert WebSearch(web.url, LOOPBACK).find(WANTED).note == "The web search found nothing."


def test_the_search_server_itself_is_held_to_the_networks(web: Web) -> None:
    closed = WebSearch(web.url, OutboundPolicy())

    assert closed.find(WANTED).note == "The web search did not answer."
    assert web.queries == []


class Fixed:
    """A finder that knows its findings."""

    def __init__(self, *findings: Finding, note: str = "") -> None:
        self.found = Found(findings, note)

    def find(self, wanted: Wanted) -> Found:
        return self.found


def test_what_several_finders_bring_is_numbered_once() -> None:
    one, two = Finding("A", "https://a", "text"), Finding("", "https://b", "text")
    empty = Finding("C", "https://c", "  ")

    found = gather([Fixed(one, note="Well."), Fixed(one, two, empty), NoSearch()], WANTED)

    assert [(s.number, s.title) for s in found.sources] == [(1, "A"), (2, "https://b")]
    assert found.notes == ("Well.", NO_SEARCH)
