"""A mesh's folder: $XDG_STATE_HOME/tulle/NAME, who holds it, and what is known of the mesh from outside.

The holder keeps an exclusive lock on `lock` for as long as the mesh runs, so that a number of a process in it can
be believed, and a folder without a holder is leftovers that may be swept.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tulle.errors import TulleError, UsageError

__all__ = ["AlreadyRunning", "Running", "StateFolder", "claim", "folder_of", "running", "running_names"]

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")


class AlreadyRunning(TulleError):
    """Another process holds the mesh of this name."""


@dataclass(frozen=True)
class Running:
    """What a running mesh tells: its main process and its network."""

    name: str
    pid: int
    mode: str = ""


@dataclass(frozen=True)
class StateFolder:
    """The folder of a mesh that this process holds."""

    name: str
    path: Path

    @property
    def kubeconfig(self) -> Path:
        """Where kubectl's configuration lies."""
        return self.path / "kubeconfig"

    @property
    def log(self) -> Path:
        """What the world writes to its standard error."""
        return self.path / "tulle.log"

    def tell(self, running: Running) -> None:
        """Leave word of the mesh for `tulle down` and the like."""
        (self.path / "running.json").write_text(json.dumps(asdict(running)))


def _home() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(base) / "tulle"


def folder_of(name: str) -> Path:
    """Return the path of a mesh's folder, whether or not it is there.

    :raises UsageError: the name cannot be a mesh's.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of a mesh", "letters a-z, digits and inner hyphens, at most 40"
        )
    return _home() / name


@contextlib.contextmanager
def claim(name: str) -> Iterator[StateFolder]:
    """Hold the mesh of this name: an empty folder at first, no folder afterwards.

    :raises AlreadyRunning: somebody else holds it.
    :raises UsageError: the name cannot be a mesh's.
    :raises TulleError: the folder cannot be made.
    """
    path = folder_of(name)
    try:
        lock = _lock(path)
    except OSError as error:
        raise TulleError(
            f"{path} cannot be made", error.strerror or str(error), "set XDG_STATE_HOME to a folder of yours"
        ) from error
    if lock is None:
        holder = running(name)
        raise AlreadyRunning(
            f"a mesh named {name} is running already",
            f"process {holder.pid} holds {path}" if holder else f"{path} is held",
            f"stop it: tulle down --name {name}; or give this one another --name",
        )
    try:
        _empty(path)  # leftovers of one that was killed
        yield StateFolder(name, path)
    finally:
        # The lock goes last: who finds none may count on nothing else being there.
        _empty(path)
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _lock(path: Path) -> int | None:
    while True:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue  # the last holder took the folder away between the two calls
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        # The last holder may have removed the file that was just locked.
        with contextlib.suppress(FileNotFoundError):
            if os.stat(path / "lock").st_ino == os.fstat(lock).st_ino:
                return lock
        os.close(lock)


def _empty(path: Path) -> None:
    for entry in path.iterdir():
        if entry.name == "lock":
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def running(name: str) -> Running | None:
    """Return what the running mesh of this name tells; None when none runs."""
    path = folder_of(name)
    try:
        lock = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        try:
            return Running(**json.loads((path / "running.json").read_text()))
        except (OSError, ValueError, TypeError):
            return Running(name, 0)  # just starting, or just ending
    finally:
        os.close(lock)


def running_names() -> list[str]:
    """Return the names of the meshes that run as this user."""
    try:
        names = sorted(entry.name for entry in _home().iterdir() if _NAME.fullmatch(entry.name))
    except OSError:
        return []
    return [name for name in names if running(name) is not None]
