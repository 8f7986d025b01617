"""The cluster inside the world: embedded API, controllers and node agent over one network."""

import asyncio
import os
import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tulle.clock import Clock, SystemClock
from tulle.local.api import Api, Obj
from tulle.local.api.http.server import ApiServer
from tulle.local.api.kubeconfig import admin_kubeconfig, write_kubeconfig
from tulle.local.controllers import Controllers
from tulle.local.controllers.events import Recorder
from tulle.local.controllers.node import node_facts
from tulle.local.controllers.running import kinds_of
from tulle.local.images import load_images
from tulle.local.net import Network
from tulle.local.pods import Machine, NodeAgent, Surroundings, Token
from tulle.local.world.bootstrap import create_dns_service

__all__ = ["Cluster"]


class Cluster:
    """Everything between the network and the manifests. `run` does all; `api` is how to speak to it.

    `listener` is the API's socket on the host's loopback, opened outside the world.
    """

    def __init__(
        self,
        name: str,
        network: Network,
        folder: Path,
        manifest_paths: Sequence[Path],
        listener: socket.socket,
    ) -> None:
        clock: Clock = SystemClock()
        self.name, self.network, self.clock = name, network, clock
        self._folder, self._listener = folder, listener
        self.api = Api(clock=clock)
        facts = node_facts(folder)
        self.controllers = Controllers(
            self.api,
            clock,
            facts=facts,
            kinds=kinds_of(self.api.registry),
            ca_pem=self.api.authority.bundle.decode(),
        )
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
                machine=Machine(env=dict(os.environ), allocatable=facts.capacity),
            )
        )
        self.api.node = self.agent
        self.serving = asyncio.Event()

    async def run(self) -> None:
        """Run until cancelled; `serving` is set as soon as manifests may be applied."""
        host, port = self._listener.getsockname()[:2]
        inside = self.network.api_address
        await self.api.seed(port=inside[1])
        async with ApiServer(self.api) as server, asyncio.TaskGroup() as group:
            await server.listen(self._listener)
            if self.network.transparent:
                await create_dns_service(self.api)
                await server.listen(socket.create_server(inside))
            await self.api.publish([inside[0]], inside[1])
            write_kubeconfig(
                self._folder / "kubeconfig",
                admin_kubeconfig(self.api.authority, f"https://{host}:{port}", name=self.name),
            )
            group.create_task(self.controllers.run(), name="controllers")
            group.create_task(self.agent.run(follow_stores=False), name="node agent")
            self.serving.set()

    async def _token(self, pod: Obj, *, audiences: Sequence[str], seconds: int) -> Token:
        metadata, spec = pod["metadata"], pod["spec"]
        account = await self.api.get(
            "serviceaccounts", spec.get("serviceAccountName") or "default", namespace=metadata["namespace"]
        )
        text, expires = self.api.tokens.issue(account, audiences, seconds, pod)
        return Token(text, datetime.fromtimestamp(expires, UTC))
