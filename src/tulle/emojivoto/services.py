"""The gRPC services `emoji` and `voting`, and the page of counters that each serves for Prometheus."""

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from tulle.emojivoto import emojivoto_pb2 as pb
from tulle.emojivoto.catalogue import CATALOGUE, METHODS
from tulle.emojivoto.http import Answer, serve_http

__all__ = ["Handler", "emoji_handlers", "serve", "voting_handlers"]

# grpc.aio.ServicerContext is generic for type checkers only, not at run time.
Context = Any
Handler = Callable[[Any, Context], Awaitable[Any]]


def emoji_handlers() -> dict[str, tuple[Handler, Any]]:
    """Return the methods of EmojiService with their request types."""

    async def list_all(_: pb.ListAllEmojiRequest, __: Context) -> pb.ListAllEmojiResponse:
        return pb.ListAllEmojiResponse(
            list=[pb.Emoji(shortcode=name, unicode=character) for name, character in CATALOGUE.items()]
        )

    async def find(request: pb.FindByShortcodeRequest, _: Context) -> pb.FindByShortcodeResponse:
        character = CATALOGUE.get(request.Shortcode)
        if character is None:
            return pb.FindByShortcodeResponse()
        return pb.FindByShortcodeResponse(Emoji=pb.Emoji(shortcode=request.Shortcode, unicode=character))

    return {
        "ListAll": (list_all, pb.ListAllEmojiRequest),
        "FindByShortcode": (find, pb.FindByShortcodeRequest),
    }


def voting_handlers(votes: Counter[str]) -> dict[str, tuple[Handler, Any]]:
    """Return the methods of VotingService, counting into `votes`; a vote for the doughnut fails, as it always did."""

    def vote(shortcode: str) -> Handler:
        async def cast(_: pb.VoteRequest, context: Context) -> pb.VoteResponse:
            if shortcode == ":doughnut:":
                await context.abort(grpc.StatusCode.UNKNOWN, "ERROR")
            votes[shortcode] += 1
            return pb.VoteResponse()

        return cast

    async def results(_: pb.ResultsRequest, __: Context) -> pb.ResultsResponse:
        ranking = [pb.VotingResult(Shortcode=name, Votes=count) for name, count in votes.most_common()]
        return pb.ResultsResponse(results=ranking)

    handlers: dict[str, tuple[Handler, Any]] = {
        method: (vote(shortcode), pb.VoteRequest) for method, shortcode in METHODS.items()
    }
    handlers["Results"] = (results, pb.ResultsRequest)
    return handlers


async def serve(service: str, handlers: dict[str, tuple[Handler, Any]], calls: Counter[str]) -> None:
    """Serve the methods on GRPC_PORT (8080), and counts of calls on PROM_PORT when it is set, until cancelled."""
    host = os.environ.get("HOST", "0.0.0.0")

    def counted(name: str, handler: Handler) -> Handler:
        async def call(request: Any, context: Context) -> Any:
            calls[name] += 1
            return await handler(request, context)

        return call

    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    methods: dict[str, Any] = {
        name: grpc.unary_unary_rpc_method_handler(
            counted(name, handler),
            request_deserializer=request.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )
        for name, (handler, request) in handlers.items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
    server.add_insecure_port(f"{host}:{os.environ.get('GRPC_PORT', '8080')}")
    await server.start()
    try:
        async with asyncio.TaskGroup() as group:
            if os.environ.get("PROM_PORT"):
                group.create_task(serve_http(host, int(os.environ["PROM_PORT"]), _metrics(service, calls)))
            group.create_task(server.wait_for_termination())
    finally:
        await server.stop(grace=1)


def _metrics(service: str, calls: Counter[str]) -> Callable[[str, str], Awaitable[Answer]]:
    async def answer(method: str, target: str) -> Answer:
        if target.partition("?")[0] != "/metrics":
            return Answer(404, "text/plain", b"not found\n")
        lines = ["# TYPE grpc_server_handled_total counter"]
        lines += [
            f'grpc_server_handled_total{{grpc_service="{service}",grpc_method="{name}"}} {count}'
            for name, count in sorted(calls.items())
        ]
        return Answer(200, "text/plain; version=0.0.4", ("\n".join(lines) + "\n").encode())

    return answer
