"""The engine contract, with the hub's relay and an agent between client and engine.

The cases are those of `tests/engines`. Left out are only those about what the relay does
itself: engine keys (the agent puts them in), addresses, and connections to the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from app.core.engines.registry import EngineRegistry
from tests.engines.conftest import LOOPBACK
from tests.engines.test_contract import (  # noqa: F401 - collected here again
    client,
    request_of_each_kind,
    test_a_broken_stream_is_an_error_and_the_connection_is_given_up,
    test_a_failure_inside_the_stream_is_an_error,
    test_a_prompt_too_long_is_told_as_such,
    test_a_request_that_is_wrong_is_not_tried_elsewhere,
    test_a_text_cut_at_the_limit_says_so,
    test_an_overloaded_engine_may_be_tried_elsewhere,
    test_any_character_survives,
    test_check_tells_the_models,
    test_closing_the_answer_frees_the_slot,
    test_data_lines_are_read_with_and_without_a_space,
    test_keep_alive_comments_are_not_text,
    test_no_engine_is_unreachable,
    test_text_before_a_failure_is_kept,
    test_the_text_arrives_in_order_and_the_last_chunk_alone_tells_the_end,
    test_unset_options_are_not_sent_at_all,
)
from tests.fakes.http_server import FakeServer
from tests.relay.conftest import Connect, RelayedNode

pytestmark = pytest.mark.slow  # on one database: none has a part in what is relayed


@pytest.fixture(params=["tgi", "vllm"])
def kind(request: pytest.FixtureRequest) -> str:
    """The two ways that engines answer; the others differ in nothing that the relay sees."""
    return str(request.param)


@pytest.fixture
def registry() -> Iterator[EngineRegistry]:
    registry = EngineRegistry(LOOPBACK)
    yield registry
    registry.close()


@pytest.fixture
def serve(node: RelayedNode, connect: Connect) -> Iterator[Callable[[Any], FakeServer]]:
    """Starts a fake engine, and an agent that relays to it."""
    with ExitStack() as stack:

        def start(engine: Any) -> FakeServer:
            server = stack.enter_context(FakeServer(engine.handle))
            connect(node, server.url)
            server.route = {
                "base_url": "http://engine.relay",
                "relay": node.wait_attached(),
                "relay_headers": node.headers,
            }
            return server

        yield start
