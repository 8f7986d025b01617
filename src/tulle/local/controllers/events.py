"""Writes Events, and folds repetitions into one with a count, as a cluster does."""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from tulle.clock import Clock
from tulle.local.controllers.cluster import EVENTS, ApiError, ClusterApi, Kind, Obj
from tulle.local.controllers.metadata import name_of, namespace_of, parse_time, render_time, uid_of

log = logging.getLogger(__name__)

__all__ = ["KEPT_EVENTS", "KEPT_SECONDS", "REMEMBERED_EVENTS", "Recorder", "stale_events", "sweep_events"]

REMEMBERED_EVENTS = 1024
"""How many recent Events are known by name, so that a repetition raises their count."""

MESSAGE_BYTES = 1024
"""Longest message of an Event; Kubernetes' own bound."""

KEPT_SECONDS = 3600.0
"""How long an Event is kept after it last happened; Kubernetes' default."""

KEPT_EVENTS = 2000
"""How many Events are kept at most; the oldest go first."""

SWEEP_SECONDS = 60.0

Repetition = tuple[str, str, str, str, str]


@dataclass(slots=True)
class Recorder:
    """Records Events of one component (`source`)."""

    api: ClusterApi
    clock: Clock
    source: str
    host: str = ""
    _recent: dict[Repetition, tuple[str, int]] = field(default_factory=dict)
    _count: int = 0

    async def record(
        self, kind: Kind, obj: Obj, type_: str, reason: str, message: str, *, field_path: str = ""
    ) -> None:
        """Record that something happened to `obj`. An Event that the API refuses is dropped: it must not stop work."""
        namespace, name = namespace_of(obj) or "default", name_of(obj)
        message = message[:MESSAGE_BYTES]
        repetition = (uid_of(obj) or name, type_, reason, message, field_path)
        now = render_time(self.clock.now())
        try:
            if repetition in self._recent:
                event_name, count = self._recent.pop(repetition)
                self._recent[repetition] = (event_name, count + 1)
                body = {"count": count + 1, "lastTimestamp": now}
                await self.api.patch(EVENTS.plural, event_name, body, namespace=namespace)
                return
            self._count += 1
            event_name = f"{name}.{int(self.clock.now().timestamp() * 1e6):x}{self._count:x}"
            self._recent[repetition] = (event_name, 1)
            while len(self._recent) > REMEMBERED_EVENTS:
                del self._recent[next(iter(self._recent))]
            regarding = {
                "apiVersion": kind.api_version,
                "kind": kind.name,
                "name": name,
                "namespace": namespace_of(obj),
                "uid": uid_of(obj),
                "resourceVersion": obj["metadata"].get("resourceVersion", ""),
            }
            if field_path:
                regarding["fieldPath"] = field_path
            event = {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": event_name, "namespace": namespace},
                "involvedObject": {k: v for k, v in regarding.items() if v},
                "type": type_,
                "reason": reason,
                "message": message,
                "source": {"component": self.source, **({"host": self.host} if self.host else {})},
                "reportingComponent": self.source,
                "reportingInstance": self.host,
                "firstTimestamp": now,
                "lastTimestamp": now,
                "count": 1,
            }
            await self.api.create(EVENTS.plural, event, namespace=namespace)
        except ApiError:
            # The namespace is going away, or the Event was swept; either way the fact is not worth a failure.
            self._recent.pop(repetition, None)


def stale_events(events: Iterable[Obj], now: datetime) -> list[Obj]:
    """Return the Events to delete: those too old, and the oldest of too many."""

    def last(event: Obj) -> datetime:
        text = (
            event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp")
        )
        return parse_time(text) or now

    newest_first = sorted(events, key=last, reverse=True)
    fresh = [
        event for event in newest_first[:KEPT_EVENTS] if (now - last(event)).total_seconds() < KEPT_SECONDS
    ]
    return newest_first[len(fresh) :]


async def sweep_events(api: ClusterApi, clock: Clock) -> None:
    """Delete stale Events now and then, until cancelled."""
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        for event in stale_events((await api.list(EVENTS.plural)).items, clock.now()):
            try:
                await api.delete(EVENTS.plural, name_of(event), namespace=namespace_of(event))
            except ApiError as error:
                if error.code != 404:  # a webhook refuses it: the next sweep tries again
                    log.warning("a stale Event stays: %s", error.message)
