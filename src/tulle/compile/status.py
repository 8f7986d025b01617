"""What an HTTPRoute's status says: whether its parents took it, whether its backends exist, what is not carried out.

Conditions and reasons are the Gateway API's and Linkerd's. `PartiallyInvalid` names by path the fields that the mesh
does not carry out; the rest of the route is in force.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from tulle.compile.backends import BadBackend, resolve_backend
from tulle.compile.mesh import Mesh
from tulle.compile.outbound import protocol_of
from tulle.compile.validate import view_problems
from tulle.kube.kinds import POLICY_GROUP
from tulle.kube.policy_objects import BackendObject, HTTPRoute, ParentRef, Rule
from tulle.kube.world import World, parent_key

__all__ = ["CONTROLLER_NAME", "Condition", "ParentStatus", "merged_status", "route_status"]

CONTROLLER_NAME = "linkerd.io/policy-controller"


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition, without the times that its writer adds."""

    type: str
    status: bool
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class ParentStatus:
    """A parent of the route that is ours to judge, and the conditions for it."""

    parent: ParentRef
    conditions: tuple[Condition, ...]


def route_status(world: World, mesh: Mesh, route: HTTPRoute) -> list[ParentStatus]:
    """Judge a route; parents of other kinds (Gateways) are left to their own controllers."""
    judged = []
    for parent in route.spec.parent_refs or ():
        accepted = _accepted(world, route, parent)
        if accepted is None:
            continue
        conditions = [accepted, _resolved(world, route)]
        unsupported = [str(problem) for problem in view_problems(route)]
        if accepted.status and (why := _without_effect(world, mesh, route, parent)):
            unsupported.append(why)
        if unsupported:
            conditions.append(Condition("PartiallyInvalid", True, "UnsupportedValue", "; ".join(unsupported)))
        judged.append(ParentStatus(parent, tuple(conditions)))
    return judged


def _accepted(world: World, route: HTTPRoute, parent: ParentRef) -> Condition | None:
    group, kind, namespace, name = parent_key(parent, route.namespace)
    if (group, kind) == (POLICY_GROUP, "Server"):
        if namespace != route.namespace or world.server(namespace, name) is None:
            return Condition(
                "Accepted", False, "NoMatchingParent", f"no Server {name} in namespace {route.namespace}"
            )
        return Condition("Accepted", True, "Accepted")
    if (group, kind) == ("", "Service"):
        service = world.service(namespace, name)
        if service is None:
            return Condition(
                "Accepted", False, "NoMatchingParent", f"no Service {name} in namespace {namespace}"
            )
        if not service.cluster_ips or service.spec.type == "ExternalName":
            return Condition("Accepted", False, "InvalidKind", "the parent Service must have a ClusterIP")
        if parent.port is not None and service.port(parent.port) is None:
            return Condition(
                "Accepted", False, "NoMatchingParent", f"Service {name} has no port {parent.port}"
            )
        return Condition("Accepted", True, "Accepted")
    if kind == "EgressNetwork":
        return Condition("Accepted", False, "InvalidKind", "EgressNetwork parents are not supported")
    return None


def _without_effect(world: World, mesh: Mesh, route: HTTPRoute, parent: ParentRef) -> str:
    """Say why the routes of a parent that does not carry HTTP are never asked, "" when they are."""
    _, kind, namespace, name = parent_key(parent, route.namespace)
    if kind == "Server":
        server = world.server(namespace, name)
        opaque = server is not None and server.spec.proxy_protocol in ("opaque", "TLS")
        return (
            f"spec.parentRefs: Server {name} is {server.spec.proxy_protocol}: it has no routes"
            if opaque and server
            else ""
        )
    service = world.service(namespace, name)
    ports = [p.port for p in (service.spec.ports or () if service else ()) if parent.port in (None, p.port)]
    if service is not None and ports and all(protocol_of(world, mesh, service, p) == "opaque" for p in ports):
        return f"spec.parentRefs: Service {name} carries opaque TCP on this port: it has no routes"
    return ""


def _resolved(world: World, route: HTTPRoute) -> Condition:
    for rule in route.spec.rules or ():
        for ref in _references(rule):
            try:
                resolve_backend(world, route, ref)
            except BadBackend as error:
                return Condition("ResolvedRefs", False, error.reason, str(error))
    return Condition("ResolvedRefs", True, "ResolvedRefs")


def _references(rule: Rule) -> Iterator[BackendObject]:
    """Return all the backends that a rule names: where requests go, and where copies of them go."""
    refs = rule.backend_refs or ()
    yield from refs
    for written in (rule.filters, *(ref.filters for ref in refs)):
        for each in written or ():
            if each.request_mirror is not None:
                yield each.request_mirror.backend_ref


def merged_status(route: HTTPRoute, judged: Iterable[ParentStatus], now: str) -> dict[str, Any] | None:
    """Return the new `status`, or None when it says all this already.

    What other controllers wrote stays; a condition that does not flip keeps its transition time. `now` is RFC 3339.
    """
    before = route.status if isinstance(route.status, dict) else {}
    parents = [each for each in before.get("parents") or () if isinstance(each, dict)]
    theirs = [each for each in parents if each.get("controllerName") != CONTROLLER_NAME]
    ours = [each for each in parents if each.get("controllerName") == CONTROLLER_NAME]
    written = []
    for status in judged:
        ref = msgspec.to_builtins(status.parent)
        old = next((each for each in ours if each.get("parentRef") == ref), {})
        flipped = {each.get("type"): each for each in old.get("conditions") or () if isinstance(each, dict)}
        conditions = [_written(route, each, flipped.get(each.type), now) for each in status.conditions]
        written.append({"parentRef": ref, "controllerName": CONTROLLER_NAME, "conditions": conditions})
    if written == ours:
        return None
    return {"parents": theirs + written}


def _written(route: HTTPRoute, condition: Condition, old: dict[str, Any] | None, now: str) -> dict[str, Any]:
    status = "True" if condition.status else "False"
    since = old.get("lastTransitionTime", now) if old is not None and old.get("status") == status else now
    return {
        "type": condition.type,
        "status": status,
        "reason": condition.reason,
        "message": condition.message,
        "observedGeneration": route.metadata.generation,
        "lastTransitionTime": since,
    }
