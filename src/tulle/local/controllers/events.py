"""Writes Events, and folds repetitions into one with a count, as a cluster does."""

from dataclasses import dataclass, field

from tulle.clock import Clock
from tulle.local.controllers.cluster import EVENTS, ApiError, ClusterApi, Kind, Obj
from tulle.local.controllers.metadata import name_of, namespace_of, render_time, uid_of

__all__ = ["REMEMBERED_EVENTS", "Recorder"]

REMEMBERED_EVENTS = 1024
"""How many recent Events are known by name, so that a repetition raises their count."""

MESSAGE_BYTES = 1024
"""Longest message of an Event; Kubernetes' own bound."""

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
