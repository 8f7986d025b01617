"""The world's side of the launcher: ask it for pods and processes, hear of their ends.

`fork_launcher` is called first thing in the world, while it is small; `Launcher` speaks over what it returns.
"""

import array
import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import Sequence
from typing import Any

from tulle.local.net import kernel
from tulle.local.net.model import NetworkError, PodNetwork, ProcessSpec, SpawnError

__all__ = ["END_GRACE", "Launcher", "fork_launcher"]

END_GRACE = 3.0  # seconds that processes have to end by themselves when the whole network stops
_DATAGRAM = 65536
_ANSWER_WITHIN = 20.0  # seconds; a launcher that is silent for so long is broken


def fork_launcher() -> socket.socket:
    """Start the launcher as a child of this (still single-threaded) process; it dies with its parent."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent = os.getpid()
    if os.fork() == 0:
        from tulle.local.net import launcher

        ours.close()
        kernel.die_with_parent(signal.SIGKILL, parent)
        launcher.serve(theirs)
    theirs.close()
    return ours


class _Started:
    """A process that the launcher started."""

    def __init__(self, launcher: "Launcher", pid: int, pod: str) -> None:
        self._launcher, self.pid, self.pod = launcher, pid, pod
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @property
    def returncode(self) -> int | None:
        return self._ended.result() if self._ended.done() else None

    async def wait(self) -> int:
        return await asyncio.shield(self._ended)

    async def signal(self, number: signal.Signals, *, session: bool = False) -> None:
        if not self._ended.done():
            await self._launcher.ask(
                {"ask": "signal", "pid": self.pid, "number": int(number), "session": session}
            )

    def end(self, status: int) -> None:
        if not self._ended.done():
            self._ended.set_result(status)

    def __repr__(self) -> str:
        return f"<process {self.pid} {'running' if self.returncode is None else f'ended {self.returncode}'}>"


class Launcher:
    """Asks one request at a time of the launcher process; each answer comes within a few milliseconds.

    `lost` is set when the launcher has ended, and with it every process that it started.
    """

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._link.setblocking(False)
        self._next = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._running: dict[int, _Started] = {}
        self._turn = asyncio.Lock()
        self._killing: set[asyncio.Task[None]] = set()  # processes that nobody waits for any more
        self.lost = asyncio.Event()

    def start(self) -> None:
        """Begin to hear answers; needs a running event loop."""
        asyncio.get_running_loop().add_reader(self._link.fileno(), self._hear)

    def close(self) -> None:
        """Let go of the launcher, which then ends and takes every process that it started with it."""
        asyncio.get_running_loop().remove_reader(self._link.fileno())
        self._link.close()

    async def end_all(self, within: float) -> None:
        """Tell every process to end, as pods are told, and return when all have or the seconds are over."""
        started = list(self._running.values())
        with contextlib.suppress(NetworkError, TimeoutError):
            async with asyncio.timeout(within):
                for process in started:
                    await process.signal(signal.SIGTERM)
                for process in started:
                    await process.wait()

    @property
    def running(self) -> Sequence[int]:
        """Numbers of the processes that have not ended."""
        return list(self._running)

    def process_in(self, pod: str) -> int | None:
        """Return some process that runs in the pod; None when none does."""
        return next((pid for pid, process in self._running.items() if process.pod == pod), None)

    async def add_pod(self, name: str, ip: str, veth: str | None) -> None:
        """Make a pod's network (veth None: none of its own).

        :raises NetworkError: the kernel refused.
        """
        answer = await self.ask({"ask": "add_pod", "pod": name, "ip": ip, "veth": veth})
        if "error" in answer:
            raise NetworkError(f"pod {name} got no network", answer["error"])

    async def remove_pod(self, name: str) -> None:
        """Kill what runs in the pod and let go of its network namespace."""
        await self.ask({"ask": "remove_pod", "pod": name})

    async def spawn(
        self,
        name: str,
        pod: PodNetwork,
        spec: ProcessSpec,
        mounts: Sequence[tuple[str, str, bool]],
        *,
        lowest_port: int = 0,
    ) -> _Started:
        """Start a process in a pod that was added.

        `lowest_port` is the first port that needs no privilege, for a spec that says what all addresses are.

        :raises SpawnError: with the step that failed.
        """
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) if spec.stdin_fd is None else None
        try:
            answer = await self.ask(
                {
                    "ask": "spawn",
                    "pod": name,
                    "hostname": pod.key.name[:63],
                    "argv": list(spec.argv),
                    "env": dict(spec.env),
                    "cwd": spec.cwd,
                    "uid": spec.uid,
                    "gid": spec.gid,
                    "mounts": [list(mount) for mount in mounts],
                    "controlling_terminal": spec.controlling_terminal,
                    "all_addresses": spec.all_addresses,
                    "lowest_port": lowest_port,
                },
                (null if null is not None else spec.stdin_fd or 0, spec.stdout_fd, spec.stderr_fd),
            )
        finally:
            if null is not None:
                os.close(null)
        if "error" in answer:
            step = str(answer.get("step", "start"))
            raise SpawnError(
                f"{spec.argv[0]} could not be started in pod {pod.key.namespace}/{pod.key.name}",
                f"{step}: {answer['error']}",
                step=step,
                errno=int(answer["errno"]),
            )
        # `_hear` made it in the same turn as the answer, before an end could be heard.
        started: _Started = answer["process"]
        return started

    async def ask(self, request: dict[str, Any], descriptors: Sequence[int] = ()) -> dict[str, Any]:
        """Send a request and return its answer.

        :raises NetworkError: the launcher is gone, or silent.
        """
        async with self._turn:
            self._next += 1
            number = self._next
            answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
            self._answers[number] = answer
            body = os.memfd_create("request", os.MFD_CLOEXEC)
            try:
                os.write(body, json.dumps({**request, "id": number}).encode())
                rights = array.array("i", [body, *descriptors])
                self._link.sendmsg([b"?"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            except OSError as error:
                raise NetworkError(
                    "the launcher of pods is gone", str(error), "see the mesh's log"
                ) from error
            finally:
                os.close(body)
            try:
                # Not wait_for: before Python 3.12 it loses a cancellation that meets the answer, and a probe that was
                # stopped would go on in a pod that is no more.
                async with asyncio.timeout(_ANSWER_WITHIN):
                    return await answer
            except TimeoutError:
                raise NetworkError(
                    "the launcher of pods does not answer",
                    f"it was asked for {request['ask']} {_ANSWER_WITHIN:g} s ago",
                    "see the mesh's log; a machine that is short of memory or processors makes it slow",
                ) from None
            finally:
                self._answers.pop(number, None)

    def _hear(self) -> None:
        while True:
            try:
                datagram = self._link.recv(_DATAGRAM)
            except BlockingIOError:
                return
            except OSError:
                datagram = b""
            if not datagram:
                self._lost()
                return
            message: dict[str, Any] = json.loads(datagram)
            if "ended" in message:
                process = self._running.pop(message["ended"], None)
                if process is not None:
                    process.end(message["status"])
                continue
            answer = self._answers.get(message["id"])
            if answer is not None and answer.done():
                answer = None  # whoever asked has given up
            if "pid" in message:
                process = _Started(self, message["pid"], message["pod"])
                message["process"] = self._running[process.pid] = process
                if answer is None:
                    self._kill(process)
            if answer is not None:
                answer.set_result(message)

    def _kill(self, process: _Started) -> None:
        killing = asyncio.get_running_loop().create_task(process.signal(signal.SIGKILL, session=True))
        self._killing.add(killing)
        killing.add_done_callback(self._killed)

    def _killed(self, killing: asyncio.Task[None]) -> None:
        self._killing.discard(killing)
        if not killing.cancelled():
            killing.exception()  # a launcher that is gone has taken the process along

    def _lost(self) -> None:
        asyncio.get_running_loop().remove_reader(self._link.fileno())
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(
                    NetworkError(
                        "the launcher of pods is gone", "it ended unexpectedly", "see the mesh's log"
                    )
                )
        for process in self._running.values():
            process.end(-signal.SIGKILL)
        self._running.clear()
        self.lost.set()
