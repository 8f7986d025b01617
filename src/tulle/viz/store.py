"""What has been counted, kept by what a person asks for: pods as servers, and edges between workloads.

A round is one scrape of all sidecars. Each row keeps, per round, how much its counters rose, in a ring of flat arrays:
28 numbers of four bytes and two of eight, so 7.7 KB for 60 rounds. Rows die when no series feeds them any more and
nothing of them is left in the ring. All bounds of this package's memory stand here.
"""

from array import array
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from tulle.viz.latency import BUCKETS

__all__ = [
    "FAILURE",
    "READ",
    "SUCCESS",
    "WRITE",
    "Counts",
    "Edge",
    "Row",
    "Served",
    "Store",
    "Window",
    "Workload",
]

ROUNDS = 60
MAX_ROWS = 2_000  # about 15 MB
# Rows that rest, with their totals, are forgotten after this.
IDLE_SECONDS = 300.0

# Columns of a row: answers by class, then the latency buckets (cumulative, as exposed), then bytes.
SUCCESS, FAILURE, LATENCY = 0, 1, 2
COUNTS = LATENCY + BUCKETS
READ, WRITE = COUNTS, COUNTS + 1
_LARGEST = 2**32 - 1
_LARGEST_BYTES = 2**63 - 1
_NO_COUNTS = array("I", bytes(4 * COUNTS))
_NO_BYTES = array("Q", bytes(16))


class Workload(NamedTuple):
    """A Deployment or its kin, named by `kind`; a Pod of its own has kind Pod. All empty: outside the mesh."""

    namespace: str
    kind: str
    name: str


class Served(NamedTuple):
    """What a pod's sidecar let in: `secured` tells whether the client proved an identity by mutual TLS."""

    namespace: str
    pod: str
    workload: Workload
    route: str
    secured: bool


class Edge(NamedTuple):
    """Calls from one workload to another by way of a Service; `service` lies in the target's namespace."""

    source: Workload
    target: Workload
    service: str
    secured: bool


@dataclass(slots=True)
class Counts:
    """Sums over a span of time, or since the sidecars started."""

    success: int = 0
    failure: int = 0
    buckets: Sequence[int] = (0,) * BUCKETS
    read: int = 0
    write: int = 0
    connections: int = 0

    @property
    def requests(self) -> int:
        """All answers, of either class."""
        return self.success + self.failure

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.success + other.success,
            self.failure + other.failure,
            [mine + theirs for mine, theirs in zip(self.buckets, other.buckets, strict=True)],
            self.read + other.read,
            self.write + other.write,
            self.connections + other.connections,
        )


@dataclass(frozen=True, slots=True)
class Window:
    """Rounds to look at, and the seconds that they cover; 0.0 when there are not yet two."""

    slots: tuple[int, ...]
    seconds: float


