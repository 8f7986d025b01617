"""The World: everything the mesh knows of a cluster, as typed views with the indexes that compiling needs.

Reads are recorded while `reading()` is active: each noted topic names one thing that the answer depends on, be it there
or not ("the Service voting of default", "whoever has this address"). `apply` returns the topics that a batch of changes
touched, so that whoever kept the topics of an answer knows exactly when to compute it again.
"""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from tulle.kube import kinds
from tulle.kube.kinds import Kind
from tulle.kube.objects import (
    EndpointSlice,
    Job,
    Namespace,
    Node,
    Pod,
    ReplicaSet,
    Service,
    View,
    decode_view,
    means_the_same,
)
from tulle.kube.policy_objects import (
    AuthorizationPolicy,
    HTTPRoute,
    MeshTLSAuthentication,
    NetworkAuthentication,
    ParentRef,
    Server,
)
from tulle.kube.reflector import Change

__all__ = ["Topic", "Topics", "World", "parent_key"]

Topic = tuple[Hashable, ...]
Topics = set[Topic]
Key = tuple[str, str]

KIND_OF_ROUTES = (kinds.GATEWAY_HTTP_ROUTE, kinds.POLICY_HTTP_ROUTE)


def parent_key(parent: ParentRef, route_namespace: str) -> tuple[str, str, str, str]:
    """Name a route's parent as (group, kind, namespace, name), with Kubernetes' defaults filled in."""
    group = parent.group if parent.group is not None else kinds.GATEWAY_GROUP
    if group == "core":
        group = ""
    kind = parent.kind or "Gateway"
    return (group, kind, parent.namespace or route_namespace, parent.name)


class Index:
    """Objects of one kind under computed keys; several objects may share a key."""

    def __init__(self, name: str, keys: Callable[[Any], Iterable[Hashable]]) -> None:
        self.name, self._keys = name, keys
        self._members: dict[Hashable, dict[Key, View]] = defaultdict(dict)

    def change(self, change: Change, touched: Topics) -> None:
        """Move an object to where it belongs now and note the keys touched."""
        if change.old is not None:
            for key in self._keys(change.old):
                members = self._members[key]
                members.pop((change.old.namespace, change.old.name), None)
                if not members:
                    del self._members[key]
                touched.add((self.name, key))
        if change.new is not None:
            for key in self._keys(change.new):
                self._members[key][change.new.namespace, change.new.name] = change.new
                touched.add((self.name, key))

    def get(self, key: Hashable) -> list[View]:
        """Return the objects under a key, the oldest first."""
        members = self._members.get(key)
        return sorted(members.values(), key=lambda view: view.age_key) if members else []


