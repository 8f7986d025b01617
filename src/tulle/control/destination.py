"""`Destination.Get` and `.GetProfile`: endpoints and profiles, streamed as they change.

A first message replaces what the proxy knew; later ones are the difference to what *this* stream was sent, however many
versions it skipped. `no_endpoints` is sent only when there are none.
"""

import asyncio
from dataclasses import dataclass
from functools import partial

import grpc

from tulle.api import destination_pb2
from tulle.compile import (
    AddressTarget,
    BadName,
    ClientContext,
    Endpoints,
    Mesh,
    ServiceTarget,
    endpoints,
    messages,
    nearness,
    parse_context,
    profile,
    resolve,
)
from tulle.control.hub import Hub
from tulle.control.limits import StreamLimits
from tulle.control.rpc import Context, Refusal, service, stream
from tulle.control.views import Views

__all__ = ["DestinationService", "difference"]


def difference(sent: Endpoints | None, now: Endpoints) -> list[bytes]:
    """Return the Updates that lead a client from `sent` (None: nothing yet) to `now`."""
    if not now.addresses:
        unchanged = sent is not None and not sent.addresses and sent.exists == now.exists
        return [] if unchanged else [messages.no_endpoints(now.exists)]
    before = sent.addresses if sent is not None else {}
    gone = before.keys() - now.addresses.keys()
    new = [encoded for address, encoded in now.addresses.items() if before.get(address) != encoded]
    updates = []
    if new:
        updates.append(messages.added(new, now.labels))
    if gone:
        updates.append(messages.removed(gone))
    return updates


@dataclass
class DestinationService:
    """Answers from the World through the hub."""

    views: Views
    mesh: Mesh
    hub: Hub
    limits: StreamLimits

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the service for a gRPC server."""
        request = destination_pb2.GetDestination
        return service(
            "io.linkerd.proxy.destination.Destination",
            {
                "Get": stream(self._get, request, self.limits, _workload),
                "GetProfile": stream(self._get_profile, request, self.limits, _workload),
            },
        )

    async def _get(self, request: destination_pb2.GetDestination, context: Context) -> None:
        await self.views.wait_synced()
        client = _client(request)
        target = self._resolve(request, client)
        if isinstance(target, AddressTarget):
            raise Refusal(
                grpc.StatusCode.INVALID_ARGUMENT, "Get takes a name; ask GetProfile about an address"
            )
        if target is None:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, f"{request.path!r} is not a name of this cluster")
        views, mesh = self.views, self.mesh
        sent: Endpoints | None = None
        while True:
            near = nearness(views.world, target, client)
            compute = partial(endpoints, views.world, mesh, target, near)
            with self.hub.subscribe(("endpoints", target, near), compute) as subscription:
                while (now := subscription.answer).local == near.local:
                    for update in difference(sent, now):
                        await context.write(update)
                    sent = now
                    await subscription.changed()
            # internalTrafficPolicy changed: the stream belongs to another group now.
            await asyncio.sleep(0)

    def _resolve(
        self, request: destination_pb2.GetDestination, client: ClientContext
    ) -> ServiceTarget | AddressTarget | None:
        try:
            return resolve(self.views.world, self.mesh, request.path, client)
        except BadName as error:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error

    async def _get_profile(self, request: destination_pb2.GetDestination, context: Context) -> None:
        await self.views.wait_synced()
        client = _client(request)
        target = self._resolve(request, client)
        if target is None:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, f"{request.path!r} is not a name of this cluster")
        views, mesh = self.views, self.mesh
        with self.hub.subscribe(
            ("profile", target),
            lambda: profile(views.world, mesh, target, client).SerializeToString(deterministic=True),
        ) as subscription:
            while True:
                await context.write(subscription.answer)
                await subscription.changed()


def _client(request: destination_pb2.GetDestination) -> ClientContext:
    try:
        return parse_context(request.context_token)
    except BadName as error:
        raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error


def _workload(request: destination_pb2.GetDestination) -> str:
    return str(request.context_token[:300])
