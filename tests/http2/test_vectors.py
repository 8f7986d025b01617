"""Frames and requests that no client may send: each ends its stream or its connection with the right code.

What is malformed (RFC 9113 §8.1.1) reaches no application as a complete request: two readers of a chain must never
disagree about it.
"""

import json
import struct
from dataclasses import dataclass

import pytest

from tests.http2.sidecar import Server
from tests.http2.wire import (
    ACK,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PRIORITY_FLAG,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    Client,
    Outcome,
    field,
    frame,
    request,
    settings,
)

U32 = struct.Struct(">I")
GOOD = [(":method", "GET"), (":scheme", "http"), (":authority", "backend"), (":path", "/")]


@dataclass(frozen=True)
class Vector:
    """Octets after the preface, and what may become of the stream."""

    name: str
    octets: bytes
    expected: tuple[str, ...]
    stream: int = 1


def connection(name: str, octets: bytes, *codes: int) -> Vector:
    """Return a vector that must end the connection with one of the codes."""
    return Vector(name, octets, tuple(f"goaway {code}" for code in codes))


def stream(name: str, octets: bytes, *codes: int) -> Vector:
    """Return a vector that must end its stream; ending the connection with the code will do (§5.4)."""
    expected = [f"{how} {code}" for code in codes for how in ("reset", "goaway")]
    return Vector(name, octets, tuple(expected))


def head(fields: list[tuple[bytes | str, bytes | str]], flags: int = END_STREAM) -> bytes:
    return frame(HEADERS, END_HEADERS | flags, 1, b"".join(field(*each) for each in fields))


def block(octets: bytes) -> bytes:
    """Return a request with these octets behind its good fields."""
    return frame(HEADERS, END_HEADERS | END_STREAM, 1, b"".join(field(*each) for each in GOOD) + octets)


OPEN = request(1, method="POST", path="/hold", end=False)
HELD = request(1, path="/hold")

