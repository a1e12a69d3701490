"""A heartbeat on the wire and in the stream. Decoded in microseconds: there are many."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

BUCKET_SECONDS: Final = 120
BUCKETS_A_DAY: Final = 86_400 // BUCKET_SECONDS
MAX_BEAT_BYTES: Final = 64_000
MAX_DEVICES: Final = 64
MAX_REPLICAS: Final = 64

Reading = Annotated[float, msgspec.Meta(ge=-1_000_000, le=1_000_000)]
# So bounded, that a day of them fits in 64 bits.
Bytes = Annotated[int, msgspec.Meta(ge=0, le=2**45)]
PciId = Annotated[int, msgspec.Meta(ge=0, le=0x7FFFFFFF)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class DeviceBeat(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What one device measured. Absent is None, never 0."""

    index: Annotated[int, msgspec.Meta(ge=0, le=1023)]
    name: Annotated[str, msgspec.Meta(max_length=200)] = ""
    vendor_id: PciId | None = None
    device_id: PciId | None = None
    memory_gb: Reading | None = None
    usage: Reading | None = None
    mem_usage: Reading | None = None
    temp: Reading | None = None
    power_usage: Reading | None = None
    power_limit_w: Reading | None = None
    error: Annotated[str, msgspec.Meta(max_length=500)] | None = None


class ReplicaBeat(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """How busy one engine is."""

    model_name: Name
    state: Annotated[str, msgspec.Meta(max_length=16)] = "ready"
    running: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] | None = None
    waiting: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] | None = None


class Beat(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One heartbeat: percentages, bytes since the beat before, and the devices."""

    sequence: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0
    cpu_usage: Reading | None = None
    memory_usage: Reading | None = None
    disk_usage: Reading | None = None
    network_rx: Bytes | None = None
    network_tx: Bytes | None = None
    devices: Annotated[list[DeviceBeat], msgspec.Meta(max_length=MAX_DEVICES)] = []
    replicas: Annotated[list[ReplicaBeat], msgspec.Meta(max_length=MAX_REPLICAS)] | None = None
    uptime_seconds: Reading | None = None


class ReceivedBeat(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A beat as it stands in the stream: whose, when the hub received it, what it said."""

    node_id: int
    at_ms: int
    beat: Beat

    @property
    def bucket(self) -> int:
        """Which 120 seconds it belongs to, by the hub's clock."""
        return self.at_ms // (BUCKET_SECONDS * 1000)


_beat_decoder = msgspec.json.Decoder(Beat)
_received_decoder = msgspec.json.Decoder(ReceivedBeat)
_encoder = msgspec.json.Encoder()


def decode_beat(raw: bytes) -> Beat:
    """A beat from its JSON. Raises ValueError (msgspec's errors are ones)."""
    return _beat_decoder.decode(raw)


def encode_received(received: ReceivedBeat) -> bytes:
    """One line of the stream."""
    return _encoder.encode(received)


def decode_received(line: bytes) -> ReceivedBeat:
    """A line of the stream again. Raises ValueError."""
    return _received_decoder.decode(line)
