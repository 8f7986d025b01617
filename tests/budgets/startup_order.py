"""Writes crates/proxy/startup.ld: which functions a sidecar runs until it is ready, for the linker to keep together.

Run `python -m tests.budgets.startup_order` when `idle_resident_mb` is exceeded because the code has moved: it starts a
mesh of two pods under callgrind (valgrind and binutils are needed) and takes every function that either sidecar ran.
First come the names as they are. Then the same with a star for each hash: they hold what is left when dependencies or the
compiler have changed, with the other instances of what is generic. A name that matches nothing is harmless.
"""

import os
import re
import stat
import subprocess
import sys
import tempfile
import time
from bisect import bisect
from collections.abc import Iterator
from pathlib import Path

from tests.budgets.test_budgets import APPLICATION, MANIFEST
from tests.e2e.mesh import mesh
from tulle.local.proxy_binary import OVERRIDE, find_proxy

__all__ = ["executed", "pattern"]

SCRIPT = Path(__file__).parents[2] / "crates/proxy/startup.ld"
HEAD = """/* What a sidecar runs until it is ready: written by `python -m tests.budgets.startup_order`, used by build.rs. */
SECTIONS {
  .text : {
"""
TAIL = """  }
}
INSERT AFTER .init;
"""
SETTLE_SECONDS = 8.0


def pattern(symbol: str) -> str:
    """Return the symbol with a star for each hash in it."""
    without = re.sub(r"\.llvm\.\d+$", "*", symbol)
    without = re.sub(r"17h[0-9a-f]{16}E", "17h*E", without)
    return re.sub(r"Cs[0-9A-Za-z]+_", "Cs*_", without)


def executed(profile: Iterator[str], binary: str) -> set[int]:
    """Return the addresses of the binary's instructions in a profile of callgrind with `--dump-instr=yes`."""
    names: dict[str, str] = {}
    found: set[int] = set()
    ours, last = False, 0
    for line in profile:
        if named := re.match(r"c?ob=\((\d+)\)(?: (.*))?", line):
            if named[2]:
                names[named[1]] = named[2].strip()
            if line.startswith("ob"):
                ours = names[named[1]] == binary
        elif cost := re.match(r"(0x[0-9a-f]+|[+-]\d+|\*) ", line):
            if cost[1].startswith("0x"):
                last = int(cost[1], 16)
            elif cost[1] != "*":
                last += int(cost[1])
            if ours:
                found.add(last)
    return found


def _functions(binary: Path) -> list[tuple[int, str]]:
    listed = subprocess.run(["nm", "-n", binary], check=True, capture_output=True, text=True, timeout=60)
    entries = (line.split() for line in listed.stdout.splitlines())
    return sorted((int(entry[0], 16), entry[2]) for entry in entries if len(entry) == 3 and entry[1] in "tT")


def _profile(binary: Path, folder: Path) -> None:
    wrapper = folder / "tulle-proxy"
    options = f"--tool=callgrind --dump-instr=yes --callgrind-out-file={folder}/profile.%p"
    wrapper.write_text(f'#!/bin/sh\nexec valgrind {options} {binary} "$@"\n')
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
    (folder / "application.py").write_text(APPLICATION)
    words = {"python": sys.executable, "program": folder / "application.py"}
    pods = ("startapp", "startcli")
    (folder / "pods.yaml").write_text("---".join(MANIFEST.format(name=name, **words) for name in pods))
    os.environ[OVERRIDE] = str(wrapper)
    with mesh(folder / "state", "loopback", str(folder / "pods.yaml")):
        time.sleep(SETTLE_SECONDS)


def main() -> None:
    """Measure and write the script."""
    binary = find_proxy()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _profile(binary, folder)
        touched: set[int] = set()
        for file in folder.glob("profile.*"):
            with file.open() as profile:
                touched |= executed(profile, str(binary))
    if not touched:
        sys.exit(
            "no sidecar left a profile: it was killed before valgrind had written it. Run it again, on a quieter machine."
        )
    functions = _functions(binary)
    addresses = [address for address, _ in functions]
    starts = {addresses[bisect(addresses, address) - 1] for address in touched}
    names = sorted({name for address, name in functions if address in starts})
    patterns = sorted({pattern(name) for name in names}.difference(names))
    # Cold functions are in sections of another name. No wildcards where they can be spared: they are slow to link.
    lines = [f"    *(.text.{each} .text.unlikely.{each})\n" for each in names]
    lines += [f"    *(.text.{each})\n" for each in patterns]
    SCRIPT.write_text(HEAD + "".join(lines) + TAIL)
    print(f"{len(names)} functions in {SCRIPT}")


if __name__ == "__main__":
    main()
