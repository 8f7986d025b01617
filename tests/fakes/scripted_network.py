"""A network without processes: it answers what a test scripted and lets the test end what was started."""

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence

from tulle.local.net.model import Mode, PodKey, PodNetwork, ProcessSpec, ServiceRoute, Target


class ScriptedProcess:
    """A process that runs until the test ends it; SIGTERM and SIGKILL end it too."""

    def __init__(self, spec: ProcessSpec) -> None:
        self.spec, self.pid = spec, 2**31 - 1  # a number that no process group has
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @property
    def returncode(self) -> int | None:
        return self._ended.result() if self._ended.done() else None

    async def wait(self) -> int:
        return await asyncio.shield(self._ended)

    async def signal(self, number: signal.Signals, *, session: bool = False) -> None:
        self.end(-number)

    def end(self, code: int) -> None:
        if not self._ended.done():
            self._ended.set_result(code)


class ScriptedNetwork:
    """See `tulle.local.net.model.Network`. `refusals` are raised, the oldest first, by the call they are named for."""

    def __init__(self, *, transparent: bool = False) -> None:
        self.mode: Mode = "netns" if transparent else "loopback"
        self.reason, self.transparent = "a test", transparent
        self.sidecar_env: Mapping[str, str] = {}
        self.api_address: Target = ("127.0.0.1", 6443)
        self.refusals: dict[str, list[Exception]] = {"add_pod": [], "spawn": []}
        self.started: list[ScriptedProcess] = []
        self.pods: dict[PodKey, PodNetwork] = {}
        self.answers: Callable[[int], bool] = lambda _port: False

    async def start(self) -> None: ...

    async def stop(self) -> None:
        for process in self.started:
            process.end(-9)

    async def add_pod(self, key: PodKey) -> PodNetwork:
        self._refuse("add_pod")
        return self.pods.setdefault(key, PodNetwork(key, f"10.42.0.{len(self.pods) + 2}", len(self.pods) + 2))

    async def remove_pod(self, key: PodKey) -> None:
        self.pods.pop(key, None)

    async def spawn(self, pod: PodNetwork, spec: ProcessSpec) -> ScriptedProcess:
        self._refuse("spawn")
        self.started.append(ScriptedProcess(spec))
        return self.started[-1]

    async def dial(self, ip: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        raise ConnectionRefusedError(f"{ip}:{port}")

    async def dial_inside(self, ip: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await self.dial(ip, port)

    def app_port(self, port: int) -> int:
        return port

    def plain_port(self, port: int) -> int:
        return port + 30000

    async def lost(self) -> None:
        await asyncio.Event().wait()

    def listens(self, ip: str, port: int) -> bool:
        return True

    async def set_services(self, services: Sequence[ServiceRoute]) -> None: ...

    async def publish(self, listener_fd: int, target: Callable[[], Target | None]) -> None: ...

    def _refuse(self, call: str) -> None:
        if self.refusals[call]:
            raise self.refusals[call].pop(0)
