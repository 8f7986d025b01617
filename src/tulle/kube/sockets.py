"""WebSockets to a Kubernetes API, for commands in containers: messages of bytes in both directions.

`wsproto` knows the protocol; here are the TLS connection, the credentials and the bounds. Credentials and trust come
from the same kubeconfig code as those of `tulle.kube.client`.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Sequence
from urllib.parse import urlencode, urlsplit

import httpx2
import msgspec
from lightkube.config.client_adapter import user_auth, verify_cluster
from lightkube.config.kubeconfig import SingleConfig
from lightkube.core.exceptions import ConfigError
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Message,
    Ping,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.utilities import ProtocolError

from tulle.kube.client import ApiError, Unreachable

__all__ = ["Socket", "open_socket"]

CONNECT_SECONDS = 10.0
CLOSE_SECONDS = 2.0
READ_BYTES = 64 * 1024
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
MAX_REFUSAL_BYTES = 64 * 1024


class Socket:
    """An open WebSocket; `protocol` is the one that the API chose."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ws: WSConnection, protocol: str
    ) -> None:
        self.protocol = protocol
        self._reader, self._writer, self._ws = reader, writer, ws
        self._sending = asyncio.Lock()

    async def send(self, data: bytes) -> None:
        """Send one message. Raises Unreachable when the connection is gone."""
        await self._write(BytesMessage(data))

    async def messages(self) -> AsyncIterator[bytes]:
        """Yield messages until the API closes the socket. Raises Unreachable when it breaks off instead."""
        message = bytearray()
        while True:
            for event in self._ws.events():
                match event:
                    case CloseConnection():
                        with contextlib.suppress(Unreachable, ProtocolError):
                            await self._write(event.response())
                        return
                    case Ping():
                        await self._write(event.response())
                    case BytesMessage() | TextMessage():
                        message += event.data.encode() if isinstance(event.data, str) else event.data
                        if len(message) > MAX_MESSAGE_BYTES:
                            raise Unreachable(f"a message is larger than {MAX_MESSAGE_BYTES} bytes")
                        if event.message_finished:
                            yield bytes(message)
                            message.clear()
            await _feed(self._reader, self._ws)

    async def _write(self, event: Event) -> None:
        async with self._sending:
            try:
                self._writer.write(self._ws.send(event))
                await self._writer.drain()
            except (OSError, ProtocolError) as error:
                raise Unreachable(f"the connection to the API is gone: {error}") from error


@contextlib.asynccontextmanager
async def open_socket(
    config: SingleConfig, path: str, params: Sequence[tuple[str, str]], protocols: Sequence[str]
) -> AsyncIterator[Socket]:
    """Open a WebSocket; the API is offered the protocols in this order. Raises ApiError or Unreachable."""
    server = urlsplit(config.cluster.server)
    target = f"{server.path.rstrip('/')}{path}?{urlencode(params)}"
    try:
        context = _tls(config) if server.scheme == "https" else None
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(
                server.hostname, server.port or (443 if context else 80), ssl=context
            )
    except (OSError, TimeoutError, ConfigError) as error:
        raise Unreachable(f"{config.cluster.server}: {error or 'no connection in time'}") from error
    try:
        ws = WSConnection(ConnectionType.CLIENT)
        headers = [(b"User-Agent", b"tulle"), *_credentials(config, target)]
        writer.write(
            ws.send(
                Request(
                    host=server.netloc, target=target, subprotocols=list(protocols), extra_headers=headers
                )
            )
        )
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                protocol = await _handshake(reader, ws)
        except TimeoutError as error:
            raise Unreachable(f"the API did not answer within {CONNECT_SECONDS:g} s") from error
        yield Socket(reader, writer, ws, protocol)
    finally:
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await writer.wait_closed()


async def _handshake(reader: asyncio.StreamReader, ws: WSConnection) -> str:
    """Wait for the API to agree, and return the protocol it chose."""
    refusal: RejectConnection | None = None
    body = bytearray()
    while True:
        await _feed(reader, ws)
        for event in ws.events():
            match event:
                case AcceptConnection():
                    return event.subprotocol or ""
                case RejectConnection():
                    refusal = event
                    if not event.has_body:
                        raise _refused(event, b"")
                case RejectData():
                    body += event.data[: MAX_REFUSAL_BYTES - len(body)]
                    if refusal is not None and event.body_finished:
                        raise _refused(refusal, bytes(body))
                case Message() | _:
                    pass


class _Status(msgspec.Struct):
    reason: str = ""
    message: str = ""


def _refused(event: RejectConnection, body: bytes) -> ApiError:
    try:
        said = msgspec.json.decode(body, type=_Status)
    except msgspec.MsgspecError:
        said = _Status(message=body[:200].decode(errors="replace"))
    return ApiError(event.status_code, said.reason, said.message)


async def _feed(reader: asyncio.StreamReader, ws: WSConnection) -> None:
    try:
        data = await reader.read(READ_BYTES)
        if not data:
            raise Unreachable("the API closed the connection")
        ws.receive_data(data)
    except (OSError, ProtocolError) as error:
        raise Unreachable(f"{type(error).__name__}: {error}") from error


def _tls(config: SingleConfig) -> ssl.SSLContext:
    assert config.user is not None  # Client refuses a configuration without one
    context = verify_cluster(config.cluster, config.user, config.abs_file, trust_env=False)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _credentials(config: SingleConfig, target: str) -> list[tuple[bytes, bytes]]:
    """Return the headers that the kubeconfig's user would add to a request."""
    auth = user_auth(config.user)
    if auth is None:
        return []
    request = httpx2.Request("GET", config.cluster.server + target)
    flow = auth.sync_auth_flow(request)
    next(flow)
    flow.close()
    value = request.headers.get("Authorization")
    return [(b"Authorization", value.encode())] if value else []
