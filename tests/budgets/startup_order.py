"""Writes crates/proxy/startup.ld: which functions a sidecar runs until it is ready, for the linker to keep together.

Run `python -m tests.budgets.startup_order` when `idle_resident_mb` is exceeded because the code has moved: it starts a
mesh of two pods under callgrind (valgrind and binutils are needed) and takes every function that either sidecar ran.
First come those that carry a request, told apart by a pair of sidecars with load on them: few pages, which a request at a
low rate finds cold. Then the others, the names as they are. Then the same with a star for each hash: they hold what is left
when dependencies or the compiler have changed, with the other instances of what is generic. A name that matches nothing is
harmless.
"""

import json
import os
import re
import stat
import subprocess
import sys
import tempfile
import time
from bisect import bisect
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.bench.load import load_generator
from tests.bench.measure import served
from tests.bench.places import loopback
from tests.bench.processes import until
from tests.bench.scenarios import SCENARIOS
from tests.bench.sidecars import control_plane, sidecar_pair
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
CARRIED = ("b", "c")
"""The scenarios of the comparison whose requests count: HTTP/1.1 and gRPC, over mutual TLS."""


def pattern(symbol: str) -> str:
    """Return the symbol with a star for each hash in it."""
    without = re.sub(r"\.llvm\.\d+$", "*", symbol)
    without = re.sub(r"17h[0-9a-f]{16}E", "17h*E", without)
    return re.sub(r"Cs[0-9A-Za-z]+_", "Cs*_", without)


def executed(profile: Iterator[str], binary: str, times: int = 1) -> set[int]:
    """Return the addresses of the binary's instructions that ran so often, by callgrind with `--dump-instr=yes`."""
    names: dict[str, str] = {}
    found: set[int] = set()
    ours, calls, last = False, False, 0
    for line in profile:
        if named := re.match(r"c?ob=\((\d+)\)(?: (.*))?", line):
            if named[2]:
                names[named[1]] = named[2].strip()
            if line.startswith("ob"):
                ours = names[named[1]] == binary
        elif line.startswith("calls="):
            calls = True
        elif cost := re.match(r"(0x[0-9a-f]+|[+-]\d+|\*) .*?(\d+)$", line):
            if cost[1].startswith("0x"):
                last = int(cost[1], 16)
            elif cost[1] != "*":
                last += int(cost[1])
            # After `calls=` the cost is that of what was called.
            if ours and not calls and int(cost[2]) >= times:
                found.add(last)
            calls = False
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


def _profile_requests(binary: Path, folder: Path) -> dict[str, int]:
    """Profile two sidecars with load on them from when the first requests have passed; return how many each scenario had."""
    places, load = loopback(), load_generator()
    valgrind = ["valgrind", "--tool=callgrind", "--dump-instr=yes"]
    requests: dict[str, int] = {}
    for name in CARRIED:
        profile = f"--callgrind-out-file={folder}/{name}.%p"
        commands = {pod: [*valgrind, profile, str(binary)] for pod in ("client", "app")}
        scenario, plane = SCENARIOS[name], folder / name
        plane.mkdir()
        entry, service = places.entry(scenario.service), scenario.service
        words = [f"address={entry}", f"host={service.name}:{service.port}", f"bytes={scenario.bytes}"]
        run = [str(load), "run", scenario.app, *words, "connections=4", "warm=0", "seconds=4"]
        with (
            control_plane(places, plane),
            served(scenario, places, load, plane),
            sidecar_pair(commands, scenario, places, plane) as pair,
        ):
            for counted in (False, True):
                if counted:
                    for process in pair:
                        subprocess.run(["callgrind_control", "-z", str(process.pid)], check=True, timeout=30)
                done = subprocess.run(run, check=True, capture_output=True, text=True, timeout=120)
            requests[name] = json.loads(done.stdout.splitlines()[-1])["requests"]
            for process in pair:
                process.terminate()
                until("valgrind's account", partial(_has_ended, process), process, plane / "app.log")
    return requests


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is not None


def _executed(
    folder: Path, binary: Path, functions: list[tuple[int, str]], profiles: str, times: int = 1
) -> set[str]:
    touched: set[int] = set()
    for file in folder.glob(profiles):
        with file.open() as profile:
            touched |= executed(profile, str(binary), times)
    if not touched:
        sys.exit(
            "no sidecar left a profile: it was killed before valgrind had written it. Run it again, on a quieter machine."
        )
    addresses = [address for address, _ in functions]
    starts = {addresses[bisect(addresses, address) - 1] for address in touched}
    return {name for address, name in functions if address in starts}


def main() -> None:
    """Measure and write the script."""
    binary = find_proxy()
    functions = _functions(binary)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _profile(binary, folder)
        started = _executed(folder, binary, functions, "profile.*")
        carrying: set[str] = set()
        for scenario, requests in _profile_requests(binary, folder).items():
            # What is done for a batch of them counts too; what is done for a connection does not.
            carrying |= _executed(folder, binary, functions, f"{scenario}.*", requests // 16)
    names = sorted(carrying) + sorted(started - carrying)
    patterns = sorted({pattern(name) for name in names}.difference(names))
    # Cold functions are in sections of another name. No wildcards where they can be spared: they are slow to link.
    lines = [f"    *(.text.{each} .text.unlikely.{each})\n" for each in names]
    lines += [f"    *(.text.{each})\n" for each in patterns]
    SCRIPT.write_text(HEAD + "".join(lines) + TAIL)
    print(f"{len(names)} functions in {SCRIPT}, {len(carrying)} of them carry requests")


if __name__ == "__main__":
    main()
