"""All controllers together, as the world runs them."""

import asyncio
from collections.abc import Callable, Iterable

from tulle.clock import Clock
from tulle.local.api.registry import Registry
from tulle.local.controllers import (
    cron_job,
    daemon_set,
    deployment,
    endpoints,
    job,
    namespaces,
    notices,
    replicaset,
    scheduling,
    stateful_set,
)
from tulle.local.controllers.cluster import EVENTS, ClusterApi, Kind
from tulle.local.controllers.events import sweep_events
from tulle.local.controllers.garbage import collect_garbage
from tulle.local.controllers.manager import Manager
from tulle.local.controllers.namespaces import empty_namespaces
from tulle.local.controllers.node import NodeFacts, keep_node
from tulle.local.controllers.store import Stores

__all__ = ["CONTROLLERS", "Controllers", "kinds_of"]

CONTROLLERS = (
    deployment.CONTROLLER,
    replicaset.CONTROLLER,
    stateful_set.CONTROLLER,
    daemon_set.CONTROLLER,
    job.CONTROLLER,
    cron_job.CONTROLLER,
    endpoints.CONTROLLER,
    scheduling.CONTROLLER,
    *notices.CONTROLLERS,
)


class Controllers:
    """Every controller over one API; `stores` may be shared with the node agent.

    `kinds` yields what the API serves at the moment, custom resources included. `ca_pem` is the certificate authority
    of the API.
    """

    def __init__(
        self,
        api: ClusterApi,
        clock: Clock,
        *,
        facts: NodeFacts,
        kinds: Callable[[], Iterable[Kind]],
        ca_pem: str,
    ) -> None:
        self._api, self._clock, self._facts, self._kinds = api, clock, facts, kinds
        self._manager = Manager(api, clock, (*CONTROLLERS, namespaces.controller(ca_pem)))

    @property
    def stores(self) -> Stores:
        """The shared stores, kept up to date while `run` runs."""
        return self._manager.stores

    async def run(self) -> None:
        """Reconcile until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(keep_node(self._api, self._clock, self._facts), name="node")
            tasks.create_task(self._manager.run(), name="controllers")
            garbage = collect_garbage(self._api, self.stores, self._owned_kinds, followed=self._manager.kinds)
            tasks.create_task(garbage, name="garbage collector")
            tasks.create_task(sweep_events(self._api, self._clock), name="stale events")
            tasks.create_task(empty_namespaces(self._api, self.stores, self._namespaced), name="namespaces")

    def _owned_kinds(self) -> Iterable[Kind]:
        # Events are the most frequent writes and never have owners.
        return (kind for kind in self._kinds() if kind != EVENTS)

    def _namespaced(self) -> Iterable[tuple[str, str]]:
        return ((kind.group, kind.plural) for kind in self._kinds() if kind.namespaced)


def kinds_of(registry: Registry) -> Callable[[], Iterable[Kind]]:
    """Return what yields the kinds that an API stores now (one of the two groups of Events)."""

    def kinds() -> Iterable[Kind]:
        for resource in registry:
            if "list" in resource.verbs and resource.group != "events.k8s.io":
                yield Kind(
                    resource.kind, resource.group, resource.version, resource.plural, resource.namespaced
                )

    return kinds
