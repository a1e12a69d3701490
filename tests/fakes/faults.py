"""How a fake engine can fail once its stream has begun. The same for all kinds."""

from __future__ import annotations

from enum import Enum

from tests.fakes.http_server import Exchange


class Fault(Enum):
    """What goes wrong. The engine's own errors are the fakes' matter."""

    TRUNCATED = "the body ends in good order, but the answer has not ended"
    CUT = "the connection closes in the middle"
    GARBAGE = "an event that is no JSON"
    NOT_AN_OBJECT = "an event that is JSON of another shape"
    ODD_SHAPE = "an event with keys of wrong types"
    HUGE_LINE = "a line that does not end"
    NEVER_ENDING = "events without an end and without a text"
    SILENT = "the header comes, and then nothing"
    SILENT_LATER = "some text comes, and then nothing"
    COMMENTS_ONLY = "nothing but keep-alive comments"
    HANG = "not even the header comes"
    NOT_A_STREAM = "a page of HTML with status 200"
    NOT_HTTP = "something that is no HTTP"
    ENDLESS_HEADER = "a header that does not end"


BEFORE_HEADER = frozenset(
    {Fault.HANG, Fault.NOT_A_STREAM, Fault.NOT_HTTP, Fault.ENDLESS_HEADER}
)
AFTER_TEXT = frozenset({Fault.TRUNCATED, Fault.CUT, Fault.SILENT_LATER})


def fail_before_header(exchange: Exchange, fault: Fault) -> None:
    """Instead of a response."""
    if fault is Fault.HANG:
        exchange.hang()
    elif fault is Fault.NOT_A_STREAM:
        exchange.respond(200, b"<html>Welcome</html>", content_type="text/html")
    elif fault is Fault.NOT_HTTP:
        exchange.send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        exchange.cut()
    else:
        exchange.send(b"HTTP/1.1 200 OK\r\n")
        for number in range(3000):
            exchange.send(b"x-%d: %s\r\n" % (number, b"y" * 100))
        exchange.hang()


def fail_in_stream(exchange: Exchange, fault: Fault) -> None:
    """After the header, and for some after the first piece of text."""
    send = {
        Fault.TRUNCATED: exchange.end_stream,
        Fault.CUT: exchange.cut,
        Fault.SILENT: exchange.hang,
        Fault.SILENT_LATER: exchange.hang,
    }.get(fault)
    if send is not None:
        send()
    elif fault is Fault.HUGE_LINE:
        exchange.chunk(b"data: ")
        for _ in range(1000):
            exchange.chunk(b"x" * 65536)
    elif fault is Fault.COMMENTS_ONLY:
        while True:
            exchange.chunk(b":\n\n")
            exchange.wait(0.05)
    elif fault is Fault.NEVER_ENDING:
        pad = b"x" * 100_000
        while True:
            exchange.chunk(
                b'data: {"choices":[],"token":{"special":true},"pad":"%s"}\n\n' % pad
            )
    else:
        payload = {
            Fault.GARBAGE: b"{'not': json",
            Fault.NOT_AN_OBJECT: b'["a list"]',
            Fault.ODD_SHAPE: b'{"choices":[7],"token":7}',
        }[fault]
        exchange.chunk(b"data: " + payload + b"\n\n")
        exchange.hang()
