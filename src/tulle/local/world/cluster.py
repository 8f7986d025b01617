"""The cluster inside the world: embedded API, controllers and node agent over one network."""

import asyncio
import os
import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tulle.clock import Clock, SystemClock
from tulle.local.api import Api
from tulle.local.api.objects import Obj
from tulle.local.controllers import Controllers
from tulle.local.controllers.events import Recorder
from tulle.local.images import load_images
from tulle.local.net import Network
from tulle.local.pods import Machine, NodeAgent, Surroundings, Token

__all__ = ["Cluster"]


class Cluster:
    """Everything between the network and the manifests. `run` does all; `api` is how to speak to it."""

    def __init__(
        self, network: Network, folder: Path, manifest_paths: Sequence[Path], listener: socket.socket
    ) -> None:
        clock: Clock = SystemClock()
        self.network, self._folder, self._listener = network, folder, listener
        self.api = Api(clock=clock)
        self.controllers = Controllers(self.api, clock, state=folder)
        self.agent = NodeAgent(
            Surroundings(
                api=self.api,
                stores=self.controllers.stores,
                network=network,
                images=load_images(manifest_paths),
                tokens=self._token,
                recorder=Recorder(self.api, clock, "node-agent", "tulle"),
                clock=clock,
                state=folder,
                machine=Machine(env=dict(os.environ)),
            )
        )
        self.api.node = self.agent

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.controllers.run(), name="controllers")
            group.create_task(self.agent.run(), name="node agent")

    async def _token(self, pod: Obj, *, audiences: Sequence[str], seconds: int) -> Token:
        return Token("none", datetime.now(UTC))
