"""One container's log: what its process writes, line by line with times, in bounded files.

Form of a line (that of a container runtime): `TIME STREAM F|P TEXT`; P marks a piece of a line longer than a page.
A log holds one file per start of the container; the present one and the one before are kept, each rotated by size.
"""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

__all__ = ["ContainerLog", "LogFile", "pump"]

FILE_BYTES = 4 * 1024 * 1024
"""Size at which a file is rotated; with its one predecessor a start of a container keeps at most twice as much."""

LINE_BYTES = 16 * 1024
READ_BYTES = 64 * 1024


class LogFile:
    """The log of one start of a container."""

    def __init__(self, path: Path, now: Callable[[], datetime], *, limit: int = FILE_BYTES) -> None:
        self.path = path
        self._limit = limit
        self.closed = False
        self._now = now
        self._partial: dict[str, bytes] = {}
        self._changed = asyncio.Event()
        self._rotations = 0
        self._size = 0
        self._file = open(path, "ab", buffering=0)

    def feed(self, stream: str, data: bytes) -> None:
        """Take in what the process wrote to `stream` (stdout or stderr)."""
        if self.closed:
            return
        stamp = self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        lines = (self._partial.pop(stream, b"") + data).split(b"\n")
        rest = lines.pop()
        out = [f"{stamp} {stream} ".encode() + piece for line in lines for piece in _pieces(line)]
        while len(rest) >= LINE_BYTES:
            out.append(f"{stamp} {stream} P ".encode() + rest[:LINE_BYTES])
            rest = rest[LINE_BYTES:]
        if rest:
            self._partial[stream] = rest
        if out:
            self._write(b"\n".join(out) + b"\n")

    def close(self) -> None:
        """The process is gone: write what had no newline, wake the followers for the last time."""
        if self.closed:
            return
        for stream in list(self._partial):
            self.feed(stream, b"\n")
        self.closed = True
        self._file.close()
        self._changed.set()

    def tail(self, lines: int, limit: int) -> str:
        """Return the last `lines` lines as text, at most `limit` bytes (termination messages)."""
        texts: deque[bytes] = deque(maxlen=lines)
        for path in self.paths():
            texts.extend(text + b"\n" for _, text in _read(path))
        return b"".join(texts)[-limit:].decode(errors="replace")

    def paths(self) -> list[Path]:
        """Return the files that exist, oldest first."""
        return [p for p in (self._rotated, self.path) if p.exists()]

    async def lines(
        self, *, follow: bool, tail: int | None, since: datetime | None, timestamps: bool
    ) -> AsyncIterator[bytes]:
        """Yield lines with their newline; with `follow` until the process has ended."""

        def shown(stamp: bytes, text: bytes) -> bytes:
            return (stamp + b" " if timestamps else b"") + text + b"\n"

        rotations = self._rotations
        kept, seen = self._kept(tail, since)
        for stamp, text in kept:
            yield shown(stamp, text)
        while follow:
            self._changed.clear()
            while True:
                behind = rotations < self._rotations
                fresh = _from(self._rotated if behind else self.path, seen)
                seen += len(fresh)
                for raw in _split(fresh):
                    yield shown(*_parse(raw))
                if not behind:
                    break
                # Followers are never more than one rotation late unless they stall; what is gone is gone.
                seen, rotations = 0, self._rotations
            if self.closed:
                return
            await self._changed.wait()

    def _kept(self, tail: int | None, since: datetime | None) -> tuple[list[tuple[bytes, bytes]], int]:
        """Return the last `tail` lines since a time, and how far the present file was read."""
        raw = [_from(path, 0) for path in self.paths()]
        seen = len(raw[-1]) if raw else 0
        whole = b"".join(raw)
        if tail is not None and since is None:
            # Most people ask for the end of a long log: the rest is not taken apart.
            whole = b"\n".join(whole.removesuffix(b"\n").rsplit(b"\n", tail)[-tail:]) if tail else b""
        lines = [_parse(line) for line in _split(whole)]
        if since is not None:
            lines = [(stamp, text) for stamp, text in lines if _time(stamp) >= since]
        return (lines if tail is None else lines[len(lines) - min(tail, len(lines)) :]), seen

    @property
    def _rotated(self) -> Path:
        return self.path.with_suffix(".old")

    def _write(self, data: bytes) -> None:
        if self._size and self._size + len(data) > self._limit:
            self._file.close()
            os.replace(self.path, self._rotated)
            self._file = open(self.path, "ab", buffering=0)
            self._size = 0
            self._rotations += 1
        self._file.write(data)
        self._size += len(data)
        self._changed.set()


class ContainerLog:
    """The logs of one container: of the present start and the one before."""

    def __init__(self, directory: Path, now: Callable[[], datetime]) -> None:
        self._directory, self._now = directory, now
        self.present: LogFile | None = None
        self.previous: LogFile | None = None

    def begin(self, attempt: int) -> LogFile:
        """Begin the log of a new start."""
        self._directory.mkdir(parents=True, exist_ok=True)
        if self.previous is not None:
            for path in self.previous.paths():
                path.unlink(missing_ok=True)
        if self.present is not None:
            self.present.close()
        self.previous, self.present = self.present, LogFile(self._directory / f"{attempt}.log", self._now)
        return self.present

    def close(self) -> None:
        """Close what is open; the files stay."""
        if self.present is not None:
            self.present.close()

    def since(self, seconds: int | None) -> datetime | None:
        """Return the time `seconds` ago."""
        return None if seconds is None else self._now() - timedelta(seconds=seconds)


def pump(descriptor: int, take: Callable[[bytes], None]) -> Callable[[], None]:
    """Hand on whatever arrives at a pipe, without a thread or a task; return what drains and closes it."""
    os.set_blocking(descriptor, False)
    loop = asyncio.get_running_loop()
    open_ = True

    def close() -> None:
        nonlocal open_
        if open_:
            open_ = False
            loop.remove_reader(descriptor)
            os.close(descriptor)

    def read() -> bool:
        try:
            data = os.read(descriptor, READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            close()
            return False
        take(data)
        return True

    def drain() -> None:
        # Bounded: a grandchild that goes on writing must not hold up the end of its container.
        for _ in range(64):
            if not open_ or not read():
                break
        close()

    loop.add_reader(descriptor, read)
    return drain


def _pieces(line: bytes) -> Iterator[bytes]:
    while len(line) > LINE_BYTES:
        yield b"P " + line[:LINE_BYTES]
        line = line[LINE_BYTES:]
    yield b"F " + line


def _split(raw: bytes) -> list[bytes]:
    """Split at newlines alone: a carriage return belongs to its line."""
    return raw.removesuffix(b"\n").split(b"\n") if raw else []


def _parse(raw: bytes) -> tuple[bytes, bytes]:
    stamp, _, rest = raw.rstrip(b"\n").partition(b" ")
    _, _, rest = rest.partition(b" ")
    return stamp, rest[2:]


def _from(path: Path, offset: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read()


def _read(path: Path) -> Iterator[tuple[bytes, bytes]]:
    with open(path, "rb") as file:
        for raw in file:
            yield _parse(raw)


def _time(stamp: bytes) -> datetime:
    return datetime.fromisoformat(stamp.decode().replace("Z", "+00:00"))
