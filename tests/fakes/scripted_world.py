"""A world without an API: stores that actions change at once, for tests of the pure reconciles."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from tulle.local.controllers.actions import Action, Create, Delete, Emit, Patch, Requeue
from tulle.local.controllers.cluster import PODS, Key, Kind
from tulle.local.controllers.manager import Controller
from tulle.local.controllers.metadata import is_deleting, render_time
from tulle.local.controllers.store import Stores

Obj = dict[str, Any]


class World:
    """Carries actions out on its stores; pods that are deleted linger until `bury`."""

    def __init__(self) -> None:
        self.stores = Stores()
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.events: list[tuple[str, str]] = []
        self.requeued: list[float] = []
        self._count = 0

    def add(self, kind: Kind, obj: Obj) -> Obj:
        self._count += 1
        metadata = dict(obj["metadata"])
        metadata.setdefault("name", f"{metadata.get('generateName', 'x-')}{self._count}")
        metadata.setdefault("namespace", "default" if kind.namespaced else "")
        metadata |= {"uid": f"uid-{self._count}", "resourceVersion": str(self._count), "generation": 1}
        metadata["creationTimestamp"] = render_time(self.now)
        made = {**obj, "metadata": metadata}
        self.stores[kind].observe(made)
        return made

    def change(self, kind: Kind, key: Key, body: Obj) -> None:
        old = self.stores[kind].get(*key)
        assert old is not None, key
        self._count += 1
        new = _merge(old, body)
        generation = old["metadata"]["generation"] + (new.get("spec") != old.get("spec"))
        new["metadata"] = {**new["metadata"], "resourceVersion": str(self._count), "generation": generation}
        self.stores[kind].observe(new)

    def reconcile(self, controller: Controller, key: Key) -> Sequence[Action]:
        actions = list(controller.reconcile(key, self.stores, self.now))
        for action in actions:
            match action:
                case Create(kind, obj):
                    self.add(kind, obj)
                case Patch(kind, namespace, name, body):
                    self.change(kind, (namespace, name), body)
                case Delete(kind, namespace, name):
                    self._delete(kind, (namespace, name))
                case Emit():
                    self.events.append((action.reason, action.message))
                case Requeue(seconds):
                    self.requeued.append(seconds)
        return actions

    def settle(self, *steps: tuple[Controller, Key]) -> None:
        """Reconcile until nothing but events and requeues come out."""
        for _ in range(100):
            busy = False
            for controller, key in steps:
                actions = self.reconcile(controller, key)
                busy |= any(not isinstance(a, Emit | Requeue) for a in actions)
            if not busy:
                return
        raise AssertionError("the controllers never settle")

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def pods(self) -> list[Obj]:
        return sorted(
            (p for p in self.stores[PODS] if not is_deleting(p)), key=lambda p: str(p["metadata"]["name"])
        )

    def phase(self, pod: Obj, phase: str, *, ready: bool = False) -> None:
        conditions = [
            {
                "type": "Ready",
                "status": "True" if ready else "False",
                "lastTransitionTime": render_time(self.now),
            }
        ]
        ended = {"state": {"terminated": {"finishedAt": render_time(self.now)}}}
        status: Obj = {"phase": phase, "conditions": conditions}
        if phase in ("Succeeded", "Failed"):
            status["containerStatuses"] = [ended]
        self.change(PODS, (pod["metadata"]["namespace"], pod["metadata"]["name"]), {"status": status})

    def bury(self) -> None:
        for pod in [p for p in self.stores[PODS] if is_deleting(p)]:
            self.stores[PODS].forget(pod)

    def _delete(self, kind: Kind, key: Key) -> None:
        obj = self.stores[kind].get(*key)
        if obj is None:
            return
        if kind == PODS:
            self.change(kind, key, {"metadata": {"deletionTimestamp": render_time(self.now)}})
        else:
            self.stores[kind].forget(obj)


def _merge(old: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    merged = dict(old) if isinstance(old, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merge(merged.get(name), value)
    return merged
