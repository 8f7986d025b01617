"""Finds the tulle-proxy binary: beside the Python that runs, where an installer put it, in a checkout's build."""

import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from tulle.errors import TulleError

__all__ = ["ProxyNotFound", "find_proxy", "places"]

NAME = "tulle-proxy"
OVERRIDE = "TULLE_PROXY_BINARY"


class ProxyNotFound(TulleError):
    """There is no tulle-proxy in any of the places where one may be."""


def places() -> Iterator[Path]:
    """Yield where the binary may be, the likeliest first."""
    override = os.environ.get(OVERRIDE)
    if override:
        yield Path(override)
        return
    yield Path(sysconfig.get_path("scripts")) / NAME
    if sys.base_prefix != sys.prefix:
        yield Path(sysconfig.get_path("scripts", vars={"base": sys.base_prefix})) / NAME
    yield Path(sysconfig.get_path("scripts", scheme=sysconfig.get_preferred_scheme("user"))) / NAME
    package = Path(__file__).resolve().parents[1]
    # pip install --target DIR puts programs into DIR/bin, beside the package.
    yield package.parent / "bin" / NAME
    checkout = package.parents[1]
    if (checkout / "Cargo.toml").is_file():
        yield Path(os.environ.get("CARGO_TARGET_DIR", checkout / "target")) / "release" / NAME
    found = shutil.which(NAME)
    if found:
        yield Path(found)


def find_proxy() -> Path:
    """Return the binary.

    Raises ProxyNotFound that lists every place looked at.
    """
    looked = list(dict.fromkeys(places()))
    for place in looked:
        if place.is_file() and os.access(place, os.X_OK):
            return place.resolve()
    raise ProxyNotFound(
        f"the program {NAME} is not installed",
        "looked at " + ", ".join(str(place) for place in looked),
        f"in a checkout run: make build; or set {OVERRIDE} to its path",
    )
