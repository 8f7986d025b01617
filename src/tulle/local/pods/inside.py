"""Runs a command inside a container for the agent's own needs: exec probes and exec hooks."""

import asyncio
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from tulle.local.net.model import Network, PodNetwork, ProcessSpec
from tulle.local.pods.launch import Launch
from tulle.local.pods.logs import pump

__all__ = ["Outcome", "process_spec", "run_inside"]

OUTPUT_BYTES = 10 * 1024
"""How much of a probe's or hook's output is kept for its Event."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended."""

    exit_code: int
    output: str


def process_spec(launch: Launch, argv: Sequence[str], stdout: int, stderr: int) -> ProcessSpec:
    """Return the spec of a process in the surroundings of a container."""
    return ProcessSpec(
        argv=tuple(argv),
        env=launch.env,
        stdout_fd=stdout,
        stderr_fd=stderr,
        cwd=launch.cwd,
        uid=launch.uid,
        gid=launch.gid,
        mounts=launch.mounts,
        hosts=launch.hosts,
        all_addresses=launch.all_addresses,
    )


async def run_inside(
    network: Network, pod: PodNetwork, launch: Launch, argv: Sequence[str], timeout: float
) -> Outcome:
    """Run `argv` as a container would and wait for its end.

    Raises TimeoutError after `timeout` seconds (the command is killed then) and SpawnError when it cannot start.
    """
    read, write = os.pipe2(os.O_CLOEXEC)
    output = bytearray()

    def take(data: bytes) -> None:
        output.extend(data[: max(OUTPUT_BYTES - len(output), 0)])

    drain = pump(read, take)
    try:
        try:
            process = await network.spawn(pod, process_spec(launch, argv, write, write))
        finally:
            os.close(write)
        try:
            async with asyncio.timeout(timeout):
                code = await process.wait()
        except (TimeoutError, asyncio.CancelledError):
            await asyncio.shield(process.signal(signal.SIGKILL, session=True))
            raise
    finally:
        drain()
    return Outcome(code if code >= 0 else 128 - code, bytes(output).decode(errors="replace").strip())
