"""All controllers together, as the world runs them."""

import asyncio
from pathlib import Path

from tulle.clock import Clock
from tulle.local.controllers import deployment, replicaset, scheduling
from tulle.local.controllers.cluster import ClusterApi
from tulle.local.controllers.manager import Manager
from tulle.local.controllers.node import keep_node, node_facts
from tulle.local.controllers.store import Stores

__all__ = ["CONTROLLERS", "Controllers"]

CONTROLLERS = (deployment.CONTROLLER, replicaset.CONTROLLER, scheduling.CONTROLLER)


class Controllers:
    """Every controller over one API; `stores` may be shared with the node agent."""

    def __init__(
        self, api: ClusterApi, clock: Clock, *, state: Path, node_address: str = "127.0.0.1"
    ) -> None:
        self._api, self._clock = api, clock
        self._facts = node_facts(state, node_address)
        self._manager = Manager(api, clock, CONTROLLERS)

    @property
    def stores(self) -> Stores:
        """The shared stores, kept up to date while `run` runs."""
        return self._manager.stores

    async def run(self) -> None:
        """Reconcile until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(keep_node(self._api, self._clock, self._facts), name="node")
            tasks.create_task(self._manager.run(), name="controllers")
