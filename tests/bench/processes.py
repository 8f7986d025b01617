"""Processes under measurement: starting and stopping them on a core, exact CPU time, memory."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["LOAD_CORE", "PROXY_CORE", "Cpu", "cpu", "cpu_seconds", "resident_mb", "running", "until"]

PROXY_CORE, LOAD_CORE = 0, 1
START_SECONDS, STOP_SECONDS = 20, 10


@dataclass(frozen=True)
class Cpu:
    """CPU time of processes: seconds by the scheduler's account, and of these in user space and in the kernel."""

    total: float
    user: float
    system: float

    def __sub__(self, before: "Cpu") -> "Cpu":
        """Return what was used since."""
        return Cpu(self.total - before.total, self.user - before.user, self.system - before.system)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of all its threads, also of those that have ended, in seconds; see clock_getcpuclockid(3)."""
    every_thread_by_the_scheduler = ~pid << 3 | 2
    return time.clock_gettime(every_thread_by_the_scheduler)


def cpu(pids: Sequence[int]) -> Cpu:
    """Return the CPU time of processes; user and system come in ticks of 10 ms."""
    user = system = 0
    for pid in pids:
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        user, system = user + int(ticks[0]), system + int(ticks[1])
    tick = os.sysconf("SC_CLK_TCK")
    return Cpu(sum(map(cpu_seconds, pids)), user / tick, system / tick)


def resident_mb(pid: int) -> float:
    """Return the resident memory in MB (1e6 bytes)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def on_core(core: int) -> Sequence[str]:
    """Return the prefix of a command that keeps it on one core; empty on a machine with one."""
    return ("taskset", "-c", str(core)) if (os.cpu_count() or 1) > 1 else ()


@contextmanager
def running(
    place: Sequence[str], core: int, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in a place and on a core; it is stopped at the end. What it says goes to `log`."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            [*place, *on_core(core), *command],
            stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=None if env is None else dict(env),
        )  # fmt: skip
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def until(what: str, holds: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until `holds`; RuntimeError with the end of the log when the process ends first or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while not holds():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{what} is not ready; the end of its log:\n{log.read_text()[-2000:]}")
        time.sleep(0.02)
