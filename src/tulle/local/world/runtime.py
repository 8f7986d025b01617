"""The world's program: network, API, controllers, node agent; then the manifests; then waiting to be told to end.

`run` is entered by the keeper's child, inside the namespaces, when nothing large has been loaded; the launcher of
pods was forked just before. What this process says goes to `tulle up` over the channel, and its log to stderr.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tulle.errors import TulleError
from tulle.local import channel
from tulle.local.channel import Channel, ChannelClosed
from tulle.local.net import Network, NetworkError
from tulle.local.net.isolated import IsolatedNetwork
from tulle.local.net.loopback import OUTBOUND_PORT, LoopbackNetwork
from tulle.local.world.applying import Refused
from tulle.local.world.services import routes

if TYPE_CHECKING:
    from tulle.local.world.cluster import Cluster
    from tulle.local.world.publishing import Publisher

__all__ = ["run"]

START_WITHIN = 10.0  # seconds that the owner has to say what to run
ANSWER_WITHIN = 5.0
TRY_AGAIN = 1.0
UNWIND_WITHIN = 6.0  # seconds; more than processes have to end, less than the keeper waits

log = logging.getLogger("tulle.world")


def run(control: int, launcher: socket.socket) -> int:
    """Be the world until told to end or the owner is gone; return an exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    # Ordinary users often lack these in their PATH, and nft lives there.
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    return asyncio.run(_World(socket.socket(fileno=control), launcher, time.monotonic()).run())


