"""What pages show of the domain's things: texts, tones, links, in the reader's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from flask import url_for

from app.core.domain.errors import Conflict, DomainError, TooLarge
from app.core.domain.runs import RunState
from app.web.pages import duration, number

if TYPE_CHECKING:
    from app.core.models import Credential, Run

ROLE_TEXTS = {"user": "User", "gpu_provider": "GPU provider", "admin": "Admin"}
RUN_FILTERS = {
    "": "All",
    "queued": "Queued",
    "running": "Running",
    "succeeded": "Succeeded",
    "failed": "Failed",
    "cancelled": "Stopped",
}
_DOORS = {
    "dashboard": "The playground",
    "openai": "OpenAI API",
    "research": "Research",
    "torbiz": "Torbiz API",
    "aitip": "AITIP API",
    "dualquery": "DualQuery API",
    "fabric": "Fabric API",
}
_ROLES = {"system": "System prompt", "user": "You", "assistant": "The model", "tool": "Tool"}


@dataclass(frozen=True, slots=True)
class Shown:
    """A state as a badge."""

    text: str
    tone: str = ""
    live: bool = False


def form_status(error: DomainError) -> int:
    """The status with which a form comes back that was refused."""
    if isinstance(error, TooLarge):
        return 413
    return 409 if isinstance(error, Conflict) else 400


@dataclass(frozen=True, slots=True)
class Question:
    """What a confirmation asks."""

    title: str
    text: str
    action: str
    label: str
    cancel: str
    tone: str = "danger"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that a new account can do."""

    text: str
    is_done: bool
    icon: str
    href: str
    action: str


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key and its secret, on the one page that shows it."""

    name: str
    secret: str
    curl: str


@dataclass(frozen=True, slots=True)
class Happening:
    """One line of a run's history; `after` in seconds since it was asked."""

    text: str
    tone: str
    at: datetime
    after: float | None = None


_RUN_STATES = {
    RunState.QUEUED: Shown("Queued"),
    RunState.RUNNING: Shown("Running", "busy", live=True),
    RunState.SUCCEEDED: Shown("Succeeded", "ok"),
    RunState.FAILED: Shown("Failed", "bad"),
    RunState.CANCELLED: Shown("Stopped", "warn"),
}


def key_row(key: Credential) -> dict[str, Any]:
    """A line of the list of keys."""
    return {
        "name": key.name,
        "mask": key.mask,
        "opens": f"Only {key.model_name}" if key.model_name else "Everything",
        "created_at": key.created_at,
        "last_used_at": key.last_used_at,
        "revoke_href": url_for("dashboard.confirm_revoke_key", uid=key.uid),
    }


def run_row(run: Run, node_names: Mapping[int, str]) -> dict[str, Any]:
    """A line of a list of runs."""
    counts = [count for count in (run.input_tokens, run.output_tokens) if count is not None]
    return {
        "prompt": _prompt_line(run.request),
        "href": url_for("dashboard.show_run", run_id=run.uid),
        "state": _RUN_STATES[RunState(run.state)],
        "model": run.model_name,
        "node": _node_name(run, node_names),
        "tokens": sum(counts) if counts else None,
        "first_token_seconds": _seconds(run.created_at, run.first_chunk_at),
        "created_at": run.created_at,
    }


def node_run_row(run: Run) -> dict[str, Any]:
    """A line of a node's runs: what was done, never what was asked, which is the asker's."""
    return {
        "state": _RUN_STATES[RunState(run.state)],
        "model": run.model_name,
        "output_tokens": run.output_tokens,
        "first_token_seconds": _seconds(run.created_at, run.first_chunk_at),
        "seconds": _seconds(run.started_at, run.finished_at),
        "created_at": run.created_at,
    }


def run_page(run: Run, node_names: Mapping[int, str]) -> dict[str, Any]:
    """Everything the run's own page shows."""
    extra = run.answer_extra or {}
    return {
        "id": run.uid,
        "short_id": run.uid[:8],
        "state": _RUN_STATES[RunState(run.state)],
        "is_live": not RunState(run.state).is_final,
        "model": run.model_name,
        "error": run.error,
        "messages": _messages(run.request),
        "text": run.answer_text or "",
        "reasoning": str(extra.get("reasoning") or ""),
        "facts": _facts(run, node_names),
        "timeline": _timeline(run, node_names),
    }


def _facts(run: Run, node_names: Mapping[int, str]) -> list[tuple[str, Any]]:
    generating = _seconds(run.first_chunk_at, run.finished_at)
    pace = None
    if run.output_tokens and run.output_tokens > 1 and generating:
        pace = f"{(run.output_tokens - 1) / generating:.1f}"
    sampling = run.request.get("sampling") or {}
    chosen = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in sampling.items())
    return [
        ("Model", run.model_name),
        ("Node", _node_name(run, node_names)),
        ("Asked through", _DOORS.get(run.door, run.door)),
        ("Attempts", run.attempt),
        ("Input tokens", number(run.input_tokens)),
        ("Output tokens", number(run.output_tokens)),
        ("First token after", duration(_seconds(run.created_at, run.first_chunk_at))),
        ("Tokens a second", pace),
        ("Duration", duration(_seconds(run.created_at, run.finished_at))),
        ("Sampling", chosen or "the engine's own"),
        ("Run id", run.uid),
    ]


def _timeline(run: Run, node_names: Mapping[int, str]) -> list[Happening]:
    lines = [Happening("Asked", "", run.created_at)]
    failed_before = len(run.tried_replicas)
    if run.started_at is not None:
        where = _node_name(run, node_names) or "a node"
        note = f", after {failed_before} that failed" if failed_before else ""
        lines.append(_line(run, f"Started on {where}{note}", "busy", run.started_at))
    if run.first_chunk_at is not None:
        lines.append(_line(run, "First token", "busy", run.first_chunk_at))
    if run.finished_at is not None:
        state = _RUN_STATES[RunState(run.state)]
        note = " at the most tokens" if run.finish_reason == "length" else ""
        lines.append(_line(run, f"{state.text}{note}", state.tone, run.finished_at))
    return lines


def _line(run: Run, text: str, tone: str, at: datetime) -> Happening:
    return Happening(text, tone, at, _seconds(run.created_at, at))


def _node_name(run: Run, node_names: Mapping[int, str]) -> str | None:
    return node_names.get(run.node_id, f"Node {run.node_id}") if run.node_id else None


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    if start is None or end is None:
        return None
    return max(0.0, (end - start).total_seconds())


def _prompt_line(request: Mapping[str, Any]) -> str:
    """The last question in one line; a dash for a run without words."""
    messages = request.get("messages") or []
    asked = [found for found in messages if found.get("role") == "user"] or messages
    text = (
        plain_content(asked[-1].get("content")) if asked else str(request.get("prompt") or "")
    )
    return " ".join(text.split())[:160] or "–"


def _messages(request: Mapping[str, Any]) -> list[dict[str, str]]:
    found = [
        {
            "title": _ROLES.get(str(message.get("role")), str(message.get("role"))),
            "text": plain_content(message.get("content")),
        }
        for message in request.get("messages") or []
    ]
    if request.get("prompt"):
        found.append({"title": "Prompt", "text": str(request["prompt"])})
    return found


def plain_content(content: Any) -> str:
    """A message's text; images are named, not shown."""
    if not isinstance(content, list):
        return str(content or "")
    parts = [
        str(part.get("text") or "") if part.get("type") == "text" else "[image]"
        for part in content
        if isinstance(part, dict)
    ]
    return "\n".join(parts)
