"""Golden metrics as text: cells, columns, and the live view's lines and tables."""

from io import StringIO

import pytest
from rich.console import Console

from tulle.cli.golden import (
    COLUMNS,
    EDGE_COLUMNS,
    WIDE_COLUMNS,
    columns,
    edge_cells,
    latency,
    place,
    rate,
    share,
    stat_cells,
)
from tulle.cli.live import View, plain_lines, tables
from tulle.viz.answers import EdgeRow, Edges, Golden, Stat, StatRow

BUSY = Golden(
    requests=300,
    success_rate=0.91964,
    rps=1.92,
    latency_p50_ms=3.7,
    latency_p95_ms=11.0,
    latency_p99_ms=25.2,
    tcp_connections=4,
    read_bytes_per_second=120.5,
    write_bytes_per_second=9.0,
    secured=1.0,
)
WEB = StatRow(namespace="shop", kind="Deployment", name="web", meshed=2, pods=2, golden=BUSY)
QUIET = StatRow(namespace="shop", kind="Deployment", name="bot", meshed=1, pods=1, golden=Golden(rps=0.0))
BARE = StatRow(namespace="shop", kind="Deployment", name="old", meshed=0, pods=1, golden=Golden(rps=0.0))
CONTROLLER = StatRow(
    namespace="linkerd", kind="Deployment", name="tulle-controller", meshed=1, pods=1, golden=BUSY
)
CALL = EdgeRow(
    source_namespace="shop",
    source_kind="Deployment",
    source="web",
    target_namespace="shop",
    target_kind="Deployment",
    target="api",
    service="api-svc",
    golden=BUSY,
)
VIEW = View(
    Stat(kind="Workload", window_seconds=10.0, rows=[CONTROLLER, QUIET, WEB]),
    Edges(window_seconds=10.0, rows=[CALL]),
)


@pytest.mark.parametrize(
    ("part", "text"), [(None, "-"), (1.0, "100.00%"), (0.999999, "99.99%"), (0.5, "50.00%"), (0.0, "0.00%")]
)
def test_only_all_of_it_reads_a_hundred_percent(part: float | None, text: str) -> None:
    assert share(part) == text


def test_a_latency_is_rounded_up_and_a_missing_one_is_a_dash() -> None:
    assert (latency(0.2), latency(3.0), latency(3.01), latency(None), rate(None)) == (
        "1ms",
        "3ms",
        "4ms",
        "-",
        "-",
    )


def test_a_row_has_a_cell_for_every_column() -> None:
    assert stat_cells(WEB) == ("web", "2/2", "91.96%", "1.9rps", "4ms", "11ms", "26ms", "4")
    assert len(stat_cells(WEB)) == len(COLUMNS)
    assert len(stat_cells(WEB, wide=True)) == len(COLUMNS + WIDE_COLUMNS)
    assert len(edge_cells(CALL)) == len(EDGE_COLUMNS)


def test_what_has_no_requests_shows_no_rate_and_what_is_not_meshed_no_connections() -> None:
    assert stat_cells(QUIET) == ("bot", "1/1", "-", "-", "-", "-", "-", "0")
    assert stat_cells(BARE) == ("old", "0/1", "-", "-", "-", "-", "-", "-")


def test_ends_of_edges_outside_the_mesh_are_named() -> None:
    assert place("", "", "") == "(outside)"
    assert place("shop", "", "") == "(no endpoint)"
    assert place("shop", "Pod", "curl") == "shop/pod/curl"


def test_columns_are_aligned_by_their_widest_cell() -> None:
    assert columns(("NAME", "RPS"), [("a", "10.0rps"), ("longer", "-")]) == (
        "NAME         RPS\na        10.0rps\nlonger         -"
    )


def test_plain_lines_stand_for_themselves_and_leave_the_control_plane_out() -> None:
    assert plain_lines(VIEW) == [
        "shop/web  success 91.96%, 1.9rps, p50 4ms, p95 11ms, p99 26ms",
        "shop/web -> shop/api (api-svc)  mTLS 100.00%, success 91.96%, 1.9rps, p50 4ms, p95 11ms, p99 26ms",
    ]


def test_the_live_tables_show_workloads_and_edges() -> None:
    out = StringIO()
    Console(file=out, width=140).print(tables(VIEW))
    text = out.getvalue()
    assert "tulle-controller" not in text
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "shop web 2/2 91.96% 1.9rps 4ms 11ms 26ms 4" in lines
    assert "shop bot 1/1 - - - - - 0" in lines
    assert "shop/web shop/api api-svc 100.00% 91.96% 1.9rps 4ms 11ms 26ms" in lines


def test_no_metrics_are_told_with_their_reason() -> None:
    view = View(None, None, "the API does not answer")
    out = StringIO()
    Console(file=out, width=140).print(tables(view))
    assert "no metrics: the API does not answer" in out.getvalue()
    assert plain_lines(view) == ["no metrics: the API does not answer"]
