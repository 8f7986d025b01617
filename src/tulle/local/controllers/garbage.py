"""Garbage collection by ownerReferences: what an owner leaves behind, and in which order things go.

`Ownership` is the pure part: it knows who owns whom and answers what to do when an object appears, changes or is gone.
- Background: an object whose last owner is gone is deleted.
- Foreground: an owner with the finalizer foregroundDeletion waits until its blocking dependents are gone.
- Orphan: an owner with the finalizer orphan goes after its dependents have forgotten it.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tulle.local.controllers.cluster import ApiError, ClusterApi, Kind, Obj
from tulle.local.controllers.metadata import is_deleting, name_of, namespace_of, uid_of
from tulle.local.controllers.store import Stores, follow

__all__ = ["Drop", "Edit", "Node", "Ownership", "collect_garbage"]

FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"

ABSENT_SECONDS = 2.0
"""How long an owner may be unknown before it counts as gone: its own watch may be a little behind."""

RETRY_SECONDS = 1.0

REMEMBERED_GONE = 4096
"""How many uids of deleted owners are known to be gone for sure."""

LOOK_FOR_KINDS_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Node:
    """One object as ownership sees it; `owners` maps an owner's uid to whether the reference blocks its deletion."""

    kind: Kind
    namespace: str
    name: str
    uid: str
    owners: dict[str, bool]
    finalizers: tuple[str, ...]
    deleting: bool
    references: tuple[Any, ...] = field(repr=False, default=())

    @classmethod
    def of(cls, kind: Kind, obj: Obj) -> "Node":
        """Read an object."""
        metadata = obj["metadata"]
        references = tuple(metadata.get("ownerReferences") or ())
        return cls(
            kind,
            namespace_of(obj),
            name_of(obj),
            uid_of(obj),
            {r["uid"]: bool(r.get("blockOwnerDeletion")) for r in references if r.get("uid")},
            tuple(metadata.get("finalizers") or ()),
            is_deleting(obj),
            references,
        )


@dataclass(frozen=True, slots=True)
class Drop:
    """Delete an object; `foreground` passes the owner's way of going on."""

    node: Node
    foreground: bool = False


@dataclass(frozen=True, slots=True)
class Edit:
    """Merge-patch an object's metadata."""

    node: Node
    metadata: Obj


Step = Drop | Edit


class Ownership:
    """Who owns whom. Every answer is computed from the present graph, so asking twice does no harm."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._dependents: dict[str, set[str]] = {}

    def __repr__(self) -> str:
        return f"<Ownership of {len(self._nodes)} objects, {len(self._dependents)} owners>"

    def put(self, node: Node) -> set[str]:
        """Take in an object's present state; return the uids to look at again."""
        touched = {node.uid, *node.owners}
        if node.deleting:
            touched |= self._dependents.get(node.uid, set())
        before = self._nodes.get(node.uid)
        if before is not None:
            touched |= set(before.owners)
            self._unlink(before)
        self._nodes[node.uid] = node
        for owner in node.owners:
            self._dependents.setdefault(owner, set()).add(node.uid)
        return touched

    def remove(self, uid: str) -> set[str]:
        """Take in that an object is gone; return the uids to look at again."""
        node = self._nodes.pop(uid, None)
        if node is None:
            return set()
        self._unlink(node)
        return {*node.owners, *self._dependents.get(uid, ())}

    def step(self, uid: str, absent: Callable[[str], bool]) -> Step | None:
        """Return what to do about one object now. `absent` tells which unknown owners are known to be gone."""
        node = self._nodes.get(uid)
        if node is None:
            return None
        if node.deleting:
            return self._going(node)
        gone = [owner for owner in node.owners if owner not in self._nodes and absent(owner)]
        waiting = [o for o in node.owners if o in self._nodes and self._is_foreground(self._nodes[o])]
        living = [owner for owner in node.owners if owner not in gone and owner not in waiting]
        if not gone and not waiting:
            return None
        if not living:
            return Drop(node, foreground=bool(waiting) and uid in self._dependents)
        if gone:
            return Edit(node, {"ownerReferences": [r for r in node.references if r["uid"] not in gone]})
        return None

    def _going(self, node: Node) -> Step | None:
        dependents = [self._nodes[uid] for uid in self._dependents.get(node.uid, ())]
        if ORPHAN in node.finalizers:
            if dependents:
                first = min(dependents, key=lambda n: n.name)
                return Edit(first, {"ownerReferences": [r for r in first.references if r["uid"] != node.uid]})
            return Edit(node, {"finalizers": [f for f in node.finalizers if f != ORPHAN]})
        if FOREGROUND in node.finalizers and not any(d.owners[node.uid] for d in dependents):
            return Edit(node, {"finalizers": [f for f in node.finalizers if f != FOREGROUND]})
        return None

    @staticmethod
    def _is_foreground(node: Node) -> bool:
        return node.deleting and FOREGROUND in node.finalizers

    def _unlink(self, node: Node) -> None:
        for owner in node.owners:
            members = self._dependents.get(owner)
            if members is not None:
                members.discard(node.uid)
                if not members:
                    del self._dependents[owner]


