"""What was on the wire: frames read back, put together into TCP flows, and the TLS hello at the head of a flow."""

import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

__all__ = ["TLS13", "X25519MLKEM768", "Flow", "Hello", "flows", "read_hello"]

X25519MLKEM768 = 0x11EC
TLS13 = 0x0304
_ETHERNET, _IPV4, _TCP, _SYN = 14, 0x0800, 6, 0x02
_KEY_SHARE, _SUPPORTED_VERSIONS = 51, 43
_HANDSHAKE, _CLIENT_HELLO, _SERVER_HELLO = 22, 1, 2


@dataclass
class Flow:
    """One direction of a TCP connection: its ends, and its bytes in order from the first."""

    source: tuple[str, int]
    target: tuple[str, int]
    first: int
    segments: dict[int, bytes] = field(default_factory=dict)

    @property
    def data(self) -> bytes:
        """The bytes up to the first gap."""
        data = bytearray()
        for offset in sorted(self.segments):
            if offset > len(data):
                break
            data += self.segments[offset][len(data) - offset :]
        return bytes(data)


def flows(file: Path) -> list[Flow]:
    """Return the flows whose beginning was captured. A frame seen on several interfaces counts once."""
    known: dict[tuple[tuple[str, int], tuple[str, int]], list[Flow]] = defaultdict(list)
    for source, target, number, flags, payload in _segments(file):
        of_these = known[source, target]
        if flags & _SYN and not any(flow.first == number + 1 for flow in of_these):
            of_these.append(Flow(source, target, (number + 1) % 2**32))
        elif payload and of_these:
            flow = of_these[-1]
            offset = (number - flow.first) % 2**32
            if len(payload) > len(flow.segments.get(offset, b"")):
                flow.segments[offset] = payload
    return [flow for several in known.values() for flow in several]


def _segments(file: Path) -> Iterator[tuple[tuple[str, int], tuple[str, int], int, int, bytes]]:
    everything = memoryview(file.read_bytes())
    place = 0
    while place < len(everything):
        (length,) = struct.unpack_from("!I", everything, place)
        frame = everything[place + 4 : place + 4 + length]
        place += 4 + length
        if len(frame) < _ETHERNET + 40 or struct.unpack_from("!H", frame, 12)[0] != _IPV4:
            continue
        packet = frame[_ETHERNET:]
        if packet[9] != _TCP:
            continue
        (total,) = struct.unpack_from("!H", packet, 2)
        # A segment that was never cut (offload) may be larger than the field can say: then it says nothing.
        segment = packet[(packet[0] & 15) * 4 : total or None]
        ends = struct.unpack_from("!HHI", segment, 0)
        yield (
            (str(IPv4Address(bytes(packet[12:16]))), ends[0]),
            (str(IPv4Address(bytes(packet[16:20]))), ends[1]),
            ends[2],
            segment[13],
            bytes(segment[(segment[12] >> 4) * 4 :]),
        )


@dataclass(frozen=True)
class Hello:
    """What a TLS hello offers or chooses."""

    versions: tuple[int, ...]
    groups: tuple[int, ...]


def read_hello(data: bytes) -> Hello | None:
    """Read the hello that a flow begins with; None when it does not begin with one."""
    if (
        len(data) < 9
        or data[0] != _HANDSHAKE
        or data[1] != 3
        or data[5] not in (_CLIENT_HELLO, _SERVER_HELLO)
    ):
        return None
    client = data[5] == _CLIENT_HELLO
    body = data[9 : 9 + int.from_bytes(data[6:9])]
    place = 34
    place += 1 + body[place]
    place += 2 + int.from_bytes(body[place : place + 2]) if client else 2
    place += 1 + body[place] if client else 1
    versions: tuple[int, ...] = ()
    groups: tuple[int, ...] = ()
    place += 2
    while place < len(body):
        kind, length = struct.unpack_from("!HH", body, place)
        value = body[place + 4 : place + 4 + length]
        place += 4 + length
        if kind == _SUPPORTED_VERSIONS:
            listed = value[1:] if client else value
            versions = struct.unpack(f"!{len(listed) // 2}H", listed)
        elif kind == _KEY_SHARE:
            groups = tuple(_shares(value[2:])) if client else (int.from_bytes(value[:2]),)
    return Hello(versions, groups)


def _shares(value: bytes) -> Iterator[int]:
    place = 0
    while place < len(value):
        group, length = struct.unpack_from("!HH", value, place)
        yield group
        place += 4 + length
