"""`make bench`: run the measurements and print them; exit 1 when a target is missed."""

import argparse
import sys

from tests.bench import compare, start
from tests.bench.load import TARGET, load_generator
from tests.bench.scenarios import SCENARIOS


def main() -> int:
    """Build the load generator, run what was asked for, print the reports."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("what", nargs="*", metavar="start|" + "|".join(SCENARIOS), help="default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--mode", default="auto", help="network mode of `start`")
    parser.add_argument("--loopback", action="store_true", help="compare on loopback, as without root")
    parser.add_argument("--no-memory", action="store_true", help="leave out the held connections")
    chosen = parser.parse_args()
    known = ["start", *SCENARIOS]
    if unknown := set(chosen.what) - set(known):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    what = chosen.what or known
    met = True
    if "start" in what:
        text, good = start.report(chosen.mode)
        sys.stdout.write(text + "\n\n")
        met = met and good
    scenarios = [name for name in SCENARIOS if name in what]
    if scenarios:
        good = compare.run(
            load_generator(), TARGET / "tulle-proxy", scenarios, chosen.rounds, chosen.seconds,
            use_loopback=chosen.loopback, memory=not chosen.no_memory,
        )  # fmt: skip
        met = met and good
    return 0 if met else 1


sys.exit(main())
