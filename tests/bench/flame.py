"""A flame graph of the sidecars under a scenario's load: `python -m tests.bench.flame b docs/img/two-hops.svg`.

`perf` samples both sidecars while they are saturated; a frame is as wide as its share of all samples, callers below,
callees above. Kernel frames are one colour, the sidecar's code another, libraries a third.
"""

import html
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import compare
from tests.bench.load import TARGET, load_generator
from tests.bench.measure import drive, served
from tests.bench.places import namespaces
from tests.bench.scenarios import SCENARIOS
from tests.bench.sidecars import control_plane

__all__ = ["fold", "render", "short"]

HERTZ, WARM, SECONDS = 999, 1.5, 4
WIDTH, ROW, LEAST = 1200, 15, 0.005
"""Pixels, and the smallest share of the samples that is drawn."""
COLOURS = {"kernel": "#e8a87c", "sidecar": "#7fb3d5", "library": "#b5cf9b"}
OURS = ("tulle_",)
POLL = "raw::poll"
"""What tokio calls a task by."""

Stack = tuple[str, ...]


def short(symbol: str) -> str:
    """Return a function's name as people say it: no type parameters, no more than the last two parts of its path."""
    depth, plain = 0, []
    for number, letter in enumerate(symbol):
        if letter == "<":
            depth += 1
        elif letter == ">" and symbol[number - 1] != "-":
            depth -= 1
        elif depth == 0:
            plain.append(letter)
    parts = [part for part in "".join(plain).split("::") if part and part != "{{closure}}"]
    if not parts:
        # `<T as Trait>::method` has lost everything but its method; a lone `<…>` says what is in it.
        return symbol.strip("<>").split("::")[-1] or symbol
    if symbol.startswith("<") and len(parts) == 1:
        implementor = symbol[1:].split(" as ")[0].split("<")[0].split("::")[-1]
        return f"{implementor}::{parts[0]}"
    return "::".join(parts[-2:])


def fold(lines: Iterable[str]) -> Counter[Stack]:
    """Count the stacks of `perf script -F ip,sym,dso`: one frame a line, the innermost first, a blank line after each.

    A frame is its kind, a colon, its name.
    """
    stacks: Counter[Stack] = Counter()
    frames: list[str] = []
    for line in [*lines, ""]:
        words = line.split(None, 1)
        if len(words) == 2:
            symbol, _, home = words[1].rpartition(" (")
            name = symbol.strip()
            if "[kernel" in home or "[guest" in home or home.startswith("["):
                kind = "kernel"
            else:
                kind = "sidecar" if any(ours in name for ours in OURS) else "library"
            frames.append(f"{kind}:{short(name)}")
        elif frames:
            stacks[_trimmed(tuple(reversed(frames)))] += 1
            frames = []
    return stacks


def _trimmed(stack: Stack) -> Stack:
    """Leave out how the runtime comes to poll a task: the same in all stacks, and cut off in some."""
    named = tuple(frame for frame in stack if not frame.endswith(":[unknown]"))
    for depth, frame in enumerate(named):
        if frame.endswith(f":{POLL}"):
            return ("library:a task", *named[depth + 1 :])
    return ("library:the runtime", *named)


@dataclass
class _Frame:
    samples: int = 0
    callees: dict[str, "_Frame"] = field(default_factory=dict)


def _tree(stacks: Mapping[Stack, int]) -> _Frame:
    root = _Frame()
    for stack, samples in stacks.items():
        root.samples += samples
        frame = root
        for name in stack:
            frame = frame.callees.setdefault(name, _Frame())
            frame.samples += samples
    return root


def render(stacks: Mapping[Stack, int], title: str) -> str:
    """Draw counted stacks as SVG. Hovering over a frame tells its name and share."""
    root = _tree(stacks)
    boxes: list[tuple[int, float, float, str, float]] = []

    def place(frame: _Frame, left: float, depth: int) -> None:
        for name, callee in sorted(frame.callees.items()):
            share = callee.samples / root.samples
            if share >= LEAST:
                boxes.append((depth, left, share, name, share))
                place(callee, left, depth + 1)
            left += share

    place(root, 0.0, 0)
    height = (max((depth for depth, *_ in boxes), default=0) + 1) * ROW + 40
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="10">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="8" y="16" font-size="13">{html.escape(title)}</text>',
    ]
    for depth, left, width, name, share in boxes:
        kind, _, text = name.partition(":")
        x, y, wide = left * WIDTH, height - (depth + 1) * ROW - 4, width * WIDTH
        box = f'<rect x="{x:.1f}" y="{y}" width="{max(wide - 0.4, 0.4):.1f}" height="{ROW - 1}" fill="{COLOURS[kind]}"/>'
        room = int(wide / 5.6)
        label = ""
        if room >= 4:
            cut = text if len(text) <= room else text[: room - 1] + "…"
            label = f'<text x="{x + 2:.1f}" y="{y + 11}">{html.escape(cut)}</text>'
        lines.append(f"<g><title>{html.escape(text)} {share:.1%}</title>{box}{label}</g>")
    return "\n".join([*lines, "</svg>", ""])


def _sampled(pids: Iterable[int], file: Path) -> Counter[Stack]:
    """Sample processes, once the load has warmed up."""
    record = ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(HERTZ), "--call-graph", "dwarf,16384"]
    record += ["-D", str(round(WARM * 1000)), "-o", str(file), "-p", ",".join(map(str, pids))]
    subprocess.run([*record, "--", "sleep", str(WARM + SECONDS)], check=True)
    script = ["perf", "script", "--no-inline", "-F", "ip,sym,dso", "-i", str(file)]
    text = subprocess.run(script, check=True, capture_output=True, text=True).stdout
    return fold(text.splitlines())


def main(name: str, target: Path) -> None:
    """Load a scenario's sidecars as `make bench` does, with `perf` watching."""
    scenario, load = SCENARIOS[name], load_generator()
    with ExitStack() as stack:
        places = stack.enter_context(namespaces())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tulle-flame-")))
        stack.enter_context(control_plane(places, folder))
        (tulle, *_), _ = compare.contestants(TARGET / "tulle-proxy", places, folder)
        stack.enter_context(served(scenario, places, load, folder))
        processes = stack.enter_context(tulle.run(scenario, folder))
        pids = [each.pid for each in processes]
        pool = stack.enter_context(ThreadPoolExecutor(1))
        sampling = pool.submit(_sampled, pids, folder / "perf.data")
        seen = drive(load, scenario, places, pids, warm=WARM, seconds=SECONDS + 1)
        stacks = sampling.result()
    total = sum(stacks.values())
    kernel = sum(count for frames, count in stacks.items() if frames[-1].startswith("kernel:")) / total
    title = (
        f"{scenario.title}: both sidecars, {seen.micros:.1f} CPU µs per request, {total:,} samples, "
        f"{kernel:.0%} in the kernel"
    )
    target.write_text(render(stacks, title))
    sys.stdout.write(f"{target}: {title}\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
