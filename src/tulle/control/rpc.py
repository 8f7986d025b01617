"""The gRPC servers: options set on purpose, and the shape that all streaming handlers share.

Messages leave as bytes that were encoded once. `CancelledError` is never caught: a swallowed cancellation leaks the
call's memory inside grpc (grpc #43360).
"""

import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from tulle.control.limits import MAX_MESSAGE, StreamLimits, TooMany

__all__ = ["Context", "Refusal", "listen", "peer_of", "service", "stream", "unary"]

Context = grpc.aio.ServicerContext[Any, Any]
Handler = Callable[[Any, Context], Awaitable[None]]

log = logging.getLogger("tulle.control")

FAILED = "the control plane failed to answer; its log says how"
KEEPALIVE_MS = 10_000
KEEPALIVE_TIMEOUT_MS = 5_000
MIN_PING_MS = 1_000
MAX_PING_STRIKES = 10
HANDSHAKE_MS = 10_000
MAX_AGE_SECONDS = 3600
MAX_AGE_GRACE_SECONDS = 60
MAX_PENDING = 100_000
MAX_METADATA = 16 * 1024
MAX_STREAMS_PER_CONNECTION = 10_000


class Refusal(Exception):
    """A call is answered with this status and text."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


def options(rng: Callable[[], float] = random.random) -> list[tuple[str, int]]:
    """Return the server options; the age of connections is spread, so that proxies do not all move at once."""
    age = MAX_AGE_SECONDS * (0.8 + 0.4 * rng())
    return [
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        # tonic pings idle connections; the default answers that with GOAWAY too_many_pings.
        ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_MS),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", MIN_PING_MS),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.max_ping_strikes", MAX_PING_STRIKES),
        ("grpc.max_connection_age_ms", int(age * 1000)),
        ("grpc.max_connection_age_grace_ms", MAX_AGE_GRACE_SECONDS * 1000),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
        ("grpc.max_receive_message_length", MAX_MESSAGE),
        ("grpc.max_metadata_size", MAX_METADATA),
        ("grpc.max_concurrent_streams", MAX_STREAMS_PER_CONNECTION),
        # By default a burst of 2,000 opens loses a tenth of them to early drop.
        ("grpc.server.max_pending_requests", MAX_PENDING),
        ("grpc.so_reuseport", 0),
    ]


def service(name: str, handlers: Mapping[str, Any]) -> grpc.GenericRpcHandler:
    """Register handlers under a full service name."""
    return grpc.method_handlers_generic_handler(name, dict(handlers))


def stream(handler: Handler, request: type[Any], limits: StreamLimits, workload: Callable[[Any], str]) -> Any:
    """Wrap a handler that writes bytes: admission, and Refusals turned into statuses."""

    async def run(body: bytes, context: Context) -> None:
        try:
            message = _parse(request, body)
            with limits.admit(peer_of(context), workload(message)):
                await handler(message, context)
        except TooMany as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        except Refusal as error:
            await context.abort(error.code, str(error))
        except Exception:
            log.exception("a stream of %s failed", peer_of(context))
            await context.abort(grpc.StatusCode.INTERNAL, FAILED)

    return grpc.unary_stream_rpc_method_handler(run)


def unary(handler: Callable[[Any, Context], Awaitable[bytes]], request: type[Any]) -> Any:
    """Wrap a handler that returns bytes; Refusals are turned into statuses."""

    async def run(body: bytes, context: Context) -> bytes:
        try:
            return await handler(_parse(request, body), context)
        except Refusal as error:
            await context.abort(error.code, str(error))
            raise AssertionError("abort raises") from error
        except Exception as error:
            log.exception("a call of %s failed", peer_of(context))
            await context.abort(grpc.StatusCode.INTERNAL, FAILED)
            raise AssertionError("abort raises") from error

    return grpc.unary_unary_rpc_method_handler(run)


def _parse(request: type[Any], body: bytes) -> Any:
    # Parsed here and not by grpc, which answers UNKNOWN and logs a traceback for every malformed message.
    try:
        return request.FromString(body)
    except DecodeError as error:
        name = request.DESCRIPTOR.name
        raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, f"the message is not a {name}") from error


def peer_of(context: Context) -> str:
    """Name the caller: the identity that the sidecar vouches for, else the address of its connection."""
    for key, value in context.invocation_metadata() or ():
        if key == "l5d-client-id":
            return value if isinstance(value, str) else value.decode(errors="replace")
    return str(context.peer())


async def listen(address: str, handlers: Sequence[grpc.GenericRpcHandler]) -> tuple[grpc.aio.Server, int]:
    """Start a server on `host:port`; returns it with the port bound. Raises OSError when it cannot be bound."""
    server = grpc.aio.server(options=options())
    server.add_generic_rpc_handlers(tuple(handlers))
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}: {error}") from error
    if not port:
        raise OSError(f"cannot listen on {address}")
    await server.start()
    return server, port