FRAMES = [
    connection("an even stream", request(2), PROTOCOL_ERROR),
    connection("a lower stream", request(5) + request(3), PROTOCOL_ERROR, STREAM_CLOSED),
    stream("a stream again", HELD + request(1), STREAM_CLOSED, PROTOCOL_ERROR),
    connection("DATA on an idle stream", frame(DATA, 0, 1, b"x"), PROTOCOL_ERROR),
    connection("DATA on the connection", frame(DATA, 0, 0, b"x"), PROTOCOL_ERROR),
    stream("DATA after the end", HELD + frame(DATA, 0, 1, b"x"), STREAM_CLOSED),
    stream("HEADERS after the end", HELD + request(1), STREAM_CLOSED),
    connection("padding as long as HEADERS", frame(HEADERS, 13, 1, b"\x05abcd"), PROTOCOL_ERROR),
    connection("padding as long as DATA", OPEN + frame(DATA, PADDED, 1, b"\x05abcd"), PROTOCOL_ERROR),
    connection("padding of an empty DATA", OPEN + frame(DATA, PADDED, 1), PROTOCOL_ERROR, FRAME_SIZE_ERROR),
    connection("HEADERS on the connection", frame(HEADERS, 5, 0, b"\x82"), PROTOCOL_ERROR),
    connection("a short GOAWAY", frame(GOAWAY, 0, 0, b"\0" * 7), FRAME_SIZE_ERROR),
    connection("GOAWAY on a stream", frame(GOAWAY, 0, 1, b"\0" * 8), PROTOCOL_ERROR),
    connection("SETTINGS of odd length", frame(SETTINGS, 0, 0, b"\0" * 5), FRAME_SIZE_ERROR),
    connection("SETTINGS ACK with a payload", frame(SETTINGS, ACK, 0, b"\0" * 6), FRAME_SIZE_ERROR),
    connection("SETTINGS on a stream", frame(SETTINGS, 0, 1), PROTOCOL_ERROR),
    connection("ENABLE_PUSH of 2", settings(enable_push=2), PROTOCOL_ERROR),
    connection("a window of 2^31", settings(initial_window_size=1 << 31), FLOW_CONTROL_ERROR),
    connection("a frame size of 16,383", settings(max_frame_size=16_383), PROTOCOL_ERROR),
    connection("a frame size of 2^24", settings(max_frame_size=1 << 24), PROTOCOL_ERROR),
    connection(
        "a window of a stream over 2^31 by SETTINGS",
        HELD
        + frame(WINDOW_UPDATE, 0, 1, U32.pack(2**31 - 1 - 65_535))
        + settings(initial_window_size=65_536),
        FLOW_CONTROL_ERROR,
    ),
    connection("RST_STREAM on the connection", frame(RST_STREAM, 0, 0, U32.pack(8)), PROTOCOL_ERROR),
    connection("RST_STREAM on an idle stream", frame(RST_STREAM, 0, 1, U32.pack(8)), PROTOCOL_ERROR),
    connection("a short RST_STREAM", HELD + frame(RST_STREAM, 0, 1, b"\0" * 3), FRAME_SIZE_ERROR),
    connection(
        "PUSH_PROMISE", HELD + frame(PUSH_PROMISE, END_HEADERS, 1, U32.pack(2) + b"\x82"), PROTOCOL_ERROR
    ),
    connection("CONTINUATION alone", frame(CONTINUATION, END_HEADERS, 1, b"\x82"), PROTOCOL_ERROR),
    connection(
        "a frame amid CONTINUATIONs",
        frame(HEADERS, 1, 1, b"\x82") + frame(PING, 0, 0, b"\0" * 8),
        PROTOCOL_ERROR,
    ),
    connection(
        "an unknown frame amid CONTINUATIONs", frame(HEADERS, 1, 1, b"\x82") + frame(99, 0, 1), PROTOCOL_ERROR
    ),
    connection(
        "CONTINUATION of another stream",
        frame(HEADERS, 1, 1, b"\x82") + frame(CONTINUATION, END_HEADERS, 3, b"\x82"),
        PROTOCOL_ERROR,
    ),
    connection("a window grown by 0", frame(WINDOW_UPDATE, 0, 0, U32.pack(0)), PROTOCOL_ERROR),
    stream("a stream's window grown by 0", HELD + frame(WINDOW_UPDATE, 0, 1, U32.pack(0)), PROTOCOL_ERROR),
    connection("a window over 2^31", frame(WINDOW_UPDATE, 0, 0, U32.pack(2**31 - 1)), FLOW_CONTROL_ERROR),
    stream(
        "a stream's window over 2^31",
        HELD + frame(WINDOW_UPDATE, 0, 1, U32.pack(2**31 - 1)),
        FLOW_CONTROL_ERROR,
    ),
    connection("WINDOW_UPDATE on an idle stream", frame(WINDOW_UPDATE, 0, 1, U32.pack(1)), PROTOCOL_ERROR),
    connection("a short WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, b"\0" * 3), FRAME_SIZE_ERROR),
    connection("a short PING", frame(PING, 0, 0, b"\0" * 7), FRAME_SIZE_ERROR),
    connection("PING on a stream", frame(PING, 0, 1, b"\0" * 8), PROTOCOL_ERROR),
    connection("PRIORITY on the connection", frame(PRIORITY, 0, 0, b"\0" * 5), PROTOCOL_ERROR),
    stream("a short PRIORITY", HELD + frame(PRIORITY, 0, 1, b"\0" * 4), FRAME_SIZE_ERROR),
    stream(
        "a request that depends on itself",
        frame(HEADERS, 5 | PRIORITY_FLAG, 1, U32.pack(1) + b"\x10" + b"".join(field(*each) for each in GOOD)),
        PROTOCOL_ERROR,
    ),
    connection("a frame over the announced size", frame(DATA, 0, 1, b"\0" * 16_385), FRAME_SIZE_ERROR),
    connection(
        "the last number, then another", request(2**31 - 1) + request(1), PROTOCOL_ERROR, STREAM_CLOSED
    ),
    connection("index 0", block(b"\x80"), COMPRESSION_ERROR),
    connection("an index beyond the tables", block(b"\xff\x40"), COMPRESSION_ERROR),
    connection("a block that ends amid a field", block(b"\x00\x05ab"), COMPRESSION_ERROR),
    connection("an endless integer", block(b"\xff" + b"\xff" * 10), COMPRESSION_ERROR),
    connection(
        "a table over the setting", frame(HEADERS, 5, 1, b"\x3f\xe2\x1f\x82\x86\x84"), COMPRESSION_ERROR
    ),
    connection("a table size after a field", block(b"\x20"), COMPRESSION_ERROR),
    connection(
        "a Huffman string with its end inside", block(b"\x00\x01a\x84\xff\xff\xff\xff"), COMPRESSION_ERROR
    ),
    connection("Huffman padding of 8 bits", block(b"\x00\x01a\x82\x07\xff"), COMPRESSION_ERROR),
]


def malformed(name: str, *more: tuple[bytes | str, bytes | str], **pseudo: str | None) -> Vector:
    """Return a good request but for the pseudo fields that differ (None: missing) and further fields."""
    fields: list[tuple[bytes | str, bytes | str]] = []
    for key, value in GOOD:
        instead = pseudo.get(key.removeprefix(":"), value)
        if instead is not None:
            fields.append((key, instead))
    return refused(name, head([*fields, *more]))


def refused(name: str, octets: bytes) -> Vector:
    return Vector(name, octets, ("reset 1", "goaway 1", "status 400"))


def post(*more: tuple[bytes | str, bytes | str]) -> bytes:
    return request(1, *more, method="POST", end=False)


MALFORMED = [
    malformed("an upper-case name", ("X-Upper", "1")),
    malformed("an empty name", ("", "1")),
    malformed("a space in a name", ("x y", "1")),
    malformed("a colon in a name", ("x:y", "1")),
    malformed("a NUL in a name", (b"x\0", "1")),
    malformed("an octet over 127 in a name", (b"x\xff", "1")),
    malformed("a NUL in a value", ("x-value", b"a\0b")),
    malformed("a CR in a value", ("x-value", b"a\rb")),
    malformed("a LF in a value", ("x-value", b"a\nb")),
    malformed("a field in a value", ("x-value", b"a\r\nx-smuggled: 1")),
    malformed("a NUL in a cookie", ("cookie", b"a=\0")),
    refused("a pseudo field after a regular one", head([*GOOD[:3], ("x", "1"), GOOD[3]])),
    *(refused(f"two {name}", head([*GOOD, (name, value)])) for name, value in GOOD),
    malformed("an unknown pseudo field", (":unknown", "1")),
    refused("an unknown pseudo field among the others", head([(":unknown", "1"), *GOOD])),
    refused("the pseudo field of a response", head([(":status", "200"), *GOOD])),
    refused(
        "a pseudo field in trailers",
        post() + frame(HEADERS, END_HEADERS | END_STREAM, 1, field(":path", "/other")),
    ),
    refused("trailers that do not end the stream", post() + frame(HEADERS, END_HEADERS, 1, field("x", "1"))),
    malformed("no :method", method=None),
    malformed("no :scheme", scheme=None),
    malformed("no :path", path=None),
    malformed("an empty :path", path=""),
    malformed("a :path without slash", path="path"),
    malformed("a :path with a fragment", path="/a#b"),
    malformed("a :path with a space", path="/a b"),
    malformed("a :path with a new line", path="/a\r\nx: 1"),
    malformed("a :path of an asterisk for GET", path="*"),
    malformed("an empty :method", method=""),
    malformed("a :method with a space", method="GET /"),
    malformed("a :scheme that is none", scheme="ht tp"),
    malformed("an :authority with user information", authority="user@backend"),
    malformed("an :authority with a new line", authority="backend\r\nx: 1"),
    malformed("an :authority with a path", authority="backend/path"),
    malformed("CONNECT with a :path", method="CONNECT"),
    malformed("connection", ("connection", "close")),
    malformed("keep-alive", ("keep-alive", "timeout=5")),
    malformed("proxy-connection", ("proxy-connection", "close")),
    malformed("transfer-encoding", ("transfer-encoding", "chunked")),
    malformed("upgrade", ("upgrade", "h2c")),
    malformed("te of gzip", ("te", "gzip")),
    malformed("host that is not the authority", ("host", "other")),
    malformed("two hosts", ("host", "backend"), ("host", "other")),
    malformed("content-length that is none", ("content-length", "five")),
    malformed("content-length with a sign", ("content-length", "+0")),
    malformed("content-length over 64 bits", ("content-length", "18446744073709551616")),
    malformed("content-length of a request without body", ("content-length", "5")),
    refused(
        "two content-lengths",
        post(("content-length", "1"), ("content-length", "2")) + frame(DATA, 1, 1, b"a"),
    ),
    refused(
        "a body shorter than its content-length", post(("content-length", "5")) + frame(DATA, 1, 1, b"abc")
    ),
    refused(
        "a body longer than its content-length", post(("content-length", "2")) + frame(DATA, 1, 1, b"abc")
    ),
    refused(
        "a body cut by trailers before its content-length",
        post(("content-length", "5")) + frame(DATA, 0, 1, b"abc") + frame(HEADERS, 5, 1, field("x", "1")),
    ),
]


def complete(server: Server) -> int:
    """Return how many requests reached the application as a whole, by asking it."""
    with Client(server.port) as client:
        client.send(request(1, path="/stats"))
        while (came := client.read()) is not None:
            if came.kind == DATA and came.payload:
                counts: dict[str, int] = json.loads(came.payload)
                return counts["complete"]
    raise AssertionError("the application did not answer")


@pytest.mark.parametrize("vector", FRAMES, ids=lambda vector: vector.name)
def test_frames_that_break_the_protocol(server: Server, vector: Vector) -> None:
    with Client(server.port) as client:
        client.send(vector.octets)
        outcome = client.outcome(vector.stream)
        assert str(outcome) in vector.expected
        if outcome.kind == "goaway":
            assert client.closes(), "a connection that is lost is closed"


@pytest.mark.parametrize("vector", MALFORMED, ids=lambda vector: vector.name)
def test_malformed_requests_reach_no_application(server: Server, vector: Vector) -> None:
    before = complete(server)
    with Client(server.port) as client:
        client.send(vector.octets)
        assert str(client.outcome(vector.stream)) in vector.expected
    assert complete(server) - before == 1, "only the question itself"


@pytest.mark.parametrize(
    "octets",
    [PREFACE[:20] + b"XX\r\n", PREFACE + request(1), PREFACE + frame(PING, 0, 0, b"\0" * 8)],
    ids=["another preface", "a request before SETTINGS", "a PING before SETTINGS"],
)
def test_a_connection_that_does_not_begin_as_one(server: Server, octets: bytes) -> None:
    with Client(server.port, greet=False) as client:
        client.send(octets)
        assert str(client.outcome(1)) in ("goaway 1", "closed")


def test_padding_is_given_back_to_the_windows(server: Server) -> None:
    # More than a stream's window of nothing but padding: it passes only if its credit comes back.
    payload, window = b"\xff" + b"\0" * 255, 65_535
    with Client(server.port) as client:
        client.send(request(1, method="POST", end=False))
        for _ in range(320):
            while window < len(payload):
                came = client.read()
                assert came is not None
                if came.kind == WINDOW_UPDATE and came.stream == 1:
                    window += int.from_bytes(came.payload)
            client.send(frame(DATA, PADDED, 1, payload))
            window -= len(payload)
        client.send(frame(DATA, END_STREAM, 1))
        assert client.outcome(1) == Outcome("status", 200)


def test_a_good_client_is_served_after_all_that(server: Server) -> None:
    with Client(server.port) as client:
        for number in range(1, 200, 2):
            client.send(request(number))
            assert client.outcome(number) == Outcome("status", 200)
