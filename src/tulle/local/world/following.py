"""Services and endpoints as they change: read from the API, handed to the network and the published ports."""

import asyncio
from collections.abc import Mapping
from typing import Any

from tulle.local.api import Api
from tulle.local.net import Network
from tulle.local.world.publishing import Publisher
from tulle.local.world.services import meshed, routes

__all__ = ["follow_services"]

_TOGETHER = 0.02  # seconds: changes that come in one breath (a rollout, an apply) become one


async def follow_services(api: Api, network: Network, publisher: Publisher) -> None:
    """Keep Service addresses, names and published ports as the API says, until cancelled."""
    services: dict[tuple[str, str], Mapping[str, Any]] = {}
    pods: dict[tuple[str, str], Mapping[str, Any]] = {}
    slices: dict[tuple[str, str], Mapping[str, Any]] = {}
    changed = asyncio.Event()

    async def watch(plural: str, group: str, known: dict[tuple[str, str], Mapping[str, Any]]) -> None:
        async for event in api.watch(plural, group=group):
            if event.type == "BOOKMARK":
                continue
            metadata = event.object["metadata"]
            key = (metadata.get("namespace", ""), metadata["name"])
            if event.type == "DELETED":
                known.pop(key, None)
            else:
                known[key] = event.object
            changed.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(watch("services", "", services))
        group.create_task(watch("endpointslices", "discovery.k8s.io", slices))
        if not network.transparent:
            group.create_task(watch("pods", "", pods))
        while True:
            await changed.wait()
            await asyncio.sleep(_TOGETHER)
            changed.clear()
            now = routes(services.values(), slices.values())
            await network.set_services(now)
            await publisher.follow(now, meshed(pods.values()), group)
