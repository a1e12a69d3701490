"""Workers' requests are read strictly: what could be understood in two ways is refused."""

from __future__ import annotations

import pytest

from app.web.relay.http_request import MAX_BODY_BYTES, BadRequest, parse_head


def head(*lines: str) -> bytes:
    return "\r\n".join(["POST /v1/x HTTP/1.1", *lines]).encode()


def test_names_of_models_may_be_in_any_script() -> None:
    request = parse_head(head("X-Weft-Model: %E6%A8%A1%E5%9E%8B/7b", "Content-Length: 3"))

    assert (request.model_name, request.length) == ("模型/7b", 3)
    assert request.headers == {}


def test_a_header_that_comes_twice_is_joined() -> None:
    assert parse_head(head("Accept: a", "accept: b")).headers == {"accept": "a, b"}


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"POST  /v1/x HTTP/1.1", 400),
        (b"POST http://elsewhere/ HTTP/1.1", 400),
        (b"P(ST /v1/x HTTP/1.1", 400),
        (b"POST /v1/x HTTP/1.0", 505),
        (head("no colon"), 400),
        (head("Bad Name: 1"), 400),
        (head("A : 1"), 400),
        (head(" folded: 1"), 400),
        (head("A: 1\n2"), 400),
        (head("A: \0"), 400),
        (head("Content-Length: 1", "Content-Length: 2"), 400),
        (head("X-Weft-Node: a", "x-weft-node: b"), 400),
        (head("Content-Length: -1"), 400),
        (head("Content-Length: +1"), 400),
        (head("Content-Length: 1_0"), 400),
        (head("Content-Length: \u0661"), 400),
        (head(f"Content-Length: {MAX_BODY_BYTES + 1}"), 413),
        (head("Transfer-Encoding: chunked"), 411),
    ],
)
def test_what_is_malformed_is_refused(data: bytes, status: int) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_head(data)

    assert caught.value.status == status
