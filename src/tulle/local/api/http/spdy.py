"""SPDY/3.1 framing without I/O, as far as port forwarding needs it: bytes in, events out; frames to send as bytes.

kubectl tunnels this old protocol through a WebSocket. There is no flow control (its peers never use it): the WebSocket's
own back-pressure bounds what is under way. Every length is checked; a peer that breaks the protocol gets SpdyError.
"""

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["DICTIONARY", "Data", "Event", "Ping", "Reset", "SpdyError", "SpdyFrames", "StreamOpened"]

MAX_FRAME = 1024 * 1024
MAX_HEADERS = 16 * 1024
"""Bytes of one frame, and of the headers of one stream once they are unpacked."""

_PLAIN_WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow "
    "authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status"
)
_WORDS = [
    *_PLAIN_WORDS.split(),
    "200 OK",
    *"version HTTP/1.1 url public set-cookie keep-alive origin".split(),
]
_TAIL = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative "
    "Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 "
    "Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec "
    "00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,"
    "application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8"
    "charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = b"".join(len(word).to_bytes(4, "big") + word.encode() for word in _WORDS) + _TAIL.encode()
"""The dictionary with which SPDY/3 packs headers; both ends must have the very same bytes."""

_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _PING, _GOAWAY = 1, 2, 3, 6, 7
_FIN = 1


class SpdyError(Exception):
    """The peer sent what is no SPDY/3.1; the text says what."""


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """The peer opened a stream."""

    stream: int
    headers: Mapping[str, str]
    finished: bool


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes on a stream; `finished`: the peer sends no more on it."""

    stream: int
    data: bytes
    finished: bool


@dataclass(frozen=True, slots=True)
class Reset:
    """The peer gave a stream up."""

    stream: int


@dataclass(frozen=True, slots=True)
class Ping:
    """The peer wants the same number back."""

    number: int


Event: TypeAlias = StreamOpened | Data | Reset | Ping


class SpdyFrames:
    """One connection's framing; header packing has a state, so frames must be sent in the order they are made."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._unpack = zlib.decompressobj(zdict=DICTIONARY)
        self._pack = zlib.compressobj(zdict=DICTIONARY)

    def receive(self, data: bytes) -> Iterator[Event]:
        """Take bytes and yield what they complete."""
        self._buffer += data
        while len(self._buffer) >= 8:
            length = int.from_bytes(self._buffer[5:8], "big")
            if length > MAX_FRAME:
                raise SpdyError(f"a frame of {length} bytes")
            if len(self._buffer) < 8 + length:
                return
            first, flags = int.from_bytes(self._buffer[:4], "big"), self._buffer[4]
            payload = bytes(self._buffer[8 : 8 + length])
            del self._buffer[: 8 + length]
            if not first >> 31:
                yield Data(first, payload, bool(flags & _FIN))
                continue
            if (first >> 16) & 0x7FFF != 3:
                raise SpdyError("a frame of another version than 3")
            event = self._control(first & 0xFFFF, flags, payload)
            if event is not None:
                yield event

    def _control(self, kind: int, flags: int, payload: bytes) -> Event | None:
        if kind == _SYN_STREAM:
            if len(payload) < 10:
                raise SpdyError("a SYN_STREAM cut short")
            return StreamOpened(_number(payload), self._headers(payload[10:]), bool(flags & _FIN))
        if kind in (_RST_STREAM, _PING):
            if len(payload) < 4:
                raise SpdyError("a frame cut short")
            return (
                Reset(_number(payload)) if kind == _RST_STREAM else Ping(int.from_bytes(payload[:4], "big"))
            )
        return None

    def _headers(self, packed: bytes) -> dict[str, str]:
        try:
            raw = self._unpack.decompress(packed, MAX_HEADERS)
        except zlib.error as error:
            raise SpdyError(f"headers that do not unpack: {error}") from error
        if self._unpack.unconsumed_tail:
            raise SpdyError(f"headers of more than {MAX_HEADERS} bytes")
        position = 4
        headers: dict[str, str] = {}
        for _ in range(int.from_bytes(raw[:4], "big")):
            name, position = _text(raw, position)
            value, position = _text(raw, position)
            headers[name.lower()] = value
        return headers

    def reply(self, stream: int) -> bytes:
        """Return the frame that accepts a stream."""
        packed = self._pack.compress(bytes(4)) + self._pack.flush(zlib.Z_SYNC_FLUSH)
        return _frame(_SYN_REPLY, 0, stream.to_bytes(4, "big") + packed)

    def data(self, stream: int, data: bytes, *, finished: bool = False) -> bytes:
        """Return a frame with data on a stream; `finished`: the last one."""
        flags = _FIN if finished else 0
        return stream.to_bytes(4, "big") + bytes((flags,)) + len(data).to_bytes(3, "big") + data

    def pong(self, number: int) -> bytes:
        """Return the answer to a ping."""
        return _frame(_PING, 0, number.to_bytes(4, "big"))


def _frame(kind: int, flags: int, payload: bytes) -> bytes:
    head = (1 << 31 | 3 << 16 | kind).to_bytes(4, "big")
    return head + bytes((flags,)) + len(payload).to_bytes(3, "big") + payload


def _number(payload: bytes) -> int:
    return int.from_bytes(payload[:4], "big") & 0x7FFFFFFF


def _text(raw: bytes, position: int) -> tuple[str, int]:
    length = int.from_bytes(raw[position : position + 4], "big")
    end = position + 4 + length
    if end > len(raw):
        raise SpdyError("headers cut short")
    return raw[position + 4 : end].decode("latin-1"), end
