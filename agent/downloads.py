"""The models that the hub wants on this node: fetched one by one, reported, kept."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from agent.backoff import Backoff
from agent.fetching import Fetch, FetchFailed, Stopped, WrongContent
from agent.hub import HubClient, HubRefused, HubUnavailable, NotEnrolled

log = logging.getLogger(__name__)

REPORT_EVERY_SECONDS = 3.0
# The hub forgets what it has not heard of for five minutes; a failure should stay to be seen.
TELL_AGAIN_SECONDS = 120.0
MOST_TOLD = 64
RETRIES = 10
# A hash that is wrong twice is wrong at its source; ten times would be ten times the traffic.
WRONG_CONTENT_RETRIES = 1
_KEPT_SUFFIXES = frozenset(
    {".gguf", ".safetensors", ".bin", ".onnx", ".zip", ".tar", ".gz", ".engine"}
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """One download of the hub's desired state."""

    id: str
    model_name: str
    version: str
    url: str
    sha256: str | None
    expected_bytes: int | None
    hub_id: Any = None  # the id as the hub spells it

    @property
    def file_name(self) -> str:
        """Our own name for it; nothing of the URL's path but a known suffix."""
        suffix = Path(unquote(urlsplit(self.url).path)).suffix.lower()
        parts = (self.model_name, self.version, self.id)
        slug = "-".join(
            re.sub(r"[^A-Za-z0-9._]+", "_", part).strip("._")[:60] for part in parts
        )
        return slug + (suffix if suffix in _KEPT_SUFFIXES else "")

    @property
    def url_name(self) -> str:
        """The last part of the URL's path, by which the hub may name the file."""
        return Path(unquote(urlsplit(self.url).path)).name


@dataclass(slots=True)
class Job:
    """A wanted download and how far it is."""

    wanted: Wanted
    path: Path
    stopping: threading.Event = field(default_factory=threading.Event)
    fetch: Fetch | None = None
    status: str = "Pending"
    error: str | None = None
    speed_bps: int = 0
    measured_bytes: int = 0
    measured_at: float = 0.0

    @property
    def is_running(self) -> bool:
        """Whether there will be more to tell of it."""
        return self.status in {"Pending", "Downloading"}


