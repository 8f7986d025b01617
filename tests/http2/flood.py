"""Sending much of the same and watching what it does: to the connection, to the server's memory, to a neighbour."""

import contextlib
import itertools
import select
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.http2.sidecar import Server
from tests.http2.wire import GOAWAY, Client, Outcome, request

__all__ = ["Flood", "Neighbour", "flood", "neighbour"]

BATCH = 50


@dataclass(frozen=True)
class Flood:
    """How far it came: units and octets sent when the end was seen, and that end."""

    units: int
    octets: int
    end: Outcome
    grown: int

    @property
    def streams(self) -> int:
        """How many streams the server says it has looked at."""
        return (self.end.last + 1) // 2


def flood(
    server: Server, unit: Callable[[int], bytes], most: int, begin: bytes = b"", batch: int = BATCH
) -> Flood:
    """Send units, numbered from 0, until the server ends the connection or `most` were sent."""
    before = server.resident()
    with Client(server.port) as client:
        client.send(begin)
        octets = 0
        for first in range(0, most, batch):
            piece = b"".join(unit(number) for number in range(first, first + batch))
            taken = client.send(piece)
            octets += len(piece)
            end = _end(client)
            if end is not None or not taken:
                grown = server.resident() - before
                return Flood(first + batch, octets, end or Outcome("closed"), grown)
        return Flood(most, octets, Outcome("silence"), server.resident() - before)


def _end(client: Client) -> Outcome | None:
    """Read what is there, without waiting but a moment."""
    while client.holds_frame() or select.select([client.socket], [], [], 0.001)[0]:
        try:
            came = client.read(0.5)
        except TimeoutError:
            return None
        if came is None:
            return Outcome("closed")
        if came.kind == GOAWAY and came.code:
            return Outcome("goaway", came.code, struct.unpack(">I", came.payload[:4])[0])
    return None


@dataclass
class Neighbour:
    """Another client's requests on a connection of its own: how long each took, in seconds, and what went wrong."""

    took: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


@contextlib.contextmanager
def neighbour(server: Server) -> Iterator[Neighbour]:
    """Ask every few milliseconds meanwhile, and at least once."""
    seen, stop = Neighbour(), threading.Event()

    def ask() -> None:
        with Client(server.port) as client:
            for number in itertools.count(1, 2):
                began = time.monotonic()
                client.send(request(number))
                outcome = client.outcome(number)
                seen.took.append(time.monotonic() - began)
                if outcome != Outcome("status", 200):
                    seen.wrong.append(str(outcome))
                    return
                if stop.wait(0.003):
                    return

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()
