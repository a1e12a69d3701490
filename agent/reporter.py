"""What the hub is told, and when: enrolment, inventory, replicas, heartbeats, desired state."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from agent.backoff import Backoff
from agent.fleet import Fleet
from agent.hub import HubClient, HubRefused, HubUnavailable
from agent.inventory import Machine

log = logging.getLogger(__name__)

INVENTORY_CHECK_SECONDS = 300.0
REPLICAS_EVERY_SECONDS = 300.0
FIRST_BEAT_WITHIN_SECONDS = 1.0
MOST_BYTES = 2**45  # that the hub takes in one beat


class Reporter:
    """Brings the hub up to date, step by step. One thread calls `run`; any may `nudge`."""

    def __init__(
        self,
        hub: HubClient,
        machine: Machine,
        fleet: Fleet,
        *,
        on_desired: Callable[[dict[str, Any]], None],
        clock: Callable[[], float] = time.monotonic,
        numbered_after: int = 0,
    ) -> None:
        """`numbered_after`: the hub takes a beat with the number of the one before for the
        same one, so numbers must grow over a restart too."""
        self._hub = hub
        self._machine = machine
        self._fleet = fleet
        self._on_desired = on_desired
        self._clock = clock
        self._wake = threading.Event()
        self._sequence = numbered_after
        self._has_beaten = False
        self._unanswered: dict[str, Any] | None = None
        self._told_token: str | None = None
        self._inventory: dict[str, Any] | None = None
        self._inventory_due = 0.0
        self._replicas: list[dict[str, Any]] | None = None
        self._replicas_due = 0.0
        self._next_beat: float | None = None
        self._revision: int | None = None
        self._wanted_revision: int | None = None
        self._is_draining = False

    @property
    def is_draining(self) -> bool:
        """Whether the hub gives this node nothing new."""
        return self._is_draining

    def nudge(self) -> None:
        """Something changed that the hub should know soon."""
        self._wake.set()

    def run(self, stopping: threading.Event) -> None:
        """Report until the agent stops. Raises NotEnrolled when the hub is done with us.

        A hub that can't be reached is no reason to end: it may come back after hours.
        """
        backoff = Backoff(first=1.0, cap=60.0)
        while not stopping.is_set():
            try:
                wait = self.step()
            except HubUnavailable as error:
                delay = backoff.next(at_least=error.retry_after_seconds)
                log.warning("%s Trying again in %.0f s.", error, delay)
                stopping.wait(delay)
                continue
            backoff.reset()
            self._wake.wait(wait)
            self._wake.clear()

    def step(self) -> float:
        """Do all that is due; the answer is how many seconds until there is more."""
        self._join()
        self._tell_inventory()
        self._tell_replicas()
        self._beat()
        self._fetch_desired()
        self._tell_replicas()
        now = self._clock()
        due = min(self._next_beat or now, self._inventory_due, self._replicas_due)
        return max(0.0, due - now)

    def _join(self) -> None:
        """Enrol if need be; with a new token the hub has to be told everything again."""
        if self._hub.identity.node_token is None:
            identity = self._hub.enrol()
            log.info("Enrolled with %s as node %s.", identity.hub, identity.node_id)
        if self._told_token != self._hub.identity.node_token:
            self._told_token = self._hub.identity.node_token
            self._inventory = self._replicas = None
            self._inventory_due = self._replicas_due = self._clock()
            self._revision = self._wanted_revision = None

    def _tell_inventory(self) -> None:
        now = self._clock()
        if now < self._inventory_due:
            return
        inventory = self._machine.inventory(self._fleet.attached_kinds)
        if inventory != self._inventory:
            self._attempt("inventory", lambda: self._hub.put_inventory(inventory))
            self._inventory = inventory
        self._inventory_due = now + INVENTORY_CHECK_SECONDS

    def _tell_replicas(self) -> None:
        now = self._clock()
        replicas = self._fleet.replicas()
        if replicas == self._replicas and now < self._replicas_due:
            return
        verdicts = self._attempt("replicas", lambda: self._hub.put_replicas(replicas))
        for verdict in verdicts or []:
            if not verdict.get("accepted"):
                log.warning(
                    "The hub doesn't take %s: %s",
                    verdict.get("model_name"),
                    verdict.get("reason"),
                )
        self._replicas = replicas
        self._replicas_due = now + REPLICAS_EVERY_SECONDS

    def _beat(self) -> None:
        now = self._clock()
        if self._next_beat is None:
            self._next_beat = now + random.uniform(
                0.0, min(FIRST_BEAT_WITHIN_SECONDS, self._period)
            )
        if now < self._next_beat:
            return
        body = self._next_body()
        beat = self._attempt("heartbeat", lambda: self._hub.heartbeat(body))
        self._unanswered = None
        self._next_beat = self._after(self._next_beat, is_first=not self._has_beaten)
        self._has_beaten = True
        if beat is not None:
            if beat.draining != self._is_draining:
                log.info("This node is %s.", "draining" if beat.draining else "in service")
            self._is_draining = beat.draining
            self._wanted_revision = beat.desired_revision

    def _next_body(self) -> dict[str, Any]:
        """A new beat; or the one that was not answered, measured anew under its number.

        Whether the hub had it already or not, its bytes are counted once.
        """
        body = {**self._machine.beat(), "replicas": self._fleet.beats()}
        if self._unanswered is None:
            self._sequence += 1
        else:
            for name in ("network_rx", "network_tx"):
                body[name] = min(body[name] + self._unanswered[name], MOST_BYTES)
        self._unanswered = {"sequence": self._sequence, **body}
        return self._unanswered

    def _after(self, beat: float, *, is_first: bool) -> float:
        """When the next beat is due. The schedule is fixed, so it never drifts; the phase is
        chance, so that the agents of a network don't beat together after a hub's restart."""
        step = self._period * (random.uniform(0.5, 1.0) if is_first else 1.0)
        due = beat + step
        late = self._clock() - due
        return due if late < 0 else due + step * (late // step + 1)

    def _fetch_desired(self) -> None:
        if self._wanted_revision is None or self._wanted_revision == self._revision:
            return
        desired = self._attempt("desired state", self._hub.desired)
        if desired is not None:
            self._on_desired(desired)
            if "draining" in desired:
                self._is_draining = bool(desired["draining"])
        self._revision = self._wanted_revision

    def _attempt(self, what: str, call: Callable[[], Any]) -> Any:
        """The call's answer; None where the hub refuses it, which is logged and goes on."""
        try:
            return call()
        except HubRefused as error:
            log.error("The hub refused the %s: %s", what, error)
            return None

    @property
    def _period(self) -> float:
        return self._hub.identity.heartbeat_seconds
