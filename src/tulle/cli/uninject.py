"""`tulle uninject`: take the sidecar out of manifests."""

import click

from tulle.cli.inject import run
from tulle.inject.stream import remove

__all__ = ["command"]


@click.command(short_help="Take the sidecar out of manifests.")
@click.argument("files", nargs=-1, required=True)
def command(files: tuple[str, ...]) -> None:
    """Remove the sidecar and the mesh's annotations from the manifests in FILES (- for stdin).

    Example: kubectl get deploy web -o yaml | tulle uninject - | kubectl apply -f -
    """
    run(files, remove)
