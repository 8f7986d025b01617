"""The HTTPS server: sockets that were handed in, TLS with client certificates, an orderly end."""

import asyncio
import ipaddress
import socket
import ssl
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from uvicorn import Config
from uvicorn.server import ServerState

from tulle.local.api.api import Api
from tulle.local.api.auth.certificates import Authority
from tulle.local.api.http.answers import MAX_BODY
from tulle.local.api.http.app import App
from tulle.local.api.http.protocol import HEAD_SECONDS, ApiProtocol, ApiWebSocket

__all__ = ["ApiServer"]

HANDSHAKE_SECONDS = 10.0
MAX_CONNECTIONS = 2000
"""Connections beyond get 503."""
GRACE_SECONDS = 0.2
"""Time for answers under way to be finished when the server stops; watches and commands are cut then."""
DRAIN_SECONDS = 2.0
"""Time for connections to end after that, and for a peer to say goodbye."""

NAMES = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "127.0.0.1",
)
"""What the server's certificate says besides the addresses it listens on."""


class ApiServer:
    """Serves an Api on any number of listening sockets. Use as `async with`."""

    def __init__(self, api: Api, *, names: Sequence[str] = (), head_seconds: float = HEAD_SECONDS) -> None:
        self._names = [*NAMES, *names]
        self._head_seconds = head_seconds
        self._authority: Authority = api.authority
        self._config = Config(
            App(api),
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            http=ApiProtocol,
            ws=ApiWebSocket,
            ws_max_size=MAX_BODY,
            ws_per_message_deflate=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=90,
        )
        self._config.load()
        self._state = ServerState()
        self._servers: list[asyncio.Server] = []
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._context.verify_mode = ssl.CERT_OPTIONAL
        self._context.load_verify_locations(cadata=api.authority.bundle.decode())
        self._context.set_alpn_protocols(["http/1.1"])
        self._certify()

    def _certify(self) -> None:
        credential = self._authority.server(self._names)
        with tempfile.TemporaryDirectory(prefix="tulle-api-") as folder:
            path = Path(folder) / "server.pem"
            path.touch(0o600)
            path.write_bytes(credential.certificate + credential.key)
            self._context.load_cert_chain(path)

    async def __aenter__(self) -> "ApiServer":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def listen(self, listener: socket.socket) -> None:
        """Serve on a bound socket too; its address becomes part of the server's certificate."""
        host = listener.getsockname()[0]
        if host not in self._names and not ipaddress.ip_address(host).is_unspecified:
            self._names.append(host)
            self._certify()
        # asyncio does this itself only for sockets that name their protocol; without it each answer waits 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            self._protocol,
            sock=listener,
            ssl=self._context,
            backlog=512,
            ssl_handshake_timeout=HANDSHAKE_SECONDS,
            ssl_shutdown_timeout=DRAIN_SECONDS,
        )
        self._servers.append(server)

    def _protocol(self) -> ApiProtocol:
        protocol = ApiProtocol(self._config, self._state, {})
        protocol.head_seconds = self._head_seconds
        return protocol

    async def close(self) -> None:
        """Stop listening, let short answers finish, cut the rest."""
        for server in self._servers:
            server.close()
        for connection in list(self._state.connections):
            # asyncio's TLS transport forgets its connection when it is closed twice: WebSockets are not closed first.
            if not isinstance(connection, ApiWebSocket):
                connection.shutdown()
        if self._state.tasks:
            await asyncio.wait(set(self._state.tasks), timeout=GRACE_SECONDS)
        for task in list(self._state.tasks):
            task.cancel()
        if self._state.tasks:
            await asyncio.wait(set(self._state.tasks), timeout=DRAIN_SECONDS)
        for connection in list(self._state.connections):
            connection.transport.abort()
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while self._state.connections:  # noqa: ASYNC110 - uvicorn tells nobody when a connection is gone
                    await asyncio.sleep(0.005)
        self._servers.clear()
