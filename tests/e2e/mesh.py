"""A mesh for end-to-end tests: `tulle up` as a user starts it, in a state folder of its own."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from tulle.local.net import Mode

__all__ = ["Mesh", "mesh", "tulle"]

SOURCE = Path(__file__).parents[2] / "src"
READY_WITHIN = 45.0
_PUBLISHED = re.compile(r"^(\S+):(\d+)\s+(\w+://127\.0\.0\.1:\d+)$")


def environment(home: Path) -> dict[str, str]:
    """Return the environment of a user whose meshes' folders lie below `home`."""
    return {
        **os.environ,
        "XDG_STATE_HOME": str(home),
        "PYTHONPATH": os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")]),
    }


def tulle(
    home: Path, *words: str, within: float = 60.0, before: Sequence[str] = ()
) -> "subprocess.CompletedProcess[str]":
    """Run one command to its end; `before` are the words of a program that runs it."""
    return subprocess.run(
        [*before, sys.executable, "-m", "tulle", *words],
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=within,
        check=False,
    )


class Mesh:
    """A running `tulle up`. `lines` is what it has printed."""

    def __init__(self, home: Path, words: Sequence[str], *, before: Sequence[str] = ()) -> None:
        self.home = home
        self.name = "t" + uuid.uuid4().hex[:8]
        self.lines: list[str] = []
        self.started = time.monotonic()
        self.told_to_end = False
        self.process = subprocess.Popen(
            [*before, sys.executable, "-m", "tulle", *words, "--name", self.name],
            env=environment(home),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if line.startswith("ready in "):
                self._ready.set()
        self._ready.set()

    @property
    def folder(self) -> Path:
        """Its state folder."""
        return self.home / "tulle" / self.name

    @property
    def kubeconfig(self) -> Path:
        """How kubectl reaches it."""
        return self.folder / "kubeconfig"

    @property
    def log(self) -> str:
        """What its world has written, and what it printed."""
        with contextlib.suppress(OSError):
            return "\n".join(self.lines) + "\n" + (self.folder / "tulle.log").read_text()[-6000:]
        return "\n".join(self.lines)

    def wait_until_ready(self) -> "Mesh":
        """Return when it says that all is ready."""
        self._ready.wait(READY_WITHIN)
        if not any(line.startswith("ready in ") for line in self.lines):
            log = self.log
            raise AssertionError(f"not ready; exit code {self.end()}\n{log}")
        return self

    def url(self, service: str) -> str:
        """Return the host's URL of a Service such as web-svc.emojivoto."""
        for line in self.lines:
            match = _PUBLISHED.match(line)
            if match and match[1] == service:
                return match[3]
        raise AssertionError(f"{service} is not published\n{self.log}")

    def end(self, number: signal.Signals = signal.SIGTERM, within: float = 30.0) -> int:
        """Send a signal and return the exit code."""
        self.told_to_end = True
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(within)
        self._reader.join(5)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@contextlib.contextmanager
def mesh(home: Path, mode: Mode, *words: str, command: str = "up") -> Iterator[Mesh]:
    """Have a mesh that is ready, and none afterwards."""
    running = Mesh(home, [command, *words, "--mode", mode])
    try:
        yield running.wait_until_ready()
        # Else whoever used it sees that nobody answers, and not why.
        by_itself = running.process.poll() is not None and not running.told_to_end
        assert not by_itself, f"the mesh has ended by itself\n{running.log}"
    finally:
        running.end()
