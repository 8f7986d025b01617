"""Publishes one pod's status when it differs from what was published last."""

from collections.abc import Callable
from datetime import datetime, timedelta

from tulle.local.api.objects import Obj
from tulle.local.controllers.cluster import PODS, ApiError
from tulle.local.controllers.metadata import key_of, uid_of
from tulle.local.pods.machine import PodMachine
from tulle.local.pods.ports import Surroundings
from tulle.local.pods.status import pod_status

__all__ = ["StatusPublisher", "foreign_conditions"]

REMEMBERED_MOMENTS = 64
"""Monotonic moments whose wall time is kept, so that a moment is always shown as the same time."""

OURS = ("PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready")
"""Conditions that the node agent writes; the others (readiness gates) belong to somebody else."""


class StatusPublisher:
    """Keeps a Pod object's status equal to its machine's state."""

    def __init__(self, pod: Obj, machine: PodMachine, around: Surroundings) -> None:
        self._pod, self._machine, self._around = pod, machine, around
        self._published: Obj = dict(pod.get("status") or {})
        self._walls: dict[float, datetime] = {}
        self.gone = False
        """The object is deleted or another one has its name: there is nobody to tell."""

    async def publish(self, images: Callable[[str], str]) -> None:
        """Write the status if it has changed.

        Raises ApiError when the API refuses it for another reason than that the object is gone.
        """
        if self.gone:
            return
        around, now = self._around, self._around.clock.monotonic()
        status = pod_status(
            self._machine,
            before=self._before(),
            host_ip=around.machine.address,
            images=images,
            wall=self._wall,
            now=now,
        )
        self._walls.pop(now, None)
        if status == self._published:
            return
        namespace, name = key_of(self._pod)
        body = {"metadata": {"uid": uid_of(self._pod)}, "status": status}
        try:
            patched = await around.api.patch(
                PODS.plural, name, body, namespace=namespace, subresource="status"
            )
        except ApiError as error:
            if error.code not in (404, 409):
                raise
            self.gone = True
            return
        self._published = status
        around.stores[PODS].observe(patched)

    def _before(self) -> Obj:
        # The store may know more than this worker: readiness gates are somebody else's to write.
        current = self._around.stores[PODS].get(*key_of(self._pod)) or self._pod
        ours = [c for c in self._published.get("conditions") or () if c["type"] in OURS]
        return {
            **(self._pod.get("status") or {}),
            **self._published,
            "conditions": [*foreign_conditions(current), *ours],
        }

    def _wall(self, moment: float) -> datetime:
        if moment not in self._walls:
            clock = self._around.clock
            self._walls[moment] = clock.now() - timedelta(seconds=clock.monotonic() - moment)
            while len(self._walls) > REMEMBERED_MOMENTS:
                del self._walls[next(iter(self._walls))]
        return self._walls[moment]


def foreign_conditions(pod: Obj) -> list[Obj]:
    """Return the conditions of a Pod object that the node agent does not write."""
    return [c for c in (pod.get("status") or {}).get("conditions") or () if c["type"] not in OURS]
