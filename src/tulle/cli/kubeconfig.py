"""`tulle kubeconfig`: where kubectl's configuration of a running mesh lies."""

import click

__all__ = ["command"]


@click.command()
@click.option("--name", default=None, metavar="NAME", help="Which mesh; not needed while only one runs.")
def command(name: str | None) -> None:
    """Print the path of a running mesh's kubeconfig.

    Example: export KUBECONFIG=$(tulle kubeconfig)
    """
    from tulle.errors import TulleError
    from tulle.local import stopping
    from tulle.local.state import folder_of

    (chosen,) = stopping.choose_names(name, every=False)
    path = folder_of(chosen) / "kubeconfig"
    if not path.exists():
        raise TulleError(
            f"the mesh {chosen} has no kubeconfig yet",
            "it is still starting",
            "wait until it says that it is ready",
        )
    click.echo(path)
