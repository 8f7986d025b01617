"""The shell around the reflectors: one task per kind that does what the state machine says and feeds the World.

`World.apply` is called with all changes of a page or an event at once, on the loop's thread.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Protocol

from tulle.clock import Clock
from tulle.kube.client import ApiError, Unreachable
from tulle.kube.kinds import Kind
from tulle.kube.reflector import (
    Absent,
    Change,
    Event,
    Expired,
    Failure,
    List,
    Page,
    Pause,
    Phase,
    Reflector,
    Throttled,
    Trouble,
    Watch,
)

__all__ = ["Source", "Watcher"]

log = logging.getLogger("tulle.kube")

# Longer than the server's own watch timeout: silence beyond it means that nobody is there.
SILENCE_MARGIN = 30.0


class Source(Protocol):
    """Where lists and watches come from: the API's client, or a script in a test."""

    async def list(self, kind: Kind, api_version: str, params: dict[str, str]) -> Page:
        """Fetch one page. Raises ApiError or Unreachable."""
        ...

    def watch(
        self, kind: Kind, api_version: str, params: dict[str, str], *, silence: float
    ) -> AsyncGenerator[Event, None]:
        """Stream events until the server ends it. Raises ApiError or Unreachable."""
        ...


class Watcher:
    """Keeps some kinds in step and hands every change to `apply`."""

    def __init__(
        self,
        source: Source,
        kinds: Sequence[Kind],
        apply: Callable[[Kind, Sequence[Change]], None],
        clock: Clock,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self.reflectors = {kind: Reflector(kind, rng) for kind in kinds}
        self._source, self._apply, self._clock = source, apply, clock
        self._synced = asyncio.Event()

    @property
    def synced(self) -> bool:
        """Whether every kind has been listed once (or is known to be absent)."""
        return all(reflector.synced for reflector in self.reflectors.values())

    def problems(self) -> list[str]:
        """Say for each kind that is not synced or in trouble what is wrong with it."""
        return [
            f"{reflector.kind}: {reflector.trouble or 'first list is under way'}"
            for reflector in self.reflectors.values()
            if reflector.trouble or not reflector.synced
        ]

    async def wait_synced(self) -> None:
        """Wait until every kind has been listed once."""
        if not self.synced:
            await self._synced.wait()

    async def run(self) -> None:
        """Keep all kinds in step until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for reflector in self.reflectors.values():
                tasks.create_task(self._keep(reflector), name=f"reflector {reflector.kind}")

    async def _keep(self, reflector: Reflector) -> None:
        while True:
            trouble = reflector.trouble
            try:
                match reflector.next_step():
                    case Pause(seconds):
                        await asyncio.sleep(seconds)
                    case List() as step:
                        await self._list(reflector, step)
                    case Watch() as step:
                        await self._watch(reflector, step)
            except (ApiError, Unreachable) as error:
                self._tell(reflector, reflector.failed(_failure(error)))
            if self.synced:
                self._synced.set()
            if reflector.trouble and reflector.trouble != trouble:
                log.warning("watch of %s: %s", reflector.kind, reflector.trouble)

    async def _list(self, reflector: Reflector, step: List) -> None:
        params = {"limit": str(step.limit)}
        if step.resource_version:
            params["resourceVersion"] = step.resource_version
        if step.continue_token:
            params["continue"] = step.continue_token
        page = await self._source.list(reflector.kind, step.api_version, params)
        self._tell(reflector, reflector.page(page))

    async def _watch(self, reflector: Reflector, step: Watch) -> None:
        params = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": step.resource_version,
            "timeoutSeconds": str(step.timeout_seconds),
        }
        started = self._clock.monotonic()
        silence = step.timeout_seconds + SILENCE_MARGIN
        events = self._source.watch(reflector.kind, step.api_version, params, silence=silence)
        async with contextlib.aclosing(events) as stream:
            async for event in stream:
                self._tell(reflector, reflector.event(event))
                if event.type == "ERROR":
                    return
        if reflector.phase is Phase.WATCHING:
            reflector.ended(self._clock.monotonic() - started)

    def _tell(self, reflector: Reflector, changes: Sequence[Change]) -> None:
        if changes:
            self._apply(reflector.kind, changes)


def _failure(error: ApiError | Unreachable) -> Failure:
    if isinstance(error, Unreachable):
        return Trouble(str(error))
    match error.status:
        case 410:
            return Expired()
        case 404:
            return Absent()
        case 429:
            return Throttled(error.retry_after)
        case _:
            return Trouble(f"the API answered {error}")
