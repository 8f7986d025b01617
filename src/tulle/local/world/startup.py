"""From an empty cluster to the user's workloads ready behind sidecars, in the order in which that must happen."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from tulle.inject.install import InstallValues, render
from tulle.local import channel
from tulle.local.world.applying import apply
from tulle.local.world.cluster import Cluster
from tulle.local.world.readiness import pods_ready, ports_to_hear, stands_alone, unready

__all__ = ["bring_up"]

log = logging.getLogger("tulle.world")

LOOK_EVERY = 0.05  # seconds
MOST_LINES = 24  # of what is waited for, said at once
LISTEN_WITHIN = 10.0
SAY_AFTER = 3.0  # seconds of waiting for the same things until they are named

_WORKLOADS = (("deployments", "apps"), ("statefulsets", "apps"), ("daemonsets", "apps"), ("jobs", "batch"))


async def bring_up(cluster: Cluster, start: channel.Start, say: Callable[[str], None]) -> None:
    """Apply the user's objects and return when all is ready.

    :raises TulleError: an object was refused.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()

    def done(what: str) -> None:
        log.info("%s after %.2f s", what, loop.time() - began)

    await cluster.serving.wait()
    done("the API serves")
    await apply(
        cluster.api, [channel.SourcedObject(obj, "") for obj in render(_values(cluster), cluster.clock.now())]
    )
    done("the control plane was applied")
    await _until_ready(cluster, say)
    done("the control plane is ready")
    await apply(cluster.api, start.objects)
    done("the manifests were applied")
    await _until_ready(cluster, say)
    while not await _until_listening(cluster, say):
        await _until_ready(cluster, say)
    done("all is ready")


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
        pods, waiting = await _look(cluster)
        if not waiting:
            return
        if loop.time() > look_again_at:
            events = (await cluster.api.list("events")).items
            waiting = unready(await _workloads(cluster)) + pods_ready(
                sorted(pods, key=stands_alone),
                events,
                cluster.agent.last_lines,
                share_ports=not cluster.network.transparent,
            )
            if waiting != said:
                shown = waiting[:MOST_LINES]
                if len(waiting) > MOST_LINES:
                    shown.append(f"and {len(waiting) - MOST_LINES} more")
                say("waiting for " + "\n            ".join(shown))
                said = waiting
            look_again_at = loop.time() + SAY_AFTER
        await asyncio.sleep(LOOK_EVERY)


async def _until_listening(cluster: Cluster, say: Callable[[str], None]) -> bool:
    """Return when the ports that pods declare are listened on; one that stays silent is named and left to its owner.

    False: something is not ready any more, such as a program that has ended because it could not listen.

    A pod without a readiness probe counts as ready when its process has been started. Who is told that all is ready
    wants an answer, though, and not the sidecar's 502 for an app that is still loading.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + LISTEN_WITHIN
    while True:
        pods, waiting = await _look(cluster)
        if waiting:
            return False
        silent = [
            (name, port) for name, ip, port in ports_to_hear(pods) if not cluster.network.listens(ip, port)
        ]
        if not silent or loop.time() > deadline:
            break
        await asyncio.sleep(LOOK_EVERY)
    for name, port in silent:
        say(f"pod/{name}: nothing listens on its port {port}")
    return True


async def _look(cluster: Cluster) -> tuple[list[dict[str, Any]], list[str]]:
    """Return all pods, and what is not ready of the workloads and of pods that stand alone."""
    pods = (await cluster.api.list("pods")).items
    return pods, unready(await _workloads(cluster)) + pods_ready(filter(stands_alone, pods))


async def _workloads(cluster: Cluster) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for plural, group in _WORKLOADS:
        found += (await cluster.api.list(plural, group=group)).items
    return found
