"""What the suite itself relies on."""

from __future__ import annotations

import os

import pytest


@pytest.mark.xdist_group("together")
def test_groups_are_known_to_those_who_spread_the_tests(request: pytest.FixtureRequest) -> None:
    """Where pytest and pytest-xdist do not fit together, groups are silently torn apart."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        assert request.node.nodeid.endswith("@together")
