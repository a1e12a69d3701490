"""The hub's agent API, as calls. Knows how to be refused, throttled and cut off."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import requests

from agent import VERSION
from agent.state import Identity

log = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0
READ_SECONDS = 30.0
LONGEST_RETRY_AFTER_SECONDS = 900.0


class HubUnavailable(Exception):
    """The hub can't be reached or asks to wait; try again after `retry_after_seconds`."""

    def __init__(self, message: str, *, retry_after_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class HubRefused(Exception):
    """The hub understood and said no; the same call will not work later either."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class NotEnrolled(Exception):
    """This machine isn't (or no longer is) a node of that hub; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Beat:
    """The hub's answer to a heartbeat."""

    desired_revision: int
    draining: bool


class HubClient:
    """One agent's line to its hub. Safe to use from several threads."""

    def __init__(
        self,
        identity: Identity,
        *,
        enrolment_token: str | None,
        enrolment: Callable[[], dict[str, Any]],
        on_identity: Callable[[Identity], None],
        ca_file: str | None = None,
    ) -> None:
        self.identity = identity
        self._enrolment_token = enrolment_token
        self._enrolment = enrolment
        self._on_identity = on_identity
        self._ca_file = ca_file
        self._enrol_lock = threading.Lock()
        self._local = threading.local()

    def enrol(self) -> Identity:
        """Join with the enrolment token and keep the node token that comes back.

        Raises NotEnrolled when there is no enrolment token or the hub refuses it.
        """
        if not self._enrolment_token:
            raise NotEnrolled(
                f"This machine isn't enrolled with {self.identity.hub}. Make an enrolment token "
                "there and start the agent with --token."
            )
        body = {
            **self._enrolment(),
            "client_id": self.identity.client_id,
            "agent_version": VERSION,
        }
        try:
            answer = self._send("POST", "/agent/v1/enrol", body, self._enrolment_token)
        except HubRefused as error:
            raise NotEnrolled(f"The hub refused the enrolment: {error}") from error
        if not isinstance(answer, dict) or not answer.get("node_token"):
            raise HubUnavailable("The hub's answer to the enrolment has no node token.")
        self.identity = replace(
            self.identity,
            client_id=str(answer.get("client_id") or self.identity.client_id),
            node_id=str(answer.get("node_id")),
            node_token=str(answer["node_token"]),
            name=answer.get("name"),
            heartbeat_seconds=_seconds(answer.get("heartbeat_seconds"), default=30.0),
        )
        self._on_identity(self.identity)
        return self.identity

    def recover(self, refused_token: str | None) -> None:
        """Enrol again after `refused_token` got a 401, unless another thread has already.

        Raises NotEnrolled when that isn't possible.
        """
        with self._enrol_lock:
            if self.identity.node_token != refused_token:
                return
            if not self._enrolment_token:
                raise NotEnrolled(
                    f"{self.identity.hub} doesn't know this node's token any more: the node was "
                    "removed, or enrolled elsewhere with the same state folder. Make a new "
                    "enrolment token there and start the agent with --token."
                )
            log.warning("The hub doesn't know this node's token any more; enrolling again.")
            self.enrol()

    def put_inventory(self, inventory: dict[str, Any]) -> None:
        """Tell what this machine has."""
        self._call("PUT", "/agent/v1/inventory", {"inventory": inventory})

    def heartbeat(self, beat: dict[str, Any]) -> Beat:
        """Send one heartbeat."""
        answer = self._call("POST", "/agent/v1/heartbeat", beat)
        if not isinstance(answer, dict):
            raise HubUnavailable("The hub's answer to a heartbeat isn't an object.")
        return Beat(
            desired_revision=int(answer.get("desired_revision") or 0),
            draining=bool(answer.get("draining")),
        )

    def put_replicas(self, replicas: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Tell all replicas there are; the answer says which the hub accepts, and why not."""
        answer = self._call("PUT", "/agent/v1/replicas", {"replicas": replicas})
        verdicts = answer.get("replicas") if isinstance(answer, dict) else None
        return [entry for entry in verdicts or [] if isinstance(entry, dict)]

    def desired(self) -> dict[str, Any]:
        """What the hub wants this node to have and run."""
        answer = self._call("GET", "/agent/v1/desired")
        if not isinstance(answer, dict):
            raise HubUnavailable("The hub's desired state isn't an object.")
        return answer

    def post_downloads(self, downloads: list[dict[str, Any]]) -> None:
        """Tell how far the downloads are."""
        self._call("POST", "/agent/v1/downloads", {"downloads": downloads})

    def post_logs(
        self, source: str, model_name: str | None, lines: list[dict[str, Any]]
    ) -> None:
        """Ship log lines."""
        body = {"source": source, "model_name": model_name, "lines": lines}
        self._call("POST", "/agent/v1/logs", body)

    def goodbye(self) -> None:
        """Say that this node stops now. One short try: nobody waits for a stopping agent."""
        self._send("POST", "/agent/v1/goodbye", {}, self.identity.node_token, read_seconds=3.0)

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        token = self.identity.node_token
        try:
            return self._send(method, path, body, token)
        except HubRefused as error:
            if error.status != 401:
                raise
        self.recover(token)
        return self._send(method, path, body, self.identity.node_token)

    def _send(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        token: str | None,
        *,
        read_seconds: float = READ_SECONDS,
    ) -> Any:
        try:
            response = self._session().request(
                method,
                self.identity.hub + path,
                json=body,
                headers={"Authorization": f"Bearer {token or ''}"},
                timeout=(min(CONNECT_SECONDS, read_seconds), read_seconds),
                # A redirect would carry the node token to wherever it points.
                allow_redirects=False,
            )
        except requests.RequestException as error:
            raise HubUnavailable(f"Can't reach the hub: {_plain(error)}") from error
        return _read(response)

    def _session(self) -> requests.Session:
        """A session for this thread; requests' own aren't made for sharing."""
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = requests.Session()
            session.headers["User-Agent"] = f"weft-agent/{VERSION}"
            if self._ca_file:
                session.verify = self._ca_file
            if _is_loopback(self.identity.hub):
                session.trust_env = False
            self._local.session = session
        return session


def _read(response: requests.Response) -> Any:
    if response.status_code == 429 or response.status_code >= 500:
        raise HubUnavailable(
            f"The hub answered {response.status_code}: {_detail(response)}",
            retry_after_seconds=_retry_after(response),
        )
    if response.status_code >= 300:
        raise HubRefused(_detail(response), status=response.status_code)
    if not response.content:
        return None
    try:
        return response.json()
    except ValueError as error:
        raise HubUnavailable("The hub's answer isn't JSON. Is this the hub's URL?") from error


def _detail(response: requests.Response) -> str:
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if isinstance(problem, dict) and (problem.get("detail") or problem.get("title")):
        return str(problem.get("detail") or problem.get("title"))
    return f"status {response.status_code}"


def _retry_after(response: requests.Response) -> float:
    """Seconds that the hub asks to wait; its date form is rare and not worth a clock's doubt."""
    wanted = _seconds(response.headers.get("Retry-After"), default=0.0)
    return min(wanted, LONGEST_RETRY_AFTER_SECONDS)


def _seconds(value: object, *, default: float) -> float:
    try:
        seconds = float(str(value))
    except ValueError:
        return default
    return seconds if 0 < seconds < 86_400 else default


def _plain(error: requests.RequestException) -> str:
    """The cause without the library's nested wrapping, on one line."""
    cause = getattr(error.args[0], "reason", None) if error.args else None
    return " ".join(str(cause or error).split())[:300]


def _is_loopback(url: str) -> bool:
    return urlsplit(url).hostname in {"127.0.0.1", "localhost", "::1"}
