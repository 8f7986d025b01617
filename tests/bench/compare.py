"""Tulle beside Envoy, HAProxy, nginx and linkerd2-proxy: the same work, in turn, in one run; medians with their spread."""

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.bench.measure import Cell, Contestant, Memory, Processes, measure, measure_memory
from tests.bench.places import Places, loopback, namespaces, why_no_namespaces
from tests.bench.rivals import RIVALS, Rival, rival_pair
from tests.bench.scenarios import SCENARIOS, Scenario
from tests.bench.sidecars import control_plane, linkerd_binary, sidecar_pair

__all__ = ["contestants", "report", "run"]

HELD = 1000
PACED_SHARE = 0.40
MEMORY_MUST = {"b": (8.0, 12.0, 14.0), "d2": (8.0, 12.0, 16.0)}
"""Resident MB that a sidecar may have: idle, after a burst, more per 1,000 connections."""


@dataclass
class Table:
    """What was seen in one scenario, a list of rounds for each contestant."""

    scenario: Scenario
    cells: dict[str, list[Cell]] = field(default_factory=dict)
    memory: dict[str, Memory] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


@contextmanager
def _tulle_run(
    binary: Path, places: Places, plane: Path, scenario: Scenario, folder: Path, *, linkerd: bool
) -> Iterator[Processes]:
    """Run sidecars; what the control plane wrote lies in `plane`, what the sidecars write goes there as well."""
    commands = {"client": [str(binary)], "app": [str(binary)]}
    with sidecar_pair(commands, scenario, places, plane, linkerd=linkerd) as processes:
        yield processes


@contextmanager
def _rival_run(
    rival: Rival, binary: str, places: Places, scenario: Scenario, folder: Path
) -> Iterator[Processes]:
    with rival_pair(rival, binary, scenario, places, folder) as processes:
        yield processes


def contestants(proxy: Path, places: Places, plane: Path) -> tuple[list[Contestant], list[str]]:
    """Return who takes part, Tulle first, and a line for each that is absent. `plane` is the control plane's folder."""
    found = [Contestant("tulle", partial(_tulle_run, proxy, places, plane, linkerd=False))]
    absent = []
    for rival in RIVALS:
        binary = rival.binary()
        if binary is None:
            absent.append(f"{rival.name}: skipped, not installed ({rival.needs})")
        else:
            found.append(Contestant(rival.name, partial(_rival_run, rival, binary, places), rival.lacks))
    linkerd = linkerd_binary()
    if linkerd is None:
        absent.append("linkerd2-proxy: skipped, LINKERD2_PROXY_BIN names none")
    else:
        found.append(Contestant("linkerd2-proxy", partial(_tulle_run, linkerd, places, plane, linkerd=True)))
    return found, absent


def run(
    load: Path,
    proxy: Path,
    names: Sequence[str],
    rounds: int,
    seconds: float,
    *,
    use_loopback: bool,
    memory: bool,
) -> bool:
    """Measure and print; return whether every target that could be looked at is met and nothing went wrong."""
    why = "asked for" if use_loopback else why_no_namespaces()
    with ExitStack() as stack:
        places = loopback() if why else stack.enter_context(namespaces())
        kind = f"loopback ({why})" if why else "two network namespaces, a veth, transparent redirection"
        plane = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tulle-bench-plane-")))
        stack.enter_context(control_plane(places, plane))
        found, absent = contestants(proxy, places, plane)
        sys.stdout.write(f"{kind}; proxies on one core, load and application on the other\n")
        sys.stdout.write("".join(f"{line}\n" for line in absent))
        met = True
        for name in names:
            table = Table(SCENARIOS[name])
            for number in range(rounds):
                turn = number % len(found)
                for contestant in found[turn:] + found[:turn]:
                    _round(table, contestant, places, load, seconds, first=number == 0)
            if memory and name in MEMORY_MUST:
                for contestant in found:
                    if contestant.name not in table.skipped:
                        table.memory[contestant.name] = measure_memory(
                            contestant, table.scenario, places, load, HELD
                        )
            text, good = report(table)
            sys.stdout.write(text + "\n\n")
            sys.stdout.flush()
            met = met and good
        return met


def _round(
    table: Table, contestant: Contestant, places: Places, load: Path, seconds: float, *, first: bool
) -> None:
    scenario = table.scenario
    lacks = contestant.lacks(scenario)
    if not places.transparent and (scenario.transparent_only or contestant.name == "linkerd2-proxy"):
        lacks = lacks or "it needs connections that are redirected"
    if lacks:
        table.skipped[contestant.name] = lacks
        return
    _quiet()
    cell = measure(contestant, scenario, places, load, seconds, prove=first)
    table.cells.setdefault(contestant.name, []).append(cell)


def _quiet() -> None:
    """Wait until the machine does nothing else, ten seconds at most."""
    for _ in range(10):
        before = _busy()
        time.sleep(1)
        after = _busy()
        if (after[0] - before[0]) < 0.1 * (after[1] - before[1]):
            return


