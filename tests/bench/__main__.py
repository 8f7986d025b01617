"""`make bench`: run the measurements and print them; exit 1 when a target is missed."""

import argparse
import subprocess
import sys
from pathlib import Path

from tests.bench import hops, start

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Build the load generator, run what was asked for, print the reports."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("what", nargs="*", choices=["start", "hops", []], help="default: both")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--mode", default="auto")
    chosen = parser.parse_args()
    what = chosen.what or ["start", "hops"]
    met = True
    if "start" in what:
        text, good = start.report(chosen.mode)
        sys.stdout.write(text + "\n\n")
        met = met and good
    if "hops" in what:
        subprocess.run(
            ["cargo", "build", "--release", "--locked", "-p", "tulle-proxy", "--example", "load"],
            cwd=ROOT,
            check=True,
        )
        text, good = hops.report(
            hops.measure(ROOT / "target/release/examples/load", chosen.rounds, chosen.seconds)
        )
        sys.stdout.write(text + "\n")
        met = met and good
    return 0 if met else 1


sys.exit(main())
