"""The sidecar as a client: an application that breaks HTTP/2 is told so, and whoever asked gets an answer at once."""

import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field as attribute

import pytest

from tests.http2.sidecar import Server, sidecar
from tests.http2.wire import (
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
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    Client,
    field,
    frame,
    request,
    settings,
)

U32 = struct.Struct(">I")
OK = field(":status", "200")


class Script(threading.Thread):
    """An application that answers each request with what the test wrote down for stream 1.

    What the sidecar then says of it, RST_STREAM or GOAWAY, is in `said`.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=16)
        self.port: int = self.listener.getsockname()[1]
        self.first = settings()
        self.answer = b""
        self.said: list[str] = []
        self.heard = threading.Event()

    def play(self, answer: bytes, first: bytes) -> None:
        self.answer, self.first = answer, first
        self.said.clear()
        self.heard.clear()

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        seen, at = b"", len(PREFACE)
        with connection:
            connection.settimeout(30)
            try:
                connection.sendall(self.first)
                while more := connection.recv(1 << 16):
                    seen += more
                    while at + 9 <= len(seen) and at + 9 + (size := int.from_bytes(seen[at : at + 3])) <= len(
                        seen
                    ):
                        stream = int.from_bytes(seen[at + 5 : at + 9])
                        self._frame(connection, seen[at + 3], stream, seen[at + 9 : at + 9 + size])
                        at += 9 + size
            except OSError:
                return

    def _frame(self, connection: socket.socket, kind: int, stream: int, payload: bytes) -> None:
        if kind == HEADERS:
            connection.sendall(b"".join(for_stream(stream, self.answer)))
        elif kind == RST_STREAM or (kind == GOAWAY and payload[4:8] != b"\0\0\0\0"):
            code = int.from_bytes(payload[:4] if kind == RST_STREAM else payload[4:8])
            self.said.append(f"{'reset' if kind == RST_STREAM else 'goaway'} {code}")
            self.heard.set()


def for_stream(stream: int, frames: bytes) -> Iterator[bytes]:
    """Yield the frames, those of stream 1 with another number."""
    while frames:
        size = 9 + int.from_bytes(frames[:3])
        number = int.from_bytes(frames[5:9])
        yield frames[:5] + U32.pack(stream if number == 1 else number) + frames[9:size]
        frames = frames[size:]


@dataclass(frozen=True)
class Case:
    name: str
    answer: bytes
    said: tuple[str, ...]
    first: bytes = attribute(default=settings())


def stream(name: str, answer: bytes, *codes: int) -> Case:
    """Return a case whose stream, and no other, must end."""
    return Case(name, answer, tuple(f"reset {code}" for code in codes or (PROTOCOL_ERROR,)))


def connection(name: str, answer: bytes, code: int, first: bytes | None = None) -> Case:
    return Case(name, answer, (f"goaway {code}",), settings() if first is None else first)


def head(block: bytes, flags: int = END_STREAM) -> bytes:
    return frame(HEADERS, END_HEADERS | flags, 1, block)


def body(length: int) -> bytes:
    return head(OK + field("content-length", str(length)), 0)


CASES = [
    stream("DATA before the head", frame(DATA, END_STREAM, 1, b"x")),
    stream("no :status", head(field("x", "1"))),
    stream("two :status", head(OK + OK)),
    stream("a :status that is none", head(field(":status", "2x0"))),
    stream("a :status of 101", head(field(":status", "101"), 0)),
    stream("a pseudo field of requests", head(OK + field(":path", "/"))),
    stream("a pseudo field after a regular one", head(field("x", "1") + OK)),
    stream("an upper-case name", head(OK + field("X", "1"))),
    stream("connection", head(OK + field("connection", "close"))),
    stream("transfer-encoding", head(OK + field("transfer-encoding", "chunked"))),
    stream("a new line in a value", head(OK + field("x", b"a\r\nb: c"))),
    stream("an interim answer that ends the stream", head(field(":status", "103"))),
    stream("interim answers for ever", head(field(":status", "103"), 0) * 40),
    stream("no body where content-length promises one", head(OK + field("content-length", "5"))),
    stream("a body shorter than content-length", body(5) + frame(DATA, END_STREAM, 1, b"abc")),
    stream("a body longer than content-length", body(2) + frame(DATA, END_STREAM, 1, b"abc")),
    stream("two content-lengths", head(OK + field("content-length", "1") + field("content-length", "2"), 0)),
    stream("trailers that do not end the stream", head(OK, 0) + head(field("x", "1"), 0)),
    stream("a pseudo field in trailers", head(OK, 0) + head(field(":status", "200"))),
    stream("a window grown by 0", frame(WINDOW_UPDATE, 0, 1, U32.pack(0))),
    stream("a window over 2^31", frame(WINDOW_UPDATE, 0, 1, U32.pack(2**31 - 1)), FLOW_CONTROL_ERROR),
    stream("more than the window", head(OK, 0) + frame(DATA, 0, 1, b"x" * 16_000) * 5, FLOW_CONTROL_ERROR),
    connection("PUSH_PROMISE", frame(PUSH_PROMISE, END_HEADERS, 1, U32.pack(2) + b"\x82"), PROTOCOL_ERROR),
    connection("an answer to nothing", frame(HEADERS, 5, 1001, OK), PROTOCOL_ERROR),
    connection("an answer on an even stream", frame(HEADERS, 5, 2, OK), PROTOCOL_ERROR),
    connection("DATA on an idle stream", frame(DATA, 0, 1001, b"x"), PROTOCOL_ERROR),
    connection("RST_STREAM on an idle stream", frame(RST_STREAM, 0, 1001, U32.pack(8)), PROTOCOL_ERROR),
    connection("DATA after the end", head(OK) + frame(DATA, 0, 1, b"x"), STREAM_CLOSED),
    connection("an index beyond the tables", head(OK + b"\xff\x40"), COMPRESSION_ERROR),
    connection("a table size after a field", head(OK + b"\x20"), COMPRESSION_ERROR),
    connection(
        "a frame amid CONTINUATIONs", frame(HEADERS, 1, 1, OK) + frame(PING, 0, 0, b"\0" * 8), PROTOCOL_ERROR
    ),
    connection("CONTINUATION alone", frame(CONTINUATION, END_HEADERS, 1, OK), PROTOCOL_ERROR),
    connection("padding as long as DATA", head(OK, 0) + frame(DATA, PADDED, 1, b"\x05abcd"), PROTOCOL_ERROR),
    connection("a frame over the size", frame(DATA, 0, 1, b"\0" * 16_385), FRAME_SIZE_ERROR),
    connection("a short PING", frame(PING, 0, 0, b"\0"), FRAME_SIZE_ERROR),
    connection("SETTINGS of odd length", frame(SETTINGS, 0, 0, b"\0"), FRAME_SIZE_ERROR),
    connection("ENABLE_PUSH of a server", settings(enable_push=1), PROTOCOL_ERROR),
    connection("a window of 2^31", settings(initial_window_size=1 << 31), FLOW_CONTROL_ERROR),
    connection(
        "the connection's window over 2^31",
        frame(WINDOW_UPDATE, 0, 0, U32.pack(2**31 - 1)),
        FLOW_CONTROL_ERROR,
    ),
    connection("no SETTINGS at first", b"", PROTOCOL_ERROR, first=frame(PING, 0, 0, b"\0" * 8)),
    connection("HTTP/1.1 instead", b"", FRAME_SIZE_ERROR, first=b"HTTP/1.1 400 Bad Request\r\n\r\n"),
]


@pytest.fixture(scope="module")
def script() -> Iterator[Script]:
    application = Script()
    application.start()
    yield application
    application.listener.close()


@pytest.fixture(scope="module")
def server(script: Script) -> Iterator[Server]:
    with sidecar(script.port) as running:
        yield running


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_application_that_breaks_the_protocol(server: Server, script: Script, case: Case) -> None:
    script.play(case.answer, case.first)
    with Client(server.port) as client:
        client.send(request(1))
        first = client.outcome(1, timeout=20)
        # An answer whose head was good has begun when its body turns out not to be: then the stream is reset.
        if str(first) == "status 200" and case.name != "DATA after the end":
            first = client.outcome(1, timeout=20)
        assert str(first) in (
            "status 502",
            "status 503",
            "reset 1",
            "reset 2",
            "reset 3",
            "reset 8",
            "status 200",
        ), first
    assert script.heard.wait(20), "the application is told"
    assert script.said[0] in case.said


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (frame(RST_STREAM, 0, 1, U32.pack(11)), {"reset 11", "status 502"}),
        (frame(GOAWAY, 0, 0, U32.pack(0) + U32.pack(0)), {"status 502", "status 503", "reset 7"}),
    ],
    ids=["a reset", "a GOAWAY that takes nothing"],
)
def test_an_application_that_will_not(
    server: Server, script: Script, answer: bytes, expected: set[str]
) -> None:
    script.play(answer, settings())
    with Client(server.port) as client:
        client.send(request(1))
        assert str(client.outcome(1, timeout=20)) in expected