class _World:
    def __init__(self, control: socket.socket, launcher: socket.socket, began: float) -> None:
        self._control, self._launcher, self._began = control, launcher, began
        self._wishes: dict[int, asyncio.Future[tuple[int, int] | str]] = {}
        self._last_wish = 0
        self._failed = asyncio.Event()

    async def run(self) -> int:
        self._link = Channel(self._control)
        try:
            async with asyncio.timeout(START_WITHIN):
                start, descriptors = await self._link.receive()
        except (ChannelClosed, TimeoutError):
            return 1
        assert isinstance(start, channel.Start)
        living = asyncio.ensure_future(self._live(start, descriptors))
        hearing = asyncio.ensure_future(self._listen())
        failing = asyncio.ensure_future(self._failed.wait())
        tasks = {living, hearing, failing}
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        # Python 3.11 loses a cancellation that meets an error in a task group or a result in wait_for, so a task may
        # stay behind; the end of this process does not wait for it longer than the processes have to end themselves.
        _, unending = await asyncio.wait(tasks, timeout=UNWIND_WITHIN)
        if living.done() and not living.cancelled() and (error := living.exception()) is not None:
            self._fail(error)
        status = 1 if self._failed.is_set() else 0
        self._link.close()
        if unending:
            log.warning("did not end in %.0f s: %s", UNWIND_WITHIN, unending)
            os._exit(status)
        return status

    def _fail(self, error: BaseException) -> None:
        """Tell the owner why the mesh cannot go on, once; what is not meant for people is left in the log."""
        if self._failed.is_set():
            return
        self._failed.set()
        told = _told(error)
        if told is None:
            log.error("the world failed", exc_info=error)
            return
        log.error("%s", told)
        where, fields = (told.where, told.fields) if isinstance(told, Refused) else ("", [])
        self._link.send(channel.Failed(told.what, told.why, told.next_step, where, fields))

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """Do a part of the world's work; its failure is told at once, before the other parts have been unwound."""
        try:
            await work
        except Exception as error:
            self._fail(error)
            raise

    async def _listen(self) -> None:
        """Hear the owner; return when it says so or is gone."""
        while True:
            try:
                message, descriptors = await self._link.receive()
            except ChannelClosed:
                return
            if isinstance(message, channel.Stop):
                return
            if isinstance(message, channel.Grant):
                self._answer(message.number, (descriptors[0], message.port))
            elif isinstance(message, channel.Refusal):
                self._answer(message.number, message.why)

    def _answer(self, number: int, answer: tuple[int, int] | str) -> None:
        wish = self._wishes.get(number)
        if wish is not None and not wish.done():
            wish.set_result(answer)
        elif isinstance(answer, tuple):
            os.close(answer[0])

    async def _open(self, preferred: int) -> tuple[int, int] | None:
        """Have the owner open a listener on the host; return its descriptor and port, or None with word of why."""
        answer = await self._wish(lambda number: channel.WantListener(number, preferred))
        if isinstance(answer, str):
            self._link.send(
                channel.Progress(f"port {preferred} of this machine could not be opened: {answer}")
            )
            return None
        return answer

    async def _connect(self, ip: str, port: int) -> socket.socket | None:
        """Have the owner connect from the host; return the socket, or None when nobody answers."""
        answer = await self._wish(lambda number: channel.WantConnection(number, ip, port))
        if isinstance(answer, str):
            log.info("no way out to %s:%d: %s", ip, port, answer)
            return None
        return socket.socket(fileno=answer[0])

    async def _wish(self, message: Callable[[int], channel.Message]) -> tuple[int, int] | str:
        """Ask the owner for a socket; return its descriptor and port, or why it cannot be had."""
        self._last_wish += 1
        number = self._last_wish
        wish: asyncio.Future[tuple[int, int] | str] = asyncio.get_running_loop().create_future()
        self._wishes[number] = wish
        self._link.send(message(number))
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                return await wish
        except TimeoutError:
            return "no answer in time"
        finally:
            del self._wishes[number]

    def _say(self, text: str) -> None:
        log.info("%s", text)
        self._link.send(channel.Progress(text))

    async def _live(self, start: channel.Start, descriptors: list[int]) -> None:
        from tulle.local.world.cluster import Cluster
        from tulle.local.world.following import follow_services
        from tulle.local.world.publishing import Publisher
        from tulle.local.world.startup import bring_up

        listener = socket.socket(fileno=descriptors[0])
        resolver = socket.socket(fileno=descriptors[1]) if start.resolver else None
        network = _network(start, self._launcher, listener.getsockname()[1], resolver)
        await network.start()
        log.info("network after %.3f s", time.monotonic() - self._began)
        try:
            cluster = Cluster(
                start.name, network, Path(start.folder), [Path(path) for path in start.paths], listener
            )
            publisher = Publisher(network, self._open, self._announce)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._guarded(_end_when_lost(network)), name="network")
                group.create_task(self._guarded(cluster.run()), name="cluster")
                services = follow_services(cluster.api, network, publisher)
                group.create_task(self._guarded(services), name="services")
                if isinstance(network, LoopbackNetwork):
                    group.create_task(self._serve_localhost(network), name="localhost:4140")
                elif isinstance(network, IsolatedNetwork):
                    group.create_task(network.serve_way_out(self._connect), name="way out")
                await self._guarded(bring_up(cluster, start, self._say))
                await _until_published(cluster, publisher)
                self._link.send(channel.Ready(time.monotonic() - self._began))
        finally:
            await network.stop()

    async def _serve_localhost(self, network: LoopbackNetwork) -> None:
        """Where pods share the host's loopback, hand localhost:4140 to the sidecar of whoever dials it."""
        while True:
            answer = await self._wish(lambda number: channel.WantListener(number, OUTBOUND_PORT, strict=True))
            if not isinstance(answer, str):
                await network.relay_localhost(answer[0])
            # Another mesh of this user has it and serves our pods too; when that ends, it is ours.
            await asyncio.sleep(TRY_AGAIN)

    def _announce(self, service: str, port: int, url: str) -> None:
        self._link.send(channel.Published(service, port, url))


async def _end_when_lost(network: Network) -> None:
    await network.lost()
    raise NetworkError(
        "the process that starts pods has ended", "all pods have ended with it", "start the mesh again"
    )


async def _until_published(cluster: "Cluster", publisher: "Publisher") -> None:
    """Return when every Service that is there now has its ways in from the host."""
    while not publisher.handled(routes((await cluster.api.list("services")).items, ())):
        publisher.changed.clear()
        await publisher.changed.wait()


def _told(error: BaseException) -> TulleError | None:
    """Return the error meant for people, if there is one in a group of them."""
    if isinstance(error, BaseExceptionGroup):
        return next((told for part in error.exceptions if (told := _told(part)) is not None), None)
    return error if isinstance(error, TulleError) else None


def _network(
    start: channel.Start, launcher: socket.socket, api_port: int, resolver: socket.socket | None
) -> Network:
    if start.mode == "loopback":
        return LoopbackNetwork(start.reason, launcher, start.name, ("127.0.0.1", api_port))
    return IsolatedNetwork(
        "netns" if start.mode == "netns" else "userns", start.reason, launcher, Path(start.folder), resolver
    )
