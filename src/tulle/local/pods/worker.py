"""Lives one pod's life: carries out what the pod machine commands, and tells it what happened.

One task per pod and one per process, probe and hook under way; no threads. Whatever can go wrong outside is translated
here into a fact for the machine.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from tulle.errors import TulleError
from tulle.local.api.objects import Obj
from tulle.local.controllers.cluster import PODS, ApiError
from tulle.local.controllers.metadata import key_of, uid_of
from tulle.local.images import NoProgram
from tulle.local.net.model import NetworkError, Process, SpawnError
from tulle.local.pods import machine as m
from tulle.local.pods.environment import ConfigError
from tulle.local.pods.inside import Outcome, process_spec, run_inside
from tulle.local.pods.launch import Launch, skips
from tulle.local.pods.logs import ContainerLog, LogFile, pump
from tulle.local.pods.notices import not_carried_out
from tulle.local.pods.ports import Surroundings
from tulle.local.pods.preparation import Preparation
from tulle.local.pods.probing import ActionFailed, Actions, probe_forever
from tulle.local.pods.publishing import StatusPublisher, foreign_conditions
from tulle.local.pods.spec import ProbeKind, parse_pod
from tulle.local.pods.status import phase
from tulle.local.pods.termination import termination_message
from tulle.local.pods.volumes import VolumeError

__all__ = ["PodWorker"]

logger = logging.getLogger(__name__)


class PodWorker:
    """One pod on this node."""

    def __init__(self, pod: Obj, around: Surroundings) -> None:
        self.pod = pod
        self.machine = m.PodMachine(parse_pod(pod))
        self.preparation = Preparation(self.machine.spec, around)
        self._around = around
        self._facts: asyncio.Queue[m.Event] = asyncio.Queue()  # bounded by the pod's containers and probes
        self._processes: dict[str, Process] = {}
        self._launches: dict[str, Launch] = {}
        self._probes: dict[str, list[asyncio.Task[None]]] = {}  # and hooks under way
        self._logs = {
            c.name: ContainerLog(self._log_directory / c.name, around.clock.now)
            for c in self.machine.spec.containers
        }
        self._status = StatusPublisher(pod, self.machine, around)
        self._tasks: asyncio.TaskGroup | None = None
        self._stale = asyncio.Event()
        self._released = False

    def __repr__(self) -> str:
        return repr(self.machine)

    @property
    def _log_directory(self) -> Path:
        spec = self.machine.spec
        return self._around.state / "logs" / f"{spec.namespace}_{spec.name}_{spec.uid}"

    def log(self, container: str) -> ContainerLog | None:
        """Return a container's log."""
        return self._logs.get(container)

    def launch_of(self, container: str) -> Launch | None:
        """Return the surroundings of a container's present process, None when it does not run."""
        return self._launches.get(container) if container in self._processes else None

    @property
    def ended(self) -> bool:
        """Tell whether nothing of the pod runs any more."""
        return self._released

    def waiting(self, container: str) -> str:
        """Return why a container has not started yet, in one word."""
        return self.machine.containers[container].waiting_reason or "PodInitializing"

    def remove_logs(self) -> None:
        """Delete the pod's log files."""
        shutil.rmtree(self._log_directory, ignore_errors=True)

    def observe(self, pod: Obj) -> None:
        """Take in a new state of the Pod object: its deletion, and new values for files that show its labels."""
        before, self.pod = self.pod, pod
        if pod["metadata"].get("deletionTimestamp"):
            seconds = pod["metadata"].get("deletionGracePeriodSeconds")
            self._facts.put_nowait(m.Delete(30.0 if seconds is None else float(seconds)))
            return
        if any(before["metadata"].get(f) != pod["metadata"].get(f) for f in ("labels", "annotations")):
            self.refresh()
        if foreign_conditions(before) != foreign_conditions(pod):
            self._facts.put_nowait(m.Tick())  # a readiness gate may have opened

    def vanish(self) -> None:
        """The Pod object is gone (deleted without grace): end at once, there is nothing to report to."""
        self._status.gone = True
        self._facts.put_nowait(m.Delete(0.0))

    def refresh(self) -> None:
        """A ConfigMap, Secret or label that the pod's files may show has changed."""
        self._stale.set()

    async def run(self) -> None:
        """Live until every process has ended and the Pod object knows."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            keeper = tasks.create_task(self._keep_files_fresh())
            await self._name_what_is_missing()
            await self._carry_out(self.machine.begin(self._now()))
            told: object = None
            behind = True
            while not self._released:
                if told != (told := self._what_others_wait_for()):
                    await self._status.publish(self._image_id)
                    behind = False
                fact = await self._next_fact(QUIET_SECONDS if behind else None)
                if fact is None:
                    await self._status.publish(self._image_id)
                    behind = False
                    continue
                behind = True
                await self._carry_out(self.machine.tell(fact, self._now()))
                while not self._facts.empty():
                    await self._carry_out(self.machine.tell(self._facts.get_nowait(), self._now()))
            keeper.cancel()
            await self._status.publish(self._image_id)
            if self.machine.deleted:
                await self._remove_object()
        self._tasks = None

    async def abandon(self) -> None:
        """Give back what the pod holds after `run` failed."""
        for log in self._logs.values():
            log.close()
        try:
            await self.preparation.release()
        except (NetworkError, OSError) as error:
            # The network goes down, and everything with it; or something stays behind until it does.
            logger.warning("%r: not everything was given back: %s", self, error)

    async def _name_what_is_missing(self) -> None:
        missing = list(not_carried_out(self.pod, self._around.network.mode))
        if missing:
            message = "not carried out on this machine: " + "; ".join(missing)
            await self._around.recorder.record(PODS, self.pod, "Normal", "NotCarriedOut", message)

    def _now(self) -> float:
        return self._around.clock.monotonic()

    def _what_others_wait_for(self) -> object:
        """Return the part of the state that is published at once: endpoints and rollouts hang on it."""
        ready = tuple(c.ready for c in self.machine.containers.values())
        return phase(self.machine), ready, self.machine.stage in (m.Stage.STOPPING, m.Stage.ENDED)

    async def _next_fact(self, quiet: float | None) -> m.Event | None:
        """Wait for a fact, which may be that time has passed; None after `quiet` seconds without one."""
        due = self.machine.wake_at()
        left = None if due is None else max(due - self._now(), 0.0)
        waits = [seconds for seconds in (left, quiet) if seconds is not None]
        try:
            return await asyncio.wait_for(self._facts.get(), min(waits, default=None))
        except TimeoutError:
            return None if quiet is not None and (left is None or quiet < left) else m.Tick()

    async def _carry_out(self, commands: list[m.Command]) -> None:
        assert self._tasks is not None
        for command in commands:
            match command:
                case m.Prepare():
                    self._tasks.create_task(self._prepare())
                case m.Start(container, attempt):
                    self._tasks.create_task(self._start(container, attempt))
                case m.Kill(container, hard):
                    process = self._processes.get(container)
                    if process is not None:
                        await process.signal(signal.SIGKILL if hard else signal.SIGTERM, session=hard)
                case m.RunHook(container, attempt, name, hook):
                    # It ends with the container at the latest, as its probes do.
                    task = self._tasks.create_task(self._hook(container, attempt, name, hook.action))
                    self._probes.setdefault(container, []).append(task)
                case m.StartProbe(container, attempt, probe):
                    tell = self._teller(container, attempt, probe.kind)
                    task = self._tasks.create_task(probe_forever(self._actions(container), probe, tell))
                    self._probes.setdefault(container, []).append(task)
                case m.StopProbes(container):
                    for task in self._probes.pop(container, ()):
                        task.cancel()
                case m.Emit(type_, reason, message, container):
                    path = self._field_path(container)
                    await self._around.recorder.record(
                        PODS, self.pod, type_, reason, message, field_path=path
                    )
                case m.Release():
                    await self._release()

    def _field_path(self, container: str) -> str:
        if not container:
            return ""
        is_init = any(c.name == container for c in self.machine.spec.init)
        return f"spec.{'initContainers' if is_init else 'containers'}{{{container}}}"

    async def _prepare(self) -> None:
        try:
            ip = await self.preparation.prepare()
        except (VolumeError, ApiError, OSError) as error:
            self._facts.put_nowait(m.PrepareFailed("FailedMount", str(error)))
        except NetworkError as error:
            self._facts.put_nowait(m.PrepareFailed("FailedCreatePodSandBox", str(error)))
        else:
            self._facts.put_nowait(m.Prepared(ip))

    async def _start(self, name: str, attempt: int) -> None:
        container = self.machine.containers[name].spec
        network = self.preparation.network
        assert network is not None
        if skips(container, self._around.network):
            log = self._logs[name].begin(attempt)
            log.feed("stdout", b"loopback network: there is nothing to capture\n")
            log.close()
            self._facts.put_nowait(m.Started(name, attempt))
            self._facts.put_nowait(m.Exited(name, attempt, 0))
            return
        try:
            launch = self.preparation.launch(container, self.pod)
        except NoProgram as error:
            self._facts.put_nowait(m.StartFailed(name, attempt, "ImagePullBackOff", _one_line(error)))
            return
        except (ConfigError, VolumeError, ValueError) as error:
            self._facts.put_nowait(m.StartFailed(name, attempt, "CreateContainerConfigError", str(error)))
            return
        except (TulleError, OSError) as error:
            text = _one_line(error) if isinstance(error, TulleError) else str(error)
            self._facts.put_nowait(m.StartFailed(name, attempt, "CreateContainerError", text))
            return
        if attempt == 1:
            await self._emit(
                "Pulled", f'Container image "{container.image}" stands for {launch.because}', name
            )
        await self._emit("Created", f"Created container {name}: {' '.join(launch.argv)}", name)
        log = self._logs[name].begin(attempt)
        outputs = [os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)]
        drains = [
            pump(read, _feeder(log, stream))
            for (read, _), stream in zip(outputs, ("stdout", "stderr"), strict=True)
        ]
        try:
            try:
                spec = process_spec(launch, launch.argv, outputs[0][1], outputs[1][1])
                process = await self._around.network.spawn(network, spec)
            finally:
                for _, write in outputs:
                    os.close(write)
        except BaseException as error:
            _end_log(drains, log)
            if not isinstance(error, SpawnError):
                raise
            self._facts.put_nowait(m.StartFailed(name, attempt, "StartError", _one_line(error), fatal=True))
            return
        self._processes[name], self._launches[name] = process, launch
        self._facts.put_nowait(m.Started(name, attempt))
        try:
            code = await process.wait()
        finally:
            _end_log(drains, log)
            del self._processes[name]
        await self._reap_session(process)
        number = -code if code < 0 else 0
        message = termination_message(container, launch, log, failed=code != 0)
        self._facts.put_nowait(m.Exited(name, attempt, 128 + number if number else code, number, message))

    async def _reap_session(self, process: Process) -> None:
        """End what the container's first process left behind: in a cluster its PID namespace goes with it."""
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return

    def _actions(self, name: str) -> Actions:
        async def inside(argv: list[str], timeout: float) -> Outcome:
            launch, network = self._launches[name], self.preparation.network
            assert network is not None
            return await run_inside(self._around.network, network, launch, argv, timeout)

        return Actions(self._around.network, self.machine.ip, self.machine.containers[name].spec.raw, inside)

    async def _hook(self, name: str, attempt: int, hook: str, action: object) -> None:
        assert isinstance(action, dict)
        error = ""
        try:
            await self._actions(name).perform(action, HOOK_SECONDS)
        except ActionFailed as failure:
            error = str(failure)
        self._facts.put_nowait(m.HookDone(name, attempt, hook, error))

    def _teller(self, name: str, attempt: int, kind: ProbeKind) -> Callable[[bool, str, bool], None]:
        def tell(ok: bool, message: str, counts: bool) -> None:
            self._facts.put_nowait(m.ProbeResult(name, attempt, kind, ok, message, counts))

        return tell

    async def _emit(self, reason: str, message: str, container: str) -> None:
        path = self._field_path(container)
        await self._around.recorder.record(PODS, self.pod, "Normal", reason, message, field_path=path)

    async def _refresh_once(self) -> None:
        try:
            await self.preparation.refresh(self.pod)
        except (VolumeError, ApiError, OSError) as error:
            await self._around.recorder.record(PODS, self.pod, "Warning", "FailedMount", str(error))

    async def _keep_files_fresh(self) -> None:
        """Bring files up to date when what they show has changed, and before a token grows old."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.preparation.seconds_to_refresh() or TOKEN_CHECK_SECONDS):
                    await self._stale.wait()
            changed = self._stale.is_set()
            self._stale.clear()
            if self.machine.ip and (changed or self.preparation.seconds_to_refresh() is not None):
                await self._refresh_once()

    async def _release(self) -> None:
        for log in self._logs.values():
            log.close()
        await self.preparation.release()
        self._released = True

    def _image_id(self, name: str) -> str:
        launch = self._launches.get(name)
        return f"process://{launch.argv[0]}" if launch is not None else ""

    async def _remove_object(self) -> None:
        if self._status.gone:
            return
        namespace, name = key_of(self.pod)
        try:
            current = await self._around.api.get(PODS.plural, name, namespace=namespace)
            if uid_of(current) == uid_of(self.pod):
                await self._around.api.delete(PODS.plural, name, namespace=namespace, grace_period=0)
        except ApiError as error:
            if error.code != 404:
                raise


QUIET_SECONDS = 0.02
"""A change of status that nobody waits for is published when nothing has happened for so long: a pod starts with a burst
of facts, and each publication costs every watcher.
"""

HOOK_SECONDS = 600.0
"""Longest time a hook may run; a preStop hook ends with the grace period anyway, because its container does."""

TOKEN_CHECK_SECONDS = 5.0


def _feeder(log: LogFile, stream: str) -> Callable[[bytes], None]:
    return lambda data: log.feed(stream, data)


def _end_log(drains: list[Callable[[], None]], log: LogFile) -> None:
    for drain in drains:
        drain()
    log.close()


def _one_line(error: TulleError) -> str:
    return ". ".join(" ".join(part.split()) for part in (error.what, error.why, error.next_step) if part)
