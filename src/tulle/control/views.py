"""The World as the services see it: kept in step by the watcher, readable once every kind has been listed."""

import asyncio
import logging
from collections.abc import Callable, Sequence

import grpc

from tulle.clock import Clock
from tulle.control.hub import Hub
from tulle.control.rpc import Refusal
from tulle.kube import kinds
from tulle.kube.kinds import Kind
from tulle.kube.reflector import Change, unreadable_names
from tulle.kube.watching import Source, Watcher
from tulle.kube.world import Topics, World

__all__ = ["Views"]

log = logging.getLogger("tulle.control")

SYNC_SECONDS = 10.0


class Views:
    """Owns the World, the watcher that feeds it and the hub that is told of its changes."""

    def __init__(self, source: Source, clock: Clock, watched: Sequence[Kind] = kinds.CONTROLLER) -> None:
        self.world = World()
        self.hub = Hub(self.world)
        self.watcher = Watcher(source, watched, self._apply, clock)
        self._listeners: list[Callable[[Topics], None]] = [self.hub.touch]
        self._named: set[str] = set()

    def listen(self, listener: Callable[[Topics], None]) -> None:
        """Call `listener` with the topics of every batch of changes."""
        self._listeners.append(listener)

    async def run(self) -> None:
        """Keep the World in step and the groups computed, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.watcher.run(), name="watcher")
            tasks.create_task(self.hub.run(), name="hub")

    async def wait_synced(self) -> None:
        """Wait for the first complete World: an answer from half of one would be wrong. Raises Refusal (UNAVAILABLE)."""
        if self.watcher.synced:
            return
        try:
            async with asyncio.timeout(SYNC_SECONDS):
                await self.watcher.wait_synced()
        except TimeoutError as error:
            raise Refusal(
                grpc.StatusCode.UNAVAILABLE,
                "the control plane has not read the cluster yet: " + "; ".join(self.problems()),
            ) from error

    def problems(self) -> list[str]:
        """Say what is not in step, and which objects cannot be read."""
        return self.watcher.problems()

    def _apply(self, kind: Kind, changes: Sequence[Change]) -> None:
        topics = self.world.apply(kind, changes)
        for listener in self._listeners:
            listener(topics)
        self._name_unreadable()

    def _name_unreadable(self) -> None:
        now = set(unreadable_names(self.watcher.reflectors.values()))
        for text in sorted(now - self._named):
            log.warning("cannot read %s; the last readable state stays in force", text)
        self._named = now
