"""A command that somebody runs inside a container (kubectl exec, tulle exec): pipes or a terminal, and its end."""

import asyncio
import fcntl
import os
import pty
import signal
import struct
import termios
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from tulle.local.api.errors import ApiError
from tulle.local.api.nodeport import OutputStream
from tulle.local.net.model import Network, PodNetwork, Process, SpawnError
from tulle.local.pods.inside import process_spec
from tulle.local.pods.launch import Launch

__all__ = ["Session", "start_exec"]

READ_BYTES = 64 * 1024
PENDING_CHUNKS = 64
"""How much output waits for a slow client: so many reads; then the command's pipe fills and it waits too."""


async def start_exec(
    network: Network, pod: PodNetwork, launch: Launch, argv: Sequence[str], *, stdin: bool, tty: bool
) -> "Session":
    """Start `argv` in the surroundings of a container.

    Raises ApiError(400) when there is no such program or it cannot start.
    """
    if not argv:
        raise ApiError(400, "BadRequest", "you must specify at least one command for the container")
    theirs: list[int] = []
    if tty:
        ours, terminal = pty.openpty()
        theirs.append(terminal)
        outputs: list[tuple[OutputStream, int]] = [("stdout", ours)]
        into: int | None = os.dup(ours)
        spec = process_spec(launch, argv, terminal, terminal)
        spec = replace(spec, stdin_fd=terminal, controlling_terminal=True, env={"TERM": "xterm", **spec.env})
    else:
        (out_read, out_write), (err_read, err_write) = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
        theirs += [out_write, err_write]
        outputs = [("stdout", out_read), ("stderr", err_read)]
        spec, into = process_spec(launch, argv, out_write, err_write), None
        if stdin:
            in_read, into = os.pipe2(os.O_CLOEXEC)
            theirs.append(in_read)
            spec = replace(spec, stdin_fd=in_read)
    try:
        process = await network.spawn(pod, spec)
    except BaseException as error:
        for descriptor in (*(fd for _, fd in outputs), *((into,) if into is not None else ())):
            os.close(descriptor)
        if isinstance(error, SpawnError):
            raise ApiError(400, "BadRequest", f"{error.what}: {error.why}") from error
        raise
    finally:
        for descriptor in theirs:
            os.close(descriptor)
    return Session(process, outputs, into)


class Session:
    """One running command; see `tulle.local.api.nodeport.ExecSession`."""

    def __init__(
        self, process: Process, outputs: Sequence[tuple[OutputStream, int]], into: int | None
    ) -> None:
        self._process, self._into = process, into
        self._terminal = outputs[0][1] if len(outputs) == 1 else None
        self._chunks: asyncio.Queue[tuple[OutputStream, bytes] | None] = asyncio.Queue()
        self._open = dict[int, OutputStream]()
        self._paused = False
        if into is not None:
            os.set_blocking(into, False)
        for stream, descriptor in outputs:
            os.set_blocking(descriptor, False)
            self._open[descriptor] = stream
        self._listen()

    async def output(self) -> AsyncIterator[tuple[OutputStream, bytes]]:
        """Yield what the command writes, as it writes it, until it has closed both streams."""
        while True:
            chunk = await self._chunks.get()
            if self._paused and self._chunks.qsize() < PENDING_CHUNKS // 2:
                self._paused = False
                self._listen()
            if chunk is None:
                return
            yield chunk

    async def write(self, data: bytes) -> None:
        """Hand bytes to the command's standard input; return when they are taken. Empty bytes close it."""
        if self._into is None:
            return
        if not data:
            if self._terminal is not None:
                data = b"\x04"  # a terminal has no end of file but the character that means it
            else:
                os.close(self._into)
                self._into = None
                return
        while data and self._into is not None:
            try:
                data = data[os.write(self._into, data) :]
            except BlockingIOError:
                await _writable(self._into)
            except OSError:
                return  # the command reads no more

    def resize(self, columns: int, rows: int) -> None:
        """Tell the command's terminal its size; without a terminal, nothing happens."""
        if self._terminal in self._open:
            assert self._terminal is not None
            fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def wait(self) -> int:
        """Wait for the command and return its exit code (128 + signal when a signal ended it)."""
        code = await self._process.wait()
        return code if code >= 0 else 128 - code

    async def close(self) -> None:
        """Kill the command if it still runs and free what the session holds; safe to call twice."""
        await self._process.signal(signal.SIGKILL, session=True)
        for descriptor in list(self._open):
            self._finish(descriptor)
        if self._into is not None:
            os.close(self._into)
            self._into = None

    def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        for descriptor in self._open:
            loop.add_reader(descriptor, self._read, descriptor)

    def _read(self, descriptor: int) -> None:
        try:
            data = os.read(descriptor, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # a terminal whose last process has gone answers EIO
        if not data:
            self._finish(descriptor)
            return
        self._chunks.put_nowait((self._open[descriptor], data))
        if self._chunks.qsize() >= PENDING_CHUNKS:
            self._paused = True
            for reader in self._open:
                asyncio.get_running_loop().remove_reader(reader)

    def _finish(self, descriptor: int) -> None:
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
        del self._open[descriptor]
        if not self._open:
            self._chunks.put_nowait(None)


async def _writable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_writer(descriptor, wake)
    try:
        await ready
    finally:
        loop.remove_writer(descriptor)
