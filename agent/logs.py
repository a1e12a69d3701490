"""Log lines of the engines and of the agent itself, on their way to the hub."""

from __future__ import annotations

import logging
import re
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from agent.hub import HubClient, HubRefused, HubUnavailable, NotEnrolled

log = logging.getLogger(__name__)

LINES_PER_BATCH = 200
BYTES_PER_LINE = 4096
LINES_KEPT = 2000
SHIP_EVERY_SECONDS = 5.0

_HIDDEN = "[hidden]"
_SECRET_SHAPES = (
    re.compile(r"\bhf_[A-Za-z0-9]{16,}"),
    re.compile(r"\bsk-[A-Za-z0-9_-]{16,}"),
    re.compile(r"(?i)(?<=bearer )[A-Za-z0-9._~+/=-]{8,}"),
    re.compile(
        r"(?i)(?<![a-z])(?:api[_-]?key|hf_token|auth_token|password)\"?"
        r"\s*[=:]\s*(?:Some\()?\"?[^\s\",)]{4,}"
    ),
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Redactor:
    """Takes secrets out of text: those it was told of, and whatever looks like one."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def hide(self, secret: str | None) -> None:
        """Never let this value through from now on."""
        if secret and len(secret) >= 6:
            self._known.add(secret)

    def clean(self, text: str) -> str:
        """The text without secrets, terminal colours and control characters."""
        text = _COLOUR.sub("", text)
        for secret in tuple(self._known):
            text = text.replace(secret, _HIDDEN)
        for shape in _SECRET_SHAPES:
            text = shape.sub(_HIDDEN, text)
        return "".join(letter for letter in text if letter >= " " or letter == "\t")


@dataclass(frozen=True, slots=True)
class Line:
    """One log line and where it comes from."""

    source: str
    model_name: str | None
    at: datetime
    level: str
    message: str


class LogBuffer:
    """A ring of the latest lines. When the hub is away, the oldest go first, and it says so."""

    def __init__(self, redactor: Redactor) -> None:
        self.redactor = redactor
        self._lines: deque[Line] = deque()
        self._dropped = 0
        self._lock = threading.Lock()

    def add(self, source: str, model_name: str | None, level: str, message: str) -> None:
        """Keep one line, cleaned and cut to what the hub takes."""
        cleaned = self.redactor.clean(message)
        cut = cleaned.encode()[:BYTES_PER_LINE].decode("utf-8", "ignore")
        if source == "engine":
            log.debug("%s: %s", model_name, cut)
        line = Line(source, model_name, datetime.now(UTC), level, cut)
        with self._lock:
            if len(self._lines) >= LINES_KEPT:
                self._lines.popleft()
                self._dropped += 1
            self._lines.append(line)

    def take(self) -> list[Line]:
        """The next batch, oldest first: lines of one source and model."""
        with self._lock:
            batch: list[Line] = []
            if self._dropped and self._lines:
                first = self._lines[0]
                note = f"{self._dropped} older lines were dropped."
                batch.append(Line(first.source, first.model_name, first.at, "warning", note))
                self._dropped = 0
            while self._lines and len(batch) < LINES_PER_BATCH:
                line = self._lines[0]
                if batch and _origin(line) != _origin(batch[0]):
                    break
                batch.append(self._lines.popleft())
            return batch

    def give_back(self, batch: list[Line]) -> None:
        """Put a batch that couldn't be sent in front again."""
        with self._lock:
            room = max(0, LINES_KEPT - len(self._lines))
            kept = batch[len(batch) - room :] if room < len(batch) else batch
            self._dropped += len(batch) - len(kept)
            self._lines.extendleft(reversed(kept))


class AgentLogHandler(logging.Handler):
    """Puts the agent's own warnings and errors among the lines for the hub."""

    def __init__(self, buffer: LogBuffer) -> None:
        super().__init__(level=logging.WARNING)
        self._buffer = buffer

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one record."""
        self._buffer.add("agent", None, record.levelname.lower(), record.getMessage())


def ship_logs(
    buffer: LogBuffer,
    hub: HubClient,
    wait: Callable[[float], bool],
    stopping: Callable[[], bool],
) -> None:
    """Send the lines to the hub every few seconds until `wait` says that the agent stops."""
    while not stopping():
        if wait(SHIP_EVERY_SECONDS):
            break
        ship_once(buffer, hub)


def ship_once(buffer: LogBuffer, hub: HubClient) -> None:
    """Send what there is, batch by batch; what the hub can't take now stays."""
    while batch := buffer.take():
        first = batch[0]
        try:
            hub.post_logs(first.source, first.model_name, [_as_json(line) for line in batch])
        except HubUnavailable:
            buffer.give_back(batch)
            return
        except HubRefused as error:
            log.info("The hub refused %d log lines: %s", len(batch), error)
        except NotEnrolled:
            return


def level_of(message: str) -> str:
    """The level that an engine's line states in its own way; `info` where it states none."""
    found = re.search(r"\b(ERROR|WARN(?:ING)?|CRITICAL|FATAL)\b|^[\d.]+ ([EW]) ", message)
    if not found:
        return "info"
    word = found.group(1) or found.group(2)
    return "warning" if word.startswith("W") else "error"


def _origin(line: Line) -> tuple[str, str | None]:
    return line.source, line.model_name


def _as_json(line: Line) -> dict[str, Any]:
    return {"at": line.at.isoformat(), "level": line.level, "message": line.message}
