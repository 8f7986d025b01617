"""The example's own behaviour, through its real programs where they speak."""

import asyncio
import json
import os
import random
import signal
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.ports import free_ports
from tulle.emojivoto.bot import choose
from tulle.emojivoto.catalogue import CATALOGUE, METHODS, method_of
from tulle.emojivoto.plain import answer_emoji, answer_voting


def test_every_emoji_has_a_method_of_the_published_service() -> None:
    assert len(CATALOGUE) == len(METHODS) == 100
    assert method_of(":stuck_out_tongue_winking_eye:") == "VoteStuckOutTongueWinkingEye"
    assert method_of(":100:") == "Vote100"


def test_the_bot_votes_for_the_doughnut_about_fifteen_times_in_a_hundred() -> None:
    draw = random.Random(7)
    votes = Counter(choose([":joy:", ":ghost:"], draw) for _ in range(2000))
    assert 240 < votes[":doughnut:"] < 360
    assert votes[":joy:"] and votes[":ghost:"]


def test_the_plain_services_answer_as_the_readme_shows_them() -> None:
    votes: Counter[str] = Counter()
    assert answer_voting("/api/vote?choice=:joy:", votes).status == 200
    assert json.loads(answer_voting("/", votes).body) == [{"shortcode": ":joy:", "votes": 1}]
    assert answer_voting("/api/vote?choice=:doughnut:", votes).status == 500
    assert answer_voting("/api/vote?choice=:nothing:", votes).status == 400
    assert len(json.loads(answer_emoji("/").body)) == 100
    assert answer_emoji("/api/find?shortcode=:nothing:").status == 404


@asynccontextmanager
async def running(name: str, **env: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run one program of the example; it must end with 0 when it is told to."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tulle.emojivoto", name, env={**os.environ, "HOST": "127.0.0.1", **env}
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


def get(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


async def fetch(url: str) -> tuple[int, bytes]:
    return await asyncio.to_thread(get, url)


async def until_listening(port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.02)  # the program is on its way up; the test's timeout bounds this
        else:
            writer.close()
            return


@pytest.mark.slow
async def test_a_vote_travels_from_the_web_front_to_the_leaderboard_and_the_doughnut_fails() -> None:
    emoji, voting, web, prom = free_ports(4)
    async with (
        running("emoji", GRPC_PORT=str(emoji)),
        running("voting", GRPC_PORT=str(voting), PROM_PORT=str(prom)),
        running(
            "web", WEB_PORT=str(web), EMOJISVC_HOST=f"127.0.0.1:{emoji}", VOTINGSVC_HOST=f"127.0.0.1:{voting}"
        ),
    ):
        for port in (emoji, voting, web):
            await until_listening(port)
        front = f"http://127.0.0.1:{web}"
        status, listing = await fetch(f"{front}/api/list")
        assert status == 200 and len(json.loads(listing)) == 100
        assert (await fetch(f"{front}/api/vote?choice=:ghost:"))[0] == 200
        assert (await fetch(f"{front}/api/vote?choice=:doughnut:")) == (500, b'{"error": "UNKNOWN: ERROR"}')
        assert (await fetch(f"{front}/api/vote"))[0] == 400
        assert (await fetch(f"{front}/api/vote?choice=:no:"))[0] == 400
        status, ranking = await fetch(f"{front}/api/leaderboard")
        assert json.loads(ranking) == [{"shortcode": ":ghost:", "unicode": "👻", "votes": "1"}]
        assert b"Emoji Vote" in (await fetch(front))[1]
        assert b'grpc_method="VoteGhost"} 1' in (await fetch(f"http://127.0.0.1:{prom}/metrics"))[1]
