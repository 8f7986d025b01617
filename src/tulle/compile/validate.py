"""What of an object will not be carried out, by the path of the field: for admission, statuses and Events.

`refused` problems would change what the object means if they were left out, so admission refuses them; the others are
settings that the sidecar does not act on yet, and are named in the status or an Event instead.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

import msgspec

from tulle._engine import pattern_problem
from tulle.compile import annotations, balancing
from tulle.compile.annotations import BadValue
from tulle.compile.authorization import Inert, authorize, targets_route
from tulle.compile.backends import MAX_WEIGHT
from tulle.compile.filters import HEADER_NAME, refused_filters
from tulle.compile.mesh import Mesh
from tulle.compile.outbound import APP_PROTOCOLS
from tulle.kube import kinds
from tulle.kube.objects import Namespace, Pod, Service, View, decode_view
from tulle.kube.policy_objects import (
    AuthorizationPolicy,
    HTTPRoute,
    MeshTLSAuthentication,
    NetworkAuthentication,
    ParentRef,
    Rule,
    Server,
)
from tulle.kube.words import DEFAULT_POLICIES
from tulle.kube.world import World, kind_of, parent_key

__all__ = ["Problem", "problems", "view_problems", "world_problems"]

PROTOCOLS = ("unknown", "HTTP/1", "HTTP/2", "gRPC", "opaque", "TLS")
PORTS = re.compile(r"\d{1,5}(-\d{1,5})?|(?=.*[a-z])[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?", re.ASCII)
METHODS = re.compile(r"[A-Z]{1,16}")


@dataclass(frozen=True, slots=True)
class Problem:
    """A field (by its path in the object) and what is wrong with it."""

    path: str
    message: str
    refused: bool = True

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


def problems(obj: dict[str, Any]) -> list[Problem]:
    """Return the problems of a plain object; none for a kind that the mesh does not read."""
    kind = kind_of(obj)
    if kind is None:
        return []
    try:
        view: View = decode_view(msgspec.json.encode(obj), kind.view)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `$.")
        return [Problem(where.rstrip("`") or "object", message)]
    return view_problems(view)


def view_problems(view: View) -> list[Problem]:
    """Return the problems of an object that the mesh reads."""
    match view:
        case HTTPRoute():
            return list(_route(view))
        case Server():
            return list(_server(view))
        case AuthorizationPolicy():
            return list(_authorization(view))
        case MeshTLSAuthentication():
            return list(_mesh_tls(view))
        case NetworkAuthentication():
            return list(_networks(view))
        case Service() | Namespace() | Pod():
            return list(_annotated(view))
        case _:
            return []


def world_problems(world: World, mesh: Mesh, view: View) -> list[Problem]:
    """Return an object's problems, those included that depend on other objects (a reference to nothing)."""
    found = view_problems(view)
    if not isinstance(view, AuthorizationPolicy) or found:
        return found
    target = view.spec.target_ref
    if target.kind == "Server" and world.server(view.namespace, target.name) is None:
        found.append(Problem("spec.targetRef", f"there is no Server {target.name} here", refused=False))
    if targets_route(target) and world.http_route(target.group or "", view.namespace, target.name) is None:
        found.append(Problem("spec.targetRef", f"there is no HTTPRoute {target.name} here", refused=False))
    try:
        authorize(world, mesh, view)
    except Inert as error:
        why = f"{error}; the policy authorizes nobody"
        found.append(Problem("spec.requiredAuthenticationRefs", why, refused=False))
    return found


def _ours(parent: ParentRef, route: HTTPRoute) -> bool:
    group, kind, _, _ = parent_key(parent, route.namespace)
    return (group, kind) in (("", "Service"), (kinds.POLICY_GROUP, "Server"))


def _route(route: HTTPRoute) -> Iterator[Problem]:
    parents = [parent for parent in route.spec.parent_refs or () if _ours(parent, route)]
    if not parents:
        return  # a Gateway's route is its controller's business
    for index, parent in enumerate(route.spec.parent_refs or ()):
        if parent.section_name is not None and _ours(parent, route):
            yield Problem(f"spec.parentRefs[{index}].sectionName", "is not carried out; use port")
    inbound = any(parent_key(p, route.namespace)[1] == "Server" for p in parents)
    for index, rule in enumerate(route.spec.rules or ()):
        yield from _rule(f"spec.rules[{index}]", route, rule, inbound)
    yield from _tuning(route.annotations)


