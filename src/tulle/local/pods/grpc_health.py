"""A client for grpc.health.v1.Health/Check, just large enough for a probe: one request on one h2 connection.

grpcio would cost the agent some 25 MB of memory for a question of 40 bytes. Header blocks are written as literals and
never read: the answer's message alone says whether the service serves (RFC 9113 §4, gRPC over HTTP/2).
"""

import asyncio
import contextlib
import struct

from tulle.local.pods.http_get import GOODBYE_SECONDS

__all__ = ["HealthError", "check_health"]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
END_STREAM, ACK, PADDED, END_HEADERS = 1, 1, 8, 4

FRAME_BYTES = 16_384
"""Largest frame that is accepted: what the protocol allows without asking for more."""

SERVING = 1
STATUS_NAMES = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}


class HealthError(Exception):
    """The service did not say SERVING; the text says what it did instead."""


async def check_health(
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], *, authority: str, service: str
) -> None:
    """Ask once and close the connection; return when the service serves.

    Raises HealthError or OSError. The caller sets the deadline.
    """
    reader, writer = streams
    try:
        writer.write(PREFACE + _frame(SETTINGS, 0, 0, b"") + _request(authority, service))
        await writer.drain()
        message = await _answer(reader, writer)
    except asyncio.IncompleteReadError as error:
        raise HealthError("the connection was closed without an answer") from error
    finally:
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS):
                await writer.wait_closed()
    status = _status(message)
    if status != SERVING:
        raise HealthError(f"service unhealthy (responded with {STATUS_NAMES.get(status, str(status))!r})")


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    body = bytearray()
    while True:
        head = await reader.readexactly(9)
        length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        if length > FRAME_BYTES:
            raise HealthError(f"the answer is not gRPC: a frame of {length} bytes")
        payload = await reader.readexactly(length)
        match kind:
            case 4 if not flags & ACK:
                writer.write(_frame(SETTINGS, ACK, 0, b""))
            case 6 if not flags & ACK:
                writer.write(_frame(PING, ACK, 0, payload))
            case 0:
                if flags & PADDED and payload:
                    payload = payload[1 : len(payload) - payload[0]]
                body += payload
            case 3:
                raise HealthError(f"the stream was reset (code {int.from_bytes(payload[:4], 'big')})")
            case 7:
                raise HealthError(f"the connection was refused (code {int.from_bytes(payload[4:8], 'big')})")
        if len(body) >= 5 and len(body) >= 5 + int.from_bytes(body[1:5], "big"):
            return bytes(body[5 : 5 + int.from_bytes(body[1:5], "big")])
        if kind in (DATA, HEADERS) and flags & END_STREAM:
            raise HealthError(
                "the service answered with an error instead of a status (does it implement grpc.health.v1?)"
            )


def _request(authority: str, service: str) -> bytes:
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/grpc.health.v1.Health/Check",
        ":authority": authority,
        "content-type": "application/grpc",
        "te": "trailers",
        "user-agent": "kube-probe/tulle",
    }
    block = b"".join(b"\0" + _string(name) + _string(value) for name, value in fields.items())
    name = service.encode()
    message = b"\x0a" + _integer(len(name)) + name if name else b""
    data = struct.pack(">BI", 0, len(message)) + message
    return _frame(HEADERS, END_HEADERS, 1, block) + _frame(DATA, END_STREAM, 1, data)


def _status(message: bytes) -> int:
    """Read field 1 (an enum) of HealthCheckResponse; absent means UNKNOWN."""
    return message[1] if len(message) >= 2 and message[0] == 0x08 else 0


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _string(text: str) -> bytes:
    raw = text.encode()
    assert len(raw) < 127, text  # one length octet (RFC 7541 §5.1) is enough for what a probe sends
    return bytes((len(raw),)) + raw


def _integer(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes((*out, value))
