"""A small real cluster for tests: the embedded API, the controllers and the node agent over a network of one's choice."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from tulle.clock import SystemClock
from tulle.local.api import Api, ApiError, WatchEvent
from tulle.local.controllers import Controllers
from tulle.local.controllers.events import Recorder
from tulle.local.controllers.node import node_facts
from tulle.local.controllers.running import kinds_of
from tulle.local.images import load_images
from tulle.local.net.model import Network
from tulle.local.pods import Machine, NodeAgent, Surroundings, TokenSource
from tulle.local.pods.tokens import tokens_from

Obj = dict[str, Any]


@dataclass
class Cluster:
    """What a test asks of the cluster."""

    api: Api
    agent: NodeAgent
    network: Network
    state: Path

    async def apply(self, text: str) -> None:
        for obj in yaml.safe_load_all(text):
            group = obj["apiVersion"].rpartition("/")[0]
            kind = next(r for r in self.api.registry if r.kind == obj["kind"] and r.group == group)
            namespace = obj["metadata"].get("namespace", "default") if kind.namespaced else None
            await self.api.create(kind.plural, obj, group=group, namespace=namespace)

    async def get(self, plural: str, name: str, group: str = "", namespace: str | None = "default") -> Obj:
        return await self.api.get(plural, name, group=group, namespace=namespace)

    async def find(
        self, plural: str, name: str, group: str = "", namespace: str | None = "default"
    ) -> Obj | None:
        try:
            return await self.get(plural, name, group, namespace)
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    async def until(
        self, plural: str, name: str, holds: Callable[[Obj], Any], group: str = "", namespace: str = "default"
    ) -> Obj:
        """Wait for the state of an object that `holds` accepts."""
        seen: Obj = {}
        try:
            async with (
                asyncio.timeout(30),
                contextlib.aclosing(
                    cast("AsyncGenerator[WatchEvent, None]", self.api.watch(plural, group=group))
                ) as events,
            ):
                async for event in events:
                    if event.type == "BOOKMARK" or event.object["metadata"]["name"] != name:
                        continue
                    if event.object["metadata"].get("namespace", namespace) != namespace:
                        continue
                    seen = event.object
                    if event.type != "DELETED" and holds(seen):
                        return seen
        except TimeoutError:
            raise AssertionError(
                f"{plural}/{name} never got there; last seen:\n{yaml.safe_dump(seen)}"
            ) from None
        raise AssertionError("the watch ended")

    async def until_gone(
        self, plural: str, name: str, group: str = "", namespace: str | None = "default"
    ) -> None:
        async with asyncio.timeout(30):
            while await self.find(plural, name, group, namespace) is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def until_true(self, holds: Callable[[], Awaitable[Any]]) -> None:
        """Wait for something that has no watch (a log, a file)."""
        async with asyncio.timeout(30):
            while not await holds():  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def until_logged(self, pod: str, text: str, container: str = "") -> str:
        async def logged() -> bool:
            return text in await self.log(pod, container)

        await self.until_true(logged)
        return await self.log(pod, container)

    async def pods(self, **labels: str) -> list[Obj]:
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        return (await self.api.list("pods", label_selector=selector)).items

    async def log(self, pod: str, container: str = "", *, previous: bool = False) -> str:
        chunks = [
            chunk
            async for chunk in self.agent.logs(
                "default", pod, container,
                follow=False, tail_lines=None, previous=previous, since_seconds=None, timestamps=False,
            )
        ]  # fmt: skip
        return b"".join(chunks).decode()

    async def events(self, name: str) -> list[tuple[str, str]]:
        found = (await self.api.list("events")).items
        return [(e["reason"], e["message"]) for e in found if e["involvedObject"]["name"] == name]


@contextlib.asynccontextmanager
async def running(network: Network, state: Path, tokens: TokenSource | None = None) -> AsyncIterator[Cluster]:
    """Run a cluster whose pods live in `network`; `tokens` takes the place of the API's TokenRequest."""
    clock, api = SystemClock(), Api()
    controllers = Controllers(
        api,
        clock,
        facts=node_facts(state),
        kinds=kinds_of(api.registry),
        ca_pem=api.authority.bundle.decode(),
    )
    around = Surroundings(
        api=api,
        stores=controllers.stores,
        network=network,
        images=load_images([]),
        tokens=tokens or tokens_from(api),
        recorder=Recorder(api, clock, "kubelet", "tulle"),
        clock=clock,
        state=state,
        machine=Machine(allocatable=node_facts(state).capacity),
    )
    agent = NodeAgent(around)
    await network.start()
    try:
        await api.seed()
        async with asyncio.TaskGroup() as tasks:
            parts = [
                tasks.create_task(controllers.run()),
                tasks.create_task(agent.run(follow_stores=False)),
            ]
            yield Cluster(api, agent, network, state)
            for task in parts:
                task.cancel()
    finally:
        await network.stop()
