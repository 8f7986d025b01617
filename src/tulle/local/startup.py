"""From a call of `tulle up` to a running mesh: everything that can be refused is refused before anything starts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tulle.local import sources, state
from tulle.local.images import load_images, require_images
from tulle.local.net.choose import Choice, Wish, choose
from tulle.local.net.probe import facts
from tulle.local.proxy_binary import find_proxy
from tulle.local.sources import Manifest
from tulle.local.up import Options, Screen, run

__all__ = ["Plan", "prepare", "start"]


@dataclass(frozen=True)
class Plan:
    """What to start, checked as far as it can be without starting."""

    name: str
    choice: Choice
    manifests: Sequence[Manifest]
    paths: Sequence[Path]


def prepare(files: Sequence[Path], *, wish: Wish, name: str) -> Plan:
    """Read the files and look at the machine.

    :raises TulleError: broken files, an image that nothing stands for, a name that runs already, a network that
        this machine does not allow, no sidecar program.
    """
    state.folder_of(name)
    manifests = sources.order(sources.load(files))
    if (held := state.running(name)) is not None:
        raise state.AlreadyRunning(
            f"a mesh named {name} is running already",
            f"process {held.pid} holds it",
            f"stop it: tulle down --name {name}; or give this one another --name",
        )
    find_proxy()
    require_images([(manifest.where, manifest.obj) for manifest in manifests], load_images(files))
    return Plan(name, choose(wish, facts(wish)), manifests, [path.resolve() for path in files])


def start(plan: Plan, screen: Screen, *, ready_within: float, ends_after: float | None = None) -> None:
    """Have the mesh until it is told to end.

    :raises TulleError: it could not come up, or ended unexpectedly.
    """
    with state.claim(plan.name) as folder:
        run(
            Options(plan.name, plan.choice, plan.manifests, plan.paths, ready_within, ends_after),
            folder,
            screen,
        )
