"""`OutboundPolicies` and `InboundServerPolicies`: full states, streamed as they change.

Every message is the whole policy, so skipping versions loses nothing. A target that is unknown, or ceases to be, ends
the stream with NOT_FOUND; the proxy goes on with its own default and asks again.
"""

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import grpc

from tulle.api import inbound_pb2, outbound_pb2
from tulle.compile import (
    AddressTarget,
    BadName,
    ClientContext,
    Mesh,
    ServiceTarget,
    inbound_server,
    may_appear,
    outbound_policy,
    parse_workload,
    resolve,
)
from tulle.compile.messages import ip_text
from tulle.control.hub import Hub
from tulle.control.limits import StreamLimits
from tulle.control.rpc import Context, Refusal, service, stream, unary
from tulle.control.views import Views

__all__ = ["PolicyService"]

APPEARING_SECONDS = 0.3
APPEARING_TRIES = 3

Question = tuple[Hashable, Callable[[], bytes | None], str]


@dataclass
class PolicyService:
    """Answers from the World through the hub."""

    views: Views
    mesh: Mesh
    hub: Hub
    limits: StreamLimits

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """Return both services for a gRPC server."""
        spec, port = outbound_pb2.TrafficSpec, inbound_pb2.PortSpec
        return [
            service(
                "io.linkerd.proxy.outbound.OutboundPolicies",
                {
                    "Get": unary(self._get_outbound, spec),
                    "Watch": stream(
                        self._watch_outbound, spec, self.limits, lambda r: str(r.source_workload[:300])
                    ),
                },
            ),
            service(
                "io.linkerd.proxy.inbound.InboundServerPolicies",
                {
                    "GetPort": unary(self._get_port, port),
                    "WatchPort": stream(self._watch_port, port, self.limits, lambda r: str(r.workload[:300])),
                },
            ),
        ]

    async def _get_outbound(self, request: outbound_pb2.TrafficSpec, context: Context) -> bytes:
        await self.views.wait_synced()
        _, compute, name = self._outbound(request)
        return _found(compute(), name)

    async def _watch_outbound(self, request: outbound_pb2.TrafficSpec, context: Context) -> None:
        await self.views.wait_synced()
        client, target = self._asked(request)
        for _ in range(APPEARING_TRIES):
            # What was created a moment ago may not have been heard of yet, and a proxy that is told NOT_FOUND goes past
            # the mesh.
            if (
                target is not None
                and outbound_policy(self.views.world, self.mesh, target, client) is not None
            ):
                break
            if not may_appear(self.views.world, self.mesh, target, request.authority):
                break
            await asyncio.sleep(APPEARING_SECONDS / APPEARING_TRIES)
            client, target = self._asked(request)
        await self._follow(self._outbound(request), context)

    async def _get_port(self, request: inbound_pb2.PortSpec, context: Context) -> bytes:
        await self.views.wait_synced()
        _, compute, name = self._inbound(request)
        return _found(compute(), name)

    async def _watch_port(self, request: inbound_pb2.PortSpec, context: Context) -> None:
        await self.views.wait_synced()
        await self._follow(self._inbound(request), context)

    async def _follow(self, question: Question, context: Context) -> None:
        key, compute, name = question
        with self.hub.subscribe(key, compute) as subscription:
            while True:
                await context.write(_found(subscription.answer, name))
                await subscription.changed()

    def _asked(
        self, request: outbound_pb2.TrafficSpec
    ) -> tuple[ClientContext, ServiceTarget | AddressTarget | None]:
        try:
            # Of the client only its namespace matters, so all its pods share one group.
            client = ClientContext(parse_workload(request.source_workload).namespace)
            return client, _target(self.views, self.mesh, request, client)
        except BadName as error:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error

    def _outbound(self, request: outbound_pb2.TrafficSpec) -> Question:
        world, mesh = self.views.world, self.mesh
        client, target = self._asked(request)
        if target is None:
            raise Refusal(
                grpc.StatusCode.NOT_FOUND, f"{request.authority!r} is not a Service of this cluster"
            )

        def compute() -> bytes | None:
            policy = outbound_policy(world, mesh, target, client)
            return policy.SerializeToString(deterministic=True) if policy is not None else None

        return ("outbound", target, client.namespace), compute, str(target)

    def _inbound(self, request: inbound_pb2.PortSpec) -> Question:
        world, mesh = self.views.world, self.mesh
        try:
            workload = parse_workload(request.workload)
        except BadName as error:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
        if not 1 <= request.port <= 65535:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, f"{request.port} is not a port")

        def compute() -> bytes | None:
            server = inbound_server(world, mesh, workload.namespace, workload.pod, request.port)
            return server.SerializeToString(deterministic=True) if server is not None else None

        name = f"pod {workload.namespace}/{workload.pod}"
        return ("inbound", workload.namespace, workload.pod, request.port), compute, name


def _target(
    views: Views, mesh: Mesh, request: outbound_pb2.TrafficSpec, client: ClientContext
) -> ServiceTarget | AddressTarget | None:
    match request.WhichOneof("target"):
        case "addr":
            if not 1 <= request.addr.port <= 65535:
                raise BadName(f"{request.addr.port} is not a port")
            return AddressTarget(ip_text(request.addr.ip), request.addr.port)
        case "authority":
            return resolve(views.world, mesh, request.authority, client)
        case _:
            raise BadName("the request names neither an address nor an authority")


def _found(answer: bytes | None, name: str) -> bytes:
    if answer is None:
        raise Refusal(grpc.StatusCode.NOT_FOUND, f"{name} is not known")
    return answer
