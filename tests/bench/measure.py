"""One cell of a table: one proxy in one scenario, with fresh processes, measured between `start` and `stop` of the load."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.places import Places
from tests.bench.processes import LOAD_CORE, Cpu, cpu, on_core, resident_mb, running
from tests.bench.scenarios import Scenario

__all__ = ["Cell", "Contestant", "Memory", "Seen", "drive", "measure", "measure_memory", "served"]

Processes = list[subprocess.Popen[bytes]]


@dataclass(frozen=True)
class Contestant:
    """A proxy in the comparison, and how its processes for a scenario are run; they are ready inside of `run`."""

    name: str
    run: Callable[[Scenario, Path], AbstractContextManager[Processes]]
    lacks: Callable[[Scenario], str] = lambda _: ""


@dataclass(frozen=True)
class Seen:
    """What one run of the load saw, and what the proxies spent meanwhile."""

    requests: int
    errors: int
    bytes: int
    seconds: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    cpu: Cpu

    @property
    def micros(self) -> float:
        """CPU µs of the proxies per request."""
        return self.cpu.total / max(self.requests, 1) * 1e6

    @property
    def seconds_per_gb(self) -> float:
        """CPU seconds of the proxies per GB (1e9 bytes) carried."""
        return self.cpu.total / max(self.bytes, 1) * 1e9


@dataclass(frozen=True)
class Cell:
    """One round of one contestant in one scenario."""

    full: Seen
    paced: Seen | None
    idle_mb: list[float]
    burst_mb: list[float]


@dataclass(frozen=True)
class Memory:
    """Resident MB of each proxy: idle, and with so many connections held."""

    idle: list[float]
    held: list[float]
    errors: int = field(default=0)


def measure(
    contestant: Contestant, scenario: Scenario, places: Places, load: Path, seconds: float, *, prove: bool
) -> Cell:
    """Run one cell. With `prove`, a capture has to show that all between the proxies is TLS (RuntimeError otherwise)."""
    with _processes(contestant, scenario, places, load) as processes:
        pids = [process.pid for process in processes]
        idle = [resident_mb(pid) for pid in pids]
        if prove and scenario.hops == 2 and places.transparent:
            with _only_tls(places, contestant.name):
                drive(load, scenario, places, [], warm=0.2, seconds=0.5)
        full = drive(load, scenario, places, pids, warm=1.0, seconds=seconds)
        burst = [resident_mb(pid) for pid in pids]
        paced = None
        if scenario.rate:
            paced = drive(load, scenario, places, pids, warm=0.5, seconds=seconds, rate=scenario.rate)
        return Cell(full, paced, idle, burst)


def measure_memory(
    contestant: Contestant, scenario: Scenario, places: Places, load: Path, connections: int
) -> Memory:
    """Hold connections that have done one exchange each, and look."""
    with _processes(contestant, scenario, places, load) as processes:
        pids = [process.pid for process in processes]
        idle = [resident_mb(pid) for pid in pids]
        held: list[float] = []
        seen = drive(
            load, scenario, places, pids, kind="idle" if scenario.app == "http" else "hold",
            warm=4.0, seconds=2.0, connections=connections,
            at_stop=lambda: held.extend(resident_mb(pid) for pid in pids),
        )  # fmt: skip
        return Memory(idle, held, seen.errors)


@contextmanager
def _processes(contestant: Contestant, scenario: Scenario, places: Places, load: Path) -> Iterator[Processes]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tulle-bench-")))
        stack.enter_context(served(scenario, places, load, folder))
        yield stack.enter_context(contestant.run(scenario, folder))


@contextmanager
def served(scenario: Scenario, places: Places, load: Path, folder: Path) -> Iterator[None]:
    """Run a scenario's application."""
    ip = places.app_ip if scenario.hops == 2 else places.plain_ip
    command = [str(load), "serve", scenario.app, f"{ip}:{scenario.service.port}", str(scenario.bytes)]
    with running(places.app, LOAD_CORE, command, folder / "app.log"):
        time.sleep(0.1)
        yield


def drive(
    load: Path,
    scenario: Scenario,
    places: Places,
    pids: Sequence[int],
    *,
    warm: float,
    seconds: float,
    rate: float = 0,
    kind: str = "",
    connections: int = 0,
    at_stop: Callable[[], None] = lambda: None,
) -> Seen:
    """Run the load generator and note what the proxies spend between its `start` and `stop`."""
    settings = {**scenario.settings, "warm": warm, "seconds": seconds, "bytes": scenario.bytes, "rate": rate}
    if connections:
        settings["connections"] = connections
    words = [f"{name}={value}" for name, value in settings.items()]
    service = scenario.service
    words += [f"address={places.entry(service)}", f"host={service.name}:{service.port}"]
    command = [
        *places.client, *on_core(LOAD_CORE), str(load), "run", kind or scenario.load or scenario.app, *words,
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        before = after = Cpu(0, 0, 0)
        result: dict[str, float] = {}
        for line in process.stdout:
            match line.strip():
                case "start":
                    before = cpu(pids)
                case "stop":
                    after = cpu(pids)
                    at_stop()
                case text:
                    result = json.loads(text)
        if process.wait(60) != 0 or not result:
            raise RuntimeError(f"the load generator failed: {' '.join(command)}")
    return Seen(
        int(result["requests"]), int(result["errors"]), int(result["bytes"]), result["seconds"],
        result["p50_us"] / 1000, result["p99_us"] / 1000, result["p999_us"] / 1000, after - before,
    )  # fmt: skip


@contextmanager
def _only_tls(places: Places, name: str) -> Iterator[None]:
    command = [*places.app, sys.executable, "-m", "tests.bench.capture", "veth-app", "1.2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sniffer:
        assert sniffer.stdout
        sniffer.stdout.readline()
        yield
        seen = json.loads(sniffer.stdout.read())
    if not seen["frames"] or seen["flows"] != seen["tls"] or seen["clear"]:
        raise RuntimeError(f"{name}: not all between the proxies is TLS: {seen}")
