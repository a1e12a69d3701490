"""What readers and writers of a run can rely on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from app.core.embedded_redis import EmbeddedRedis
from app.core.stream import (
    END,
    LOST,
    TEXT,
    TOOLS,
    Event,
    StreamHub,
    StreamWriter,
    partial_text,
    read_events,
    send_control,
    stream_key,
)
from tests.stream.conftest import (
    END_VALUE,
    assert_no_holes,
    read_to_end,
    text_of,
    wait_until,
)

MakeHub = Callable[..., StreamHub]
MakeWriter = Callable[..., StreamWriter]


def write_run(writer: StreamWriter, hub: StreamHub, run_id: str, count: int) -> str:
    """Write `count` numbered pieces and the end; gives the text."""
    pieces = [f"{number} " for number in range(count)]
    for piece in pieces:
        writer.write(run_id, TEXT, piece, reply_to=hub.channel)
    writer.end(run_id, END_VALUE, reply_to=hub.channel)
    return "".join(pieces)


def test_a_reader_gets_every_piece_in_order_and_the_end(
    hub: StreamHub, writer: StreamWriter
) -> None:
    with hub.subscribe("r", replay=False) as reader:
        expected = write_run(writer, hub, "r", 500)
        events = read_to_end(reader)
    assert_no_holes(events)
    assert text_of(events) == expected
    assert (events[-1].kind, events[-1].last, events[-1].value) == (END, 501, END_VALUE)
    assert reader.get(timeout=0) is None
    assert hub.reader_count == 0


def test_many_runs_at_once_keep_to_themselves(hub: StreamHub, writer: StreamWriter) -> None:
    runs = [f"run{number}" for number in range(50)]
    readers = {run_id: hub.subscribe(run_id, replay=False) for run_id in runs}
    for number in range(100):
        for run_id in runs:
            writer.write(run_id, TEXT, f"{run_id}:{number} ", reply_to=hub.channel)
    for run_id in runs:
        writer.end(run_id, END_VALUE, reply_to=hub.channel)
    for run_id, reader in readers.items():
        events = read_to_end(reader)
        assert_no_holes(events)
        assert text_of(events) == "".join(f"{run_id}:{number} " for number in range(100))
        reader.close()
    assert writer.live_runs == 0


def test_pieces_that_queue_up_are_stored_as_one_entry_per_kind(
    own_redis: EmbeddedRedis, make_writer: MakeWriter
) -> None:
    own_redis.stop()
    writer = make_writer(own_redis.url)
    for piece in ("a", "b", "c"):
        writer.write("r", TEXT, piece)
    writer.write("r", TOOLS, [{"index": 0}])
    writer.write("r", TOOLS, [{"index": 1}])
    writer.write("r", TEXT, "d")
    writer.end("r", END_VALUE)
    own_redis.start()
    assert writer.flush(10)
    with Redis.from_url(own_redis.url) as client:
        assert read_events(client, "r") == [
            Event(1, 3, TEXT, "abc"),
            Event(4, 5, TOOLS, [{"index": 0}, {"index": 1}]),
            Event(6, 6, TEXT, "d"),
            Event(7, 7, END, END_VALUE),
        ]
        assert 0 < client.ttl(stream_key("r")) <= 600


def test_text_of_any_language_arrives_unchanged(hub: StreamHub, writer: StreamWriter) -> None:
    text = 'Ünïcödé 🙂 "quoted" \\ \r\n\x00 漢字'
    with hub.subscribe("r", replay=False) as reader:
        writer.write("r", TEXT, text, reply_to=hub.channel)
        writer.end("r", END_VALUE, reply_to=hub.channel)
        assert text_of(read_to_end(reader)) == text
    assert text_of(read_events(hub.redis, "r")) == text


@pytest.mark.parametrize("after", [0, 1, 7, 19, 20])
def test_a_finished_run_replays_from_any_number(
    hub: StreamHub, writer: StreamWriter, after: int
) -> None:
    for number in range(1, 21):
        writer.write("r", TEXT, f"{number} ")
        assert writer.flush(10)
    writer.end("r", END_VALUE)
    assert writer.flush(10)
    with hub.subscribe("r", after=after) as reader:
        events = read_to_end(reader)
    assert_no_holes(events, after)
    assert text_of(events) == "".join(f"{number} " for number in range(after + 1, 21))


def test_a_reader_that_comes_later_in_another_process_gets_all_and_stays_live(
    hub: StreamHub, writer: StreamWriter, make_hub: MakeHub, redis_url: str
) -> None:
    writer.write("r", TEXT, "before ", reply_to=hub.channel)
    assert writer.flush(10)
    other = make_hub(redis_url)
    other.on_control(lambda message: None)
    hub_heard: list[dict[str, Any]] = []
    hub.on_control(hub_heard.append)
    with other.subscribe("r") as reader:
        first = reader.get(timeout=60)
        assert first == Event(1, 1, TEXT, "before ")
        wait_until(
            lambda: {"type": "read", "run_id": "r", "channel": other.channel} in hub_heard
        )
        # What the worker's control listener does with that message:
        writer.hear_control(hub_heard[0])
        writer.write("r", TEXT, "after", reply_to=hub.channel)
        writer.end("r", END_VALUE, reply_to=hub.channel)
        assert text_of(read_to_end(reader)) == "after"


def test_a_missed_publish_is_read_from_the_stream(hub: StreamHub, writer: StreamWriter) -> None:
    with hub.subscribe("r", replay=False) as reader:
        writer.write("r", TEXT, "1 ", reply_to=hub.channel)
        assert reader.get(timeout=60) == Event(1, 1, TEXT, "1 ")
        # Numbers 2 and 3 are stored and never published.
        hub.redis.xadd(stream_key("r"), {"f": 2, "k": TEXT, "v": "2 3 "}, id="0-3")
        writer.resume("r", after=3)
        writer.write("r", TEXT, "4 ", reply_to=hub.channel)
        writer.end("r", END_VALUE, reply_to=hub.channel)
        events = read_to_end(reader)
    assert_no_holes(events, 1)
    assert text_of(events) == "2 3 4 "


def test_what_redis_lost_is_said_once_and_reading_goes_on(
    hub: StreamHub, writer: StreamWriter
) -> None:
    with hub.subscribe("r", replay=False) as reader:
        writer.write("r", TEXT, "1 ", reply_to=hub.channel)
        assert reader.get(timeout=60) == Event(1, 1, TEXT, "1 ")
        writer.resume("r", after=5)
        writer.write("r", TEXT, "6 ", reply_to=hub.channel)
        writer.end("r", END_VALUE, reply_to=hub.channel)
        events = read_to_end(reader)
    assert events[0] == Event(2, 5, LOST, None)
    assert [event.kind for event in events].count(LOST) == 1
    assert text_of(events) == "6 "
    assert events[-1].is_end


def test_repeated_publishes_are_dropped(hub: StreamHub) -> None:
    with hub.subscribe("r", replay=False) as reader:
        twice = '["r",1,1,"text","a"],["r",1,1,"text","a"]'
        hub.redis.publish(hub.channel, f'[{twice},["r",2,2,"end",{{}}]]')
        assert [event.last for event in read_to_end(reader)] == [1, 2]


def test_killed_pubsub_connections_lose_nothing(
    hub: StreamHub, writer: StreamWriter, redis_client: Redis
) -> None:
    with hub.subscribe("r", replay=False) as reader:
        pieces = []
        events: list[Event] = []
        for round_number in range(5):
            for number in range(200):
                pieces.append(f"{round_number}.{number} ")
                writer.write("r", TEXT, pieces[-1], reply_to=hub.channel)
                if number == 100:
                    redis_client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            while (event := reader.get(timeout=0.05)) is not None:
                events.append(event)
        writer.end("r", END_VALUE, reply_to=hub.channel)
        events += read_to_end(reader)
    assert_no_holes(events)
    assert text_of(events) == "".join(pieces)


def test_what_was_missed_while_unsubscribed_is_read_on_subscribing_again(
    hub: StreamHub, redis_client: Redis
) -> None:
    with hub.subscribe("r", replay=False) as reader:
        # Stored and never published, as if it had been while the hub was away.
        redis_client.xadd(stream_key("r"), {"f": 1, "k": END, "v": "{}"}, id="0-1")
        redis_client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        assert [event.kind for event in read_to_end(reader, seconds=10)] == [END]


def test_the_last_seconds_are_written_again_to_a_redis_that_lost_them(
    own_redis: EmbeddedRedis, make_writer: MakeWriter
) -> None:
    own_redis.stop()
    own_redis.append_only = False
    own_redis.start()
    writer = make_writer(own_redis.url)
    writer.write("r", TEXT, "before ")
    assert writer.flush(10)
    own_redis.kill()
    own_redis.start()
    writer.write("r", TEXT, "after")
    assert writer.flush(10)
    with Redis.from_url(own_redis.url) as client:
        events = read_events(client, "r")
    assert_no_holes(events)
    assert text_of(events) == "before after"


@pytest.mark.slow
@pytest.mark.parametrize("append_only", [True, False])
def test_a_killed_redis_loses_nothing_for_a_reader_that_stays(
    own_redis: EmbeddedRedis, make_hub: MakeHub, make_writer: MakeWriter, append_only: bool
) -> None:
    own_redis.stop()
    own_redis.append_only = append_only
    own_redis.start()
    hub, writer = make_hub(own_redis.url), make_writer(own_redis.url)
    pieces = [f"{number} " for number in range(3000)]
    with hub.subscribe("r", replay=False) as reader:
        job = threading.Thread(target=_write_slowly, args=(writer, hub, pieces))
        job.start()
        events: list[Event] = []
        for _ in range(2):
            target = (events[-1].last if events else 0) + 300
            while not events or events[-1].last < target:
                event = reader.get(timeout=60)
                assert event is not None
                events.append(event)
            own_redis.kill()
            own_redis.start()
        events += read_to_end(reader)
        job.join()
    assert_no_holes(events)
    assert LOST not in {event.kind for event in events}
    assert text_of(events) == "".join(pieces)


def _write_slowly(writer: StreamWriter, hub: StreamHub, pieces: list[str]) -> None:
    pause = threading.Event()
    for number, piece in enumerate(pieces):
        writer.write("r", TEXT, piece, reply_to=hub.channel)
        if number % 10 == 0:
            pause.wait(0.005)
    writer.end("r", END_VALUE, reply_to=hub.channel)


def test_a_job_waits_when_too_much_of_its_run_is_unacknowledged(
    own_redis: EmbeddedRedis, make_writer: MakeWriter
) -> None:
    own_redis.stop()
    writer = make_writer(own_redis.url, most_unacknowledged_bytes=50_000)
    written: list[int] = []

    def job() -> None:
        written.extend(writer.write("r", TEXT, "x" * 1000) for _ in range(200))

    thread = threading.Thread(target=job)
    thread.start()
    wait_until(lambda: len(written) >= 40)
    assert writer.write("other", TEXT, "another run does not wait") == 1
    assert thread.is_alive()
    assert len(written) < 60
    own_redis.start()
    thread.join(timeout=60)
    assert not thread.is_alive()
    assert writer.flush(10)
    with Redis.from_url(own_redis.url) as client:
        assert partial_text(client, "r") == ("x" * 200_000, 200)


def test_a_writer_goes_on_where_a_dead_one_stopped(
    hub: StreamHub, writer: StreamWriter, make_writer: MakeWriter, redis_url: str
) -> None:
    with hub.subscribe("r", replay=False) as reader:
        writer.write("r", TEXT, "kept ", reply_to=hub.channel)
        assert writer.flush(10)
        reaper = make_writer(redis_url)
        text, last = partial_text(hub.redis, "r")
        assert (text, last) == ("kept ", 1)
        reaper.resume("r", after=last)
        assert reaper.end("r", {"state": "failed"}, reply_to=hub.channel) == 2
        assert [event.kind for event in read_to_end(reader)] == [TEXT, END]


def test_partial_text_of_a_run_that_never_began_is_empty(redis_client: Redis) -> None:
    assert partial_text(redis_client, "unknown") == ("", 0)


def test_a_dead_web_process_is_told_once_per_run(
    redis_url: str, hub: StreamHub, make_writer: MakeWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.core.stream.writer.PROBE_SECONDS", 0.1)
    gone: list[str] = []
    writer = make_writer(redis_url, on_reader_gone=gone.append, gone_after_seconds=0.4)
    with hub.subscribe("alive", replay=False) as reader:
        writer.write("alive", TEXT, "x", reply_to=hub.channel)
        writer.write("orphan", TEXT, "x", reply_to="weft:web:dead")
        writer.write("orphan2", TEXT, "x", reply_to="weft:web:dead")
        writer.write("nobody", TEXT, "x")
        wait_until(lambda: len(gone) == 2)
        writer.write("orphan", TEXT, "y", reply_to="weft:web:dead")
        writer.end("alive", END_VALUE, reply_to=hub.channel)
        read_to_end(reader)
        assert writer.flush(10)
    assert sorted(gone) == ["orphan", "orphan2"]
    assert text_of(read_events(hub.redis, "orphan")) == "xy"


def test_a_blip_is_not_a_dead_web_process(
    redis_url: str, make_hub: MakeHub, make_writer: MakeWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.core.stream.writer.PROBE_SECONDS", 0.1)
    gone: list[str] = []
    writer = make_writer(redis_url, on_reader_gone=gone.append, gone_after_seconds=2.0)
    writer.write("r", TEXT, "nobody listens yet ", reply_to="weft:web:late")
    assert writer.flush(10)
    hub = make_hub(redis_url, hub_id="late")
    with hub.subscribe("r") as reader:
        # The probe of the silent channel is heard now, which clears it of suspicion.
        wait_until(lambda: not writer._channels.has_suspects)
        writer.write("r", TEXT, "now", reply_to=hub.channel)
        writer.end("r", END_VALUE, reply_to=hub.channel)
        assert text_of(read_to_end(reader)) == "nobody listens yet now"
    assert gone == []


def test_control_messages_reach_every_hub_and_bad_ones_are_dropped(
    hub: StreamHub, redis_url: str, make_hub: MakeHub
) -> None:
    other = make_hub(redis_url)
    heard: list[list[dict[str, Any]]] = [[], []]
    hub.on_control(lambda message: 1 / 0)
    hub.on_control(heard[0].append)
    other.on_control(heard[1].append)
    hub.redis.publish("weft:control", "not json")
    message = {"type": "cancel", "run_id": "r"}
    assert send_control(hub.redis, message) == 2
    wait_until(lambda: heard == [[message], [message]])


def test_closing_wakes_a_reader_that_waits(hub: StreamHub) -> None:
    reader = hub.subscribe("r", replay=False)
    got: list[Event | None] = []
    thread = threading.Thread(target=lambda: got.append(reader.get()))
    thread.start()
    reader.close()
    thread.join(timeout=60)
    assert got == [None]


def test_a_reader_with_a_time_limit_gets_none_when_nothing_comes(hub: StreamHub) -> None:
    with hub.subscribe("r") as reader:
        assert reader.get(timeout=0.05) is None
        assert not reader.is_over
