"""This process's standard streams as the ends of a remote command; a terminal is made raw and put back."""

import asyncio
import os
import shutil
import signal
import sys
import termios
import threading
import tty
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any

__all__ = ["Streams"]

READ_BYTES = 32 * 1024


class Streams:
    """Standard input (as far as it is passed on), output and error output. Use as a context manager."""

    def __init__(self, *, stdin: bool, tty: bool) -> None:
        self.stdin, self.tty = stdin, tty
        self._saved: list[Any] | None = None

    def __enter__(self) -> "Streams":
        if self.tty:
            self._saved = termios.tcgetattr(0)
            tty.setraw(0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._saved is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, self._saved)

    def write(self, stream: int, data: bytes) -> None:
        """Write to standard output (1) or error output (2)."""
        out = sys.stdout.buffer if stream == 1 else sys.stderr.buffer
        out.write(data)
        out.flush()

    def size(self) -> tuple[int, int]:
        """Return the terminal's columns and lines."""
        return shutil.get_terminal_size()

    def on_resize(self, call: Callable[[], None]) -> None:
        """Call back when the terminal changes its size."""
        if self.tty:
            asyncio.get_running_loop().add_signal_handler(signal.SIGWINCH, call)

    async def input(self) -> AsyncIterator[bytes]:
        """Yield what is read from standard input, to its end.

        A thread reads, for a file or a terminal cannot be waited for by every event loop; it waits until each piece
        has been taken, and never keeps the process alive.
        """
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[bytes] = asyncio.Queue(1)

        def read() -> None:
            while True:
                try:
                    data = os.read(0, READ_BYTES)
                except OSError:
                    data = b""
                try:
                    asyncio.run_coroutine_threadsafe(pieces.put(data), loop).result()
                except RuntimeError:
                    return  # the loop has ended; nobody takes it any more
                if not data:
                    return

        threading.Thread(target=read, daemon=True, name="standard input").start()
        while data := await pieces.get():
            yield data
