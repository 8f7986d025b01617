"""`tulle demo`: emojivoto and two more services in a mesh, from manifests inside the package."""

import re
import sys
from importlib import resources
from pathlib import Path

import click

from tulle.cli.network import mode_option

__all__ = ["command", "seconds"]

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str) -> float:
    """Read a span of time such as 20s, 1.5m or 90.

    :raises ValueError: it is none, or not above zero.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if match is None or float(match[1]) <= 0:
        raise ValueError(f"{text!r} is not a span of time")
    return float(match[1]) * _UNITS[match[2]]


def _span(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    try:
        return None if value is None else seconds(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}; write for instance 20s, 2m or 1h") from None


@click.command()
@click.option(
    "--for",
    "span",
    callback=_span,
    default=None,
    metavar="TIME",
    help="End by itself after this time and print a summary (20s, 2m).",
)
@mode_option
@click.option("--name", default="demo", show_default=True, metavar="NAME", help="Name of this mesh.")
def command(span: float | None, mode: str, name: str) -> None:
    """Run emojivoto and two more services in a mesh.

    With --for it exits with 1 if any service had no meshed traffic.

    Example: tulle demo --for 20s
    """
    from tulle.cli.screens import screen_for
    from tulle.errors import TulleError
    from tulle.local import startup

    with resources.as_file(resources.files("tulle.emojivoto") / "manifests") as folder:
        plan = startup.prepare([Path(folder)], wish=mode, name=name)  # type: ignore[arg-type]
        screen = screen_for(sys.stdout.isatty())
        startup.start(plan, screen, ready_within=180.0, ends_after=span)
    if screen.failures:
        raise TulleError(
            "the demo did not show a working mesh",
            "\n  ".join(screen.failures),
            "let it run longer: tulle demo --for 1m; or keep it and look: tulle demo, then tulle check",
        )
