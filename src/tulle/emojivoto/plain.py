"""The two services of examples/two-services, `voting` and `emojisvc`, over plain HTTP on the container's port.

Each asks the other once a second through its Service, so that a mesh of the two alone has traffic to show.
"""

import asyncio
import json
import os
import sys
import urllib.request
from collections import Counter
from urllib.parse import parse_qs, urlsplit

from tulle.emojivoto.catalogue import CATALOGUE
from tulle.emojivoto.http import Answer, serve_http

__all__ = ["answer_emoji", "answer_voting", "serve"]

TIMEOUT_SECONDS = 5


def _json(status: int, value: object) -> Answer:
    return Answer(status, "application/json; charset=utf-8", json.dumps(value, ensure_ascii=False).encode())


def answer_emoji(target: str) -> Answer:
    """Answer for `emojisvc`: / and /api/list give the list, /api/find?shortcode=:name: one emoji."""
    parts = urlsplit(target)
    if parts.path in ("/", "/api/list"):
        return _json(
            200, [{"shortcode": name, "unicode": character} for name, character in CATALOGUE.items()]
        )
    if parts.path == "/api/find":
        name = parse_qs(parts.query).get("shortcode", [""])[0]
        if name in CATALOGUE:
            return _json(200, {"shortcode": name, "unicode": CATALOGUE[name]})
    return _json(404, {"error": f"nothing at {target}"})


def answer_voting(target: str, votes: Counter[str]) -> Answer:
    """Answer for `voting`: /api/vote?choice=:name: counts (the doughnut fails), anything else shows the results."""
    parts = urlsplit(target)
    if parts.path == "/api/vote":
        name = parse_qs(parts.query).get("choice", [""])[0]
        if name not in CATALOGUE:
            return _json(400, {"error": f"no emoji {name!r}"})
        if name == ":doughnut:":
            return _json(500, {"error": "ERROR"})
        votes[name] += 1
        return _json(200, {"shortcode": name, "votes": votes[name]})
    if parts.path in ("/", "/api/results"):
        return _json(200, [{"shortcode": name, "votes": count} for name, count in votes.most_common()])
    return _json(404, {"error": f"nothing at {target}"})


async def serve(service: str) -> None:
    """Serve `voting` or `emojisvc` on PORT (80) and call the other's Service, until cancelled."""
    votes: Counter[str] = Counter()

    async def handle(_: str, target: str) -> Answer:
        return answer_voting(target, votes) if service == "voting" else answer_emoji(target)

    peer = os.environ.get("PEER_URL") or ("http://emojisvc/" if service == "voting" else "http://voting/")
    async with asyncio.TaskGroup() as group:
        group.create_task(
            serve_http(os.environ.get("HOST", "0.0.0.0"), int(os.environ.get("PORT", "80")), handle)
        )
        group.create_task(_call_peer(peer))


async def _call_peer(url: str) -> None:
    def call() -> str:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:
            answer.read()
            return str(answer.status)

    while True:
        await asyncio.sleep(1)
        try:
            outcome = await asyncio.to_thread(call)
        except (OSError, ValueError) as error:
            outcome = f"failed: {error}"
        sys.stdout.write(f"GET {url} {outcome}\n")
        sys.stdout.flush()
