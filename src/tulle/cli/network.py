"""The option by which a person says which network `tulle up` and `tulle demo` make."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = ["mode_option"]

F = TypeVar("F", bound=Callable[..., Any])


def mode_option(command: F) -> F:
    """Add --mode to a command; the values are those of `tulle.local.net.choose.Wish`."""
    return click.option(
        "--mode",
        type=click.Choice(["auto", "netns", "userns", "loopback"]),
        default="auto",
        show_default=True,
        help="The network; auto takes the best that this machine allows.",
    )(command)
