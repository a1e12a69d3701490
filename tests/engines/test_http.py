"""Our HTTP client against servers that behave, and servers that do not."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.core.engines.http import (
    BadResponse,
    ConnectFailed,
    ConnectionLost,
    HttpClient,
    Request,
    TimedOut,
)
from app.core.engines.sse import payloads
from app.core.urls import parse_url
from tests.fakes.http_server import Exchange, FakeServer


def connect(host: str, port: int, timeout: float) -> socket.socket:
    return socket.create_connection((host, port), timeout)


@pytest.fixture
def client() -> Iterator[HttpClient]:
    client = HttpClient(connect)
    yield client
    client.close()


def ask(
    server: FakeServer, path: str = "/", *, seconds: float = 5.0, **more: object
) -> Request:
    url = parse_url(server.url + path)
    return Request(url, response_timeout_seconds=seconds, **more)  # type: ignore[arg-type]


def says(raw: bytes, *, then_close: bool = True) -> Callable[[Exchange], None]:
    def handle(exchange: Exchange) -> None:
        exchange.send(raw)
        if then_close:
            exchange.cut()

    return handle


def in_chunks(*pieces: bytes) -> Callable[[Exchange], None]:
    def handle(exchange: Exchange) -> None:
        exchange.start_stream()
        for piece in pieces:
            exchange.chunk(piece)
        exchange.end_stream()

    return handle


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (HEAD + b"Content-Length: 5\r\n\r\nhello", b"hello"),
        (HEAD + b"content-length:5\r\n\r\nhello", b"hello"),
        (HEAD + b"Content-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (HEAD + b"\r\nuntil the end", b"until the end"),
        (b"HTTP/1.0 200 OK\r\n\r\nold", b"old"),
        (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"Content-Length: 2\r\n\r\nok", b"ok"),
        (CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (CHUNKED + b"5;ext=1\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", b"hello!"),
        (CHUNKED + b"A\r\n0123456789\r\n0\r\nX-Sum: 1\r\nX-B: 2\r\n\r\n", b"0123456789"),
        (CHUNKED + b"0\r\n\r\n", b""),
    ],
)
@pytest.mark.parametrize("step", [1, 3, 1000])
def test_bodies_of_all_framings_in_all_pieces(
    client: HttpClient, raw: bytes, body: bytes, step: int
) -> None:
    def handle(exchange: Exchange) -> None:
        for start in range(0, len(raw), step):
            exchange.send(raw[start : start + step])
        exchange.cut()

    with FakeServer(handle) as server:
        assert client.send(ask(server)).read(1000) == body


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        HEAD + b"no colon here\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 0x5\r\n\r\nhello",
        HEAD + b"Content-Length: 2\r\n\r\nhello",
        HEAD + b"X: " + b"y" * 100_000,
        CHUNKED + b"zz\r\n",
        CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"3\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"123456789\r\n",
        CHUNKED + b"x" * 5000,
        CHUNKED + b"0\r\n" + b"x: y\r\n" * 20_000,
    ],
)
def test_what_is_no_http_is_a_bad_response(client: HttpClient, raw: bytes) -> None:
    with FakeServer(says(raw)) as server, pytest.raises(BadResponse):
        client.send(ask(server)).read(1_000_000)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        HEAD + b"Content-Length: 10\r\n\r\nhello",
        CHUNKED,
        CHUNKED + b"5\r\nhel",
        CHUNKED + b"5\r\nhello\r\n",
    ],
)
def test_an_answer_that_breaks_off_is_a_lost_connection(client: HttpClient, raw: bytes) -> None:
    with FakeServer(says(raw)) as server, pytest.raises(ConnectionLost):
        client.send(ask(server)).read(1000)


def test_lines_end_at_newlines_alone(client: HttpClient) -> None:
    text = "a\u2028b\u0085c\rd\x0be\nsecond\n\nlast".encode()

    with FakeServer(in_chunks(*(bytes([byte]) for byte in text))) as server:
        lines = list(client.send(ask(server)).lines())

    assert lines == ["a\u2028b\u0085c\rd\x0be".encode(), b"second", b"", b"last"]


def test_several_lines_in_one_piece_and_one_line_in_several(client: HttpClient) -> None:
    with FakeServer(in_chunks(b"a\nb\nc", b"c", b"c\n", b"d\n")) as server:
        assert list(client.send(ask(server)).lines()) == [b"a", b"b", b"ccc", b"d"]


def test_a_line_has_a_limit(client: HttpClient) -> None:
    with FakeServer(in_chunks(*[b"x" * 60_000] * 20)) as server:
        response = client.send(ask(server))
        with pytest.raises(BadResponse):
            list(response.lines())


def test_a_body_has_a_limit(client: HttpClient) -> None:
    with FakeServer(in_chunks(*[b"x" * 100 + b"\n"] * 1000)) as server:
        response = client.send(ask(server, max_body_bytes=50_000))
        with pytest.raises(BadResponse):
            list(response.lines())


def test_a_drip_does_not_reset_the_clock(client: HttpClient) -> None:
    def handle(exchange: Exchange) -> None:
        exchange.start_stream()
        while True:
            exchange.chunk(b"x")
            exchange.wait(0.02)

    with FakeServer(handle) as server:
        response = client.send(ask(server, seconds=0.3))
        with pytest.raises(TimedOut):
            list(response.blocks())


def test_a_silent_server_times_out(client: HttpClient) -> None:
    with FakeServer(lambda exchange: exchange.hang()) as server, pytest.raises(TimedOut):
        client.send(ask(server, seconds=0.2))


def test_connections_are_kept_and_used_again(client: HttpClient) -> None:
    with FakeServer(in_chunks(b"hello")) as server:
        for _ in range(4):
            client.send(ask(server)).read(100)

        assert server.counts.opened == 1


@pytest.mark.parametrize("header", ["Connection: close", "connection: Close"])
def test_a_connection_that_is_to_be_closed_is_not_kept(client: HttpClient, header: str) -> None:
    raw = f"HTTP/1.1 200 OK\r\n{header}\r\nContent-Length: 0\r\n\r\n".encode()
    with FakeServer(says(raw, then_close=False)) as server:
        for _ in range(2):
            client.send(ask(server)).read(100)

        assert server.counts.opened == 2


def test_bytes_after_the_answer_end_the_connections_use(client: HttpClient) -> None:
    raw = CHUNKED + b"0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    with FakeServer(says(raw, then_close=False)) as server:
        assert client.send(ask(server)).read(100) == b""
        assert client.send(ask(server)).read(100) == b""

        assert server.counts.opened == 2


def test_a_kept_connection_that_died_is_replaced(client: HttpClient) -> None:
    with FakeServer(in_chunks(b"hello")) as server:
        client.send(ask(server)).read(100)
        server.drop_connections()

        assert client.send(ask(server)).read(100) == b"hello"


def test_a_kept_connection_that_dies_while_asked_is_replaced_once(client: HttpClient) -> None:
    def handle(exchange: Exchange) -> None:
        if exchange.request.path == "/second" and exchange.request.connection == 1:
            exchange.cut()
        else:
            exchange.respond(200, b"hello")

    with FakeServer(handle) as server:
        client.send(ask(server)).read(100)

        assert client.send(ask(server, "/second")).read(100) == b"hello"
        assert server.paths == ["/", "/second", "/second"]


def test_a_fresh_connection_that_dies_is_not_tried_again(client: HttpClient) -> None:
    with FakeServer(lambda exchange: exchange.cut()) as server:
        with pytest.raises(ConnectionLost):
            client.send(ask(server))

        assert len(server.requests) == 1


def test_nothing_is_tried_again_once_an_answer_has_begun(client: HttpClient) -> None:
    def handle(exchange: Exchange) -> None:
        if exchange.request.path == "/cut":
            exchange.send(b"HTTP/1.1 200 OK\r\n")
            exchange.cut()
        else:
            exchange.respond(200, b"hello")

    with FakeServer(handle) as server:
        client.send(ask(server)).read(100)
        with pytest.raises(ConnectionLost):
            client.send(ask(server, "/cut"))

        assert server.paths == ["/", "/cut"]


def test_an_early_refusal_of_a_large_body_is_read(client: HttpClient) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def refuse() -> None:
        sock, _ = listener.accept()
        sock.recv(100)
        sock.sendall(
            b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):
            pass
        sock.close()

    with listener, ThreadPoolExecutor(1) as pool:
        future = pool.submit(refuse)
        url = parse_url(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        response = client.send(Request(url, "POST", body=b"x" * 3_000_000))
        assert response.status == 413
        response.close()
        future.result(10)


def test_nobody_there(client: HttpClient) -> None:
    with FakeServer(in_chunks()) as server:
        request = ask(server)
    with pytest.raises(ConnectFailed):
        client.send(request)


def test_a_unix_socket_that_is_missing(client: HttpClient, tmp_path: Path) -> None:
    request = Request(parse_url("http://engine/"), via=f"unix:{tmp_path}/none")
    with pytest.raises(ConnectFailed):
        client.send(request)


def test_a_relay_on_tcp_gets_the_engines_host_name(client: HttpClient) -> None:
    with FakeServer(in_chunks(b"hello")) as server:
        request = Request(parse_url("http://engine:8080/v1"), via=f"127.0.0.1:{server.port}")
        assert client.send(request).read(100) == b"hello"

    assert server.requests[0].headers["host"] == "engine:8080"


def test_a_header_cannot_be_split(client: HttpClient) -> None:
    with FakeServer(in_chunks()) as server:
        request = ask(server, headers=(("X-Key", "a\r\nX-Admin: 1"),))
        with pytest.raises(BadResponse):
            client.send(request)

        assert server.requests == []


def test_many_threads_share_one_pool(client: HttpClient) -> None:
    with FakeServer(in_chunks(b"hello")) as server, ThreadPoolExecutor(8) as pool:
        bodies = list(pool.map(lambda _: client.send(ask(server)).read(100), range(200)))

        assert bodies == [b"hello"] * 200
        assert server.counts.opened <= 8


def test_it_works_under_gevent() -> None:
    """200 streams at once in one thread, in a process that gevent has patched."""
    script = Path(__file__).with_name("gevent_streams.py")
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.strip() == "200 streams, 200 connections", done.stderr


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1",
         "-keyout", key, "-out", cert, "-subj", "/CN=engine",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


def test_tls_is_spoken_and_certificates_are_checked(certificate: tuple[Path, Path]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    trusting = HttpClient(connect, tls=ssl.create_default_context(cafile=str(certificate[0])))
    doubting = HttpClient(connect)

    with FakeServer(in_chunks(b"hello"), tls=context) as server:
        for _ in range(3):
            assert trusting.send(ask(server)).read(100) == b"hello"
        opened = server.counts.opened
        with pytest.raises(ConnectFailed):
            doubting.send(ask(server))
        trusting.close()

    assert opened == 1


def test_events_are_cut_down_to_their_payloads() -> None:
    lines = [
        b"data: 1", b"", b"data:2", b"data:  3", b": comment", b":", b"event: x", b"id: 7",
        b"retry: 1", b"data:", b"data: 4\r", b"nonsense", b'error: {"code":500}', b"data: [DONE]",
    ]  # fmt: skip

    found = list(payloads(lines))

    assert found == [b"1", b"2", b" 3", b"4", b'{"error":{"code":500}}', b"[DONE]"]
