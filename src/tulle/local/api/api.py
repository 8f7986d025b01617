"""The embedded Kubernetes API as Python calls; the HTTPS server, controllers and the node agent all use this class."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from tulle.clock import Clock, SystemClock
from tulle.local.api import bootstrap, decoding, selectors
from tulle.local.api.admission import AdmissionChain
from tulle.local.api.admission.pods import PodAccounts
from tulle.local.api.admission.webhooks import Webhooks
from tulle.local.api.auth.certificates import Authority
from tulle.local.api.auth.rbac import Policy
from tulle.local.api.auth.reviews import Reviews
from tulle.local.api.auth.tokens import TokenAuthority
from tulle.local.api.auth.users import SYSTEM, User
from tulle.local.api.errors import ApiError, bad_request
from tulle.local.api.lifecycle import Propagation
from tulle.local.api.nodeport import NodePort
from tulle.local.api.objects import Obj, ObjList, WatchEvent, copy_json, name_of, namespace_of
from tulle.local.api.patch import PatchKind
from tulle.local.api.reads import BOOKMARK_SECONDS, Reader, WatchOptions, bookmark, revision_of
from tulle.local.api.registry import Registry, ResourceType
from tulle.local.api.selectors import Selector
from tulle.local.api.services import Allocator
from tulle.local.api.store import HISTORY, Store
from tulle.local.api.targets import Target, WriteOptions
from tulle.local.api.writes import Writer

__all__ = ["Api"]


class Api:
    """A Kubernetes API in memory.

    Objects in lists and watch events are shared with the store: read them, never change them. Single objects that
    get, create, update, patch and delete return are the caller's own copy.
    Every method raises ApiError, whose `status` is what a client over HTTPS would have got.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        node: NodePort | None = None,
        history: int = HISTORY,
        service_cidr: str = "10.96.0.0/16",
        authority: Authority | None = None,
        bookmark_seconds: float = BOOKMARK_SECONDS,
    ) -> None:
        self.clock: Clock = clock or SystemClock()
        self.node = node
        """Set by the pod runner; None as long as there is no node."""
        self.authority = authority or Authority(self.clock)
        self.store = Store(history)
        self.registry = Registry()
        self.reader = Reader(self.store, self.clock, bookmark_seconds=bookmark_seconds)
        self._allocator = Allocator(self.store, service_cidr)
        self.writer = Writer(
            self.store, self.registry, self.clock, self._admission(), self._allocator, self._namespace_seeds
        )
        self.policy = Policy(self.store)
        self.tokens = TokenAuthority(self.store, self.clock)
        self.reviews = Reviews(self.store, self.tokens, self.policy, self.clock)

    def _admission(self) -> AdmissionChain:
        return AdmissionChain([PodAccounts(self.store), Webhooks(self.store, self.dial)])

    async def dial(self, address: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to a pod's address through the node; without one, directly."""
        if self.node is not None:
            return await self.node.dial(address, port)
        return await asyncio.open_connection(address, port)

    async def seed(self, *, port: int = 6443) -> None:
        """Create what every cluster holds; call it once, before anybody else writes."""
        await self.writer.ensure(bootstrap.cluster_seeds(str(self._allocator.network[1]), port))

    async def publish(self, addresses: Sequence[str], port: int) -> None:
        """Tell pods where the API listens: the endpoints of the Service `kubernetes`."""
        for seed in bootstrap.kubernetes_endpoints(list(addresses), port):
            name, namespace = name_of(seed.obj), namespace_of(seed.obj)
            try:
                await self.patch(seed.plural, name, seed.obj, group=seed.group, namespace=namespace)
            except ApiError as error:
                if error.code != 404:
                    raise
                await self.create(seed.plural, seed.obj, group=seed.group)

    def _namespace_seeds(self, namespace: str) -> Iterator[bootstrap.Seed]:
        return bootstrap.namespace_seeds(namespace, self.authority.bundle.decode())

    def _target(
        self, plural: str, group: str, namespace: str | None, name: str = "", subresource: str | None = None
    ) -> Target:
        resource = self.registry.find(group, plural)
        if resource.namespaced and namespace is None:
            raise bad_request(f"{plural} live in a namespace: name one")
        return Target(resource, namespace if resource.namespaced else None, name, subresource)

    async def create(
        self,
        plural: str,
        obj: Obj,
        *,
        group: str = "",
        namespace: str | None = None,
        user: User = SYSTEM,
        dry_run: bool = False,
        field_manager: str = "tulle",
    ) -> Obj:
        """Create an object; raise 409 AlreadyExists, 422 Invalid, or what admission answers."""
        resource = self.registry.find(group, plural)
        if resource.verbs == ("create",):
            return self.reviews.answer(plural, namespace, obj, user)
        target = self._target(plural, group, namespace or namespace_of(obj))
        options = WriteOptions(user, dry_run, field_manager)
        return _own(await self.writer.create(target, obj, options))

    async def request_token(
        self,
        namespace: str,
        account: str,
        *,
        audiences: Sequence[str] = (),
        seconds: int = 3600,
        pod: Obj | None = None,
    ) -> Obj:
        """Return the TokenRequest (`status.token`, `status.expirationTimestamp`) for an account, bound to a pod."""
        spec: Obj = {"audiences": list(audiences), "expirationSeconds": seconds}
        if pod is not None:
            spec["boundObjectRef"] = {"kind": "Pod", "name": name_of(pod), "uid": pod["metadata"]["uid"]}
        return self.reviews.request_token(namespace, account, {"spec": spec})

    async def get(self, plural: str, name: str, *, group: str = "", namespace: str | None = None) -> Obj:
        """Return an object; raise 404."""
        target = self._target(plural, group, namespace, name)
        return _own(self.reader.get(target.resource, target.namespace, name).obj)

    async def list(
        self,
        plural: str,
        *,
        group: str = "",
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
    ) -> ObjList:
        """Return the objects of one namespace, or of all, that match both selectors."""
        resource = self.registry.find(group, plural)
        selector = self.selector(resource, label_selector, field_selector)
        page = self.reader.list_page(resource, namespace, selector)
        items = [decoding.in_version(resource, record.obj, None) for record in page.records]
        return ObjList(items, str(page.revision))

    async def update(self, plural: str, obj: Obj, *, group: str = "", subresource: str | None = None) -> Obj:
        """Replace an object (or its status); raise 409 Conflict when its resourceVersion is not the current one."""
        target = self._target(plural, group, namespace_of(obj), name_of(obj), subresource)
        return _own(await self.writer.update(target, obj, WriteOptions()))

    async def patch(
        self,
        plural: str,
        name: str,
        body: Any,
        *,
        group: str = "",
        namespace: str | None = None,
        kind: PatchKind = "merge",
        subresource: str | None = None,
        field_manager: str = "tulle",
        force: bool = False,
    ) -> Obj:
        """Change an object by a patch of one of the four kinds."""
        target = self._target(plural, group, namespace, name, subresource)
        options = WriteOptions(field_manager=field_manager)
        return _own(await self.writer.patch(target, kind, body, options, force=force))

    async def delete(
        self,
        plural: str,
        name: str,
        *,
        group: str = "",
        namespace: str | None = None,
        grace_period: int | None = None,
        propagation: Propagation = "Background",
    ) -> Obj:
        """Delete an object and return its last form; it is still there while its finalizers or grace period last."""
        target = self._target(plural, group, namespace, name)
        last, _ = await self.writer.delete(
            target, WriteOptions(), grace=grace_period, propagation=propagation
        )
        return _own(last)

    async def watch(
        self,
        plural: str,
        *,
        group: str = "",
        namespace: str | None = None,
        resource_version: str | None = None,
    ) -> AsyncIterator[WatchEvent]:
        """Yield changes after a resource version; without one, first an ADDED for every object there is.

        Raises 410 (ApiError) when the version is compacted away or the caller falls too far behind: list again.
        """
        resource = self.registry.find(group, plural)
        options = WatchOptions(revision=revision_of(resource_version), bookmarks=True)
        async for event in self.reader.watch(resource, namespace, options):
            if event.record is None:
                yield WatchEvent("BOOKMARK", bookmark(resource, None, event))
            else:
                yield WatchEvent(event.type, decoding.in_version(resource, event.record.obj, None))

    def selector(self, resource: ResourceType, labels: str, fields: str) -> Selector:
        """Compile selectors for a resource; raise 400 that says what is wrong with them."""
        served = resource.served(None)
        extra = served.selectable if served else ()
        return Selector(
            selectors.parse_labels(labels), selectors.parse_fields(fields, resource.plural, extra)
        )


def _own(obj: Obj) -> Obj:
    copied: Obj = copy_json(obj)
    return copied
