"""Where the hub may connect to, and the client that obeys."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence

import pytest

from app.core.domain.errors import InvalidInput, TooLarge, Unavailable
from app.core.outbound import AddressNotAllowed, OutboundPolicy, download, fetch
from app.core.urls import parse_url
from tests.fakes.http_server import Exchange, FakeServer
from tests.fixtures.waiting import eventually

CLOSED = OutboundPolicy()
LOOPBACK = OutboundPolicy((ipaddress.ip_network("127.0.0.1/32"),))


def answering(*addresses: str) -> Callable[[str, int], Sequence[str]]:
    return lambda host, port: addresses


# What an attacker writes to reach an address inside. Each is refused, by its spelling or by
# where it leads.
INSIDE = [
    "http://127.0.0.1/", "http://127.1/", "http://127.0.1/", "http://2130706433/",
    "http://0x7f000001/", "http://0x7f.0.0.1/", "http://0177.0.0.1/", "http://017700000001/",
    "http://127.0.0.1./", "http://0/", "http://0.0.0.0/", "http://127.0.0.1:80/",
    "http://①②⑦.⓪.⓪.①/", "http://１２７.0.0.1/", "http://127。0。0。1/",
    "http://10.0.0.1/", "http://172.16.0.1/", "http://172.31.255.255/", "http://192.168.1.1/",
    "http://169.254.169.254/latest/meta-data/", "http://2852039166/", "http://0xa9fea9fe/",
    "http://100.100.100.200/", "http://168.63.129.16/", "http://192.0.0.192/",
    "http://100.64.0.1/", "http://198.18.0.1/", "http://224.0.0.1/", "http://240.0.0.1/",
    "http://255.255.255.255/", "http://192.0.2.1/", "http://192.88.99.1/",
    "http://[::1]/", "http://[::]/", "http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/",
    "http://[::127.0.0.1]/", "http://[::ffff:a9fe:a9fe]/", "http://[::ffff:0:127.0.0.1]/",
    "http://[fe80::1]/", "http://[fe80::1%25eth0]/", "http://[fe80::1%eth0]/",
    "http://[fc00::1]/", "http://[fd00:ec2::254]/", "http://[ff02::1]/", "http://[fec0::1]/",
    "http://[64:ff9b::7f00:1]/", "http://[64:ff9b::a9fe:a9fe]/", "http://[64:ff9b:1::1]/",
    "http://[2002:7f00:1::]/", "http://[2001:0:7f00:1::]/", "http://[2001:db8::1]/",
    "http://[100::1]/", "http://[3fff::1]/", "http://[5f00::1]/", "http://[::ffff:8.8.8.8]/",
]  # fmt: skip

MALFORMED = [
    "", "/", "//host/", "host", "127.0.0.1:80", "http://", "http:///path", "http:host",
    "ftp://host/", "file:///etc/passwd", "gopher://host/", "javascript:alert(1)",
    "unix:/var/run/docker.sock", "http+unix://x/", "dict://host:11211/", "data:text/plain,x",
    "http://user@host/", "http://user:pass@host/", "http://127.0.0.1@evil.example/",
    "http://evil.example@127.0.0.1/", "http://@host/", "http://a@b@host/",
    "http://host\\@127.0.0.1/", "http:\\\\host/", "http://host\\.evil/", "http://ho st/",
    "http://host/\r\nX: 1", "http://host\t/", "http://host/\x00", " http://host/", "http://host/ ",
    "http://host:0/", "http://host:65536/", "http://host:-1/", "http://host:80:80/",
    "http://host:abc/", "http://host:/", "http://host%00.example/", "http://%31%32%37.0.0.1/",
    "http://[::1/", "http://::1/", "http://[::1]evil/", "http://[]/", "http://[v1.x]/",
    "http://-host/", "http://host-/", "http://a..b/", "http://.host/", "http://host!/",
    "http://" + "a" * 64 + ".example/", "http://host/" + "a" * 3000, "http://1.2.3/",
    "http://1.2.3.4.5/", "http://256.1.1.1/", "http://08.8.8.8/", "http://example.0x1/",
]  # fmt: skip


@pytest.mark.parametrize("url", INSIDE)
def test_no_spelling_of_an_inside_address_passes(url: str) -> None:
    with pytest.raises(InvalidInput):
        CLOSED.check_url(url)


@pytest.mark.parametrize("url", MALFORMED, ids=ascii)
def test_what_is_no_plain_http_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput):
        CLOSED.check_url(url)


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        ("http://Example.COM", "http://example.com/"),
        ("https://example.com:443/a?b=c#d", "https://example.com/a?b=c"),
        ("http://example.com:8080/", "http://example.com:8080/"),
        ("http://8.8.8.8/", "http://8.8.8.8/"),
        ("http://[2606:4700::1111]:81/x", "http://[2606:4700::1111]:81/x"),
        ("http://bücher.example/ä?ö", "http://xn--bcher-kva.example/%C3%A4?%C3%B6"),
        ("http://my_host.example./", "http://my_host.example./"),
        ("HTTP://example.com", "http://example.com/"),
        ("http://example.com?x=1", "http://example.com/?x=1"),
        ("http://example.com/@user:x", "http://example.com/@user:x"),
    ],
)
def test_plain_urls_pass(url: str, whole: str) -> None:
    assert str(CLOSED.check_url(url)) == whole


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "fe80::1", "::ffff:10.0.0.1",
     "64:ff9b::a00:1", "2002:a00:1::", "2001:0:1::", "fd00:ec2::254"],
)  # fmt: skip
def test_a_name_that_leads_inside_is_refused_at_each_step(address: str) -> None:
    policy = OutboundPolicy(resolver=answering(address))

    assert policy.check_url("http://innocent.example/").host == "innocent.example"
    with pytest.raises(AddressNotAllowed):
        policy.check_url_resolved("http://innocent.example/")
    with pytest.raises(AddressNotAllowed):
        policy.resolve_checked("innocent.example", 80)
    with pytest.raises(AddressNotAllowed):
        policy.connect("innocent.example", 80, 1.0)


def test_one_bad_address_among_good_ones_is_enough() -> None:
    policy = OutboundPolicy(resolver=answering("93.184.216.34", "10.0.0.1"))

    with pytest.raises(AddressNotAllowed):
        policy.resolve_checked("mixed.example", 443)


def test_public_addresses_pass() -> None:
    policy = OutboundPolicy(resolver=answering("93.184.216.34", "2606:4700::1111"))

    found = policy.resolve_checked("public.example", 443)

    assert [str(address) for address in found] == ["93.184.216.34", "2606:4700::1111"]


@pytest.mark.parametrize(
    ("network", "address", "is_allowed"),
    [
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.0.0.1", True),  # public anyway
        ("10.0.0.0/8", "192.168.0.1", False),
        ("10.0.0.0/8", "::ffff:10.1.2.3", True),
        ("10.0.0.0/8", "::ffff:192.168.0.1", False),
        ("10.0.0.0/8", "64:ff9b::a01:203", False),
        ("64:ff9b::/96", "64:ff9b::a01:203", True),
        ("fd00::/8", "fd12::1", True),
        ("fd00::/8", "fe80::1", False),
        ("::1/128", "::1", True),
    ],
)
def test_listed_networks_are_open_and_nothing_beside_them(
    network: str, address: str, is_allowed: bool
) -> None:
    policy = OutboundPolicy((ipaddress.ip_network(network),))

    assert policy.allows(ipaddress.ip_address(address)) is is_allowed


def test_a_name_is_looked_up_once_for_check_and_connection() -> None:
    """A second answer, to a second question, cannot lead elsewhere (DNS rebinding)."""
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])
    policy = OutboundPolicy(
        LOOPBACK.allowed_networks, resolver=lambda host, port: next(answers)
    )

    with FakeServer(says(b"hello")) as server:
        sock = policy.connect("rebind.example", server.port, 5.0)
        assert sock.getpeername() == ("127.0.0.1", server.port)
        sock.close()

    assert next(answers) == ["10.0.0.1"]


def test_a_name_without_addresses() -> None:
    def fails(host: str, port: int) -> list[str]:
        raise socket.gaierror(-2, "Name or service not known")

    policy = OutboundPolicy(resolver=fails)

    with pytest.raises(Unavailable, match=r"nowhere\.example cannot be resolved"):
        policy.resolve_checked("nowhere.example", 80)
    with pytest.raises(InvalidInput, match="cannot be resolved"):
        policy.check_url_resolved("http://nowhere.example/")
    with pytest.raises(OSError, match="not known"):
        policy.connect("nowhere.example", 80, 1.0)


def test_the_next_address_is_tried_when_one_is_dead() -> None:
    networks = (ipaddress.ip_network("127.0.0.0/8"),)
    policy = OutboundPolicy(networks, resolver=answering("127.9.9.9", "127.0.0.1"))

    with FakeServer(says(b"hello")) as server:
        sock = policy.connect("two.example", server.port, 5.0)
        assert sock.getpeername()[0] == "127.0.0.1"
        sock.close()


# fetch and download


def says(body: bytes, kind: str = "text/plain", **headers: str) -> Callable[[Exchange], None]:
    def handle(exchange: Exchange) -> None:
        exchange.respond(200, body, content_type=kind, headers=headers)

    return handle


def redirects(*locations: str) -> Callable[[Exchange], None]:
    """Answers the n-th request with the n-th location, then with a text."""

    def handle(exchange: Exchange) -> None:
        number = int(exchange.request.path.rpartition("/")[2] or 0)
        if number < len(locations):
            exchange.respond(302, headers={"Location": locations[number]})
        else:
            exchange.respond(200, b"arrived", content_type="text/plain")

    return handle


def get(server: FakeServer, path: str = "/0", **options: object) -> bytes:
    defaults = {"max_bytes": 1000, "timeout_seconds": 5.0}
    return fetch(LOOPBACK, server.url + path, **(defaults | options)).body  # type: ignore[arg-type]


def test_fetch_gets_a_body() -> None:
    with FakeServer(says(b"hello", "image/png; x=y")) as server:
        fetched = fetch(LOOPBACK, server.url + "/a", max_bytes=10, timeout_seconds=5)

    assert (fetched.body, fetched.content_type) == (b"hello", "image/png")
    assert fetched.url == server.url + "/a"


def test_fetch_obeys_the_policy() -> None:
    with FakeServer(says(b"secret")) as server:
        with pytest.raises(InvalidInput):
            fetch(CLOSED, server.url, max_bytes=10, timeout_seconds=5)

        assert server.counts.opened == 0


def test_redirects_are_followed_up_to_three() -> None:
    with FakeServer(redirects("/1", "/2", "/3")) as server:
        assert get(server) == b"arrived"
    with FakeServer(redirects("/1", "/2", "/3", "/4")) as server:
        with pytest.raises(InvalidInput, match="redirects more than 3"):
            get(server)
        assert len(server.requests) == 4


@pytest.mark.parametrize(
    "location",
    ["http://169.254.169.254/latest/", "http://10.0.0.1/", "//192.168.0.1/", "file:///etc/passwd",
     "http://user@127.0.0.1/", "http://[::1]/", "http://2130706433/", "gopher://127.0.0.1/"],
)  # fmt: skip
def test_a_redirect_to_where_it_must_not_go_is_refused(location: str) -> None:
    with FakeServer(redirects(location)) as server, pytest.raises(InvalidInput):
        get(server)


def test_own_headers_do_not_follow_a_redirect_elsewhere() -> None:
    with FakeServer(says(b"x")) as other, FakeServer(redirects(other.url + "/9")) as server:
        get(server, headers=(("Authorization", "Bearer secret"),))

    assert server.requests[0].headers["authorization"] == "Bearer secret"
    assert "authorization" not in other.requests[0].headers


@pytest.mark.parametrize("is_announced", [True, False])
def test_a_body_over_the_limit_is_too_large(is_announced: bool) -> None:
    def handle(exchange: Exchange) -> None:
        if is_announced:
            exchange.respond(200, b"x" * 2000)
        else:
            exchange.start_stream("text/plain")
            while True:
                exchange.chunk(b"x" * 100)

    with FakeServer(handle) as server, pytest.raises(TooLarge):
        get(server)


def test_the_time_is_for_everything_together() -> None:
    def handle(exchange: Exchange) -> None:
        exchange.start_stream("text/plain")
        while True:
            exchange.chunk(b"x")
            exchange.wait(0.02)

    with FakeServer(handle) as server, pytest.raises(Unavailable, match="in time"):
        get(server, timeout_seconds=0.3, max_bytes=10**6)


@pytest.mark.parametrize(
    ("kind", "accept", "is_taken"),
    [
        ("image/png", ("image/",), True),
        ("image/png; charset=x", ("image/png",), True),
        ("IMAGE/PNG", ("image/png",), True),
        ("text/html", ("image/", "text/plain"), False),
        ("imagex/png", ("image/",), False),
    ],
)
def test_only_wanted_types_are_taken(
    kind: str, accept: tuple[str, ...], is_taken: bool
) -> None:
    with FakeServer(says(b"x", kind)) as server:
        if is_taken:
            assert get(server, accept=accept) == b"x"
        else:
            with pytest.raises(InvalidInput, match="type"):
                get(server, accept=accept)


def test_a_compressed_answer_is_not_taken() -> None:
    with FakeServer(says(b"x", **{"content-encoding": "gzip"})) as server:
        with pytest.raises(Unavailable, match="compressed"):
            get(server)
        assert server.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("status", [204, 206, 304, 400, 404, 500])
def test_another_status_is_a_failure_that_says_so(status: int) -> None:
    with (
        FakeServer(lambda exchange: exchange.respond(status)) as server,
        pytest.raises(Unavailable, match=str(status)),
    ):
        get(server)


def test_a_dead_server_is_unavailable() -> None:
    with FakeServer(says(b"x")) as server:
        pass
    with pytest.raises(Unavailable, match="cannot be reached"):
        get(server)


def test_a_download_comes_in_blocks_and_tells_its_size() -> None:
    body = b"0123456789" * 50_000
    with (
        FakeServer(says(body)) as server,
        download(LOOPBACK, server.url, max_bytes=10**6, timeout_seconds=10) as answer,
    ):
        blocks = list(answer.blocks)

    assert answer.total_bytes == len(body)
    assert b"".join(blocks) == body
    assert len(blocks) > 1


def test_a_download_that_breaks_off_is_unavailable() -> None:
    def handle(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
        exchange.cut()

    with (
        FakeServer(handle) as server,
        download(LOOPBACK, server.url, max_bytes=1000, timeout_seconds=5) as answer,
        pytest.raises(Unavailable, match="broke off"),
    ):
        list(answer.blocks)


def test_an_abandoned_download_closes_its_connection() -> None:
    def handle(exchange: Exchange) -> None:
        exchange.start_stream("text/plain")
        exchange.chunk(b"x" * 10)
        exchange.hang()

    with FakeServer(handle) as server:
        with download(LOOPBACK, server.url, max_bytes=100, timeout_seconds=5) as answer:
            assert next(iter(answer.blocks)) == b"x" * 10
        eventually(lambda: server.counts.cancelled == 1)


def test_a_relative_url_is_joined_before_it_is_checked() -> None:
    base = parse_url("https://example.com/a/b?c")

    assert str(parse_url("../d", base=base)) == "https://example.com/d"
    assert str(parse_url("//other.example/d", base=base)) == "https://other.example/d"
