"""Who may talk to a server: AuthorizationPolicies, authentications and default policies as `Authz` messages.

Authorizations only ever add: none means nobody. A policy that refers to something missing, or asks for what cannot be
carried out, authorizes nobody by itself; `validate` and the log say so.
"""

from collections.abc import Iterable
from typing import NoReturn

from tulle.api import inbound_pb2, meta_pb2
from tulle.compile import messages
from tulle.compile.mesh import EVERYWHERE, Mesh
from tulle.kube.kinds import GATEWAY_GROUP, POLICY_GROUP
from tulle.kube.policy_objects import (
    AuthorizationPolicy,
    HTTPRoute,
    MeshTLSAuthentication,
    Network,
    NetworkAuthentication,
    Server,
    TargetRef,
)
from tulle.kube.words import DefaultPolicy
from tulle.kube.world import World

__all__ = [
    "Inert",
    "authorize",
    "default_authorizations",
    "probe_authorization",
    "route_policies",
    "server_policies",
]


class Inert(ValueError):
    """A policy authorizes nobody; the text says why."""


def server_policies(world: World, server: Server) -> list[AuthorizationPolicy]:
    """Return the policies that hold for a Server: those that name it and those that name its namespace."""
    return [policy for policy in world.authorizations_in(server.namespace) if _targets_server(policy, server)]


def route_policies(world: World, route: HTTPRoute) -> list[AuthorizationPolicy]:
    """Return the policies that name an HTTPRoute."""
    return [
        policy
        for policy in world.authorizations_in(route.namespace)
        if policy.spec.target_ref.kind == "HTTPRoute"
        and policy.spec.target_ref.name == route.name
        and policy.spec.target_ref.group == route.group
    ]


def _targets_server(policy: AuthorizationPolicy, server: Server) -> bool:
    target = policy.spec.target_ref
    if target.kind == "Namespace" and target.group in (None, "", "core"):
        return target.name == policy.namespace
    return (target.group, target.kind, target.name) == (POLICY_GROUP, "Server", server.name)


def authorize(world: World, mesh: Mesh, policy: AuthorizationPolicy) -> inbound_pb2.Authz:
    """Encode one policy. Raises Inert when a reference is missing or the combination is not defined."""
    tls: inbound_pb2.Authn | None = None
    networks: tuple[Network, ...] | None = None
    for ref in policy.spec.required_authentication_refs or ():
        namespace = ref.namespace or policy.namespace
        match (ref.group or "", ref.kind):
            case (group, "MeshTLSAuthentication") if group == POLICY_GROUP:
                if tls is not None:
                    raise Inert("more than one MeshTLSAuthentication or ServiceAccount is required")
                found = world.mesh_tls_authentication(namespace, ref.name)
                tls = _clients(mesh, found) if found is not None else _missing(ref, namespace)
            case ("" | "core", "ServiceAccount"):
                if tls is not None:
                    raise Inert("more than one MeshTLSAuthentication or ServiceAccount is required")
                tls = _identities([mesh.identity(namespace, ref.name)])
            case (group, "NetworkAuthentication") if group == POLICY_GROUP:
                if networks is not None:
                    raise Inert("more than one NetworkAuthentication is required")
                from_where = world.network_authentication(namespace, ref.name)
                networks = _networks(from_where) if from_where is not None else _missing(ref, namespace)
            case (group, kind):
                raise Inert(f"{kind} of group {group!r} is not an authentication")
    authz = _authz(
        messages.resource(POLICY_GROUP, "authorizationpolicy", policy),
        {"group": POLICY_GROUP, "kind": "authorizationpolicy", "name": policy.name},
    )
    for net in networks if networks is not None else tuple(Network(cidr) for cidr in EVERYWHERE):
        _add_network(authz, net)
    authz.authentication.CopyFrom(tls if tls is not None else _anybody())
    return authz


def default_authorizations(mesh: Mesh, policy: DefaultPolicy) -> list[inbound_pb2.Authz]:
    """Encode a default policy by its name; `deny` authorizes nobody."""
    if policy == "deny":
        return []
    authz = _authz(messages.default_metadata(policy), {"group": "", "kind": "default", "name": policy})
    networks = mesh.cluster_networks if policy.startswith("cluster-") else EVERYWHERE
    for cidr in networks:
        authz.networks.add(net=messages.network(cidr))
    if policy.endswith("-authenticated"):
        authz.authentication.CopyFrom(_suffixes([()]))
    else:
        authz.authentication.CopyFrom(_anybody())
    return [authz]


def probe_authorization(mesh: Mesh) -> inbound_pb2.Authz:
    """Authorize the kubelet's probes, which carry no identity, from the networks that probes come from."""
    authz = _authz(messages.default_metadata("probe"), {"group": "", "kind": "default", "name": "probe"})
    for cidr in mesh.probe_networks:
        authz.networks.add(net=messages.network(cidr))
    authz.authentication.CopyFrom(_anybody())
    return authz


def _missing(ref: TargetRef, namespace: str) -> NoReturn:
    raise Inert(f"{ref.kind} {namespace}/{ref.name} does not exist")


def _authz(metadata: meta_pb2.Metadata, labels: dict[str, str]) -> inbound_pb2.Authz:
    return inbound_pb2.Authz(metadata=metadata, labels=labels)


def _anybody() -> inbound_pb2.Authn:
    return inbound_pb2.Authn(unauthenticated=inbound_pb2.Authn.PermitUnauthenticated())


def _identities(names: Iterable[str]) -> inbound_pb2.Authn:
    message = inbound_pb2.Authn()
    message.meshTLS.identities.SetInParent()
    for name in names:
        message.meshTLS.identities.identities.add(name=name)
    return message


def _suffixes(suffixes: Iterable[tuple[str, ...]]) -> inbound_pb2.Authn:
    message = inbound_pb2.Authn()
    message.meshTLS.identities.SetInParent()
    for parts in suffixes:
        message.meshTLS.identities.suffixes.add(parts=parts)
    return message


def _clients(mesh: Mesh, authentication: MeshTLSAuthentication) -> inbound_pb2.Authn:
    message = _identities(())
    accepted = message.meshTLS.identities
    for name in authentication.spec.identities or ():
        if name == "*":
            accepted.suffixes.add()
        elif name.startswith("*."):
            accepted.suffixes.add(parts=name[2:].split("."))
        else:
            accepted.identities.add(name=name)
    for ref in authentication.spec.identity_refs or ():
        home = ref.namespace or authentication.namespace
        if ref.kind == "Namespace":
            home = ref.name or home
        if ref.kind == "ServiceAccount" and ref.name:
            accepted.identities.add(name=mesh.identity(home, ref.name))
        elif ref.kind in ("ServiceAccount", "Namespace"):
            accepted.suffixes.add(parts=[home, *mesh.identity_suffix.split(".")])
    return message


def _networks(authentication: NetworkAuthentication) -> tuple[Network, ...]:
    return authentication.spec.networks or ()


def _add_network(authz: inbound_pb2.Authz, network: Network) -> None:
    try:
        net = messages.network(network.cidr)
        except_ = [messages.network(cidr) for cidr in network.except_ or ()]
    except ValueError as error:
        raise Inert(f"{network.cidr}: {error}") from error
    # `except` is a keyword, so the field has no attribute syntax.
    getattr(authz.networks.add(net=net), "except").extend(except_)


def targets_route(target: TargetRef) -> bool:
    """Tell whether a targetRef names an HTTPRoute of either group."""
    return target.kind == "HTTPRoute" and target.group in (GATEWAY_GROUP, POLICY_GROUP)
