"""Which object, and which field of it, a decision comes from.

Objects that `tulle up` applied carry the annotation `tulle.dev/source` (`file:line`); whoever can read the file turns
object and field into the line of the field.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from tulle.compile import annotations
from tulle.compile.authorization import Inert, authorize
from tulle.compile.mesh import Mesh
from tulle.compile.messages import SOURCE
from tulle.compile.pods import select_server
from tulle.kube import kinds
from tulle.kube.kinds import POLICY_GROUP, Kind
from tulle.kube.objects import Pod, View
from tulle.kube.policy_objects import AuthorizationPolicy, BackendRef, HTTPRoute
from tulle.kube.world import World
from tulle.tools.verdict import Object

__all__ = ["Locate", "Origin", "Origins"]

Locate = Callable[[str, str], str]
"""(`file:line` of an object, path of a field such as `spec.rules[1]`) → `file:line` of the field."""

WORKLOADS = {
    "Deployment": kinds.DEPLOYMENT,
    "StatefulSet": kinds.STATEFUL_SET,
    "DaemonSet": kinds.DAEMON_SET,
    "ReplicaSet": kinds.REPLICA_SET,
    "Job": kinds.JOB,
    "CronJob": kinds.CRON_JOB,
}


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where a decision was written. `line` is `file:line`, empty when the object was not applied from a file here."""

    object: str
    field: str = ""
    line: str = ""

    def __str__(self) -> str:
        """Name the line, else the object and field."""
        return self.line or " ".join(part for part in (self.object, self.field) if part)


class Origins:
    """Finds origins in a World."""

    def __init__(self, world: World, mesh: Mesh, locate: Locate) -> None:
        self._world, self._mesh, self._locate = world, mesh, locate

    def of(self, kind: str, view: View, field: str = "") -> Origin:
        """Return the origin of an object's field."""
        source = view.annotations.get(SOURCE, "")
        where = f"{view.namespace}/" if view.namespace else ""
        line = self._locate(source, field) if source else ""
        return Origin(object=f"{kind} {where}{view.name}", field=field, line=line)

    def service(self, namespace: str, name: str, port: int) -> Origin | None:
        """Return the origin of a Service's port."""
        service = self._world.service(namespace, name)
        if service is None:
            return None
        numbers = [declared.port for declared in service.spec.ports or ()]
        return self.of(
            "Service", service, f"spec.ports[{numbers.index(port)}]" if port in numbers else "spec.ports"
        )

    def rule(self, route: Object, rule: int) -> Origin | None:
        """Return the origin of a route's rule; None for a default route."""
        found = self._route(route)
        return self.of("HTTPRoute", found, f"spec.rules[{rule}]") if found is not None else None

    def backend(self, route: Object, rule: int, backend: Object) -> Origin | None:
        """Return the origin of a rule's backend: its backendRef, or the Service's port for the target itself."""
        found = self._route(route)
        rules = (found.spec.rules or ()) if found is not None else ()
        refs = (rules[rule].backend_refs or ()) if rule < len(rules) else ()
        for index, ref in enumerate(refs):
            if found is not None and _means(ref, found, backend):
                return self.of("HTTPRoute", found, f"spec.rules[{rule}].backendRefs[{index}]")
        return self.service(backend.namespace, backend.name, backend.port)

    def _route(self, route: Object) -> HTTPRoute | None:
        kind = kinds.POLICY_HTTP_ROUTE if route.group == POLICY_GROUP else kinds.GATEWAY_HTTP_ROUTE
        found: HTTPRoute | None = self._world.peek(kind, route.namespace, route.name)
        return found if route.kind == "HTTPRoute" else None

    def server(self, pod: Pod, port: int) -> Origin:
        """Return the origin of an inbound policy: the Server, or whoever chose the default policy."""
        server = select_server(self._world, pod, port)
        if server is not None:
            return self.of("Server", server, "spec")
        name = annotations.DEFAULT_INBOUND_POLICY
        field = f"metadata.annotations.{name}"
        if name in pod.annotations:
            kind, owner = self.workload(pod)
            return self.of(kind, owner, f"spec.template.{field}" if kind != "Pod" else field)
        namespace = self._world.namespace(pod.namespace)
        if namespace is not None and name in namespace.annotations:
            return self.of("Namespace", namespace, field)
        return Origin(
            object=f"ConfigMap {self._mesh.control_plane_namespace}/linkerd-config",
            field="defaultInboundPolicy",
        )

    def workload(self, pod: Pod) -> tuple[str, View]:
        """Return kind and object of the workload that a pod belongs to; the pod when that is not known."""
        kind, name = self._world.owner(pod)
        known: Kind | None = WORKLOADS.get(kind)
        found: Any = self._world.peek(known, pod.namespace, name) if known is not None else None
        return (kind, found) if found is not None else ("Pod", pod)

    def authorization(self, authorization: Object) -> list[Origin]:
        """Return the origins of an authorization: the policy and the authentications that it requires."""
        policy: AuthorizationPolicy | None = self._world.peek(
            kinds.AUTHORIZATION_POLICY, authorization.namespace, authorization.name
        )
        if policy is None or authorization.kind.lower() != "authorizationpolicy":
            return []
        origins = [self.of("AuthorizationPolicy", policy, "spec.requiredAuthenticationRefs")]
        for ref in policy.spec.required_authentication_refs or ():
            namespace = ref.namespace or policy.namespace
            if ref.kind == "MeshTLSAuthentication":
                tls = self._world.mesh_tls_authentication(namespace, ref.name)
                if tls is not None:
                    field = "spec.identities" if tls.spec.identities else "spec.identityRefs"
                    origins.append(self.of(ref.kind, tls, field))
            elif ref.kind == "NetworkAuthentication":
                network = self._world.network_authentication(namespace, ref.name)
                if network is not None:
                    origins.append(self.of(ref.kind, network, "spec.networks"))
        return origins

    def inert(self, pod: Pod, port: int) -> list[tuple[Origin, str]]:
        """Return the policies that name the Server of a port, or a route of it, and authorize nobody, with the reason."""
        server = select_server(self._world, pod, port)
        if server is None:
            return []
        named = {("Server", server.name), ("Namespace", server.namespace)}
        routes = self._world.routes_of(POLICY_GROUP, "Server", server.namespace, server.name)
        named |= {("HTTPRoute", route.name) for route in routes}
        found = []
        for policy in self._world.authorizations_in(pod.namespace):
            target = policy.spec.target_ref
            if (target.kind, target.name) in named:
                try:
                    authorize(self._world, self._mesh, policy)
                except Inert as error:
                    found.append(
                        (
                            self.of("AuthorizationPolicy", policy, "spec.requiredAuthenticationRefs"),
                            str(error),
                        )
                    )
        return found


def _means(ref: BackendRef, route: HTTPRoute, backend: Object) -> bool:
    return (ref.name, ref.namespace or route.namespace, ref.port or 0) == (
        backend.name,
        backend.namespace,
        backend.port,
    )
