"""Storing what was decided, and what follows from it at once: definitions begin and end to be served, old Events go.

Synchronous: between a check and the commit that relies on it nothing else can happen.
"""

import uuid
from datetime import timedelta

from tulle.clock import Clock
from tulle.local.api import crds, lifecycle
from tulle.local.api.objects import Obj, copy_json, name_of
from tulle.local.api.registry import Registry, ResourceType
from tulle.local.api.store import Record, Store
from tulle.local.api.targets import Target

__all__ = ["EVENT_LIFE", "MAX_EVENTS", "Committer"]

MAX_EVENTS = 2000
EVENT_LIFE = timedelta(hours=1)
"""How many Events are kept, and for how long after they were last told."""


class Committer:
    """Puts objects into the store and takes them out."""

    def __init__(self, store: Store, registry: Registry, clock: Clock) -> None:
        self._store, self._registry, self._clock = store, registry, clock

    def put(self, target: Target, obj: Obj) -> Record:
        """Store a new version of an object, which belongs to the store from here on."""
        record = self._store.put(target.resource.key, target.namespace, name_of(obj), obj)
        if target.resource.key == "events":
            self._forget_old_events()
        if target.resource.key == crds.KEY and crds.is_established(record.obj):
            self._registry.add(crds.resource_type(record.obj))
        return record

    def _forget_old_events(self) -> None:
        """Keep no more than so many Events, and none for longer than an hour: the ones created first go first."""
        events = self._store.collection("events").records
        oldest_kept = lifecycle.timestamp(self._clock.now() - EVENT_LIFE)
        while events:
            (namespace, name), record = next(iter(events.items()))
            metadata = record.obj["metadata"]
            told = max(str(record.obj.get("lastTimestamp") or ""), metadata["creationTimestamp"])
            if len(events) <= MAX_EVENTS and told >= oldest_kept:
                return
            self._store.remove("events", namespace, name, {**record.obj, "metadata": dict(metadata)})

    def remove(self, target: Target, before: Obj, last: Obj) -> Record:
        """Take an object out; `last` is its final form, as watchers see it."""
        record = self._store.remove(target.resource.key, target.namespace, name_of(before), last)
        if target.resource.key == crds.KEY:
            gone = crds.resource_type(last)
            self._registry.remove(gone.group, gone.plural)
            self._store.drop(gone.key)
        elif target.resource.is_custom:
            self.end_definition(target.resource)
        elif (target.resource.key, target.namespace, name_of(before)) == (
            "services",
            "default",
            "kubernetes",
        ):
            # Pods find the API through it, so it comes back when somebody deletes every Service.
            again = copy_json(before)
            again["metadata"]["uid"] = str(uuid.uuid4())
            self._store.put("services", "default", "kubernetes", again)
        return record

    def end_definition(self, resource: ResourceType) -> None:
        """Take a definition out that is being deleted, once its last object is gone."""
        if self._store.collection(resource.key).records:
            return
        record = self._store.get(crds.KEY, None, f"{resource.plural}.{resource.group}")
        if record is None or "deletionTimestamp" not in record.obj["metadata"]:
            return
        last = copy_json(record.obj)
        left = [f for f in last["metadata"].get("finalizers") or () if f != crds.CLEANUP]
        last["metadata"]["finalizers"] = left
        definitions = self._registry.find("apiextensions.k8s.io", "customresourcedefinitions")
        target = Target(definitions, None, record.obj["metadata"]["name"])
        if left:
            self.put(target, last)
        else:
            del last["metadata"]["finalizers"]
            self.remove(target, record.obj, last)