def _busy() -> tuple[int, int]:
    fields = list(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]))
    return sum(fields) - fields[3] - fields[4], sum(fields)


def _spread(figures: Sequence[float], digits: int = 1) -> str:
    middle = statistics.median(figures)
    return f"{middle:,.{digits}f} [{min(figures):,.{digits}f}–{max(figures):,.{digits}f}]"


def _cost(scenario: Scenario, cell: Cell) -> float:
    return cell.full.seconds_per_gb if scenario.app == "sink" else cell.full.micros


def report(table: Table) -> tuple[str, bool]:
    """Return a scenario's table in Markdown, and whether its targets are met."""
    scenario, bulk = table.scenario, table.scenario.app == "sink"
    rate = "GB/s" if bulk else "per second"
    lines = [
        f"### {scenario.name}: {scenario.title}",
        "",
        f"| proxy | {scenario.unit} | user + system | {rate} | p50 / p99 / p99.9 ms at {scenario.rate:,.0f}/s | "
        "CPU µs at that rate | RSS MB idle → after | errors |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, cells in table.cells.items():
        costs = [_cost(scenario, cell) for cell in cells]
        share = [cell.full.cpu.user / max(cell.full.cpu.user + cell.full.cpu.system, 1e-9) for cell in cells]
        user = statistics.median(costs) * statistics.median(share)
        speeds = [
            cell.full.bytes / 1e9 / cell.full.seconds if bulk else cell.full.requests / cell.full.seconds
            for cell in cells
        ]
        paced = [cell.paced for cell in cells if cell.paced is not None]
        latency = " / ".join(
            f"{statistics.median(figures):.2f}"
            for figures in ([p.p50_ms for p in paced], [p.p99_ms for p in paced], [p.p999_ms for p in paced])
            if figures
        )
        idle = max(max(cell.idle_mb) for cell in cells)
        after = max(max(cell.burst_mb) for cell in cells)
        errors = sum(cell.full.errors + (cell.paced.errors if cell.paced else 0) for cell in cells)
        digits = 2 if bulk else 1
        lines.append(
            f"| {name} | {_spread(costs, digits)} | {user:.1f} + {statistics.median(costs) - user:.1f} "
            f"| {_spread(speeds, 2 if bulk else 0)} | {latency or '–'} "
            f"| {_spread([p.micros for p in paced]) if paced else '–'} | {idle:.1f} → {after:.1f} | {errors} |"
        )
    lines += [f"{name}: skipped, {why}" for name, why in table.skipped.items()]
    judged, met = _judge(table)
    return "\n".join([*lines, "", *judged, *_memory_lines(table)]), met


def _judge(table: Table) -> tuple[list[str], bool]:
    scenario, cells = table.scenario, table.cells
    wrong = [
        name
        for name, rounds in cells.items()
        if any(cell.full.errors or (cell.paced and cell.paced.errors) for cell in rounds)
    ]
    lines = [f"errors: {', '.join(wrong)}"] if wrong else []
    met = "tulle" not in wrong
    if "tulle" in cells and "envoy" in cells:
        ours, theirs = (
            statistics.median(_cost(scenario, cell) for cell in cells[name]) for name in ("tulle", "envoy")
        )
        share = ours / theirs
        met = met and share <= scenario.must
        lines.append(
            f"tulle / envoy: {share:.2f} of its CPU (must ≤ {scenario.must}, should ≤ {scenario.should}): "
            + (
                "met"
                if share <= scenario.should
                else "the must is met"
                if share <= scenario.must
                else "MISSED"
            )
        )
        if scenario.rate and scenario.name == "b":
            ours, theirs = (
                statistics.median(cell.paced.micros for cell in cells[name] if cell.paced)
                for name in ("tulle", "envoy")
            )
            met = met and ours / theirs <= PACED_SHARE
            lines.append(f"tulle / envoy at the fixed rate: {ours / theirs:.2f} (must ≤ {PACED_SHARE})")
    if scenario.name == "b" and "haproxy" in cells and "tulle" in cells:
        ours, theirs = (
            statistics.median(cell.paced.p99_ms for cell in cells[name] if cell.paced)
            for name in ("tulle", "haproxy")
        )
        met = met and ours <= theirs
        lines.append(f"p99 at the fixed rate: {ours:.2f} ms, HAProxy {theirs:.2f} ms (must not be above it)")
    return lines, met


def _memory_lines(table: Table) -> list[str]:
    if not table.memory:
        return []
    lines = [
        "",
        f"| proxy | idle out / in MB | with {HELD:,} connections held out / in MB | more per 1,000 out / in MB |",
        "|---|---|---|---|",
    ]
    for name, memory in table.memory.items():
        idle, held = memory.idle, memory.held
        more = [(after - before) * 1000 / HELD for after, before in zip(held, idle, strict=False)]
        lines.append(f"| {name} | {_both(idle)} | {_both(held)} | {_both(more)} |")
    return lines


def _both(figures: Sequence[float]) -> str:
    return " / ".join(f"{figure:.1f}" for figure in figures)
