"""Requests that were refused: asked for at several sidecars, and told in lines."""

import json
from typing import Any

import pytest

from tulle.kube.client import ApiError, Unreachable
from tulle.tools.explain_refused import Found, ask, lines

pytestmark = pytest.mark.anyio

ENTRY: dict[str, Any] = {
    "time": "2026-11-20T10:00:00.000Z",
    "direction": "inbound",
    "request_id": "id-1",
    "method": "GET",
    "authority": "voting",
    "path": "/vote",
    "client_id": "web.shop",
    "reason": "unauthorized",
    "meaning": "client is not authorized",
    "hint": "let it in",
    "status": 403,
    "rule": "Server shop/voting",
    "detail": "",
    "derivation": {
        "policy": "Server shop/voting",
        "rule": "",
        "matches": [
            {"rule": "r 0", "asks": "any path", "outcome": "matched", "because": None, "saw": None},
            {
                "rule": "r 1",
                "asks": "path /a",
                "outcome": "mismatch",
                "because": "path is /a",
                "saw": "/vote",
            },
            {"rule": "r 2", "asks": "any path", "outcome": "shadowed", "because": None, "saw": None},
            {"rule": "r 3", "asks": "host x", "outcome": "wrong-host", "because": None, "saw": None},
        ],
        "matches_weighed": 6,
        "authorizations": [
            {"authorization": "only-web", "lacks": "client identity web", "saw": "client identity bot"}
        ],
        "authorizations_weighed": 1,
    },
}


def test_an_entry_is_told_in_the_order_of_the_decision() -> None:
    assert list(lines(Found("voting-1", ENTRY))) == [
        "id-1 inbound in the sidecar of pod voting-1, 2026-11-20T10:00:00.000Z",
        "",
        "request    GET voting/vote",
        "client     web.shop",
        "policy     Server shop/voting",
        "rule       Server shop/voting",
        "match      r 0: any path",
        "  not      r 1: path /a: path is /a, saw /vote",
        "  also     r 2: any path: holds too, but comes later",
        "  not      r 3: host x: for another host",
        "           and 2 more matches",
        "  not      only-web needs client identity web, saw client identity bot",
        "",
        "verdict    REFUSED: 403 (unauthorized: client is not authorized)",
        "hint       let it in",
    ]


def test_a_request_that_could_not_be_read_has_little_to_tell() -> None:
    entry = {
        "request_id": "i",
        "direction": "inbound",
        "status": 400,
        "reason": "bad-request",
        "meaning": "m",
    }
    told = list(lines(Found("p", entry)))
    assert "request    could not be read" in told
    assert told[-1] == "verdict    REFUSED: 400 (bad-request: m)"


async def test_every_sidecar_is_asked_and_those_that_do_not_answer_are_named() -> None:
    async def get(pod: str, path: str) -> tuple[int, bytes]:
        assert path == "/explain/a%2Fb"
        match pod:
            case "knows":
                return 200, json.dumps(ENTRY).encode()
            case "forgot":
                return 404, b"no such request\n"
            case "old":
                return 403, b"only from loopback\n"
            case "gone":
                raise ApiError(404, "NotFound", "pods gone not found")
            case _:
                raise Unreachable("nobody listens")

    asked = await ask(get, ["knows", "forgot", "old", "gone", "deaf"], "a/b")

    assert [found.pod for found in asked.found] == ["knows"]
    assert dict(asked.silent) == {
        "old": "it answers 403: only from loopback",
        "gone": "pods gone not found",
        "deaf": "nobody listens",
    }


async def test_an_api_that_forbids_it_is_heard_at_once() -> None:
    async def get(pod: str, path: str) -> tuple[int, bytes]:
        raise ApiError(403, "Forbidden", "pods/portforward is not for you")

    with pytest.raises(ApiError):
        await ask(get, ["one", "two"], "x")