def _rule(path: str, route: HTTPRoute, rule: Rule, inbound: bool) -> Iterator[Problem]:
    for index, match in enumerate(rule.matches or ()):
        at = f"{path}.matches[{index}]"
        if match.path is not None:
            kind, value = match.path.type or "PathPrefix", match.path.value or "/"
            if kind not in ("PathPrefix", "Exact", "RegularExpression"):
                yield Problem(
                    f"{at}.path.type", f"{kind!r} is not one of Exact, PathPrefix, RegularExpression"
                )
            elif kind == "RegularExpression":
                yield from _regex(f"{at}.path.value", value)
            elif not value.startswith("/"):
                yield Problem(f"{at}.path.value", f"{value!r} does not begin with /")
        for field, wanted in (("headers", match.headers), ("queryParams", match.query_params)):
            for number, each in enumerate(wanted or ()):
                if field == "headers" and HEADER_NAME.fullmatch(each.name) is None:
                    yield Problem(f"{at}.{field}[{number}].name", f"{each.name[:100]!r} is not a header name")
                if each.type == "RegularExpression":
                    yield from _regex(f"{at}.{field}[{number}].value", each.value)
                elif each.type not in (None, "Exact"):
                    yield Problem(
                        f"{at}.{field}[{number}].type", f"{each.type!r} is not Exact or RegularExpression"
                    )
        if match.method is not None and METHODS.fullmatch(match.method) is None:
            yield Problem(f"{at}.method", f"{match.method!r} is not a method in capitals")
    for text in refused_filters(rule.filters or (), inbound=inbound):
        yield Problem(f"{path}.filters", text)
    for index, ref in enumerate(rule.backend_refs or ()):
        at = f"{path}.backendRefs[{index}]"
        if inbound:
            yield Problem(at, "routes of a Server have no backends: its own pod answers", refused=False)
        if ref.weight is not None and not 0 <= ref.weight <= MAX_WEIGHT:
            yield Problem(f"{at}.weight", f"{ref.weight} is not between 0 and {MAX_WEIGHT}")
        for text in refused_filters(ref.filters or (), inbound=False):
            yield Problem(f"{at}.filters", text)
    if rule.session_persistence is not None:
        yield Problem(f"{path}.sessionPersistence", "is not supported")
    if rule.retry is not None:
        try:
            annotations.rule_retry(rule.retry)
        except BadValue as error:
            yield Problem(f"{path}.{error.name}", str(error))
    if rule.timeouts is not None:
        yield from _timeouts(f"{path}.timeouts", rule)


def _timeouts(path: str, rule: Rule) -> Iterator[Problem]:
    assert rule.timeouts is not None
    for field, text in (
        ("request", rule.timeouts.request),
        ("backendRequest", rule.timeouts.backend_request),
    ):
        if text is None:
            continue
        try:
            annotations.gateway_duration(field, text)
        except BadValue as error:
            yield Problem(f"{path}.{field}", str(error))


def _regex(path: str, text: str) -> Iterator[Problem]:
    # The proxies' own engine is asked: it has neither look-around nor back-references, and bounds length and memory.
    why = pattern_problem(text)
    if why is not None:
        yield Problem(path, f"{text[:80]!r} {why}")


def _server(server: Server) -> Iterator[Problem]:
    spec = server.spec
    if spec.external_workload_selector is not None:
        yield Problem("spec.externalWorkloadSelector", "external workloads are not supported")
    elif spec.pod_selector is None:
        yield Problem("spec.podSelector", "is missing")
    if isinstance(spec.port, int) and not 1 <= spec.port <= 65535:
        yield Problem("spec.port", f"{spec.port} is not a port")
    if spec.proxy_protocol is not None and spec.proxy_protocol not in PROTOCOLS:
        yield Problem("spec.proxyProtocol", f"{spec.proxy_protocol!r} is not one of {', '.join(PROTOCOLS)}")
    if spec.access_policy is not None and spec.access_policy not in DEFAULT_POLICIES:
        yield Problem(
            "spec.accessPolicy", f"{spec.access_policy!r} is not one of {', '.join(DEFAULT_POLICIES)}"
        )


def _authorization(policy: AuthorizationPolicy) -> Iterator[Problem]:
    target = policy.spec.target_ref
    kind = (target.group or "", target.kind)
    if target.namespace not in (None, policy.namespace):
        yield Problem("spec.targetRef.namespace", "a policy can only target its own namespace")
    if target.kind == "Namespace" and kind[0] in ("", "core"):
        if target.name != policy.namespace:
            yield Problem("spec.targetRef.name", f"{target.name!r} is not the policy's own namespace")
    elif kind != (kinds.POLICY_GROUP, "Server") and not targets_route(target):
        yield Problem("spec.targetRef", f"{target.kind} of group {target.group or ''!r} cannot be a target")
    seen: dict[str, int] = {}
    for index, ref in enumerate(policy.spec.required_authentication_refs or ()):
        at = f"spec.requiredAuthenticationRefs[{index}]"
        match (ref.group or "", ref.kind):
            case (kinds.POLICY_GROUP, "MeshTLSAuthentication") | ("" | "core", "ServiceAccount"):
                sort = "MeshTLSAuthentication or ServiceAccount"
            case (kinds.POLICY_GROUP, "NetworkAuthentication"):
                sort = "NetworkAuthentication"
            case (group, other):
                yield Problem(at, f"{other} of group {group!r} is not an authentication")
                continue
        seen[sort] = seen.get(sort, 0) + 1
        if seen[sort] == 2:
            yield Problem(at, f"only one {sort} may be required")


