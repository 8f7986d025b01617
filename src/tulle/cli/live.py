"""The live view of a running mesh: golden metrics per workload and per edge, again and again, and the totals at its end.

What is drawn is decided by pure functions of a `View`; `follow` asks the mesh.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tulle.cli.golden import (
    COLUMNS,
    EDGE_COLUMNS,
    edge_cells,
    golden_cells,
    place,
    share,
    stat_cells,
)
from tulle.viz.answers import Edges, Golden, Stat, Summary

if TYPE_CHECKING:
    from rich.console import Group

__all__ = ["View", "follow", "plain_lines", "print_plain", "show_tables", "tables", "totals"]

WINDOW_SECONDS = 10.0
LOOK_EVERY_SECONDS = 1.0
PRINT_EVERY_SECONDS = 10.0
CONTROL_PLANE = "linkerd"


@dataclass(frozen=True)
class View:
    """One look at the mesh; `trouble` says why there is none."""

    stat: Stat | None
    edges: Edges | None
    trouble: str = ""


async def follow(kubeconfig: Path, every: float) -> AsyncGenerator[View, None]:
    """Look at the mesh every so many seconds, for ever."""
    from tulle.kube.client import Client, load_config
    from tulle.viz.client import MetricsClient, NoMetrics

    async with Client(load_config(str(kubeconfig))) as client:
        metrics = MetricsClient(client, CONTROL_PLANE)
        while True:
            try:
                stat = await metrics.stat("workload", window=WINDOW_SECONDS)
                edges = await metrics.edges(without=CONTROL_PLANE, window=WINDOW_SECONDS)
            except NoMetrics as error:
                yield View(None, None, f"{error.what}: {error.why}")
            else:
                yield View(stat, edges)
            await asyncio.sleep(every)


async def totals(kubeconfig: Path) -> Summary:
    """Return what was counted since the start. Raises NoMetrics."""
    from tulle.kube.client import Client, load_config
    from tulle.viz.client import MetricsClient

    async with Client(load_config(str(kubeconfig))) as client:
        return await MetricsClient(client, CONTROL_PLANE).summary()


def plain_lines(view: View) -> Sequence[str]:
    """Write a view as lines, each of which stands for itself."""
    if view.stat is None or view.edges is None:
        return [f"no metrics: {view.trouble}"]
    lines = [
        f"{place(row.namespace, row.kind, row.name)}  {_words(row.golden)}"
        for row in view.stat.rows
        if row.namespace != CONTROL_PLANE and row.golden.requests
    ]
    for edge in view.edges.rows:
        source, target, service, *_ = edge_cells(edge)
        through = f" ({service})" if edge.service else ""
        lines.append(
            f"{source} -> {target}{through}  mTLS {share(edge.golden.secured)}, {_words(edge.golden)}"
        )
    return lines


def tables(view: View) -> "Group":
    """Draw a view as two tables."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    if view.stat is None or view.edges is None:
        return Group(Text(f"no metrics: {view.trouble}", style="yellow"))

    def table(header: Sequence[str], left: int) -> Table:
        drawn = Table(box=None, pad_edge=False, header_style="bold")
        for place_, name in enumerate(header):
            drawn.add_column(name, justify="left" if place_ < left else "right", no_wrap=True)
        return drawn

    workloads = table(("NAMESPACE", *COLUMNS), 2)
    for row in view.stat.rows:
        if row.namespace != CONTROL_PLANE:
            cells = stat_cells(row)
            styled = [Text(cell) for cell in (row.namespace, *cells)]
            styled[3].stylize(_style(row.golden))
            workloads.add_row(*styled)
    calls = table(EDGE_COLUMNS, 3)
    for edge in view.edges.rows:
        styled = [Text(cell) for cell in edge_cells(edge)]
        styled[3].stylize("green" if edge.golden.secured == 1 else "red" if edge.golden.requests else "dim")
        styled[4].stylize(_style(edge.golden))
        calls.add_row(*styled)
    note = Text(
        f"last {view.stat.window_seconds:.0f} s; Ctrl-C ends it and leaves nothing behind", style="dim"
    )
    return Group(Text(), workloads, Text(), calls, Text(), note)


async def show_tables(kubeconfig: Path) -> None:
    """Keep the tables on the terminal up to date until cancelled."""
    from rich.console import Console
    from rich.live import Live

    console = Console()
    with Live(console=console, auto_refresh=False) as live:
        async with aclosing(follow(kubeconfig, LOOK_EVERY_SECONDS)) as views:
            async for view in views:
                live.update(tables(view), refresh=True)


async def print_plain(kubeconfig: Path) -> None:
    """Print lines now and then until cancelled."""
    await asyncio.sleep(PRINT_EVERY_SECONDS)
    async with aclosing(follow(kubeconfig, PRINT_EVERY_SECONDS)) as views:
        async for view in views:
            click.echo("\n".join(plain_lines(view)) or "no requests yet")


def _words(golden: Golden) -> str:
    success, rate, p50, p95, p99 = golden_cells(golden)
    return f"success {success}, {rate}, p50 {p50}, p95 {p95}, p99 {p99}"


def _style(golden: Golden) -> str:
    rate = golden.success_rate
    if rate is None:
        return "dim"
    return "green" if rate >= 0.99 else "yellow" if rate >= 0.9 else "red"
