"""One kind's objects as last seen, with the indexes that controllers ask, and the watch that keeps them fresh.

Invariant: for one uid the store never goes back to an older resource version. Controllers put the answers of their
own writes in at once (`observe`), so a reconcile never acts on a state from before its previous action.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import cast

from tulle.local.controllers.cluster import ApiError, ClusterApi, Key, Kind, Obj, WatchEvent
from tulle.local.controllers.metadata import controller_of, key_of, uid_of, version_of

__all__ = ["Listener", "Store", "Stores", "follow"]

Listener = Callable[[Obj | None, Obj | None], None]
"""Called with (old, new); None stands for "not there"."""

RELIST_PAUSE_SECONDS = 0.2
"""Pause before a list after a watch ended: bounds a loop of failing watches to five a second."""

REMEMBERED_DELETIONS = 4096
"""How many uids of deleted objects are kept, so that a late answer cannot bring one back."""


class Store:
    """The objects of one kind."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.synced = asyncio.Event()
        self._objects: dict[Key, Obj] = {}
        self._by_namespace: dict[str, dict[Key, Obj]] = {}
        self._by_owner: dict[str, dict[Key, Obj]] = {}
        self._deleted: dict[str, None] = {}
        self._listeners: list[Listener] = []

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[Obj]:
        return iter(list(self._objects.values()))

    def get(self, namespace: str, name: str) -> Obj | None:
        """Return the object of that name."""
        return self._objects.get((namespace, name))

    def in_namespace(self, namespace: str) -> list[Obj]:
        """Return the namespace's objects."""
        return list(self._by_namespace.get(namespace, {}).values())

    def controlled_by(self, uid: str) -> list[Obj]:
        """Return the objects whose controlling owner has that uid."""
        return list(self._by_owner.get(uid, {}).values())

    def listen(self, listener: Listener) -> None:
        """Call `listener` for every change from now on, and once for each object already here."""
        self._listeners.append(listener)
        for obj in list(self._objects.values()):
            listener(None, obj)

    def observe(self, obj: Obj) -> None:
        """Take in a newer state of an object; an older one is dropped."""
        key, uid = key_of(obj), uid_of(obj)
        if uid in self._deleted:
            return
        old = self._objects.get(key)
        if old is not None and version_of(old) > version_of(obj):
            return
        if old is not None:
            self._unlink(key, old)
        self._objects[key] = obj
        self._by_namespace.setdefault(key[0], {})[key] = obj
        owner = controller_of(obj)
        if owner is not None:
            self._by_owner.setdefault(owner["uid"], {})[key] = obj
        # The same version again is the watch's, which the API shares with everybody: keep that one, tell nobody.
        if old is None or version_of(old) < version_of(obj):
            self._tell(old, obj)

    def forget(self, obj: Obj) -> None:
        """Take in that an object is gone for good."""
        key, uid = key_of(obj), uid_of(obj)
        self._deleted[uid] = None
        while len(self._deleted) > REMEMBERED_DELETIONS:
            del self._deleted[next(iter(self._deleted))]
        old = self._objects.get(key)
        if old is None or uid_of(old) != uid:
            return
        self._unlink(key, old)
        self._tell(old, None)

    def replace(self, objects: list[Obj]) -> None:
        """Take in a complete list: what it lacks was deleted while nobody watched."""
        listed = {uid_of(obj) for obj in objects}
        for old in list(self._objects.values()):
            if uid_of(old) not in listed:
                self.forget(old)
        for obj in objects:
            self.observe(obj)

    def _unlink(self, key: Key, old: Obj) -> None:
        del self._objects[key]
        self._by_namespace[key[0]].pop(key, None)
        if not self._by_namespace[key[0]]:
            del self._by_namespace[key[0]]
        owner = controller_of(old)
        if owner is not None and owner["uid"] in self._by_owner:
            self._by_owner[owner["uid"]].pop(key, None)
            if not self._by_owner[owner["uid"]]:
                del self._by_owner[owner["uid"]]

    def _tell(self, old: Obj | None, new: Obj | None) -> None:
        for listener in self._listeners:
            listener(old, new)


class Stores:
    """One store per kind, made on first use."""

    def __init__(self) -> None:
        self._stores: dict[Kind, Store] = {}

    def __getitem__(self, kind: Kind) -> Store:
        return self._stores.setdefault(kind, Store(kind))

    def __iter__(self) -> Iterator[Store]:
        return iter(list(self._stores.values()))


async def follow(api: ClusterApi, store: Store) -> None:
    """Keep `store` equal to the API until cancelled: list, watch, list again when the watch ends or expires (410).

    Raises what the API raises when it is not "expired": in-process there is no such thing as a network hiccup.
    """
    kind = store.kind
    while True:
        listed = await api.list(kind.plural, group=kind.group)
        store.replace(listed.items)
        store.synced.set()
        try:
            watch = api.watch(kind.plural, group=kind.group, resource_version=listed.resource_version)
            async with aclosing(cast("AsyncGenerator[WatchEvent, None]", watch)) as events:
                async for event in events:
                    if event.type in ("ADDED", "MODIFIED"):
                        store.observe(event.object)
                    elif event.type == "DELETED":
                        store.forget(event.object)
        except ApiError as error:
            if error.code != 410:
                raise
        await asyncio.sleep(RELIST_PAUSE_SECONDS)
