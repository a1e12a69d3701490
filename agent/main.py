"""The agent's life: settings in, threads up, wait for a signal, everything down in order."""

from __future__ import annotations

import contextlib
import json
import logging
import platform
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Any

import psutil

from agent.config import Settings, SettingsUnusable, engine_environment, load_settings
from agent.downloads import DownloadManager
from agent.fleet import Fleet
from agent.hub import HubClient, HubRefused, HubUnavailable, NotEnrolled
from agent.inventory import Machine
from agent.logs import AgentLogHandler, LogBuffer, Redactor, ship_logs, ship_once
from agent.relay import RelayClient
from agent.reporter import Reporter
from agent.state import Identity, StateFolder, StateUnusable

log = logging.getLogger(__name__)

# What systemd should not restart: somebody has to change something first.
EXIT_UNUSABLE = 78
EXIT_BROKEN = 1
GOODBYE_SECONDS = 2.5
ENGINES_SECONDS = 6.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the agent; the answer is the process's exit code."""
    try:
        settings = load_settings(arguments)
        _log_to_terminal(settings)
        if settings.once_check:
            return _print_inventory()
        return Agent(settings).run()
    except (SettingsUnusable, StateUnusable) as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_UNUSABLE


class Agent:
    """All parts of one agent, wired up."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._state = StateFolder(settings.state_dir)
        self._stopping = threading.Event()
        # A SimpleQueue may be fed from a signal handler; locks may not.
        self._ends: SimpleQueue[Exception | None] = SimpleQueue()

    def run(self) -> int:
        """Join, serve, and stop in order on SIGTERM or SIGINT."""
        self._state.open()
        try:
            return self._run(self._state.load(self._settings.hub))
        finally:
            self._state.close()

    def _run(self, identity: Identity) -> int:
        settings, redactor = self._settings, Redactor()
        redactor.hide(settings.token)
        redactor.hide(identity.node_token)
        logs = LogBuffer(redactor)
        logging.getLogger("agent").addHandler(AgentLogHandler(logs))
        machine = Machine(self._state.folder)

        def keep(changed: Identity) -> None:
            redactor.hide(changed.node_token)
            self._state.save(changed)

        hub = HubClient(
            identity,
            enrolment_token=settings.token,
            enrolment=lambda: _enrolment(settings, machine, fleet),
            on_identity=keep,
            ca_file=settings.ca_file,
        )
        downloads = DownloadManager(
            hub, self._state.models, on_complete=lambda: fleet.apply_again()
        )
        fleet = Fleet(
            settings,
            environment=engine_environment(),
            threads=_engine_threads(),
            logs=logs,
            find_file=downloads.file_for,
            on_change=lambda: reporter.nudge(),
        )

        def on_desired(desired: dict[str, Any]) -> None:
            downloads.want(desired.get("downloads") or [])
            fleet.apply_desired(desired.get("models") or [])

        reporter = Reporter(
            hub, machine, fleet, on_desired=on_desired, numbered_after=int(time.time() * 1000)
        )
        relay = self._relay(hub, fleet)
        with self._signals():
            self._start_threads(hub, fleet, reporter, relay, logs)
            end = self._ends.get()
        return self._stop(
            end, hub=hub, fleet=fleet, relay=relay, downloads=downloads, logs=logs
        )

    def _relay(self, hub: HubClient, fleet: Fleet) -> RelayClient | None:
        settings = self._settings
        if settings.is_direct or not (settings.engine or settings.attachments):
            return None
        return RelayClient(
            hub, find=fleet.find, ca_file=settings.ca_file, on_fatal=self._ends.put
        )

    def _start_threads(
        self,
        hub: HubClient,
        fleet: Fleet,
        reporter: Reporter,
        relay: RelayClient | None,
        logs: LogBuffer,
    ) -> None:
        log.info("%s joins %s", self._settings.name, self._settings.hub)
        fleet.start()
        if relay is not None:
            relay.start()
        threading.Thread(
            target=self._report, args=(reporter,), name="reporter", daemon=True
        ).start()
        threading.Thread(
            target=ship_logs,
            args=(logs, hub, self._stopping.wait, self._stopping.is_set),
            name="logs",
            daemon=True,
        ).start()

    def _report(self, reporter: Reporter) -> None:
        try:
            reporter.run(self._stopping)
        except Exception as error:
            if not isinstance(error, NotEnrolled):
                log.exception("The agent is broken.")
            self._ends.put(error)

    def _stop(
        self,
        end: Exception | None,
        *,
        hub: HubClient,
        fleet: Fleet,
        relay: RelayClient | None,
        downloads: DownloadManager,
        logs: LogBuffer,
    ) -> int:
        """Everything down, within 10 seconds: the hub first, so that it sends nothing more."""
        self._stopping.set()
        log.info("Stopping.")
        if end is None:
            farewell = threading.Thread(target=_say_goodbye, args=(hub, logs), daemon=True)
            farewell.start()
            farewell.join(GOODBYE_SECONDS)
        if relay is not None:
            relay.stop(0.5)
        downloads.stop(0.5)
        fleet.stop(ENGINES_SECONDS)
        if end is None:
            return 0
        sys.stderr.write(f"{end}\n")
        return EXIT_UNUSABLE if isinstance(end, NotEnrolled) else EXIT_BROKEN

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT end the agent in order; the old handlers come back after."""

        def end(number: int, frame: FrameType | None) -> None:
            self._ends.put(None)

        before = {
            number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            yield
        finally:
            # A second Ctrl-C shall not cut the orderly stop short.
            for number in before:
                signal.signal(number, signal.SIG_IGN)


def _say_goodbye(hub: HubClient, logs: LogBuffer) -> None:
    try:
        if hub.identity.node_token is not None:
            ship_once(logs, hub)
            hub.goodbye()
    except (HubUnavailable, HubRefused, NotEnrolled) as error:
        log.info("The hub didn't hear the goodbye: %s", error)


def _enrolment(settings: Settings, machine: Machine, fleet: Fleet) -> dict[str, Any]:
    return {
        "name": settings.name,
        "os_type": platform.system().lower(),
        "inventory": machine.inventory(fleet.attached_kinds),
    }


def _engine_threads() -> int:
    """CPU threads for the built-in engine: one for each real core."""
    return psutil.cpu_count(logical=False) or psutil.cpu_count() or 1


def _print_inventory() -> int:
    inventory = Machine(Path.home()).inventory()
    sys.stdout.write(json.dumps(inventory, indent=2) + "\n")
    return 0


def _log_to_terminal(settings: Settings) -> None:
    logging.basicConfig(
        level=logging.DEBUG if settings.verbose else logging.INFO,
        format="%(asctime)s %(levelname)-7s %(message)s",
        stream=sys.stderr,
    )
    for name in ("urllib3", "websocket"):
        logging.getLogger(name).setLevel(logging.WARNING)
