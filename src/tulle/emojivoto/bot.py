"""The vote-bot: once a second it asks the web front for the list and votes, 15 % of the time for the doughnut."""

import json
import os
import random
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request

__all__ = ["choose", "run"]

DOUGHNUT_SHARE = 0.15
TIMEOUT_SECONDS = 10


def choose(shortcodes: list[str], draw: random.Random) -> str:
    """Return the shortcode to vote for."""
    return ":doughnut:" if draw.random() < DOUGHNUT_SHARE else draw.choice(shortcodes)


def run(stop: threading.Event) -> None:
    """Vote at WEB_HOST every VOTE_INTERVAL (1) seconds until `stop` is set."""
    base = f"http://{os.environ['WEB_HOST']}"
    interval = float(os.environ.get("VOTE_INTERVAL", "1"))
    draw = random.Random()
    while not stop.wait(interval):
        try:
            with urllib.request.urlopen(f"{base}/api/list", timeout=TIMEOUT_SECONDS) as answer:
                shortcodes = [emoji["shortcode"] for emoji in json.load(answer)]
            choice = choose(shortcodes, draw)
            sys.stdout.write(f"voting for {choice}\n")
            with urllib.request.urlopen(
                f"{base}/api/vote?choice={urllib.parse.quote(choice)}", timeout=TIMEOUT_SECONDS
            ):
                pass
        except (OSError, ValueError) as error:
            sys.stdout.write(f"failed: {error}\n")
        sys.stdout.flush()
