"""What the mesh says back: statuses of HTTPRoutes, and Events on objects that are not carried out as written.

Runs in one replica at a time (under a Lease). Reads are from the World; writes are merge patches, one after the other,
and only where something is to be said that is not said yet.
"""

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Any

from tulle.clock import Clock
from tulle.compile.mesh import Mesh
from tulle.compile.status import merged_status, route_status
from tulle.compile.validate import world_problems
from tulle.control.events import Event, Events
from tulle.kube import kinds
from tulle.kube.client import ApiError, Client, Unreachable
from tulle.kube.kinds import Kind
from tulle.kube.objects import View
from tulle.kube.policy_objects import HTTPRoute
from tulle.kube.world import Topics, World

__all__ = ["Reporter"]

log = logging.getLogger("tulle.control")

COALESCE = 0.2
RESYNC_SECONDS = 60.0
PATCH_SECONDS = 5.0

ROUTES = (kinds.GATEWAY_HTTP_ROUTE, kinds.POLICY_HTTP_ROUTE)
# Kinds whose problems have no status to stand in.
EVENTS = (
    kinds.SERVICE,
    kinds.NAMESPACE,
    kinds.SERVER,
    kinds.AUTHORIZATION_POLICY,
    kinds.MESH_TLS_AUTHENTICATION,
    kinds.NETWORK_AUTHENTICATION,
)
CONCERNS = {(kind,) for kind in (*ROUTES, *EVENTS)}


@dataclass
class Reporter:
    """Writes statuses and tells problems."""

    world: World
    mesh: Mesh
    client: Client
    events: Events
    clock: Clock
    patched: int = 0
    failed: int = 0
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _told: dict[tuple[Kind, str, str, str], tuple[str, ...]] = field(default_factory=dict)

    def touch(self, topics: Topics) -> None:
        """Note a change; anything that may alter a status wakes the writer."""
        if topics & CONCERNS:
            self._wake.set()

    async def run(self) -> None:
        """Report until cancelled; begins with everything."""
        while True:
            self._wake.clear()
            self._tell_problems()
            for kind in ROUTES:
                for route in self.world.all(kind):
                    await self._write(kind, route)
            try:
                async with asyncio.timeout(RESYNC_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(COALESCE)

    async def _write(self, kind: Kind, route: HTTPRoute) -> None:
        now = self.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        status = merged_status(route, route_status(self.world, self.mesh, route), now)
        if status is None:
            return
        version = route.api_version.rpartition("/")[2] or kind.versions[0]
        path = f"{kind.path(version, route.namespace)}/{route.name}/status"
        # The version makes a patch fail that was computed from an old object; the change that is on its way wakes us.
        body: dict[str, Any] = {
            "metadata": {"resourceVersion": route.metadata.resource_version},
            "status": status,
        }
        try:
            async with asyncio.timeout(PATCH_SECONDS):
                await self.client.merge(path, body)
            self.patched += 1
        except (ApiError, Unreachable, TimeoutError) as error:
            self.failed += 1
            conflict = isinstance(error, ApiError) and error.status in (404, 409)
            log.log(logging.DEBUG if conflict else logging.WARNING, "status of %s: %s", route.name, error)

    def _tell_problems(self) -> None:
        told = {}
        for kind in EVENTS:
            for view in self.world.all(kind):
                problems = tuple(str(problem) for problem in world_problems(self.world, self.mesh, view))
                if not problems:
                    continue
                # An object that was deleted and made again is another one.
                key = (kind, view.namespace, view.name, view.metadata.uid)
                if self._told.get(key) != problems:
                    self._tell(kind, view, problems)
                told[key] = problems
        self._told = told

    def _tell(self, kind: Kind, view: View, problems: tuple[str, ...]) -> None:
        api_version = f"{kind.group}/{kind.versions[0]}" if kind.group else kind.versions[0]
        message = "not carried out as written: " + "; ".join(problems)
        self.events.tell(
            Event(
                kind.name,
                view.namespace,
                view.name,
                "NotCarriedOut",
                message,
                warning=True,
                api_version=api_version,
                uid=view.metadata.uid,
                once=True,
            )
        )
