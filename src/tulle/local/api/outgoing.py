"""HTTP requests that the API itself makes: to webhooks, and on behalf of clients to pods and Services.

One request per connection, over streams that somebody else opened (into a pod's network, or to a URL's host).
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import h11

from tulle.local.api.objects import Obj, lookup
from tulle.local.api.store import Store

__all__ = ["Endpoint", "Response", "ServiceUnreachable", "exchange", "service_endpoint"]

READ_BYTES = 64 * 1024
MAX_HEAD = 64 * 1024


class ServiceUnreachable(Exception):
    """A Service does not exist, lacks the port, or has no ready endpoint; the text says which."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to connect."""

    address: str
    port: int


def service_endpoint(store: Store, namespace: str, name: str, port: str) -> Endpoint:
    """Return a ready endpoint behind a Service's port (number or name); raise ServiceUnreachable."""
    record = store.get("services", namespace, name)
    if record is None:
        raise ServiceUnreachable(f'service "{name}" not found')
    ports = lookup(record.obj, ("spec", "ports")) or []
    wanted = next((p for p in ports if str(p["port"]) == port or p.get("name") == port), None)
    if wanted is None and not port and len(ports) == 1:
        wanted = ports[0]
    if wanted is None:
        raise ServiceUnreachable(f'no service port "{port}" found for service "{name}"')
    slices = store.collection("endpointslices.discovery.k8s.io").records
    for (where, _), slice_record in sorted(slices.items()):
        labels = slice_record.obj["metadata"].get("labels") or {}
        if where == namespace and labels.get("kubernetes.io/service-name") == name:
            found = _ready_endpoint(slice_record.obj, wanted.get("name") or "")
            if found is not None:
                return found
    raise ServiceUnreachable(f'no endpoints available for service "{name}"')


def _ready_endpoint(endpoint_slice: Obj, port_name: str) -> Endpoint | None:
    ports = endpoint_slice.get("ports") or ()
    port = next((p["port"] for p in ports if (p.get("name") or "") == port_name and p.get("port")), None)
    if port is None:
        return None
    for endpoint in endpoint_slice.get("endpoints") or ():
        if lookup(endpoint, ("conditions", "ready")) is not False and endpoint.get("addresses"):
            return Endpoint(endpoint["addresses"][0], int(port))
    return None


@dataclass(slots=True)
class Response:
    """The head of an answer, and its body as it arrives."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: AsyncIterator[bytes]


Header = tuple[bytes, bytes]


async def exchange(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    method: str,
    target: str,
    headers: Sequence[Header],
    body: bytes,
) -> Response:
    """Send a request and return the answer once its head is there; reading the body to its end closes the connection.

    Raises OSError or h11.RemoteProtocolError when the peer does not answer in HTTP; the caller sets a timeout.
    """
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
    head = h11.Request(method=method, target=target, headers=list(headers))
    writer.write(connection.send(head) or b"")
    if body:
        writer.write(connection.send(h11.Data(data=body)) or b"")
    writer.write(connection.send(h11.EndOfMessage()) or b"")
    await writer.drain()
    while True:
        event = await _next(connection, reader)
        if isinstance(event, h11.Response):
            break
        if isinstance(event, h11.ConnectionClosed):
            raise ConnectionResetError("the server closed the connection without an answer")
    return Response(event.status_code, list(event.headers), _body(connection, reader, writer))


async def _next(connection: h11.Connection, reader: asyncio.StreamReader) -> object:
    while True:
        event = connection.next_event()
        if event is not h11.NEED_DATA:
            return event
        connection.receive_data(await reader.read(READ_BYTES))


async def _body(
    connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> AsyncIterator[bytes]:
    try:
        while True:
            event = await _next(connection, reader)
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)):
                return
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
