"""HTTP servers inside the control plane's one loop: uvicorn without its signal handlers, with bounds set on purpose."""

import contextlib
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import uvicorn

from tulle.control.connection import BoundedHttp

__all__ = ["bind", "serve"]

MAX_CONNECTIONS = 1_000
BACKLOG = 512
KEEPALIVE_SECONDS = 60
SHUTDOWN_SECONDS = 1


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process: it stops every server, not this one."""
        yield


def bind(host: str, port: int) -> socket.socket:
    """Bind and listen; port 0 takes any. Raises OSError that names the address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from error


async def serve(app: Any, listener: socket.socket, *, tls: ssl.SSLContext | None = None) -> None:
    """Serve an ASGI application on a listening socket until cancelled; the socket is closed at the end."""
    config = uvicorn.Config(
        app,
        http=BoundedHttp,
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        backlog=BACKLOG,
        timeout_keep_alive=KEEPALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        ssl_context_factory=(lambda config, default: tls) if tls is not None else None,
    )
    server = _Server(config)
    try:
        await server.serve(sockets=[listener])
    finally:
        # Cancelled, uvicorn leaves its listener registered with the loop: the next socket with that number is then deaf.
        if server.started:
            await server.shutdown(sockets=[listener])
        listener.close()
