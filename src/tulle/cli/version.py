"""`tulle version`: print versions."""

import json

import click

import tulle

__all__ = ["command"]


@click.command(short_help="Print versions.")
@click.option("--short", is_flag=True, help="Print the number alone.")
@click.option("--output", "-o", type=click.Choice(["text", "json"]), default="text")
def command(short: bool, output: str) -> None:
    """Print the version of the command line and of the proxy beside it.

    Example: tulle version -o json
    """
    if short:
        click.echo(tulle.__version__)
    elif output == "json":
        click.echo(json.dumps({"client": tulle.__version__, "proxy": tulle.__version__}))
    else:
        click.echo(f"Client version: {tulle.__version__}\nProxy version:  {tulle.__version__}")