class DownloadManager:
    """Keeps the wanted files coming. `on_complete` is called when one is ready to use."""

    def __init__(
        self,
        hub: HubClient,
        folder: Path,
        *,
        on_complete: Callable[[], None],
        report_every_seconds: float = REPORT_EVERY_SECONDS,
        first_retry_seconds: float = 1.0,
    ) -> None:
        self._hub = hub
        self._folder = folder
        self._on_complete = on_complete
        self._report_every = report_every_seconds
        self._first_retry = first_retry_seconds
        self._jobs: dict[str, Job] = {}
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._news = threading.Event()
        self._threads: list[threading.Thread] = []
        self._told: list[dict[str, Any]] | None = None
        self._tell_again_at = 0.0

    def want(self, entries: list[dict[str, Any]]) -> None:
        """Take over the desired downloads: new ones are queued, others are given up."""
        wanted = {one.id: one for one in map(_wanted, entries) if one is not None}
        with self._changed:
            for job_id in [known for known in self._jobs if known not in wanted]:
                self._give_up(self._jobs.pop(job_id))
            for one in wanted.values():
                known = self._jobs.get(one.id)
                if known is not None and known.wanted == one:
                    continue
                if known is not None:
                    self._give_up(known)
                self._jobs[one.id] = self._job(one)
            if self._jobs and not self._threads:
                self._start_threads()
            self._changed.notify_all()
        self._news.set()

    def file_for(self, model_name: str, file: str | None) -> Path | None:
        """Where a model's completed file lies; `file` is its name, where there are several."""
        with self._changed:
            ready = [
                job
                for job in self._jobs.values()
                if job.status == "Completed" and job.wanted.model_name == model_name
            ]
        if file:
            name = Path(file).name
            ready = [
                job for job in ready if name in {job.wanted.url_name, job.path.name}
            ] or ready
        return ready[-1].path if ready else None

    def stop(self, seconds: float = 2.0) -> None:
        """Stop fetching; what has come so far stays for the next start."""
        self._stopping.set()
        with self._changed:
            for job in self._jobs.values():
                job.stopping.set()
            self._changed.notify_all()
        self._news.set()
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.1, deadline - time.monotonic()))

    def report(self) -> bool:
        """Tell the hub of all downloads, if that is news or long ago. True if all is told."""
        with self._changed:
            jobs = list(self._jobs.values())
        states = [self._state(job) for job in jobs][:MOST_TOLD]
        if states == self._told and time.monotonic() < self._tell_again_at:
            return True
        try:
            self._hub.post_downloads(states)
        except (HubUnavailable, NotEnrolled):
            return False
        except HubRefused as error:
            log.warning("The hub refused the download report: %s", error)
        self._told, self._tell_again_at = states, time.monotonic() + TELL_AGAIN_SECONDS
        return True

    def _start_threads(self) -> None:
        for work in (self._work, self._keep_reporting):
            thread = threading.Thread(
                target=work, name=f"downloads{work.__name__}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def _job(self, wanted: Wanted) -> Job:
        """A job; complete at once if an earlier run has left the checked file."""
        job = Job(wanted, self._folder / wanted.file_name)
        try:
            note = json.loads(_note_path(job.path).read_text())
            is_same = note == _note(wanted, job.path.stat().st_size)
        except (OSError, ValueError):
            is_same = False
        if is_same:
            job.status = "Completed"
        return job

    def _give_up(self, job: Job) -> None:
        """Stop a job that nobody wants any more, and drop its half file."""
        job.stopping.set()
        fetch = job.fetch
        if fetch is not None and job.status != "Downloading":
            fetch.discard()

    def _work(self) -> None:
        while not self._stopping.is_set():
            with self._changed:
                job = next(
                    (one for one in self._jobs.values() if one.status == "Pending"), None
                )
                if job is None:
                    self._changed.wait(60.0)
                    continue
                job.status = "Downloading"
            self._run(job)

    def _run(self, job: Job) -> None:
        """Fetch one file, with retries, until it is complete, hopeless or unwanted."""
        wanted = job.wanted
        job.fetch = Fetch(
            wanted.url,
            job.path,
            sha256=wanted.sha256,
            expected_bytes=wanted.expected_bytes,
            stopping=job.stopping,
        )
        try:
            self._try_often(job, job.fetch)
        except FetchFailed as error:
            job.status, job.error = "Failed", str(error)
            log.warning("The download of %s failed: %s", wanted.model_name, error)
        except Stopped:
            if not self._stopping.is_set():
                job.fetch.discard()
        else:
            _note_path(job.path).write_text(json.dumps(_note(wanted, job.path.stat().st_size)))
            job.status, job.error = "Completed", None
            log.info("%s is here: %s", wanted.model_name, job.path)
            self._on_complete()
        self._news.set()

    def _try_often(self, job: Job, fetch: Fetch) -> None:
        """Raises FetchFailed when it is hopeless, Stopped when it is unwanted."""
        backoff = Backoff(first=self._first_retry, cap=60.0)
        failures = wrong = 0
        while True:
            before = fetch.done_bytes
            try:
                fetch.run()
            except FetchFailed as error:
                if fetch.done_bytes > before:
                    # It got further: a bad line, not a bad file.
                    failures = 0
                    backoff.reset()
                failures += 1
                wrong += isinstance(error, WrongContent)
                if error.is_final or failures > RETRIES or wrong > WRONG_CONTENT_RETRIES:
                    raise
                job.error = str(error)
                log.info("%s: %s Trying again.", job.wanted.model_name, error)
                if job.stopping.wait(backoff.next()):
                    raise Stopped from error
            else:
                return

    def _keep_reporting(self) -> None:
        while not self._stopping.wait(self._report_every):
            # Cleared, and the jobs looked at, before they are told: an end that comes in
            # between is news, and told in the next round.
            self._news.clear()
            with self._changed:
                running = [job for job in self._jobs.values() if job.is_running]
                has_failed = any(job.status == "Failed" for job in self._jobs.values())
            is_told = self.report()
            for job in running:
                if job.fetch is not None and job.status == "Downloading":
                    job.fetch.save_progress()
            if is_told and not running:
                self._news.wait(TELL_AGAIN_SECONDS if has_failed else None)

    def _state(self, job: Job) -> dict[str, Any]:
        total = job.fetch.total_bytes if job.fetch else job.wanted.expected_bytes
        done = job.fetch.done_bytes if job.fetch else 0
        if job.status == "Completed":
            done = job.path.stat().st_size if job.path.exists() else done
            total = done
        self._measure(job, done)
        percentage = 100.0 if job.status == "Completed" else _percentage(done, total)
        return {
            "id": job.wanted.hub_id,
            "model_name": job.wanted.model_name,
            "downloaded_bytes": done,
            "total_bytes": total,
            "percentage": percentage,
            "speed_bps": job.speed_bps if job.status == "Downloading" else 0,
            "status": job.status,
            "error": job.error,
        }

    def _measure(self, job: Job, done: int) -> None:
        """Bytes per second since the report before."""
        now = time.monotonic()
        elapsed = now - job.measured_at
        if job.measured_at and elapsed > 0:
            job.speed_bps = max(0, int((done - job.measured_bytes) / elapsed))
        job.measured_at, job.measured_bytes = now, done


def _percentage(done: int, total: int | None) -> float:
    return round(min(100.0, 100 * done / total), 1) if total else 0.0


def _note_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _note(wanted: Wanted, size: int) -> dict[str, Any]:
    """What marks a file as checked."""
    return {"url": wanted.url, "sha256": wanted.sha256, "size": size}


def _wanted(entry: dict[str, Any]) -> Wanted | None:
    """One entry of the desired state; None where it lacks what is needed."""
    if not entry.get("id") or not entry.get("download_url"):
        log.warning("The hub wants a download without an id or a URL.")
        return None
    size = entry.get("expected_size")
    checksum = entry.get("checksum")
    return Wanted(
        id=str(entry["id"]),
        hub_id=entry["id"],
        model_name=str(entry.get("model_name") or ""),
        version=str(entry.get("version") or ""),
        url=str(entry["download_url"]),
        sha256=str(checksum).lower() if checksum else None,
        expected_bytes=int(size) if isinstance(size, int) and size > 0 else None,
    )
