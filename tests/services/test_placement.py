"""Which node gets a run."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.core.services.placement import Candidate, choose


def candidate(
    replica_id: int, *, concurrency: int = 4, model: str = "m", is_doubted: bool = False
) -> Candidate:
    return Candidate(
        replica_id, replica_id, model, model, "vllm", "http://x", None, None, concurrency, "c",
        is_doubted=is_doubted,
    )  # fmt: skip


def test_the_least_loaded_by_places_is_taken() -> None:
    small, large = candidate(1, concurrency=2), candidate(2, concurrency=100)
    choice = choose("m", [small, large], {1: 1, 2: 30})
    assert choice.candidate == large
    assert "30 of 100" in choice.why


def test_a_full_replica_is_passed_over() -> None:
    assert choose("m", [candidate(1), candidate(2)], {1: 4, 2: 3}).candidate == candidate(2)


def test_when_all_are_full_waiting_can_help() -> None:
    choice = choose("m", [candidate(1)], {1: 4})
    assert (choice.candidate, choice.is_full) == (None, True)
    assert "4 places" in choice.why


def test_without_a_node_waiting_can_not_help() -> None:
    choice = choose("m", [candidate(1, model="other")], {})
    assert (choice.candidate, choice.is_full) == (None, False)


def test_a_replica_that_failed_this_run_is_not_asked_again() -> None:
    assert choose("m", [candidate(1), candidate(2)], {2: 3}, tried=[1]).candidate == candidate(
        2
    )
    assert choose("m", [candidate(1)], {}, tried=[1]).candidate is None


def test_a_doubted_node_comes_after_all_others_that_have_a_place() -> None:
    doubted, trusted = candidate(1, is_doubted=True), candidate(2)
    busy = choose("m", [doubted, trusted], {2: 3})
    assert busy.candidate == trusted
    full = choose("m", [doubted, trusted], {2: 4})
    assert full.candidate == doubted
    assert "marked warning" in full.why


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=6),
    st.lists(st.integers(0, 60), min_size=6, max_size=6),
)
def test_nobody_is_given_more_than_it_has_places(sizes: list[int], loads: list[int]) -> None:
    found = [candidate(n, concurrency=size) for n, size in enumerate(sizes, 1)]
    outstanding = dict(enumerate(loads, 1))
    chosen = choose("m", found, outstanding).candidate
    if chosen is None:
        assert all(outstanding[c.replica_id] >= c.concurrency for c in found)
    else:
        assert outstanding[chosen.replica_id] < chosen.concurrency
