"""Golden metrics as text: the cells of tables, which `tulle stat` and the live table share."""

from collections.abc import Iterable, Sequence
from math import ceil

from tulle.viz.answers import EdgeRow, Golden, StatRow

__all__ = [
    "COLUMNS",
    "EDGE_COLUMNS",
    "WIDE_COLUMNS",
    "columns",
    "edge_cells",
    "golden_cells",
    "latency",
    "place",
    "rate",
    "share",
    "stat_cells",
]

COLUMNS = ("NAME", "MESHED", "SUCCESS", "RPS", "LATENCY_P50", "LATENCY_P95", "LATENCY_P99", "TCP_CONN")
WIDE_COLUMNS = ("READ_BYTES/SEC", "WRITE_BYTES/SEC", "MTLS", "REQUESTS")
EDGE_COLUMNS = ("SRC", "DST", "SERVICE", "MTLS", *COLUMNS[2:7])
NOTHING = "-"


def share(part: float | None) -> str:
    """Write a share as a percentage; only what is really all of it reads 100 %."""
    if part is None:
        return NOTHING
    shown = f"{100 * part:.2f}%"
    return "99.99%" if part < 1 and shown == "100.00%" else shown


def rate(per_second: float | None) -> str:
    """Write a number of requests per second."""
    return NOTHING if per_second is None else f"{per_second:.1f}rps"


def latency(milliseconds: float | None) -> str:
    """Write a latency, rounded up: buckets are a millisecond wide at best, so nothing finer is known."""
    return NOTHING if milliseconds is None else f"{ceil(milliseconds)}ms"


def size(per_second: float | None) -> str:
    """Write bytes per second."""
    return NOTHING if per_second is None else f"{per_second:.1f}B/s"


def golden_cells(golden: Golden) -> tuple[str, ...]:
    """Return SUCCESS, RPS and the three latencies. A resource without requests shows no rate."""
    return (
        share(golden.success_rate),
        rate(golden.rps if golden.requests else None),
        latency(golden.latency_p50_ms),
        latency(golden.latency_p95_ms),
        latency(golden.latency_p99_ms),
    )


def stat_cells(row: StatRow, *, wide: bool = False) -> tuple[str, ...]:
    """Return the cells of COLUMNS, and of WIDE_COLUMNS when `wide`."""
    golden = row.golden
    connections = str(golden.tcp_connections) if row.meshed else NOTHING
    cells = (row.name, f"{row.meshed}/{row.pods}", *golden_cells(golden), connections)
    if wide:
        cells += (
            size(golden.read_bytes_per_second),
            size(golden.write_bytes_per_second),
            share(golden.secured),
            str(golden.requests),
        )
    return cells


def place(namespace: str, kind: str, name: str) -> str:
    """Name one end of an edge."""
    if not name:
        return "(outside)" if not namespace else "(no endpoint)"
    return f"{namespace}/{name}" if kind != "Pod" else f"{namespace}/pod/{name}"


def edge_cells(row: EdgeRow) -> tuple[str, ...]:
    """Return the cells of EDGE_COLUMNS."""
    return (
        place(row.source_namespace, row.source_kind, row.source),
        place(row.target_namespace, row.target_kind, row.target),
        row.service or NOTHING,
        share(row.golden.secured),
        *golden_cells(row.golden),
    )


def columns(header: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> str:
    """Lay out plain text: the first `left` columns to the left, numbers to the right, two or more spaces between."""
    table = [tuple(header), *map(tuple, rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "   ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    )
