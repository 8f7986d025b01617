"""Processes under measurement: exact CPU time, memory, pinning, and finding a pod's sidecar."""

import os
from pathlib import Path

__all__ = ["cpu_seconds", "pin", "resident_mb", "sidecars"]


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of all threads from the scheduler's own account, in seconds."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def resident_mb(pid: int) -> float:
    """Return the resident memory in MB (1e6 bytes)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def pin(pid: int, core: int) -> None:
    """Keep every thread of the process on one core; no-op on a machine with one."""
    if (os.cpu_count() or 1) < 2:
        return
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})


def sidecars(pod_prefix: str) -> list[int]:
    """Return the processes that are the sidecar of a pod whose name begins so."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")[0]
            environment = (process / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        named = any(entry.startswith(f"_pod_name={pod_prefix}".encode()) for entry in environment)
        if command.endswith(b"tulle-proxy") and named:
            found.append(int(process.name))
    return found
