"""Finding running meshes by name and ending them from outside."""

import os
import signal
import time
from pathlib import Path

from tulle.errors import TulleError
from tulle.local.state import Running, folder_of, running, running_names

__all__ = ["choose_names", "stop"]

END_WITHIN = 40.0  # seconds: longer than the mesh gives itself
_SWEPT_WITHIN = 3.0
_LOOK_EVERY = 0.05


def choose_names(name: str | None, every: bool) -> list[str]:
    """Return the meshes meant by a name, by --all, or by neither while only one runs.

    :raises UsageError: the name cannot be a mesh's.
    :raises TulleError: none runs, that one does not run, or it is not clear which is meant.
    """
    names = running_names()
    if name is not None:
        folder_of(name)
        if name not in names:
            others = f"running: {', '.join(names)}" if names else "no mesh runs"
            raise TulleError(f"no mesh named {name} runs", others, "start it: tulle up FILE… --name " + name)
        return [name]
    if every:
        return names
    if not names:
        raise TulleError("no mesh runs", "", "start one: tulle up FILE…, or tulle demo")
    if len(names) > 1:
        raise TulleError("several meshes run", ", ".join(names), "say which: --name NAME")
    return names


def stop(name: str) -> None:
    """Tell a mesh to end and return when it has.

    :raises TulleError: it does not end.
    """
    told = 0
    deadline = time.monotonic() + END_WITHIN
    while time.monotonic() < deadline:
        mesh = running(name)
        if mesh is None:
            _wait_until_gone(folder_of(name), told)
            return
        if mesh.pid and mesh.pid != told:
            told = mesh.pid
            _tell_to_end(mesh)
        time.sleep(_LOOK_EVERY)
    raise TulleError(
        f"mesh {name} does not end",
        f"process {told} still holds {folder_of(name)}",
        f"end it by force: kill -9 {told}",
    )


def _tell_to_end(mesh: Running) -> None:
    try:
        os.kill(mesh.pid, signal.SIGTERM)
    except ProcessLookupError:
        return  # it has ended since
    except PermissionError as error:
        raise TulleError(
            f"mesh {mesh.name} cannot be told to end", f"process {mesh.pid} is another user's"
        ) from error


def _wait_until_gone(folder: Path, pid: int) -> None:
    """Wait for an ended mesh's last file and process; one that was killed may have left files, which its successor sweeps."""
    deadline = time.monotonic() + _SWEPT_WITHIN
    while (folder.exists() or (pid and Path(f"/proc/{pid}").exists())) and time.monotonic() < deadline:
        time.sleep(_LOOK_EVERY)
