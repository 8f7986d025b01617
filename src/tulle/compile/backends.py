"""Where a rule's requests go: backends, weights, and what stands in for a backend that cannot be had.

A missing or unusable backend keeps its share of the traffic and answers it 500 with the reason (Gateway API), so that
a typo in a canary is seen in proportion and never silently turned into traffic for the others.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration

from tulle.api import destination_pb2, meta_pb2, outbound_pb2
from tulle.compile import annotations, balancing, filters, messages
from tulle.compile.annotations import BadValue
from tulle.compile.mesh import Mesh
from tulle.compile.names import ServiceTarget
from tulle.kube.objects import Pod, Service
from tulle.kube.policy_objects import BackendObject, BackendRef, Filter, HTTPRoute, Rule
from tulle.kube.world import World

__all__ = ["BadBackend", "Distributions", "resolve_backend"]

# The Gateway API's own bound.
MAX_WEIGHT = 1_000_000


class BadBackend(ValueError):
    """A backendRef leads nowhere; `reason` is the condition reason of the Gateway API."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def resolve_backend(world: World, route: HTTPRoute, ref: BackendObject) -> tuple[Service, int]:
    """Return the Service and port that a backendRef means. Raises BadBackend."""
    if ref.group not in (None, "", "core") or ref.kind not in (None, "Service"):
        raise BadBackend("InvalidKind", f"{ref.kind or 'Service'} {ref.name} is not a Service")
    namespace = ref.namespace or route.namespace
    service = world.service(namespace, ref.name)
    if service is None:
        raise BadBackend("BackendNotFound", f"Service not found {ref.name} in namespace {namespace}")
    if service.spec.type == "ExternalName":
        raise BadBackend("InvalidKind", f"Service {ref.name} is an ExternalName")
    if ref.port is None:
        raise BadBackend("BackendNotFound", f"backendRef to Service {ref.name} names no port")
    if service.port(ref.port) is None:
        raise BadBackend("BackendNotFound", f"Service {ref.name} has no port {ref.port}")
    return service, ref.port


@dataclass(frozen=True)
class Distributions:
    """Backends of rules whose own target is `target` of `service`, or the one pod in `forward`."""

    world: World
    mesh: Mesh
    target: ServiceTarget | None
    service: Service | None
    forward: tuple[Pod, int, destination_pb2.WeightedAddr] | None = None

    def http_own(self) -> outbound_pb2.HttpRoute.Distribution:
        """Send everything to the target itself."""
        message = outbound_pb2.HttpRoute.Distribution()
        message.first_available.backends.add(backend=self._own())
        return message

    def opaque_own(self) -> outbound_pb2.OpaqueRoute.Distribution:
        """Send every connection to the target itself."""
        message = outbound_pb2.OpaqueRoute.Distribution()
        message.first_available.backends.add(backend=self._own())
        return message

    def http(self, route: HTTPRoute, rule: Rule) -> outbound_pb2.HttpRoute.Distribution:
        """Distribute a rule's requests by weight; a rule without backends leads to the target itself."""
        refs = rule.backend_refs or ()
        limit = _backend_limit(rule)
        if not refs:
            own = self.http_own()
            if limit is not None:
                own.first_available.backends[0].requestTimeout.CopyFrom(limit)
            return own
        message = outbound_pb2.HttpRoute.Distribution()
        weighted = [(ref, 1 if ref.weight is None else ref.weight) for ref in refs]
        weighted = [(ref, min(weight, MAX_WEIGHT)) for ref, weight in weighted if weight > 0]
        if not weighted:
            # Every weight is 0: the Gateway API asks for 500.
            nobody = self._invalid(messages.default_metadata("no-weight"), "all backends have weight 0")
            message.first_available.backends.append(nobody)
            return message
        for ref, weight in weighted:
            backend = self._backend(route, ref)
            if limit is not None:
                backend.requestTimeout.CopyFrom(limit)
            message.random_available.backends.add(backend=backend, weight=weight)
        return message

    def _backend(self, route: HTTPRoute, ref: BackendRef) -> outbound_pb2.HttpRoute.RouteBackend:
        try:
            service, port = resolve_backend(self.world, route, ref)
        except BadBackend as error:
            name = (ref.namespace or route.namespace, ref.name)
            kind = ref.kind or "Service"
            return self._invalid(
                messages.resource(ref.group or "", kind, name, port=ref.port or 0), str(error)
            )
        metadata = messages.resource("", "Service", service, port=port)
        message = outbound_pb2.HttpRoute.RouteBackend(
            backend=self._balancer(metadata, ServiceTarget(service.namespace, service.name, port), service)
        )
        message.filters.extend(self.filters(route, ref.filters or ()))
        return message

    def filters(self, route: HTTPRoute, written: Iterable[Filter]) -> list[outbound_pb2.HttpRoute.Filter]:
        """Encode the filters of a rule or a backend."""
        return filters.outbound_filters(written, lambda ref: self._mirror(route, ref))

    def _mirror(self, route: HTTPRoute, ref: BackendObject) -> outbound_pb2.Backend | None:
        try:
            service, port = resolve_backend(self.world, route, ref)
        except BadBackend:
            return None
        metadata = messages.resource("", "Service", service, port=port)
        return self._balancer(metadata, ServiceTarget(service.namespace, service.name, port), service)

    def _own(self) -> outbound_pb2.Backend:
        if self.forward is not None:
            pod, port, endpoint = self.forward
            backend = self._queued(messages.resource("", "Pod", pod, port=port))
            backend.forward.CopyFrom(endpoint)
            return backend
        assert self.service is not None and self.target is not None
        metadata = messages.resource("", "Service", self.service, port=self.target.port)
        return self._balancer(metadata, self.target, self.service)

    def _balancer(
        self, metadata: meta_pb2.Metadata, target: ServiceTarget, service: Service
    ) -> outbound_pb2.Backend:
        backend = self._queued(metadata)
        backend.balancer.discovery.dst.path = target.path(self.mesh)
        balancing.balance(backend.balancer, self.mesh, service)
        return backend

    def _queued(self, metadata: meta_pb2.Metadata) -> outbound_pb2.Backend:
        queue = outbound_pb2.Queue(
            capacity=self.mesh.queue_capacity,
            failfast_timeout=messages.duration(self.mesh.failfast_timeout),
        )
        return outbound_pb2.Backend(metadata=metadata, queue=queue)

    def _invalid(self, metadata: meta_pb2.Metadata, why: str) -> outbound_pb2.HttpRoute.RouteBackend:
        message = outbound_pb2.HttpRoute.RouteBackend(backend=self._queued(metadata))
        message.filters.add().failure_injector.CopyFrom(filters.failure(500, why))
        return message


def _backend_limit(rule: Rule) -> Duration | None:
    """Return the rule's `timeouts.backendRequest`; zero and what cannot be read mean none."""
    text = rule.timeouts.backend_request if rule.timeouts else None
    if text is None:
        return None
    try:
        seconds = annotations.gateway_duration("timeouts.backendRequest", text)
    except BadValue:
        return None
    return messages.duration(seconds) if seconds else None
