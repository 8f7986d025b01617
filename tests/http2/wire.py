"""A client of HTTP/2 that sends what it is told: frames by octet, no state but what it has read."""

import socket
import struct
import time
from dataclasses import dataclass
from typing import Self

from hpack import Decoder

__all__ = [
    "ACK",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONTINUATION",
    "DATA",
    "END_HEADERS",
    "END_STREAM",
    "ENHANCE_YOUR_CALM",
    "FLOW_CONTROL_ERROR",
    "FRAME_SIZE_ERROR",
    "GOAWAY",
    "HEADERS",
    "INTERNAL_ERROR",
    "NO_ERROR",
    "PADDED",
    "PING",
    "PREFACE",
    "PRIORITY",
    "PRIORITY_FLAG",
    "PROTOCOL_ERROR",
    "PUSH_PROMISE",
    "REFUSED_STREAM",
    "RST_STREAM",
    "SETTINGS",
    "STREAM_CLOSED",
    "WINDOW_UPDATE",
    "Client",
    "Frame",
    "Outcome",
    "field",
    "frame",
    "request",
    "settings",
]

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10)
)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY_FLAG = 0x1, 0x1, 0x4, 0x8, 0x20
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED = range(6)
FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM = range(6, 12)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def settings(**values: int) -> bytes:
    """Return a SETTINGS frame of the named values."""
    numbers = {
        "header_table_size": 1,
        "enable_push": 2,
        "max_concurrent_streams": 3,
        "initial_window_size": 4,
        "max_frame_size": 5,
        "max_header_list_size": 6,
    }
    return frame(
        SETTINGS, 0, 0, b"".join(struct.pack(">HI", numbers[name], value) for name, value in values.items())
    )


def field(name: bytes | str, value: bytes | str) -> bytes:
    """Return a field as a literal that no table takes: whatever the octets."""
    octets = b"\x00"
    for text in (name, value):
        text = text.encode() if isinstance(text, str) else text
        octets += _integer(len(text)) + text
    return octets


def _integer(value: int) -> bytes:
    if value < 127:
        return bytes([value])
    out, value = b"\x7f", value - 127
    while value >= 128:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def request(
    stream: int,
    *more: tuple[bytes | str, bytes | str],
    method: str = "GET",
    path: str = "/",
    end: bool = True,
) -> bytes:
    """Return a HEADERS frame that opens a good request, with further fields."""
    pseudo = [(":method", method), (":scheme", "http"), (":authority", "backend"), (":path", path)]
    block = b"".join(field(name, value) for name, value in [*pseudo, *more])
    return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, block)


@dataclass(frozen=True)
class Frame:
    """A frame that came."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def code(self) -> int:
        """The error code of RST_STREAM or GOAWAY."""
        return int.from_bytes(self.payload[-4:] if self.kind == RST_STREAM else self.payload[4:8])


@dataclass(frozen=True)
class Outcome:
    """What became of a stream: `status` of an answer, `reset`, `goaway`, connection `closed`, or `silence`.

    `value` is the status or the error code; `last` the last stream that a GOAWAY vouches for.
    """

    kind: str
    value: int = 0
    last: int = 0

    def __str__(self) -> str:
        return f"{self.kind} {self.value}" if self.kind in ("status", "reset", "goaway") else self.kind


class Client:
    """A connection. Preface and empty settings are sent unless `greet` is false."""

    def __init__(self, port: int, *, greet: bool = True, timeout: float = 5) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._timeout = timeout
        self._input = bytearray()
        self._decoder = Decoder(1 << 24)
        if greet:
            self.send(PREFACE + settings())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, octets: bytes) -> bool:
        """Send all of it; false when the peer takes no more."""
        try:
            self.socket.sendall(octets)
        except OSError:
            return False
        return True

    def read(self, timeout: float | None = None) -> Frame | None:
        """Return the next frame; None when the connection is closed. Raises TimeoutError."""
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        while (whole := self._whole()) is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self.socket.settimeout(left)
            try:
                octets = self.socket.recv(1 << 16)
            except ConnectionError:
                octets = b""
            finally:
                self.socket.settimeout(self._timeout)
            if not octets:
                return None
            self._input += octets
        return whole

    def holds_frame(self) -> bool:
        """Return whether the next frame has been received already."""
        return len(self._input) >= 9 and len(self._input) >= 9 + int.from_bytes(self._input[:3])

    def _whole(self) -> Frame | None:
        if not self.holds_frame():
            return None
        length = int.from_bytes(self._input[:3])
        kind, flags, stream = struct.unpack(">BBI", self._input[3:9])
        found = Frame(kind, flags, stream, bytes(self._input[9 : 9 + length]))
        del self._input[: 9 + length]
        return found

    def outcome(self, stream: int = 0, timeout: float | None = None) -> Outcome:
        """Read until something became of the stream or of the connection."""
        try:
            while (came := self.read(timeout)) is not None:
                match came.kind:
                    case 7:
                        return Outcome("goaway", came.code, int.from_bytes(came.payload[:4]))
                    case 3 if came.stream == stream:
                        return Outcome("reset", came.code)
                    case 1:
                        fields = {str(n): str(v) for n, v in self._decoder.decode(came.payload)}
                        status = int(fields.get(":status", "0"))
                        if came.stream == stream and status >= 200:
                            return Outcome("status", status)
        except TimeoutError:
            return Outcome("silence")
        return Outcome("closed")

    def closes(self, timeout: float | None = None) -> bool:
        """Read to the end; true when there is one."""
        try:
            while self.read(timeout) is not None:
                pass
        except TimeoutError:
            return False
        return True
