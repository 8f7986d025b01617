"""`tulle down`: stop a mesh that `tulle up` started, and wait until nothing is left of it."""

import click

__all__ = ["command"]


@click.command()
@click.option("--name", default=None, metavar="NAME", help="Which mesh; not needed while only one runs.")
@click.option("--all", "every", is_flag=True, help="Stop all of this user's meshes.")
def command(name: str | None, every: bool) -> None:
    """Stop what `tulle up` started.

    Example: tulle down --name demo
    """
    from tulle.local import stopping

    for stopped in stopping.choose_names(name, every):
        stopping.stop(stopped)
        click.echo(f"{stopped} has ended")
