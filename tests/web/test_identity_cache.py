"""How long a caller is remembered, and when it is time to look again."""

from __future__ import annotations

import pytest

from app.core.domain.accounts import Identity, Role
from app.web import auth
from app.web.auth import IDENTITY_SECONDS, IdentityCache

CALLER = Identity(1, "0" * 24, "name", "name@example.org", Role.USER)


class Clock:
    """A clock that stands still until it is moved."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(auth, "time", clock)
    return clock


@pytest.fixture
def cache(clock: Clock) -> IdentityCache:
    cache = IdentityCache()
    cache.remember("bearer", "s", CALLER)
    return cache


def test_nobody_is_remembered_for_a_second(cache: IdentityCache, clock: Clock) -> None:
    assert cache.find("bearer", "s") is not None
    clock.now += IDENTITY_SECONDS
    assert cache.find("bearer", "s") is None
    assert IDENTITY_SECONDS < 1


def test_it_is_time_to_look_again_in_the_second_half(
    cache: IdentityCache, clock: Clock
) -> None:
    assert not cache.is_due("bearer", "s")
    clock.now += IDENTITY_SECONDS * 0.6
    assert cache.is_due("bearer", "s")
    assert not cache.is_due("bearer", "other")
    cache.remember("bearer", "s", CALLER)
    assert not cache.is_due("bearer", "s")


def test_what_is_forgotten_is_looked_up_anew_and_not_renewed(
    cache: IdentityCache, clock: Clock
) -> None:
    clock.now += IDENTITY_SECONDS * 0.6
    cache.clear()
    assert not cache.is_due("bearer", "s")
    assert cache.find("bearer", "s") is None
