"""The example's front: pages for a browser, and a JSON API over the two gRPC services."""

import json
import os
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import grpc
import grpc.aio

from tulle.emojivoto import emojivoto_pb2 as pb
from tulle.emojivoto.catalogue import METHODS, method_of
from tulle.emojivoto.http import Answer, serve_http
from tulle.emojivoto.pages import BALLOT, LEADERBOARD

__all__ = ["serve"]

CALL_SECONDS = 10

T = TypeVar("T")


class _Backends:
    """The two gRPC services, called by their methods' names."""

    def __init__(self, emoji: grpc.aio.Channel, voting: grpc.aio.Channel) -> None:
        self._emoji, self._voting = emoji, voting

    async def list_all(self) -> pb.ListAllEmojiResponse:
        return await self._call(
            self._emoji, "EmojiService/ListAll", pb.ListAllEmojiRequest(), pb.ListAllEmojiResponse
        )

    async def find(self, shortcode: str) -> pb.FindByShortcodeResponse:
        request = pb.FindByShortcodeRequest(Shortcode=shortcode)
        return await self._call(
            self._emoji, "EmojiService/FindByShortcode", request, pb.FindByShortcodeResponse
        )

    async def vote(self, shortcode: str) -> None:
        method = f"VotingService/{method_of(shortcode)}"
        await self._call(self._voting, method, pb.VoteRequest(), pb.VoteResponse)

    async def results(self) -> pb.ResultsResponse:
        return await self._call(
            self._voting, "VotingService/Results", pb.ResultsRequest(), pb.ResultsResponse
        )

    @staticmethod
    async def _call(channel: grpc.aio.Channel, method: str, request: object, response: type[T]) -> T:
        call: Any = channel.unary_unary(
            f"/emojivoto.v1.{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,  # type: ignore[attr-defined]
        )
        result: T = await call(request, timeout=CALL_SECONDS)
        return result


def _json(status: int, value: object) -> Answer:
    return Answer(status, "application/json; charset=utf-8", json.dumps(value, ensure_ascii=False).encode())


async def _list(backends: _Backends, _: dict[str, list[str]]) -> Answer:
    listing = await backends.list_all()
    return _json(200, [{"shortcode": emoji.shortcode, "unicode": emoji.unicode} for emoji in listing.list])


async def _vote(backends: _Backends, query: dict[str, list[str]]) -> Answer:
    choice = query.get("choice", [""])[0]
    if not choice:
        return _json(400, {"error": "Emoji choice [] is mandatory"})
    found = await backends.find(choice)
    if not found.HasField("Emoji") or method_of(choice) not in METHODS:
        return _json(400, {"error": f"Chosen emoji shortcode [{choice}] does not exist"})
    await backends.vote(choice)
    return _json(200, {})


async def _leaderboard(backends: _Backends, _: dict[str, list[str]]) -> Answer:
    ranking = []
    for result in (await backends.results()).results:
        emoji = (await backends.find(result.Shortcode)).Emoji
        ranking.append({"shortcode": emoji.shortcode, "unicode": emoji.unicode, "votes": str(result.Votes)})
    return _json(200, ranking)


ROUTES: dict[str, Callable[[_Backends, dict[str, list[str]]], Awaitable[Answer]]] = {
    "/api/list": _list,
    "/api/vote": _vote,
    "/api/leaderboard": _leaderboard,
}
PAGES = {"/": BALLOT, "/leaderboard": LEADERBOARD}


async def serve() -> None:
    """Serve pages and API on WEB_PORT (8080), calling EMOJISVC_HOST and VOTINGSVC_HOST, until cancelled."""
    async with (
        grpc.aio.insecure_channel(os.environ["EMOJISVC_HOST"]) as emoji,
        grpc.aio.insecure_channel(os.environ["VOTINGSVC_HOST"]) as voting,
    ):
        backends = _Backends(emoji, voting)

        async def handle(_: str, target: str) -> Answer:
            parts = urlsplit(target)
            if parts.path in PAGES:
                return Answer(200, "text/html; charset=utf-8", PAGES[parts.path].encode())
            route = ROUTES.get(parts.path)
            if route is None:
                return _json(404, {"error": f"no page at {parts.path}"})
            try:
                return await route(backends, parse_qs(parts.query))
            except grpc.aio.AioRpcError as error:
                return _json(500, {"error": f"{error.code().name}: {error.details()}"})

        await serve_http(os.environ.get("HOST", "0.0.0.0"), int(os.environ.get("WEB_PORT", "8080")), handle)
