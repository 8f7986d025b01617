"""The load generator: built by cargo beside the sidecar, with the same features, so that nothing is compiled twice."""

import os
import re
import subprocess
from pathlib import Path

__all__ = ["ROOT", "TARGET", "load_generator"]

ROOT = Path(__file__).parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"


def load_generator() -> Path:
    """Build it and return its path."""
    crates = re.search(r"^CRATES := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    if crates is None:
        raise RuntimeError("the Makefile names no CRATES")
    command = ["cargo", "build", "--release", "--locked", *crates[1].split(), "--example", "load"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=900)
    return TARGET / "examples" / "load"
