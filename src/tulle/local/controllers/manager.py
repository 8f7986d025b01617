"""Runs the controllers: one watch per kind, one queue per controller, retries with back-off.

A controller is a name, the kinds whose changes concern it (each with a function from object to keys) and a pure
`reconcile(key, stores, now) -> actions`. All of them share the stores and this loop.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from tulle.clock import Clock
from tulle.local.controllers.actions import Action, Applier
from tulle.local.controllers.cluster import (
    CONFIG_MAPS,
    PODS,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    ApiError,
    ClusterApi,
    Key,
    Kind,
    Obj,
)
from tulle.local.controllers.events import Recorder
from tulle.local.controllers.metadata import controller_of, key_of, namespace_of
from tulle.local.controllers.queue import WorkQueue
from tulle.local.controllers.store import Stores, follow

__all__ = ["Controller", "Manager", "itself", "owner_of_kind"]

log = logging.getLogger(__name__)

KeysOf = Callable[[Obj, Stores], Iterable[Key]]
"""From a changed object (old or new state) to the keys that want a reconcile."""

ALWAYS = frozenset((SECRETS, CONFIG_MAPS, SERVICE_ACCOUNTS, SERVICES, PODS))
"""Kinds that the node agent reads from the same stores."""

GATHER_SECONDS = 0.03
"""One pod's start is about ten changes, a rollout's many more; counting them all once is enough."""

WORKERS = 2
"""Reconciles of one controller under way at once: a slow admission webhook must not hold up every owner."""


@dataclass(frozen=True, slots=True)
class Controller:
    """One controller: what it listens to and what it decides."""

    name: str
    watches: Mapping[Kind, KeysOf]
    reconcile: Callable[[Key, Stores, datetime], Sequence[Action]]
    reads: Sequence[Kind] = ()
    """Kinds that `reconcile` reads but whose changes do not start one."""
    gathers: frozenset[Kind] = frozenset()
    """Kinds whose changes come in bursts: a reconcile waits GATHER_SECONDS for the rest of the burst."""


def itself(obj: Obj, _stores: Stores) -> Iterable[Key]:
    """Reconcile the changed object."""
    return (key_of(obj),)


def owner_of_kind(kind: Kind) -> KeysOf:
    """Reconcile the object of `kind` that controls the changed one."""

    def keys(obj: Obj, _stores: Stores) -> Iterable[Key]:
        owner = controller_of(obj)
        if (
            owner is not None
            and owner.get("kind") == kind.name
            and owner.get("apiVersion") == kind.api_version
        ):
            yield namespace_of(obj), owner["name"]

    return keys


class Manager:
    """Owns the stores, the queues and the workers."""

    def __init__(
        self, api: ClusterApi, clock: Clock, controllers: Sequence[Controller], stores: Stores | None = None
    ) -> None:
        self.stores = stores or Stores()
        self._api, self._clock, self._controllers = api, clock, controllers

    @property
    def kinds(self) -> frozenset[Kind]:
        """The kinds whose stores this manager keeps up to date."""
        return frozenset(kind for c in self._controllers for kind in (*c.watches, *c.reads)) | ALWAYS

    async def run(self) -> None:
        """Watch and reconcile until cancelled."""
        kinds = self.kinds
        async with asyncio.TaskGroup() as tasks:
            for kind in kinds:
                tasks.create_task(follow(self._api, self.stores[kind]), name=f"watch {kind.plural}")
            for kind in kinds:
                await self.stores[kind].synced.wait()
            for controller in self._controllers:
                queue = WorkQueue(self._clock.monotonic)
                self._listen(controller, queue)
                for number in range(WORKERS):
                    tasks.create_task(self._work(controller, queue), name=f"{controller.name} {number}")

    def _listen(self, controller: Controller, queue: WorkQueue) -> None:
        for kind, keys_of in controller.watches.items():
            gathers = kind in controller.gathers

            def changed(
                old: Obj | None, new: Obj | None, keys_of: KeysOf = keys_of, gathers: bool = gathers
            ) -> None:
                for obj in (old, new):
                    if obj is not None:
                        try:
                            for key in keys_of(obj, self.stores):
                                if gathers:
                                    queue.add_after(key, GATHER_SECONDS)
                                else:
                                    queue.add(key)
                        except (KeyError, TypeError, ValueError):
                            # An object that one controller cannot read must not end the watch for all.
                            log.exception("%s: %s/%s cannot be read", controller.name, *key_of(obj))

            self.stores[kind].listen(changed)

    async def _work(self, controller: Controller, queue: WorkQueue) -> None:
        recorder = Recorder(self._api, self._clock, f"{controller.name}-controller")
        applier = Applier(self._api, self.stores, recorder, queue.add_after)
        while True:
            key = await queue.get()
            try:
                await applier.apply(key, controller.reconcile(key, self.stores, self._clock.now()))
            except ApiError as error:
                pause = queue.retry(key)
                level = logging.DEBUG if error.code == 409 else logging.WARNING
                log.log(level, "%s %s/%s: %s; again in %.3f s", controller.name, *key, error.message, pause)
            except Exception:
                # One object that a controller cannot digest must not stop all the others; it is named and tried again.
                pause = queue.retry(key)
                log.exception("%s %s/%s: reconcile failed; again in %.3f s", controller.name, *key, pause)
            else:
                queue.done(key)
