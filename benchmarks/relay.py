"""What the relay adds to a token: time and CPU, against the same engine asked directly.

    python -m benchmarks.relay --streams 64 --rate 20 --seconds 10

Four processes: an engine that stamps each token with the time it was sent, a hub (gunicorn), an
agent's relay, and the reader, which uses the worker's own HTTP client. One clock for all.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import json  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from contextlib import ExitStack, contextmanager  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
import psutil  # noqa: E402
from gevent import socket  # noqa: E402
from gevent.server import StreamServer  # noqa: E402

from app.config import child_environment  # noqa: E402
from app.core.clock import utc_now  # noqa: E402
from app.core.database import make_engine, make_sessions, unit_of_work  # noqa: E402
from app.core.embedded_redis import EmbeddedRedis  # noqa: E402
from app.core.engines.http import HttpClient, Request  # noqa: E402
from app.core.ids import hash_secret, new_client_id  # noqa: E402
from app.core.models import Account, Base, Node  # noqa: E402
from app.core.services import accounts  # noqa: E402
from app.core.services.relay import relay_key  # noqa: E402
from app.core.urls import parse_url  # noqa: E402

SECRET_KEY = "benchmark-" + "0" * 32
TOKEN = "benchmark-node-token"  # noqa: S105 - of a node that lives for seconds
PADDING = "x" * 160  # a token's event of an OpenAI engine has about 200 bytes


def main() -> None:
    """Run the role that the arguments name; without one, the whole benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--rate", type=float, default=20.0, help="tokens a second, each stream")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--connections", type=int, default=200, help="idle ones, for memory")
    parser.add_argument("--role", choices=("all", "engine", "agent"), default="all")
    parser.add_argument("--argument", default="{}")
    options = parser.parse_args()
    if options.role == "engine":
        run_engine(options.rate, options.seconds)
    elif options.role == "agent":
        run_agent(**json.loads(options.argument))
    else:
        run_all(options)


def run_engine(rate: float, seconds: float) -> None:
    """Stream stamped tokens to whoever asks."""

    def serve(sock: Any, _address: Any) -> None:
        while read_request(sock):
            sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            began = time.monotonic()
            for number in range(int(rate * seconds)):
                gevent.sleep(max(0.0, began + number / rate - time.monotonic()))
                line = b"%d %s\n" % (time.monotonic_ns(), PADDING.encode())
                sock.sendall(b"%x\r\n%b\r\n" % (len(line), line))
            sock.sendall(b"0\r\n\r\n")

    server = StreamServer(("127.0.0.1", 0), serve, backlog=1024)
    server.start()
    print(server.server_port, flush=True)
    server.serve_forever()


def read_request(sock: Any) -> bool:
    """One request with the body `{}`; False when there is no more."""
    data = b""
    while not data.endswith(b"\r\n\r\n{}"):
        piece = sock.recv(65536)
        if not piece:
            return False
        data += piece
    return True


def run_agent(hub: str, client_id: str, engine: str) -> None:
    """Hold the relay as an agent does (it is not patched: threads, as on a node)."""
    program = (
        "import json,sys,time\n"
        "from agent.hub import HubClient\nfrom agent.launchers.base import EngineAddress\n"
        "from agent.relay import RelayClient\nfrom agent.state import Identity\n"
        "o=json.loads(sys.argv[1])\n"
        "client=HubClient(Identity(hub=o['hub'],client_id=o['client_id'],node_token=o['token']),"
        "enrolment_token=None,enrolment=dict,on_identity=lambda i: None)\n"
        "RelayClient(client,find=lambda n: EngineAddress(o['engine'])).start()\n"
        "time.sleep(3600)\n"
    )
    options = {"hub": hub, "client_id": client_id, "engine": engine, "token": TOKEN}
    subprocess.run([sys.executable, "-c", program, json.dumps(options)], check=False)


