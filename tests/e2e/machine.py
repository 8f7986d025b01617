"""What end-to-end tests ask of the machine: which networks it allows, and what there is on it before and after."""

import functools
import os
import subprocess
from pathlib import Path

import pytest

from tulle.errors import UsageError
from tulle.local.net import Mode, choose
from tulle.local.net.probe import facts, find_nft

__all__ = ["MODES", "Traces", "modes_here", "refusal"]


@functools.cache
def refusal(mode: Mode) -> str:
    """Return why a network cannot run here; empty when it can."""
    try:
        choose(mode, facts(mode))
    except UsageError as error:
        return error.why
    return ""


def modes_here(*wanted: Mode) -> list[object]:
    """Return the modes as parameters; those that cannot run are skipped with their reason."""
    return [
        pytest.param(mode, marks=pytest.mark.skipif(bool(refusal(mode)), reason=f"{mode}: {refusal(mode)}"))
        for mode in wanted
    ]


MODES = modes_here("netns", "userns", "loopback")


class Traces:
    """What a mesh could leave on this machine, apart from what others do at the same time.

    Processes are told apart by the mesh's state folder in their environment or words; interfaces, rules and
    namespaces by what was there before.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._before = self._look()

    def _look(self) -> dict[str, set[str]]:
        # Only root may list them; without her, the mesh could not have made any outside its own namespaces either.
        nft = subprocess.run(
            [find_nft() or "true", "list", "tables"], capture_output=True, text=True, check=False
        )
        return {
            "interfaces": set(os.listdir("/sys/class/net")),
            "tables": set(nft.stdout.splitlines()),
            "named namespaces": set(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else set(),
            "mounts": {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()},
        }

    def processes(self) -> list[str]:
        """Return the command lines of processes whose environment or words name the folder."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    told = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
                    words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                except OSError:
                    continue
                if os.fsencode(self._folder) in told and words:
                    found.append(f"{entry.name} {words}")
        return found

    def left(self) -> dict[str, object]:
        """Return what is there now and was not before; empty when nothing was left."""
        now = self._look()
        left: dict[str, object] = {name: now[name] - before for name, before in self._before.items()}
        left["processes"] = self.processes()
        left["files"] = [
            os.path.join(where, name) for where, _, names in os.walk(self._folder) for name in names
        ]
        return {name: what for name, what in left.items() if what}
