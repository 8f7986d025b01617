"""What a reconcile may ask for, as data, and the one place that carries it out.

A reconcile is pure and returns a list of these; `Applier` performs them in order. The API's answer goes into the
store at once, so that the next reconcile starts from what was just done.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tulle.local.controllers.cluster import ApiError, ClusterApi, Key, Kind, Obj
from tulle.local.controllers.events import Recorder
from tulle.local.controllers.metadata import key_of, uid_of
from tulle.local.controllers.store import Stores

__all__ = ["Action", "Applier", "Create", "Delete", "Emit", "Patch", "Requeue"]


@dataclass(frozen=True, slots=True)
class Create:
    """Create an object. When the API refuses, `owner` gets an Event that says why, and `on_refusal` its status."""

    kind: Kind
    obj: Obj
    owner: Obj | None = None
    owner_kind: Kind | None = None
    on_refusal: Callable[[str], Obj] | None = None
    """From the API's words to the merge patch of the owner's status."""


@dataclass(frozen=True, slots=True)
class Patch:
    """Merge-patch an object, or its `subresource`. With `version` the API refuses when somebody else was faster."""

    kind: Kind
    namespace: str
    name: str
    body: Obj
    subresource: str | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete an object; gone already is as good as done. `owner` gets the Event."""

    kind: Kind
    namespace: str
    name: str
    owner: Obj | None = None
    owner_kind: Kind | None = None
    grace_seconds: int | None = None
    propagation: Literal["Background", "Foreground", "Orphan"] = "Background"


@dataclass(frozen=True, slots=True)
class Emit:
    """Record an Event about an object."""

    kind: Kind
    obj: Obj
    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Requeue:
    """Look at the same key again after `seconds`, should nothing happen before."""

    seconds: float


Action = Create | Patch | Delete | Emit | Requeue


@dataclass(slots=True)
class Applier:
    """Carries actions out against the API."""

    api: ClusterApi
    stores: Stores
    recorder: Recorder
    requeue: Callable[[Key, float], None] = field(default=lambda _key, _seconds: None)

    async def apply(self, key: Key, actions: Sequence[Action]) -> None:
        """Perform the actions of one reconcile in order.

        Raises ApiError for the first that the API refuses; the caller tries the key again later.
        """
        for action in actions:
            match action:
                case Requeue(seconds):
                    self.requeue(key, seconds)
                case Emit():
                    await self.recorder.record(
                        action.kind, action.obj, action.type, action.reason, action.message
                    )
                case Create():
                    await self._create(action)
                case Patch():
                    await self._patch(action)
                case Delete():
                    await self._delete(action)

    async def _create(self, action: Create) -> None:
        kind, (namespace, _) = action.kind, key_of(action.obj)
        try:
            made = await self.api.create(
                kind.plural, action.obj, group=kind.group, namespace=namespace or None
            )
        except ApiError as error:
            await self._refused(action, error)
            raise
        self.stores[kind].observe(made)
        if action.owner is not None and action.owner_kind is not None:
            message = f"Created {kind.name.lower()}: {made['metadata']['name']}"
            await self.recorder.record(action.owner_kind, action.owner, "Normal", "SuccessfulCreate", message)

    async def _refused(self, action: Create, error: ApiError) -> None:
        owner, kind = action.owner, action.owner_kind
        if owner is None or kind is None:
            return
        await self.recorder.record(kind, owner, "Warning", "FailedCreate", f"Error creating: {error.message}")
        if action.on_refusal is not None:
            namespace, name = key_of(owner)
            body = {"status": action.on_refusal(error.message)}
            await self._patch(Patch(kind, namespace, name, body, subresource="status"))

    async def _patch(self, action: Patch) -> None:
        body: Any = action.body
        if action.version is not None:
            body = {**body, "metadata": {**(body.get("metadata") or {}), "resourceVersion": action.version}}
        kind = action.kind
        try:
            patched = await self.api.patch(
                kind.plural, action.name, body, group=kind.group, namespace=action.namespace or None,
                subresource=action.subresource,
            )  # fmt: skip
        except ApiError as error:
            if error.code == 404:
                return
            raise
        self.stores[kind].observe(patched)

    async def _delete(self, action: Delete) -> None:
        kind, store = action.kind, self.stores[action.kind]
        try:
            last = await self.api.delete(
                kind.plural, action.name, group=kind.group, namespace=action.namespace or None,
                grace_period=action.grace_seconds, propagation=action.propagation,
            )  # fmt: skip
        except ApiError as error:
            if error.code == 404:
                return
            raise
        if last.get("metadata", {}).get("deletionTimestamp") and uid_of(last):
            store.observe(last)
        if action.owner is not None and action.owner_kind is not None:
            message = f"Deleted {kind.name.lower()}: {action.name}"
            await self.recorder.record(action.owner_kind, action.owner, "Normal", "SuccessfulDelete", message)
