"""The attacks on HTTP/2 that servers fell to: each ends early, costs little memory, and a neighbour does not notice.

The classes and their history: rapid reset (CVE-2023-44487), resets that the server is made to send (CVE-2025-8671),
CONTINUATION without end (CVE-2024-27919 and others), references into the table that unfold (CVE-2026-47774), empty DATA
(RUSTSEC-2026-0258), and floods of control frames (CVE-2019-9512 and others).
"""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.http2.flood import Neighbour, flood, neighbour
from tests.http2.sidecar import Server, sidecar
from tests.http2.wire import (
    CANCEL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Client,
    Outcome,
    field,
    frame,
    request,
    settings,
)

MIB = 1 << 20
# What a neighbour waits while somebody attacks, as a rule and at worst. A loaded machine adds to what the server causes,
# which is 25 ms when it is alone.
AS_A_RULE = 0.5
AT_WORST = 10.0
U32 = struct.Struct(">I")


def served(other: Neighbour) -> bool:
    """Tell whether another client was served all the time."""
    waits = sorted(other.took)
    return not other.wrong and waits[len(waits) // 2] <= AS_A_RULE and waits[-1] <= AT_WORST


def stream(number: int) -> int:
    return 2 * number + 1


def test_rapid_reset_ends_within_a_thousand_streams(server: Server) -> None:
    def unit(number: int) -> bytes:
        return request(stream(number), path="/hold") + frame(RST_STREAM, 0, stream(number), U32.pack(CANCEL))

    with neighbour(server) as other:
        seen = flood(server, unit, 20_000)
    assert (seen.end.kind, seen.end.value) == ("goaway", ENHANCE_YOUR_CALM)
    assert seen.streams <= 1_000
    assert seen.grown <= 2 * MIB
    assert served(other)


RESETS: dict[str, Callable[[int], bytes]] = {
    "a window grown by 0": lambda n: frame(WINDOW_UPDATE, 0, n, U32.pack(0)),
    "a window over 2^31": lambda n: frame(WINDOW_UPDATE, 0, n, U32.pack(2**31 - 1)),
    "DATA after the end": lambda n: frame(DATA, 0, n, b"x"),
    "HEADERS after the end": lambda n: frame(HEADERS, END_HEADERS | END_STREAM, n, field("x", "1")),
    "a short PRIORITY": lambda n: frame(PRIORITY, 0, n, b"\0"),
}


@pytest.mark.parametrize("provoke", RESETS.values(), ids=RESETS.keys())
def test_resets_that_the_server_is_made_to_send_are_counted_too(
    server: Server, provoke: Callable[[int], bytes]
) -> None:
    seen = flood(server, lambda n: request(stream(n), path="/hold") + provoke(stream(n)), 20_000)
    assert seen.end.kind == "goaway"
    assert seen.streams <= 1_100
    assert seen.grown <= 2 * MIB


def test_malformed_requests_are_not_refused_for_ever(server: Server) -> None:
    seen = flood(server, lambda n: request(stream(n), ("Upper", "1")), 20_000)
    assert (seen.end.kind, seen.end.value) == ("goaway", ENHANCE_YOUR_CALM)
    assert seen.streams <= 1_100 and seen.grown <= 2 * MIB


def test_a_header_block_without_end_is_cut_off_within_256_kib(server: Server) -> None:
    begin = frame(HEADERS, END_STREAM, 1, b"\x82\x86\x84")
    # Huffman-coded: the most work per octet.
    piece = b"\x00\x01a\x7f\x80\x7f" + b"\x07" * 16_000
    before = server.cpu_seconds()
    seen = flood(server, lambda _: frame(CONTINUATION, 0, 1, piece), 1_000, begin, batch=1)
    assert seen.end.kind == "goaway"
    assert seen.octets <= 256 * 1024
    assert seen.grown <= 2 * MIB
    assert server.cpu_seconds() - before <= 0.2


@pytest.mark.parametrize("octets", [0, 1])
def test_small_continuations_are_cut_off(server: Server, octets: int) -> None:
    begin = frame(HEADERS, END_STREAM, 1, b"\x82\x86\x84")
    seen = flood(server, lambda _: frame(CONTINUATION, 0, 1, b"\x82" * octets), 100_000, begin)
    assert seen.end.kind == "goaway"
    assert seen.units <= 10_000


@pytest.mark.parametrize(
    ("name", "value"), [("x-bomb", "b" * 900), ("cookie", "a=b")], ids=["bomb", "crumbs"]
)
def test_references_that_unfold_are_counted_as_what_they_unfold_to(
    server: Server, name: str, value: str
) -> None:
    good = b"".join(
        field(*each)
        for each in [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")]
    )
    entry = b"\x40" + field(name, value)[1:]
    before = server.resident()
    with Client(server.port) as client, neighbour(server) as other:
        client.send(settings(initial_window_size=0))
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, good + entry))
        sent = 0
        for number in range(1, 101):
            bomb = frame(HEADERS, END_HEADERS | END_STREAM, stream(number), good + b"\xbe" * 15_000)
            sent += len(bomb)
            client.send(bomb)
            outcome = client.outcome(stream(number))
            if outcome.kind in ("goaway", "closed"):
                break
            assert str(outcome) in ("status 431", "reset 1", "reset 7", "reset 11"), number
        assert server.resident() - before <= max(5 * sent, MIB)
    assert served(other)