def run_all(options: argparse.Namespace) -> None:
    """Direct, then relayed; print both."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="weft-bench-")))
        engine = stack.enter_context(
            started("engine", "--rate", str(options.rate), "--seconds", str(options.seconds))
        )
        assert engine.stdout is not None
        engine_url = f"http://127.0.0.1:{int(engine.stdout.readline())}"
        redis = stack.enter_context(EmbeddedRedis(folder / "redis", append_only=False))
        hub = stack.enter_context(Hub(folder, redis.url))
        agent = stack.enter_context(
            started("agent", "--argument", json.dumps(
                {"hub": hub.url, "client_id": hub.client_id, "engine": engine_url}))
        )  # fmt: skip
        relay = hub.wait_for_relay()
        headers = (
            ("X-Weft-Node", hub.client_id), ("X-Weft-Model", "m"),
            ("X-Weft-Key", relay_key(SECRET_KEY, hub.client_id)),
        )  # fmt: skip
        watched = {"web": hub.web_process(), "agent": psutil.Process(agent.pid).children()[0]}
        direct = Request(parse_url(f"{engine_url}/v1/x"), "POST", body=b"{}")
        relayed = Request(parse_url("http://engine.relay/v1/x"), "POST", headers, b"{}", relay)
        measure("warm-up", relayed, options.streams, watched, shown=False)
        measure("direct", direct, options.streams, watched)
        measure("relayed", relayed, options.streams, watched)
        weigh(hub, options.connections)


def measure(
    name: str, request: Request, streams: int, watched: dict[str, Any], *, shown: bool = True
) -> None:
    """Read `streams` answers at once and print what a token took."""
    client = HttpClient(lambda host, port, timeout: _connect(host, port, timeout))
    delays: list[float] = []

    def read() -> None:
        for line in client.send(request).lines():
            delays.append((time.monotonic_ns() - int(line.split()[0])) / 1e6)  # noqa: PERF401

    before = {who: sum(process.cpu_times()[:2]) for who, process in watched.items()}
    own = time.process_time()
    gevent.joinall([gevent.spawn(read) for _ in range(streams)], raise_error=True)
    own = time.process_time() - own
    client.close()
    if not shown:
        return
    delays.sort()
    cpu = {w: sum(p.cpu_times()[:2]) - before[w] for w, p in watched.items()} | {"reader": own}
    each = ", ".join(f"{w} {s / len(delays) * 1e6:.0f} µs" for w, s in cpu.items())
    print(
        f"{name}: {len(delays)} tokens; delay median {statistics.median(delays):.2f} ms, "
        f"p95 {delays[int(len(delays) * 0.95)]:.2f} ms; CPU a token: {each}"
    )


def weigh(hub: Hub, count: int) -> None:
    """Print what an idle connection costs the web process in memory."""
    tokens = hub.add_nodes(count)
    process = hub.web_process()
    before = process.memory_info().rss
    host, _, port = hub.url.removeprefix("http://").partition(":")
    socks = []
    for token in tokens:
        sock = socket.create_connection((host, int(port)))
        sock.sendall(
            f"GET /agent/v1/relay HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: MDAwMDAwMDAwMDAwMDAwMA==\r\n\r\n".encode()
        )
        if not sock.recv(1000).startswith(b"HTTP/1.1 101"):
            raise SystemExit("the hub refused a connection")
        socks.append(sock)
    time.sleep(1.0)
    grown = process.memory_info().rss - before
    print(f"{count} idle connections: {grown / count / 1024:.0f} kB each")
    for sock in socks:
        sock.close()


def _connect(host: str, port: int, timeout: float) -> Any:
    sock = socket.create_connection((host, port), timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


@contextmanager
def started(role: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """This program in another role."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.relay", "--role", role, *arguments],
        stdout=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        process.communicate()


class Hub:
    """A web process on a database of its own, with one node."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.client_id = new_client_id()
        database_url = f"sqlite:///{folder / 'weft.db'}"
        self._environment = child_environment(
            {
                "DATABASE_URL": database_url, "REDIS_URL": redis_url, "SECRET_KEY": SECRET_KEY,
                "WEFT_DATA_DIR": str(folder), "WEFT_PORT": str(port), "WEFT_WEB_WORKERS": "1",
            }
        )  # fmt: skip
        engine = make_engine(database_url)
        Base.metadata.create_all(engine)
        self._sessions = make_sessions(engine)

    def __enter__(self) -> Hub:
        now = utc_now()
        with unit_of_work(self._sessions) as session:
            owner: Account = accounts.register_account(
                session, accounts.NewAccount(email="a@x.io", password="p" * 12, username="a"),
                now=now, hash_profile="cheapest",
            )  # fmt: skip
            self._owner_id = owner.id
        self._add_node(self.client_id, TOKEN)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-c", "app/local/gunicorn_conf.py", "wsgi:app"],
            env=self._environment,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def add_nodes(self, count: int) -> list[str]:
        """More nodes; their tokens."""
        tokens = [f"{TOKEN}-{number}" for number in range(count)]
        for token in tokens:
            self._add_node(new_client_id(), token)
        return tokens

    def _add_node(self, client_id: str, token: str) -> None:
        now = utc_now()
        with unit_of_work(self._sessions) as session:
            session.add(
                Node(
                    client_id=client_id, account_id=self._owner_id, name="n",
                    token_hash=hash_secret(token), created_at=now, updated_at=now,
                )
            )  # fmt: skip

    def web_process(self) -> psutil.Process:
        """The process that serves."""
        return psutil.Process(self._process.pid).children()[0]

    def wait_for_relay(self) -> str:
        """Wait until the agent is connected; where workers reach it."""
        for _ in range(600):
            with self._sessions() as session:
                found = session.query(Node.relay).filter(Node.relay.is_not(None)).scalar()
            if found:
                return str(found)
            time.sleep(0.05)
        raise SystemExit("the agent did not connect")


if __name__ == "__main__":
    main()
