"""Which Kubernetes API a command speaks to, and the options by which a person says so."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from tulle.kube.client import Client

__all__ = ["CLUSTER_OPTIONS", "cluster_options", "connected", "kubeconfig_of"]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def cluster_options(command: F) -> F:
    """Add --kubeconfig and --context to a command."""
    for option in reversed(CLUSTER_OPTIONS):
        command = option(command)
    return command


CLUSTER_OPTIONS = (
    click.option(
        "--kubeconfig",
        metavar="FILE",
        help="The API to use; default: $KUBECONFIG, else the mesh that `tulle up` runs, else ~/.kube/config.",
    ),
    click.option("--context", metavar="NAME", help="Context of the kubeconfig."),
)


def kubeconfig_of(given: str | None) -> str | None:
    """Return the kubeconfig to use: the one given, $KUBECONFIG, or that of the mesh that runs; None: the usual places.

    Of several meshes the one named `tulle` is taken.

    :raises TulleError: several meshes run and none has the default name.
    """
    if given or os.environ.get("KUBECONFIG"):
        return given or os.environ["KUBECONFIG"]
    from tulle.errors import TulleError
    from tulle.local.state import folder_of, running_names

    names = running_names()
    if not names:
        return None
    chosen = names[0] if len(names) == 1 else "tulle"
    if chosen not in names:
        raise TulleError(
            "several meshes run",
            ", ".join(names),
            f"say which: --kubeconfig $(tulle kubeconfig --name {names[0]})",
        )
    return str(folder_of(chosen) / "kubeconfig")


def connected(kubeconfig: str | None, context: str | None, work: "Callable[[Client], Awaitable[T]]") -> T:
    """Run `work` with a client of the chosen API; return its result.

    :raises TulleError: no API is configured, or what `work` raises.
    """
    from tulle.kube.client import Client, load_config

    async def run() -> T:
        async with Client(load_config(kubeconfig_of(kubeconfig), context)) as client:
            return await work(client)

    return asyncio.run(run())
