"""Nothing is compiled twice: `make demo`, `make test` and `make bench` ask cargo for the same crates with the same features.

Cargo's own plan is compared (`--unit-graph`, which builds nothing); a crate that only tests need may come on top.
"""

import json
import os
import re
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def plan(*words: str) -> dict[tuple[str, str, str], set[str]]:
    """Return how each foreign crate is compiled, by (name and version, kind of target, mode)."""
    crates = re.search(r"^CRATES := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert crates is not None
    done = subprocess.run(
        ["cargo", *words, "--release", "--offline", *crates[1].split(), "--unit-graph", "-Z", "unstable-options"],
        cwd=ROOT, env={**os.environ, "RUSTC_BOOTSTRAP": "1"}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    units: list[dict[str, Any]] = json.loads(done.stdout)["units"]
    found = defaultdict(set)
    for unit in units:
        if not unit["pkg_id"].startswith("path+"):
            how = json.dumps([unit["features"], unit["profile"], unit["platform"]], sort_keys=True)
            found[unit["pkg_id"], unit["target"]["kind"][0], unit["mode"]].add(how)
    return found


def test_the_tests_compile_no_crate_again_that_the_build_has_compiled() -> None:
    built, tested = plan("build"), plan("test")
    assert len(built) > 100
    again = {crate: sorted(ways - built[crate]) for crate, ways in tested.items() if crate in built}
    assert {crate: ways for crate, ways in again.items() if ways} == {}


def test_the_load_generator_compiles_none_again_either() -> None:
    built, measured = plan("build"), plan("build", "--example", "load")
    assert [crate for crate, ways in measured.items() if crate in built and ways - built[crate]] == []
