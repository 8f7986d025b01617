"""The world's program: network, API, controllers, node agent; then the manifests; then waiting to be told to end.

`run` is entered by the keeper's child, inside the namespaces, when nothing large has been loaded; the launcher of
pods was forked just before. What this process says goes to `tulle up` over the channel, and its log to stderr.
"""

import asyncio
import logging
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tulle.errors import TulleError
from tulle.local import channel
from tulle.local.channel import Channel, ChannelClosed
from tulle.local.net import Network
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

    async def run(self) -> int:
        self._link = Channel(self._control)
        try:
            async with asyncio.timeout(START_WITHIN):
                start, descriptors = await self._link.receive()
        except (ChannelClosed, TimeoutError):
            return 1
        assert isinstance(start, channel.Start)
        status = 0
        try:
            async with asyncio.TaskGroup() as group:
                living = group.create_task(self._live(start, descriptors))
                await self._listen()
                living.cancel()
        except* TulleError as errors:
            error = _first(errors)
            where, fields = (error.where, error.fields) if isinstance(error, Refused) else ("", [])
            self._link.send(channel.Failed(error.what, error.why, error.next_step, where, fields))
            log.error("%s", error)
            status = 1
        finally:
            await asyncio.sleep(0)
            self._link.close()
        return status

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

    async def _open(self, preferred: int, *, strict: bool = False) -> tuple[int, int] | None:
        """Have the owner open a listener on the host; return its descriptor and port, or None with word of why."""
        number = len(self._wishes) + 1
        wish: asyncio.Future[tuple[int, int] | str] = asyncio.get_running_loop().create_future()
        self._wishes[number] = wish
        self._link.send(channel.WantListener(number, preferred, strict))
        async with asyncio.timeout(ANSWER_WITHIN):
            answer = await wish
        if isinstance(answer, str):
            self._link.send(
                channel.Progress(f"port {preferred} of this machine could not be opened: {answer}")
            )
            return None
        return answer

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
                group.create_task(cluster.run(), name="cluster")
                group.create_task(follow_services(cluster.api, network, publisher), name="services")
                if isinstance(network, LoopbackNetwork):
                    group.create_task(self._serve_localhost(network), name="localhost:4140")
                await bring_up(cluster, start, self._say)
                await _until_published(cluster, publisher)
                self._link.send(channel.Ready(time.monotonic() - self._began))
        finally:
            await network.stop()

    async def _serve_localhost(self, network: LoopbackNetwork) -> None:
        """Where pods share the host's loopback, hand localhost:4140 to the sidecar of whoever dials it."""
        opened = await self._open(OUTBOUND_PORT, strict=True)
        if opened is not None:
            await network.relay_localhost(opened[0])

    def _announce(self, service: str, port: int, url: str) -> None:
        self._link.send(channel.Published(service, port, url))


async def _until_published(cluster: "Cluster", publisher: "Publisher") -> None:
    """Return when every Service that is there now has its ways in from the host."""
    while not publisher.handled(routes((await cluster.api.list("services")).items, ())):
        publisher.changed.clear()
        await publisher.changed.wait()


def _first(group: BaseExceptionGroup[TulleError]) -> TulleError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, TulleError)
    return error


def _network(
    start: channel.Start, launcher: socket.socket, api_port: int, resolver: socket.socket | None
) -> Network:
    if start.mode == "loopback":
        return LoopbackNetwork(start.reason, launcher, start.name, ("127.0.0.1", api_port))
    return IsolatedNetwork(
        "netns" if start.mode == "netns" else "userns", start.reason, launcher, Path(start.folder), resolver
    )