def _mesh_tls(authentication: MeshTLSAuthentication) -> Iterator[Problem]:
    spec = authentication.spec
    if not spec.identities and not spec.identity_refs:
        yield Problem("spec", "needs identities or identityRefs")
    for index, name in enumerate(spec.identities or ()):
        at = f"spec.identities[{index}]"
        if name.startswith("spiffe://"):
            if not _is_spiffe_id(name):
                yield Problem(at, f"{name[:100]!r} is not a SPIFFE ID such as spiffe://example.org/web")
        elif name != "*" and re.fullmatch(r"(\*\.)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?", name) is None:
            yield Problem(at, f"{name!r} is not *, a DNS-like name or *.suffix")
    for index, ref in enumerate(spec.identity_refs or ()):
        if ref.kind not in ("ServiceAccount", "Namespace"):
            yield Problem(
                f"spec.identityRefs[{index}].kind", f"{ref.kind!r} is not ServiceAccount or Namespace"
            )


def _is_spiffe_id(name: str) -> bool:
    """Whether SPIFFE's standard takes the text for a workload's ID (the sidecar asks the same of certificates)."""
    domain, _, path = name.removeprefix("spiffe://").partition("/")
    segments = path.split("/")
    return (
        len(name) <= 2048
        and re.fullmatch(r"[a-z0-9._-]{1,255}", domain) is not None
        and all(re.fullmatch(r"[A-Za-z0-9._-]+", segment) for segment in segments)
        and not {".", ".."}.intersection(segments)
    )


def _networks(authentication: NetworkAuthentication) -> Iterator[Problem]:
    if not authentication.spec.networks:
        yield Problem("spec.networks", "needs at least one network")
    for index, each in enumerate(authentication.spec.networks or ()):
        at = f"spec.networks[{index}]"
        net = _network(each.cidr)
        if net is None:
            yield Problem(f"{at}.cidr", f"{each.cidr!r} is not a network in CIDR notation")
            continue
        for number, text in enumerate(each.except_ or ()):
            inner = _network(text)
            if inner is None:
                yield Problem(f"{at}.except[{number}]", f"{text!r} is not a network in CIDR notation")
            elif type(inner) is not type(net) or not inner.subnet_of(net):  # type: ignore[arg-type]
                yield Problem(f"{at}.except[{number}]", f"{text!r} is not inside {each.cidr!r}")


def _network(text: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None


def _annotated(view: View) -> Iterator[Problem]:
    if isinstance(view, Service):
        yield from _tuning(view.annotations)
        for error in balancing.bad_values(view.annotations):
            yield Problem(_at(error.name), str(error), refused=False)
        for path in balancing.without_effect(view):
            yield Problem(path, "has no effect: requests go where their key leads", refused=False)
        spread = view.spec.traffic_distribution
        if spread is not None and spread not in balancing.ZONE_FIRST:
            known = ", ".join(balancing.ZONE_FIRST)
            text = f"{spread!r} is not carried out: endpoints of all zones alike; known are {known}"
            yield Problem("spec.trafficDistribution", text, refused=False)
        for index, port in enumerate(view.spec.ports or ()):
            if port.app_protocol and port.app_protocol not in APP_PROTOCOLS:
                known = ", ".join(APP_PROTOCOLS)
                text = f"{port.app_protocol!r} is carried as opaque TCP; known are {known}"
                yield Problem(f"spec.ports[{index}].appProtocol", text, refused=False)
    for name in (annotations.OPAQUE_PORTS, annotations.PROXY_PROTOCOL_PORTS):
        for item in filter(None, (part.strip() for part in view.annotations.get(name, "").split(","))):
            if PORTS.fullmatch(item) is None:
                yield Problem(_at(name), f"{item!r} is not a port, a range or a port's name")
    required = view.annotations.get(annotations.REQUIRE_MESH_TLS)
    if required is not None:
        try:
            annotations.demanded(annotations.REQUIRE_MESH_TLS, required)
        except BadValue as error:
            yield Problem(_at(error.name), str(error))
    policy = view.annotations.get(annotations.DEFAULT_INBOUND_POLICY)
    if policy is not None and policy not in DEFAULT_POLICIES:
        accepted = ", ".join(DEFAULT_POLICIES)
        yield Problem(_at(annotations.DEFAULT_INBOUND_POLICY), f"{policy!r} is not one of {accepted}")


def _tuning(read: dict[str, str]) -> Iterator[Problem]:
    """Retry and timeout annotations: malformed ones, and those without effect."""
    readers: Iterable[Callable[[dict[str, str]], object]] = (annotations.route_timeouts, annotations.retry)
    for reader in readers:
        try:
            reader(read)
        except BadValue as error:
            yield Problem(_at(error.name), str(error))
    if annotations.RETRY_GRPC in read:
        text = "holds for GRPCRoutes, which the control plane does not read; for HTTP statuses there is retry.linkerd.io/http"
        yield Problem(_at(annotations.RETRY_GRPC), text, refused=False)


def _at(annotation: str) -> str:
    return f"metadata.annotations[{annotation}]"
