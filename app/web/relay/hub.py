"""The relay of one web process: which agents are connected here, and who may ask them."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import gevent
from flask import Flask, current_app
from gevent import socket as gevent_socket
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.config import Settings
from app.core.clock import utc_now
from app.core.database import Sessions, make_sessions, unit_of_work
from app.core.domain.errors import Unavailable
from app.core.services import relay
from app.core.services.node_tokens import NodeTokens
from app.extensions import db
from app.web.relay import websocket
from app.web.relay.link import PING_SECONDS, AgentLink, keep_alive
from app.web.relay.listener import Bound, bind, serve_workers

log = logging.getLogger(__name__)

WATCH_SECONDS: Final = 0.5
DATABASE_LOOK_SECONDS: Final = 5.0
PROBE_SECONDS: Final = 2.0
MAX_KEYS: Final = 10_000


class RelayHub:
    """One per web process. It begins to listen with `start`, after the fork."""

    def __init__(self, settings: Settings, sessions: Sessions, tokens: NodeTokens) -> None:
        self._settings = settings
        self._sessions = sessions
        self._tokens = tokens
        self._links: dict[str, AgentLink] = {}
        self._keys: dict[str, str] = {}
        self._bound: Bound | None = None
        self._server: Any = None
        self._watcher: Any = None
        self._is_stopping: Callable[[], bool] = lambda: False
        self._has_detached = False
        self._looked_at = 0.0

    @property
    def address(self) -> str:
        """Where workers reach this process. Raises Unavailable when it can't listen."""
        self.start()
        assert self._bound is not None  # noqa: S101 - for the type checker
        return self._bound.address

    def stop_when(self, is_stopping: Callable[[], bool]) -> None:
        """Let go of the agents, the idle ones first, as soon as this is true."""
        self._is_stopping = is_stopping

    def start(self) -> None:
        """Listen for workers, and forget what dead processes left. Raises Unavailable."""
        if self._bound is not None:
            return
        try:
            self._bound = bind(
                self._settings.data_dir, self._settings.relay_host, pid=os.getpid()
            )
        except OSError as error:
            log.error("The relay can't listen: %s", error)
            raise Unavailable("The relay can't listen here.", retry_after_seconds=30) from None
        self._server = serve_workers(self._bound, self._links.get, self._key_of)
        self._watcher = gevent.spawn(self._watch)
        gevent.spawn(self._forget_the_dead)

    def serve(
        self, sock: Any, greeting: bytes, *, node_id: int, client_id: str, secret: str
    ) -> None:
        """Hold an agent's connection until it ends. Raises Unavailable while stopping."""
        if self._is_stopping():
            raise Unavailable("This process is stopping.", retry_after_seconds=1)
        self.start()
        keep_alive(sock)
        try:
            sock.sendall(greeting)
        except OSError:
            return  # the agent has left already
        link = AgentLink(sock, node_id=node_id, client_id=client_id, secret=secret)
        older = self._links.get(client_id)
        self._links[client_id] = link
        if older is not None:
            older.close(websocket.POLICY, "A newer connection of this node has come.")
        try:
            self._write(lambda session: self._attach(session, node_id))
            link.serve()
        except SQLAlchemyError as error:
            log.warning("node %s can't be attached: %s", client_id, error)
        finally:
            link.close(websocket.GOING_AWAY, "The relay ends.")
            self._let_go(link)

    def close(self) -> None:
        """End everything."""
        for link in list(self._links.values()):
            link.close(websocket.GOING_AWAY, "The hub stops.")
        if self._watcher is not None:
            self._watcher.kill(block=False)
        if self._server is not None:
            self._server.close()
        if self._bound is not None and self._bound.path is not None:
            self._bound.path.unlink(missing_ok=True)

    def _let_go(self, link: AgentLink) -> None:
        if self._links.get(link.client_id) is not link:
            return
        del self._links[link.client_id]
        address = self.address
        try:
            self._write(lambda session: relay.detach_relay(session, link.node_id, address))
        except SQLAlchemyError as error:
            log.warning("node %s can't be detached: %s", link.client_id, error)

    def _attach(self, session: Session, node_id: int) -> None:
        relay.attach_relay(session, node_id, self.address, now=utc_now())

    def _write(self, action: Callable[[Session], object]) -> None:
        with unit_of_work(self._sessions) as session:
            action(session)

    def _key_of(self, client_id: str) -> str:
        key = self._keys.get(client_id)
        if key is None:
            if len(self._keys) > MAX_KEYS:
                self._keys.clear()
            key = relay.relay_key(self._settings.secret_key, client_id)
            self._keys[client_id] = key
        return key

    def _watch(self) -> None:
        while True:
            gevent.sleep(WATCH_SECONDS)
            try:
                self._look()
            except Exception:
                # The connections' health depends on this greenlet: it must never end.
                log.exception("The relay's watch failed; it goes on.")

    def _look(self) -> None:
        """Close what is silent, revoked or held elsewhere; ask the others for a sign of life."""
        now = time.monotonic()
        for link in list(self._links.values()):
            if link.is_dead(now):
                link.close(websocket.GOING_AWAY, "Nothing was heard for too long.")
            elif now - link.pinged_at > PING_SECONDS:
                link.ping(now)
        if self._is_stopping():
            self._wind_up()
        elif self._links:
            with contextlib.suppress(SQLAlchemyError):
                self._close_revoked()
                if now - self._looked_at > DATABASE_LOOK_SECONDS:
                    self._looked_at = now
                    self._compare_with_database()

    def _close_revoked(self) -> None:
        """A token that was taken back ends its connection within a second."""
        self._tokens.forget()
        for link in list(self._links.values()):
            known = self._tokens.find(link.secret)
            if known is None or known.node_id != link.node_id:
                link.close(websocket.POLICY, "This node token is not known (any more).")

    def _compare_with_database(self) -> None:
        """Who has connected elsewhere since is let go; who was forgotten is written again."""
        by_id = {link.node_id: link for link in self._links.values()}
        with self._sessions() as session:
            found = relay.relays_of(session, list(by_id))
        for node_id, link in by_id.items():
            address = found.get(node_id)
            if link.is_closed or address == self.address:
                continue
            if address is not None:
                link.close(websocket.POLICY, "A newer connection of this node has come.")
            else:
                self._write(lambda session, node_id=node_id: self._attach(session, node_id))  # type: ignore[misc]

    def _wind_up(self) -> None:
        """No new requests; the connections go as soon as their last answer has ended."""
        if not self._has_detached:
            self._has_detached = True
            address = self.address
            with contextlib.suppress(SQLAlchemyError):
                self._write(lambda session: relay.detach_all(session, address))
            if self._bound is not None and self._bound.path is not None:
                self._bound.path.unlink(missing_ok=True)
        for link in list(self._links.values()):
            if link.is_idle:
                link.close(websocket.GOING_AWAY, "The hub stops.")

    def _forget_the_dead(self) -> None:
        """Take addresses of processes that are gone from the nodes they held."""
        try:
            with self._sessions() as session:
                addresses = relay.list_relays(session)
            for address in addresses:
                if address != self.address and not self._answers(address):
                    self._write(lambda session, gone=address: relay.detach_all(session, gone))  # type: ignore[misc]
        except SQLAlchemyError as error:
            log.warning("Old relay addresses stay for now: %s", error)
        for path in self._settings.data_dir.glob("relay-*.sock"):
            if path != getattr(self._bound, "path", None) and not _connects(f"unix:{path}"):
                path.unlink(missing_ok=True)

    def _answers(self, address: str) -> bool:
        """Whether a process listens there. Unix sockets of other folders are others' matter."""
        path = Path(address.removeprefix("unix:"))
        is_foreign = address.startswith("unix:") and path.parent != self._settings.data_dir
        return is_foreign or _connects(address)


def _connects(address: str) -> bool:
    """Whether somebody accepts connections; who is slow to answer may be alive."""
    if address.startswith("unix:"):
        family, target = gevent_socket.AF_UNIX, address.removeprefix("unix:")
    else:
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        family = gevent_socket.AF_INET6 if ":" in host else gevent_socket.AF_INET
        target = (host, int(port))  # type: ignore[assignment]
    with gevent_socket.socket(family, gevent_socket.SOCK_STREAM) as sock:
        sock.settimeout(PROBE_SECONDS)
        try:
            sock.connect(target)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
        return True


def install_relay(app: Flask) -> None:
    """Give the app its relay; nothing listens before `start`."""
    with app.app_context():
        sessions = make_sessions(db.engine)
    app.extensions["weft_relay"] = RelayHub(
        app.extensions["weft_settings"], sessions, app.extensions["weft_heartbeats"].tokens
    )


def relay_hub() -> RelayHub:
    """This process's relay."""
    found: RelayHub = current_app.extensions["weft_relay"]
    return found