class _Collector:
    """The shell: feeds the graph from the stores, carries steps out one at a time."""

    def __init__(self, api: ClusterApi, stores: Stores, owned: frozenset[Kind]) -> None:
        self._api, self._stores, self._followed_by_others = api, stores, owned
        self._graph = Ownership()
        self._dirty: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._gone: dict[str, None] = {}
        self._missing_since: dict[str, float] = {}
        self._kinds: set[Kind] = set()

    async def run(self, kinds: Callable[[], Iterable[Kind]]) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._work())
            while True:
                for kind in kinds():
                    if kind not in self._kinds:
                        self._kinds.add(kind)
                        self._stores[kind].listen(partial(self._changed, kind))
                        if kind not in self._followed_by_others:
                            tasks.create_task(self._follow(kind), name=f"garbage watches {kind.plural}")
                await asyncio.sleep(LOOK_FOR_KINDS_SECONDS)

    async def _follow(self, kind: Kind) -> None:
        while True:
            try:
                await follow(self._api, self._stores[kind])
            except ApiError as error:
                if error.code != 404:
                    raise
            # The custom resource is not served now: its objects are gone with it, and it may come back.
            self._stores[kind].replace([])
            await asyncio.sleep(LOOK_FOR_KINDS_SECONDS)

    def _changed(self, kind: Kind, old: Obj | None, new: Obj | None) -> None:
        touched: set[str] = set()
        if old is not None and (new is None or uid_of(new) != uid_of(old)):
            self._gone[uid_of(old)] = None
            while len(self._gone) > REMEMBERED_GONE:
                del self._gone[next(iter(self._gone))]
            touched |= self._graph.remove(uid_of(old))
        if new is not None:
            self._missing_since.pop(uid_of(new), None)
            touched |= self._graph.put(Node.of(kind, new))
        for uid in touched:
            self._look(uid)

    def _look(self, uid: str) -> None:
        self._dirty[uid] = None
        self._wake.set()

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._dirty:
                uid = next(iter(self._dirty))
                del self._dirty[uid]
                step = self._graph.step(uid, partial(self._is_absent, uid))
                if step is not None:
                    try:
                        await self._perform(step)
                    except ApiError:
                        asyncio.get_running_loop().call_later(RETRY_SECONDS, self._look, uid)

    def _is_absent(self, dependent: str, owner: str) -> bool:
        """Tell whether an owner that is not in the graph is gone for sure; look again later when it is too early."""
        if owner in self._gone:
            return True
        loop = asyncio.get_running_loop()
        since = self._missing_since.setdefault(owner, loop.time())
        if loop.time() - since >= ABSENT_SECONDS:
            return True
        loop.call_later(ABSENT_SECONDS, self._look, dependent)
        return False

    async def _perform(self, step: Step) -> None:
        node, kind = step.node, step.node.kind
        where = node.namespace or None
        try:
            if isinstance(step, Edit):
                body = {"metadata": {"uid": node.uid, **step.metadata}}
                self._stores[kind].observe(
                    await self._api.patch(kind.plural, node.name, body, group=kind.group, namespace=where)
                )
                return
            last = await self._api.delete(
                kind.plural,
                node.name,
                group=kind.group,
                namespace=where,
                propagation="Foreground" if step.foreground else "Background",
            )
            if is_deleting(last):
                self._stores[kind].observe(last)
        except ApiError as error:
            if error.code != 404:
                raise


async def collect_garbage(
    api: ClusterApi, stores: Stores, kinds: Callable[[], Iterable[Kind]], *, followed: frozenset[Kind]
) -> None:
    """Collect until cancelled. `kinds` yields what the API serves now; `followed` are the stores others keep fresh."""
    await _Collector(api, stores, followed).run(kinds)
