"""From an empty cluster to the user's workloads ready behind sidecars, in the order in which that must happen."""

import asyncio
from collections.abc import Callable
from typing import Any

from tulle.inject.install import InstallValues, render
from tulle.local import channel
from tulle.local.world.applying import apply
from tulle.local.world.cluster import Cluster
from tulle.local.world.readiness import pods_ready, unready

__all__ = ["bring_up"]

LOOK_EVERY = 0.05  # seconds
SAY_AFTER = 3.0  # seconds of waiting for the same things until they are named

_WORKLOADS = (("deployments", "apps"), ("statefulsets", "apps"), ("daemonsets", "apps"), ("jobs", "batch"))


async def bring_up(cluster: Cluster, start: channel.Start, say: Callable[[str], None]) -> None:
    """Apply the user's objects and return when all is ready.

    :raises TulleError: an object was refused.
    """
    await cluster.serving.wait()
    await apply(
        cluster.api, [channel.SourcedObject(obj, "") for obj in render(_values(cluster), cluster.clock.now())]
    )
    await _until_ready(cluster, say)
    await apply(cluster.api, start.objects)
    await _until_ready(cluster, say)


def _values(cluster: Cluster) -> InstallValues:
    """Return the choices of the installation: every pod gets a sidecar, captured as this network can."""
    return InstallValues(
        inject_by_default=True,
        capture="init" if cluster.network.transparent else "explicit",
        proxy_mark=cluster.network.sidecar_env.get("TULLE_PROXY_MARK", ""),
    )


async def _until_ready(cluster: Cluster, say: Callable[[str], None]) -> None:
    """Return when every workload has its pods; name what is waited for when it takes long."""
    loop = asyncio.get_running_loop()
    said: list[str] = []
    look_again_at = loop.time() + SAY_AFTER
    while True:
        waiting = unready(await _workloads(cluster))
        if not waiting:
            return
        if loop.time() > look_again_at:
            events = (await cluster.api.list("events")).items
            waiting += pods_ready((await cluster.api.list("pods")).items, events)
            if waiting != said:
                say("waiting for " + "\n            ".join(waiting))
                said = waiting
            look_again_at = loop.time() + SAY_AFTER
        await asyncio.sleep(LOOK_EVERY)


async def _workloads(cluster: Cluster) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for plural, group in _WORKLOADS:
        found += (await cluster.api.list(plural, group=group)).items
    return found
