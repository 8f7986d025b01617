"""Conformance programs that are written in Go: built once from pinned modules, kept in the user's cache."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

__all__ = ["built"]

MODULES = Path(__file__).parent / "go"


def built(module: str, package: str) -> Path:
    """Return the program of that package, building it if need be.

    Skips where there is no Go, or where its modules cannot be had; in CI the latter fails.
    """
    folder = MODULES / module
    pins = (folder / "go.mod").read_bytes() + (folder / "go.sum").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tulle-tests"
    program = cache / hashlib.sha256(pins).hexdigest()[:16] / Path(package).name
    if program.is_file():
        return program
    go = shutil.which("go")
    if go is None:
        pytest.skip(f"{package} is built with Go, which is not installed")
    program.parent.mkdir(parents=True, exist_ok=True)
    making = program.with_suffix(f".{os.getpid()}")
    done = subprocess.run(
        [go, "build", "-C", folder, "-mod=readonly", "-o", making, package],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    if done.returncode:
        reason = f"{package} cannot be built: {done.stderr.strip()[-500:]}"
        assert not os.environ.get("CI"), reason
        pytest.skip(reason)
    making.replace(program)
    return program
