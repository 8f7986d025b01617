"""Kubernetes Events: what the control plane did or refused, told on the object that it is about.

Telling is best effort and bounded: events wait in a short queue, the newest are dropped when it is full (and counted).
"""

import asyncio
import hashlib
import logging
from dataclasses import dataclass, field
from typing import Any

from tulle.clock import Clock
from tulle.kube.client import ApiError, Client, Unreachable

__all__ = ["Event", "Events"]

log = logging.getLogger("tulle.control")

QUEUE = 256
COMPONENT = "tulle-controller"


@dataclass(frozen=True, slots=True)
class Event:
    """A statement about an object; `kind` is a core kind unless `api_version` says otherwise."""

    kind: str
    namespace: str
    name: str
    reason: str
    message: str
    warning: bool = False
    api_version: str = "v1"
    uid: str = ""
    # The same statement about the same object is one Event, however often the control plane starts.
    once: bool = False


@dataclass
class Events:
    """Posts events one after the other."""

    client: Client
    clock: Clock
    dropped: int = 0
    _queue: "asyncio.Queue[Event]" = field(default_factory=lambda: asyncio.Queue(QUEUE))
    _count: int = 0

    def tell(self, event: Event) -> None:
        """Queue an event; never waits."""
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self.dropped += 1

    async def run(self) -> None:
        """Post queued events until cancelled."""
        while True:
            event = await self._queue.get()
            try:
                await self.client.create(
                    f"/api/v1/namespaces/{event.namespace or 'default'}/events", self._body(event)
                )
            except (ApiError, Unreachable) as error:
                log.debug("event %s was not written: %s", event.reason, error)

    def _body(self, event: Event) -> dict[str, Any]:
        now = self.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        self._count += 1
        if event.once:
            said = "\0".join(
                (event.kind, event.namespace, event.name, event.uid, event.reason, event.message)
            )
            unique = hashlib.sha256(said.encode()).hexdigest()[:16]
        else:
            unique = f"{int(self.clock.now().timestamp() * 1000):x}{self._count:x}"
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{event.name[:200]}.{unique}", "namespace": event.namespace or "default"},
            "involvedObject": {
                "apiVersion": event.api_version,
                "kind": event.kind,
                "namespace": event.namespace,
                "name": event.name,
                "uid": event.uid,
            },
            "reason": event.reason,
            "message": event.message[:1024],
            "type": "Warning" if event.warning else "Normal",
            "source": {"component": COMPONENT},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
