"""A small hub on a real socket: the agent API, what it was told, and faults on demand."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.fakes.relay_hub import FakeRelayHub, upgrade

ENROLMENT_TOKEN = "enrol-me-once"


@dataclass(frozen=True)
class Call:
    """One request that the hub got."""

    method: str
    path: str
    token: str
    body: Any
    at: float


@dataclass(frozen=True)
class Fault:
    """An answer to give instead of the right one."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)


class FakeHub:
    """Speaks the agent API. Use as a context manager; `url` is where it listens."""

    def __init__(self, *, heartbeat_seconds: float = 30.0, port: int = 0) -> None:
        self.heartbeat_seconds = heartbeat_seconds
        self.calls: list[Call] = []
        self.faults: dict[str, deque[Fault]] = {}
        self.desired: dict[str, Any] = {"downloads": [], "models": []}
        self.revision = 1
        self.draining = False
        self.node_token: str | None = None
        self.accept_enrolment = True
        self.relay: FakeRelayHub | None = None
        self._tokens = 0
        self._changed = threading.Condition()
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.hub = self
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}
        )

    def __enter__(self) -> FakeHub:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def fail(self, path: str, *faults: Fault) -> None:
        """Answer the next calls of a path with these."""
        self.faults.setdefault(path, deque()).extend(faults)

    def forget_node(self) -> None:
        """As when the node was removed: its token is good for nothing."""
        self.node_token = None

    def want(self, **desired: Any) -> None:
        """Change the desired state."""
        self.desired = {**self.desired, **desired}
        self.revision += 1

    def of(self, path: str) -> list[Call]:
        """The calls of one path so far."""
        with self._changed:
            return [call for call in self.calls if call.path == path]

    def wait_for(self, path: str, count: int = 1, *, seconds: float = 60.0) -> list[Call]:
        """Wait until a path was called `count` times."""
        with self._changed:
            done = self._changed.wait_for(
                lambda: sum(call.path == path for call in self.calls) >= count, seconds
            )
        calls = self.of(path)
        assert done, f"{path}: {len(calls)} of {count} calls; got {self._summary()}"
        return calls

    def wait_until(self, path: str, is_right: Any, *, seconds: float = 60.0) -> Any:
        """Wait for a call of a path whose body satisfies `is_right`; its body is returned."""

        def found() -> list[Any]:
            return [c.body for c in self.calls if c.path == path and is_right(c.body)]

        with self._changed:
            done = self._changed.wait_for(found, seconds)
            bodies = found()
        assert done, f"{path}: none is right in {[c.body for c in self.of(path)][-5:]}"
        return bodies[0]

    def _summary(self) -> list[str]:
        return [f"{call.method} {call.path}" for call in self.calls[-20:]]

    def answer(self, call: Call) -> tuple[int, Any, dict[str, str]]:
        """The right answer, or the fault that was ordered."""
        with self._changed:
            self.calls.append(call)
            faults = self.faults.get(call.path)
            fault = faults.popleft() if faults else None
            self._changed.notify_all()
        if fault is not None:
            return fault.status, _problem(fault.status), fault.headers
        if call.path == "/agent/v1/enrol":
            return self._enrol(call)
        if call.token != self.node_token:
            return 401, _problem(401), {}
        return self._node_call(call)

    def _enrol(self, call: Call) -> tuple[int, Any, dict[str, str]]:
        if not self.accept_enrolment or call.token != ENROLMENT_TOKEN:
            return 401, _problem(401), {}
        self._tokens += 1
        self.node_token = f"node-token-{self._tokens}"
        answer = {
            "node_id": "7",
            "client_id": call.body["client_id"],
            "node_token": self.node_token,
            "heartbeat_seconds": self.heartbeat_seconds,
            "name": call.body["name"],
        }
        return 201, answer, {}

    def _node_call(self, call: Call) -> tuple[int, Any, dict[str, str]]:
        if call.path == "/agent/v1/heartbeat":
            beat = {"ok": True, "desired_revision": self.revision, "draining": self.draining}
            return 200, beat, {}
        if call.path == "/agent/v1/replicas":
            verdicts = [
                {"model_name": replica["model_name"], "accepted": True, "reason": None}
                for replica in call.body["replicas"]
            ]
            return 200, {"replicas": verdicts}, {}
        if call.path == "/agent/v1/desired":
            state = {"revision": self.revision, "name": "node", "draining": self.draining}
            return 200, {**state, **self.desired}, {}
        known = {
            "/agent/v1/inventory",
            "/agent/v1/downloads",
            "/agent/v1/logs",
            "/agent/v1/goodbye",
        }
        return (204, None, {}) if call.path in known else (404, _problem(404), {})


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: FakeHub


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An idle kept-alive connection ends, so that the server can close.
    timeout = 5

    def _serve(self) -> None:
        assert isinstance(self.server, _Server)
        relay = self.server.hub.relay
        if relay is not None and self.path == "/agent/v1/relay":
            upgrade(self, relay)
            return
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        body = json.loads(raw) if raw else None
        call = Call(self.command, self.path, token, body, time.monotonic())
        status, answer, headers = self.server.hub.answer(call)
        data = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = _serve  # noqa: N815 - http.server's names

    def log_message(self, *_args: Any) -> None:
        """Say nothing: the calls are recorded."""


def _problem(status: int) -> dict[str, Any]:
    return {"type": "about:blank", "title": "Refused", "status": status, "detail": "as ordered"}