def test_empty_data_on_a_stream_that_nobody_reads(server: Server) -> None:
    begin = request(1, method="POST", path="/hold", end=False)
    with neighbour(server) as other:
        seen = flood(server, lambda _: frame(DATA, 0, 1), 1_000_000, begin, batch=500)
    assert (seen.end.kind, seen.end.value) == ("goaway", ENHANCE_YOUR_CALM)
    assert seen.units <= 10_000
    assert seen.grown <= 2 * MIB
    assert served(other)


CONTROL = {
    "PING": frame(PING, 0, 0, b"\0" * 8),
    "SETTINGS": frame(SETTINGS, 0, 0),
    "SETTINGS that change all windows": settings(initial_window_size=65_535)
    + settings(initial_window_size=1),
    "PRIORITY": frame(PRIORITY, 0, 1, b"\0\0\0\0\x10"),
    "WINDOW_UPDATE": frame(WINDOW_UPDATE, 0, 0, U32.pack(1)),
    "unknown frames": frame(250, 0, 0, b"?"),
}


@pytest.mark.parametrize("control", CONTROL.values(), ids=CONTROL.keys())
def test_floods_of_control_frames_end(server: Server, control: bytes) -> None:
    seen = flood(server, lambda _: control, 100_000, batch=500)
    assert (seen.end.kind, seen.end.value) == ("goaway", ENHANCE_YOUR_CALM)
    assert seen.units <= 10_000
    assert seen.grown <= 2 * MIB


@pytest.mark.parametrize("control", [CONTROL["PING"], CONTROL["SETTINGS"]], ids=["PING", "SETTINGS"])
def test_a_client_that_does_not_read_the_answers_is_left(server: Server, control: bytes) -> None:
    before = server.resident()
    with Client(server.port, timeout=2) as client, neighbour(server) as other:
        for _ in range(200):
            if not client.send(control * 500):
                break
        assert server.resident() - before <= 2 * MIB
        assert client.closes()
    assert served(other)


def test_a_stream_that_is_not_read_does_not_stop_another(server: Server) -> None:
    before = server.resident()
    with Client(server.port) as client:
        client.send(frame(WINDOW_UPDATE, 0, 0, U32.pack(1 << 24)))
        for number in range(8):
            client.send(request(stream(number), path="/bytes/4000000"))
        got = dict.fromkeys((stream(number) for number in range(8)), 0)
        while min(got.values()) < 65_535:
            came = client.read()
            assert came is not None
            if came.kind == DATA:
                got[came.stream] += len(came.payload)
        assert set(got.values()) == {65_535}, "each stops at its own window"
        client.send(request(41))
        assert client.outcome(41) == Outcome("status", 200)
        if server.name == "sidecar":
            # The codec's server makes all of a body at once; the sidecar asks for no more than can leave.
            assert server.resident() - before <= 8 * 512 * 1024


def test_streams_that_are_not_read_do_not_stop_another_client(server: Server) -> None:
    with Client(server.port) as client:
        client.send(settings(initial_window_size=0))
        for number in range(50):
            client.send(request(stream(number), path="/bytes/100000"))
        # All heads have come: what follows waits in the server, or behind it.
        heads = 0
        while heads < 50:
            came = client.read()
            assert came is not None
            heads += came.kind == HEADERS
        with Client(server.port) as other:
            other.send(request(1, path="/bytes/100"))
            assert other.outcome(1) == Outcome("status", 200)
            while (came := other.read()) is not None and came.kind != DATA:
                pass
            assert came is not None and len(came.payload) == 100


def test_a_window_opened_octet_by_octet_costs_its_owner(server: Server) -> None:
    begin = settings(initial_window_size=0) + request(1, path="/bytes/100000")
    seen = flood(server, lambda _: frame(WINDOW_UPDATE, 0, 1, U32.pack(1)), 100_000, begin, batch=100)
    assert seen.end.kind == "goaway"
    assert seen.units <= 10_000


class LeavingApplication(threading.Thread):
    """An application that resets each request and leaves with GOAWAY, then closes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self.listener.getsockname()[1]
        self.connections = 0

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            with connection:
                connection.settimeout(2)
                connection.sendall(settings())
                self._await_request(connection)
                code = U32.pack(CANCEL if self.connections % 2 else 0)
                connection.sendall(frame(RST_STREAM, 0, 1, code) + frame(GOAWAY, 0, 0, U32.pack(1) + code))

    def _await_request(self, connection: socket.socket) -> None:
        seen = b""
        while more := connection.recv(1 << 16):
            seen += more
            at = len(PREFACE)
            while at + 9 <= len(seen):
                if seen[at + 3] == HEADERS:
                    return
                at += 9 + int.from_bytes(seen[at : at + 3])


@pytest.fixture(scope="module")
def leaving() -> Iterator[Server]:
    application = LeavingApplication()
    application.start()
    with sidecar(application.port) as running:
        yield running
    application.listener.close()


@pytest.mark.timeout(90)
def test_an_application_that_resets_and_leaves_costs_no_memory(leaving: Server) -> None:
    def ask(count: int) -> set[str]:
        outcomes = set()
        with Client(leaving.port) as client:
            for number in range(count):
                client.send(request(stream(number)))
                outcomes.add(str(client.outcome(stream(number))))
        return outcomes

    ask(200)
    before = leaving.resident()
    deadline = time.monotonic() + 30
    asked, outcomes = 0, set[str]()
    while asked < 3_000 and time.monotonic() < deadline:
        outcomes |= ask(200)
        asked += 200
    assert asked >= 1_000, "each is answered at once"
    assert outcomes <= {"status 502", "status 503", "reset 8", "reset 0", "reset 2"}, outcomes
    assert leaving.resident() - before <= MIB