class Row:
    """The counters of one key. `users` is how many series feed it."""

    __slots__ = ("_bytes", "_counts", "_total_bytes", "_totals", "connections", "touched", "users")

    def __init__(self, now: float) -> None:
        self._counts = array("I", bytes(4 * COUNTS * ROUNDS))
        self._bytes = array("Q", bytes(16 * ROUNDS))
        self._totals = [0] * COUNTS
        self._total_bytes = [0, 0]
        self.connections = 0
        self.users = 0
        self.touched = now

    def add(self, slot: int, column: int, rise: int, now: float) -> None:
        """Add to one column of a round. A rise that no counter can have made in a round is cut."""
        self.touched = now
        if column < COUNTS:
            at = slot * COUNTS + column
            self._counts[at] = min(self._counts[at] + rise, _LARGEST)
        else:
            at = slot * 2 + column - COUNTS
            self._bytes[at] = min(self._bytes[at] + rise, _LARGEST_BYTES)
        self.add_total(column, rise)

    def add_total(self, column: int, rise: int) -> None:
        """Add what was counted before anybody looked: it belongs to no round."""
        if column < COUNTS:
            self._totals[column] += rise
        else:
            self._total_bytes[column - COUNTS] += rise

    def clear(self, slot: int) -> None:
        """Forget a round, to use its place again."""
        self._counts[slot * COUNTS : (slot + 1) * COUNTS] = _NO_COUNTS
        self._bytes[slot * 2 : slot * 2 + 2] = _NO_BYTES

    def over(self, window: Window) -> Counts:
        """Return the sums over some rounds; connections are those open now."""
        pieces = [self._counts[slot * COUNTS : (slot + 1) * COUNTS] for slot in window.slots]
        sums = [sum(column) for column in zip(*pieces, strict=True)] if pieces else [0] * COUNTS
        return Counts(
            sums[SUCCESS],
            sums[FAILURE],
            sums[LATENCY:],
            sum(self._bytes[slot * 2] for slot in window.slots),
            sum(self._bytes[slot * 2 + 1] for slot in window.slots),
            max(0, self.connections),
        )

    @property
    def total(self) -> Counts:
        """The sums since the sidecars started."""
        totals = self._totals
        read, write = self._total_bytes
        return Counts(
            totals[SUCCESS], totals[FAILURE], totals[LATENCY:], read, write, max(0, self.connections)
        )


K = TypeVar("K", bound=Hashable)


class Table(Generic[K]):
    """Rows by key."""

    def __init__(self) -> None:
        self.rows: dict[K, Row] = {}

    def __iter__(self) -> Iterator[tuple[K, Row]]:
        return iter(self.rows.items())

    def __len__(self) -> int:
        return len(self.rows)


class Store:
    """All rows and the times of the rounds. Belongs to one event loop; nothing here waits."""

    def __init__(self) -> None:
        self.served: Table[Served] = Table()
        self.edges: Table[Edge] = Table()
        self.refused = 0
        self.slot = 0
        self.now = 0.0
        # Ends of the rounds, by slot; None for a slot that was never used.
        self._ends: list[float | None] = [None] * ROUNDS

    def begin(self, now: float) -> None:
        """Begin a round; what is added from now on belongs to it, and shows once the round has ended."""
        self.now = now
        self.slot = (self.slot + 1) % ROUNDS
        self._ends[self.slot] = None
        for table in (self.served, self.edges):
            for row in table.rows.values():
                row.clear(self.slot)

    def end(self, now: float) -> None:
        """End the round and forget rows that nothing feeds and that have rested."""
        self.now = now
        self._ends[self.slot] = now
        self._forget(self.served, now)
        self._forget(self.edges, now)

    def row(self, table: Table[K], key: K) -> Row | None:
        """Return the row of a key, new if need be; None when there is no room (counted in `refused`)."""
        row = table.rows.get(key)
        if row is None:
            if len(self.served) + len(self.edges) >= MAX_ROWS:
                self.refused += 1
                return None
            row = table.rows[key] = Row(self.now)
        return row

    def window(self, seconds: float) -> Window:
        """Return the newest ended rounds that lie within `seconds` before the newest end."""
        slots: list[int] = []
        newest = start = None
        for back in range(ROUNDS):
            slot = (self.slot - back) % ROUNDS
            end = self._ends[slot]
            if end is None:
                if back == 0:
                    continue  # the round that is under way
                break
            if newest is None:
                newest = end
            if newest - end >= seconds:
                start = end
                break
            slots.append(slot)
            start = end
        if newest is None or start is None:
            return Window((), 0.0)
        if self._ends[slots[-1]] == start:
            slots.pop()  # nobody looked before the first of all rounds: what it found took longer than a round
        return Window(tuple(slots), newest - start)

    @staticmethod
    def _forget(table: Table[K], now: float) -> None:
        idle = [key for key, row in table if not row.users and now - row.touched > IDLE_SECONDS]
        for key in idle:
            del table.rows[key]
