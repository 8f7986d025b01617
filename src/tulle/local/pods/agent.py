"""The node agent: a worker for every pod bound to this node, and the door to their logs and insides (NodePort)."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence

from tulle.local.api.errors import ApiError, bad_request, not_found
from tulle.local.api.nodeport import ExecSession
from tulle.local.api.objects import Obj
from tulle.local.controllers.cluster import CONFIG_MAPS, PODS, SECRETS, SERVICE_ACCOUNTS, SERVICES
from tulle.local.controllers.metadata import is_deleting, key_of, phase_of, uid_of
from tulle.local.controllers.store import follow
from tulle.local.pods.execution import start_exec
from tulle.local.pods.ports import Surroundings
from tulle.local.pods.spec import Role
from tulle.local.pods.worker import PodWorker

__all__ = ["ENDED_PODS", "NodeAgent"]

log = logging.getLogger(__name__)

ENDED_PODS = 200
"""Workers of pods that have ended and still exist are kept for their logs, at most so many."""


LAST_LINES = 5
LAST_LINES_BYTES = 4096
LAST_LINE_CHARACTERS = 300
"""How much of a log is shown to who waits for a container that keeps ending."""

START_AGAIN_FIRST_SECONDS = 1.0
START_AGAIN_MOST_SECONDS = 300.0
"""Pauses before a pod that the agent itself stumbled over begins its life again."""


class NodeAgent:
    """Runs the pods of one node. `run` does all; the rest is what the API asks."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._workers: dict[str, PodWorker] = {}
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self, *, follow_stores: bool = True) -> None:
        """Run pods until cancelled. With `follow_stores` false somebody else keeps the stores up to date.

        On cancellation the processes are left to the network's stop, which kills them all.
        """
        stores = self._around.stores
        kinds = (PODS, CONFIG_MAPS, SECRETS, SERVICES, SERVICE_ACCOUNTS)
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            for kind in kinds:
                if follow_stores:
                    tasks.create_task(
                        follow(self._around.api, stores[kind]), name=f"node watches {kind.plural}"
                    )
            for kind in kinds:
                await stores[kind].synced.wait()
            for kind in (CONFIG_MAPS, SECRETS):
                stores[kind].listen(self._data_changed)
            stores[PODS].listen(self._pod_changed)
            await asyncio.Event().wait()  # the group must stay open for pods that come later

    def worker(self, namespace: str, name: str) -> PodWorker | None:
        """Return the worker of the pod that has this name now."""
        pod = self._around.stores[PODS].get(namespace, name)
        return self._workers.get(uid_of(pod)) if pod is not None else None

    @property
    def running(self) -> int:
        """Return how many pods have processes or are about to."""
        return sum(not worker.ended for worker in self._workers.values())

    def _pod_changed(self, old: Obj | None, new: Obj | None) -> None:
        if old is not None and (new is None or uid_of(new) != uid_of(old)):
            worker = self._workers.get(uid_of(old))
            if worker is not None:
                worker.vanish()
                if worker.ended:
                    self._forget(uid_of(old))
        if new is None or new["spec"].get("nodeName") != self._around.machine.node_name:
            return
        worker = self._workers.get(uid_of(new))
        if worker is not None:
            worker.observe(new)
        elif phase_of(new) not in ("Succeeded", "Failed"):
            self._begin(new)

    def _begin(self, pod: Obj) -> None:
        assert self._tasks is not None
        try:
            worker = PodWorker(pod, self._around)
        except (KeyError, TypeError, ValueError) as error:
            # A spec that the API let through and nobody can read: it is named, and the others go on.
            log.exception("pod %s/%s cannot be read", *key_of(pod))
            message = f"the pod's spec cannot be read: {type(error).__name__}: {error}"
            told = self._around.recorder.record(PODS, pod, "Warning", "FailedSync", message)
            self._tasks.create_task(told)
            return
        self._workers[uid_of(pod)] = worker
        self._tasks.create_task(self._live(worker), name=f"pod {'/'.join(key_of(pod))}")
        if is_deleting(pod):
            worker.observe(pod)

    async def _live(self, worker: PodWorker) -> None:
        """Run a pod to its end; should the agent itself stumble over it, begin its life again after a pause."""
        uid, pause = worker.machine.spec.uid, START_AGAIN_FIRST_SECONDS
        while not await self._lived(worker):
            await asyncio.sleep(pause)
            pause = min(pause * 2, START_AGAIN_MOST_SECONDS)
            pod = self._around.stores[PODS].get(*key_of(worker.pod))
            if pod is None or uid_of(pod) != uid:
                self._forget(uid)
                break
            worker = self._workers[uid] = PodWorker(pod, self._around)
            if is_deleting(pod):
                worker.observe(pod)
        if worker.machine.deleted:
            self._forget(uid)
        ended = [u for u, w in self._workers.items() if w.ended]
        for other in ended[: max(len(ended) - ENDED_PODS, 0)]:
            self._forget(other)

    async def _lived(self, worker: PodWorker) -> bool:
        try:
            await worker.run()
        except Exception as error:
            # One pod must not take the others with it: it is named, and what runs of it goes.
            log.exception("%r: the node agent stumbled over this pod", worker)
            cause = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
            message = f"error syncing pod, it starts again: {type(cause).__name__}: {cause}"
            await self._around.recorder.record(PODS, worker.pod, "Warning", "FailedSync", message)
            await worker.abandon()
            return False
        return True

    def _forget(self, uid: str) -> None:
        worker = self._workers.pop(uid, None)
        if worker is not None:
            worker.remove_logs()

    def _data_changed(self, _old: Obj | None, new: Obj | None) -> None:
        if new is not None:
            for worker in self._workers.values():
                if worker.machine.spec.namespace == new["metadata"].get("namespace"):
                    worker.refresh()

    def last_lines(self, pod: Obj, container: str) -> list[str]:
        """Return what a container wrote last before it ended: a few lines, cut where they are long."""
        worker = self._workers.get(uid_of(pod))
        record = worker.log(container) if worker is not None else None
        if record is None:
            return []
        for file in (record.present, record.previous):
            if file is not None and (text := file.tail(LAST_LINES, LAST_LINES_BYTES).strip()):
                return [line[:LAST_LINE_CHARACTERS] for line in text.splitlines()]
        return []

    # What the API asks (NodePort).

    async def logs(
        self,
        namespace: str,
        pod: str,
        container: str,
        *,
        follow: bool,
        tail_lines: int | None,
        previous: bool,
        since_seconds: int | None,
        timestamps: bool,
    ) -> AsyncIterator[bytes]:
        """Yield a container's log, whole lines; with `follow` until the container ends."""
        worker = self._find(namespace, pod)
        name = self._container(worker, container)
        record = worker.log(name)
        assert record is not None
        file = record.previous if previous else record.present
        if file is None:
            if previous:
                raise bad_request(f'previous terminated container "{name}" in pod "{pod}" not found')
            status = worker.waiting(name)
            raise bad_request(f'container "{name}" in pod "{pod}" is waiting to start: {status}')
        since = record.since(since_seconds)
        async for line in file.lines(follow=follow, tail=tail_lines, since=since, timestamps=timestamps):
            yield line

    async def exec(
        self, namespace: str, pod: str, container: str, argv: Sequence[str], *, stdin: bool, tty: bool
    ) -> ExecSession:
        """Start a command inside a container."""
        worker = self._find(namespace, pod)
        name = self._container(worker, container)
        launch, network = worker.launch_of(name), worker.preparation.network
        if launch is None or network is None:
            raise ApiError(
                500, "InternalError", f'unable to upgrade connection: container not running ("{name}")'
            )
        return await start_exec(self._around.network, network, launch, argv, stdin=stdin, tty=tty)

    async def dial(self, address: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to a pod's address, whatever network it lives in."""
        return await self._around.network.dial(address, port)

    async def dial_inside(self, address: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to a port of the pod with this address as one of its processes does."""
        return await self._around.network.dial_inside(address, port)

    def _find(self, namespace: str, pod: str) -> PodWorker:
        worker = self.worker(namespace, pod)
        if worker is None:
            found = self._around.stores[PODS].get(namespace, pod)
            if found is None:
                raise not_found("pods", "", pod)
            raise bad_request(
                f'pod "{pod}" does not have a host assigned'
                if not found["spec"].get("nodeName")
                else f'pod "{pod}" has no log here any more'
            )
        return worker

    def _container(self, worker: PodWorker, wanted: str) -> str:
        spec = worker.machine.spec
        names = [c.name for c in spec.containers]
        if not wanted:
            mains = [c.name for c in spec.containers if c.role is Role.MAIN]
            if len(mains) == 1:
                return mains[0]
            raise bad_request(
                f"a container name must be specified for pod {spec.name}, choose one of: [{' '.join(names)}]"
            )
        if wanted not in names:
            raise bad_request(f"container {wanted} is not valid for pod {spec.name}")
        return wanted
