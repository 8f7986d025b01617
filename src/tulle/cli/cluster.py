"""Which Kubernetes API a command speaks to, the options by which a person says so, and what goes wrong on the way."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from lightkube.config.kubeconfig import SingleConfig

    from tulle.kube.client import Client

__all__ = [
    "Cluster",
    "cluster_options",
    "connected",
    "control_plane_option",
    "kubeconfig_of",
    "namespace_option",
]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Cluster:
    """A connection to one API, and the configuration it was made from."""

    client: "Client"
    config: "SingleConfig"

    def namespace(self, given: str | None) -> str:
        """Return the namespace asked for, else that of the kubeconfig's context, else `default`."""
        return given or self.config.namespace


def cluster_options(command: F) -> F:
    """Add --kubeconfig and --context to a command."""
    command = click.option("--context", metavar="NAME", help="Context of the kubeconfig.")(command)
    return click.option(
        "--kubeconfig",
        metavar="FILE",
        help="The API to use; default: $KUBECONFIG, else the mesh that `tulle up` runs, else ~/.kube/config.",
    )(command)


def namespace_option(command: F) -> F:
    """Add --namespace to a command."""
    return click.option(
        "--namespace", "-n", metavar="NS", help="Where to look. [default: the kubeconfig's, else default]"
    )(command)


def control_plane_option(command: F) -> F:
    """Add --linkerd-namespace to a command."""
    return click.option(
        "--linkerd-namespace",
        "-L",
        default="linkerd",
        show_default=True,
        metavar="NS",
        help="The control plane's namespace.",
    )(command)


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


def connected(kubeconfig: str | None, context: str | None, work: "Callable[[Cluster], Awaitable[T]]") -> T:
    """Run `work` with a connection to the chosen API and return its result.

    :raises TulleError: no API is configured, it does not answer or says no, or what `work` raises.
    """
    from tulle.errors import TulleError
    from tulle.kube.client import ApiError, Client, Unreachable, load_config

    config = load_config(kubeconfig_of(kubeconfig), context)

    async def run() -> T:
        async with Client(config) as client:
            return await work(Cluster(client, config))

    try:
        return asyncio.run(run())
    except ApiError as error:
        step = {
            401: "use a kubeconfig with valid credentials",
            403: "ask for the permission, or use another kubeconfig",
        }.get(error.status, "look: tulle check")
        what = f"the Kubernetes API answered {error.status} {error.reason}".rstrip()
        raise TulleError(what, error.message.strip(), step) from error
    except Unreachable as error:
        raise TulleError(
            f"the Kubernetes API {config.cluster.server} does not answer",
            str(error),
            "is the mesh running? start it: tulle up FILE…; or give another --kubeconfig",
        ) from error