class World:
    """Typed objects by kind. Not thread-safe: it belongs to one event loop."""

    def __init__(self) -> None:
        self._objects: dict[Kind, dict[Key, Any]] = {kind: {} for kind in kinds.ALL}
        self._reading: Topics | None = None
        self.version = 0
        self._indexes: dict[Kind, tuple[Index, ...]] = {
            kinds.POD: (
                Index("pods by ip", lambda pod: () if pod.spec.host_network else pod.ips),
                Index("pods by namespace", _by_namespace),
            ),
            kinds.SERVICE: (
                Index("services by ip", lambda service: service.cluster_ips),
                Index("services by namespace", _by_namespace),
            ),
            kinds.ENDPOINT_SLICE: (
                Index(
                    "slices by service",
                    lambda piece: ((piece.namespace, piece.service),) if piece.service else (),
                ),
            ),
            kinds.SERVER: (Index("servers by namespace", _by_namespace),),
            kinds.AUTHORIZATION_POLICY: (Index("authorizations by namespace", _by_namespace),),
            **{kind: (Index("routes by parent", _parents),) for kind in KIND_OF_ROUTES},
        }

    @classmethod
    def of(cls, objects: Iterable[dict[str, Any]]) -> "World":
        """Build a World from plain objects (parsed YAML); kinds that the mesh does not read are skipped.

        Raises `msgspec.ValidationError` naming the path of a malformed field.
        """
        world = cls()
        for obj in objects:
            kind = kind_of(obj)
            if kind is not None:
                view = decode_view(msgspec.json.encode(obj), kind.view)
                world.apply(kind, [Change(world.peek(kind, view.namespace, view.name), view)])
        return world

    def apply(self, kind: Kind, changes: Sequence[Change]) -> Topics:
        """Take changes of one kind and return the topics that they touch; a change that means nothing touches none."""
        touched: Topics = set()
        stored = self._objects[kind]
        for change in changes:
            view = change.new or change.old
            assert view is not None
            key = (view.namespace, view.name)
            if change.new is None:
                stored.pop(key, None)
            else:
                stored[key] = change.new
            same = (
                change.old is not None and change.new is not None and means_the_same(change.old, change.new)
            )
            into = set[Topic]() if same else touched
            into.update(((kind,), (kind, *key)))
            for index in self._indexes.get(kind, ()):
                index.change(change, into)
        if touched:
            self.version += 1
        return touched

    @contextlib.contextmanager
    def reading(self) -> Iterator[Topics]:
        """Collect the topics of everything that is read inside the block."""
        outer, topics = self._reading, set[Topic]()
        self._reading = topics
        try:
            yield topics
        finally:
            self._reading = outer
            if outer is not None:
                outer |= topics

    def peek(self, kind: Kind, namespace: str, name: str) -> Any:
        """Return an object or None, without noting the read."""
        return self._objects[kind].get((namespace, name))

    def count(self, kind: Kind) -> int:
        """Return how many objects of the kind are known."""
        return len(self._objects[kind])

    def all(self, kind: Kind) -> list[Any]:
        """Return all objects of a kind, unordered."""
        self._note((kind,))
        return list(self._objects[kind].values())

    def namespace(self, name: str) -> Namespace | None:
        """Return a Namespace."""
        found: Namespace | None = self._get(kinds.NAMESPACE, "", name)
        return found

    def node(self, name: str) -> Node | None:
        """Return a Node."""
        found: Node | None = self._get(kinds.NODE, "", name)
        return found

    def pod(self, namespace: str, name: str) -> Pod | None:
        """Return a Pod."""
        found: Pod | None = self._get(kinds.POD, namespace, name)
        return found

    def service(self, namespace: str, name: str) -> Service | None:
        """Return a Service."""
        found: Service | None = self._get(kinds.SERVICE, namespace, name)
        return found

    def server(self, namespace: str, name: str) -> Server | None:
        """Return a policy.linkerd.io Server."""
        found: Server | None = self._get(kinds.SERVER, namespace, name)
        return found

    def mesh_tls_authentication(self, namespace: str, name: str) -> MeshTLSAuthentication | None:
        """Return a MeshTLSAuthentication."""
        found: MeshTLSAuthentication | None = self._get(kinds.MESH_TLS_AUTHENTICATION, namespace, name)
        return found

    def network_authentication(self, namespace: str, name: str) -> NetworkAuthentication | None:
        """Return a NetworkAuthentication."""
        found: NetworkAuthentication | None = self._get(kinds.NETWORK_AUTHENTICATION, namespace, name)
        return found

    def pod_by_ip(self, ip: str) -> Pod | None:
        """Return the running Pod with this address; host-network Pods share their node's and are not found."""
        pods: list[Any] = self._lookup(kinds.POD, 0, ip)
        return next((pod for pod in reversed(pods) if not pod.finished), None)

    def pods_in(self, namespace: str) -> list[Pod]:
        """Return a namespace's Pods."""
        found: list[Any] = self._lookup(kinds.POD, 1, namespace)
        return found

    def service_by_ip(self, ip: str) -> Service | None:
        """Return the Service with this virtual address."""
        found: list[Any] = self._lookup(kinds.SERVICE, 0, ip)
        return found[0] if found else None

    def services_in(self, namespace: str) -> list[Service]:
        """Return a namespace's Services."""
        found: list[Any] = self._lookup(kinds.SERVICE, 1, namespace)
        return found

    def slices_of(self, namespace: str, service: str) -> list[EndpointSlice]:
        """Return the EndpointSlices of a Service."""
        found: list[Any] = self._lookup(kinds.ENDPOINT_SLICE, 0, (namespace, service))
        return found

    def servers_in(self, namespace: str) -> list[Server]:
        """Return a namespace's Servers, the oldest first."""
        found: list[Any] = self._lookup(kinds.SERVER, 0, namespace)
        return found

    def authorizations_in(self, namespace: str) -> list[AuthorizationPolicy]:
        """Return a namespace's AuthorizationPolicies, the oldest first."""
        found: list[Any] = self._lookup(kinds.AUTHORIZATION_POLICY, 0, namespace)
        return found

    def http_route(self, group: str, namespace: str, name: str) -> HTTPRoute | None:
        """Return the HTTPRoute of one of the two groups."""
        kind = kinds.POLICY_HTTP_ROUTE if group == kinds.POLICY_GROUP else kinds.GATEWAY_HTTP_ROUTE
        found: HTTPRoute | None = self._get(kind, namespace, name)
        return found

    def routes_of(self, group: str, kind: str, namespace: str, name: str) -> list[HTTPRoute]:
        """Return the HTTPRoutes of both groups that name this parent, the oldest first."""
        key = (group, kind, namespace, name)
        found: list[Any] = [route for of in KIND_OF_ROUTES for route in self._lookup(of, 0, key)]
        return sorted(found, key=lambda route: route.age_key)

    def owner(self, pod: Pod) -> tuple[str, str]:
        """Return (kind, name) of the workload that a Pod belongs to; the Pod itself when it has none.

        ReplicaSets and Jobs are followed to the Deployment or CronJob that made them.
        """
        ref = _controller(pod)
        if ref is None:
            return ("Pod", pod.name)
        between: ReplicaSet | Job | None = None
        if ref[0] == "ReplicaSet":
            between = self._get(kinds.REPLICA_SET, pod.namespace, ref[1])
        elif ref[0] == "Job":
            between = self._get(kinds.JOB, pod.namespace, ref[1])
        return (_controller(between) or ref) if between is not None else ref

    def _get(self, kind: Kind, namespace: str, name: str) -> Any:
        self._note((kind, namespace, name))
        return self._objects[kind].get((namespace, name))

    def _lookup(self, kind: Kind, index: int, key: Hashable) -> list[Any]:
        found = self._indexes[kind][index]
        self._note((found.name, key))
        return found.get(key)

    def _note(self, topic: Topic) -> None:
        if self._reading is not None:
            self._reading.add(topic)


def kind_of(obj: dict[str, Any]) -> Kind | None:
    """Return the kind that reads a plain object, or None when the mesh does not read it."""
    group, _, version = str(obj.get("apiVersion", "")).rpartition("/")
    for kind in kinds.ALL:
        if kind.name == obj.get("kind") and kind.group == group and version in kind.versions:
            return kind
    return None


def _by_namespace(view: View) -> tuple[str]:
    return (view.namespace,)


def _parents(route: HTTPRoute) -> set[tuple[str, str, str, str]]:
    return {parent_key(parent, route.namespace) for parent in route.spec.parent_refs or ()}


def _controller(view: View) -> tuple[str, str] | None:
    refs = view.metadata.owner_references or ()
    chosen = next((ref for ref in refs if ref.controller), refs[0] if refs else None)
    return (chosen.kind, chosen.name) if chosen else None
