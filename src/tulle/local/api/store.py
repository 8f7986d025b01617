"""The API's memory: objects by resource, one revision counter, a bounded log of changes per resource.

A stored object is never changed in place: every write stores a new one, so readers may keep what they got for as
long as they only read it. Watchers hold no queue: each remembers the last revision it saw and reads on from the log;
one that falls behind the log's bound (or asks for a revision before it) gets 410 Expired and lists again.
"""

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from tulle.local.api.errors import expired
from tulle.local.api.objects import EventType, Obj

__all__ = ["HISTORY", "Change", "Collection", "Record", "Store"]

HISTORY = 1000
"""Changes kept per resource; a watcher further behind is dropped with 410."""


class Record:
    """One version of one object; its JSON is encoded once for all the clients that read it."""

    __slots__ = ("_json", "obj", "revision")

    def __init__(self, obj: Obj, revision: int) -> None:
        self.obj, self.revision = obj, revision
        self._json: bytes | None = None

    @property
    def json(self) -> bytes:
        """Return the object as JSON."""
        if self._json is None:
            self._json = msgspec.json.encode(self.obj)
        return self._json

    def outdated(self) -> None:
        """Give the JSON back: the object has a newer version, so few will ask for this one again."""
        self._json = None


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of a resource's log. `previous` tells a selector whether the object was visible before."""

    revision: int
    type: EventType
    record: Record
    previous: Record | None


Key = tuple[str, str]


@dataclass(slots=True)
class Collection:
    """All the objects of one resource, and the log of their latest changes."""

    records: dict[Key, Record] = field(default_factory=dict)
    log: deque[Change] = field(default_factory=deque)
    compacted: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def sorted_keys(self, namespace: str | None) -> list[Key]:
        """Return the keys in list order, of one namespace or of all."""
        if namespace is None:
            return sorted(self.records)
        return sorted(key for key in self.records if key[0] == namespace)


class Store:
    """Objects of every resource; a resource is named by a string key that the caller chooses."""

    def __init__(self, history: int = HISTORY) -> None:
        self._history = history
        self._collections: dict[str, Collection] = {}
        self.revision = 1

    def __repr__(self) -> str:
        count = sum(len(collection.records) for collection in self._collections.values())
        return f"<Store revision={self.revision} objects={count}>"

    def collection(self, resource: str) -> Collection:
        """Return the resource's collection, made when first asked for."""
        found = self._collections.get(resource)
        if found is None:
            found = self._collections[resource] = Collection()
        return found

    def resources(self) -> Iterator[str]:
        """Yield the keys of all resources that have ever held an object."""
        return iter(tuple(self._collections))

    def get(self, resource: str, namespace: str | None, name: str) -> Record | None:
        """Return the current version of an object, or None."""
        return self.collection(resource).records.get((namespace or "", name))

    def put(self, resource: str, namespace: str | None, name: str, obj: Obj) -> Record:
        """Store a new version: `obj` is owned by the store from here on and gets its resourceVersion."""
        collection = self.collection(resource)
        key = (namespace or "", name)
        previous = collection.records.get(key)
        if previous is not None:
            _share(previous.obj, obj)
            previous.outdated()
        record = self._next_record(obj)
        collection.records[key] = record
        self._append(
            collection, Change(record.revision, "MODIFIED" if previous else "ADDED", record, previous)
        )
        return record

    def remove(self, resource: str, namespace: str | None, name: str, last: Obj) -> Record:
        """Remove an object; `last` is the version that watchers see in the DELETED event."""
        collection = self.collection(resource)
        previous = collection.records.pop((namespace or "", name))
        _share(previous.obj, last)
        previous.outdated()
        record = self._next_record(last)
        self._append(collection, Change(record.revision, "DELETED", record, previous))
        return record

    def drop(self, resource: str) -> None:
        """Forget a resource that no longer exists (a removed CRD): its watchers end with 410."""
        collection = self._collections.pop(resource, None)
        if collection is not None:
            self.revision += 1
            collection.compacted = self.revision
            collection.changed.set()

    def changes_since(self, collection: Collection, revision: int) -> list[Change]:
        """Return the changes after a revision, oldest first; raise 410 when some of them are gone."""
        if revision < collection.compacted:
            raise expired(f"too old resource version: {revision} ({collection.compacted})")
        newer: list[Change] = []
        for change in reversed(collection.log):
            if change.revision <= revision:
                break
            newer.append(change)
        newer.reverse()
        return newer

    def compact(self) -> None:
        """Forget the changes so far, as a cluster's compaction does."""
        for collection in self._collections.values():
            if collection.log:
                collection.compacted = collection.log[-1].revision
                collection.log.clear()

    def _next_record(self, obj: Obj) -> Record:
        self.revision += 1
        obj["metadata"] = {**obj["metadata"], "resourceVersion": str(self.revision)}
        return Record(obj, self.revision)

    def _append(self, collection: Collection, change: Change) -> None:
        collection.log.append(change)
        if len(collection.log) > self._history:
            collection.compacted = collection.log.popleft().revision
        collection.changed.set()
        collection.changed = asyncio.Event()


def _share(old: Obj, new: Obj) -> None:
    """Let a new version use the parts of the old one that did not change: the log keeps many versions of one object.

    The metadata itself is never shared, since each version's carries its own resourceVersion.
    """
    for key, value in new.items():
        before = old.get(key)
        if value is before or not isinstance(value, (dict, list)):
            continue
        if key == "metadata" and isinstance(value, dict) and isinstance(before, dict):
            _share(before, value)
        elif value == before:
            new[key] = before
        elif key == "managedFields" and isinstance(value, list) and isinstance(before, list):
            value[:] = [next((entry for entry in before if entry == mine), mine) for mine in value]
