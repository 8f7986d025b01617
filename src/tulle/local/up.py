"""`tulle up` outside the world: listeners on the host, the keeper's process, messages, the end.

The order is: everything that can be wrong with the call or the files is found first; then the mesh's folder is
claimed; then the world is started; whatever happens after that, `run` returns with the world ended and the folder
gone. Printing is the caller's: `Screen` is the port.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from tulle.errors import TulleError
from tulle.local import channel
from tulle.local.channel import Channel, ChannelClosed
from tulle.local.net.choose import Choice
from tulle.local.sources import Manifest
from tulle.local.state import Running, StateFolder

__all__ = ["Interrupted", "Mesh", "Options", "Screen", "run"]

READY_WITHIN = 180.0  # seconds
STOP_WITHIN = 20.0  # seconds; the keeper kills well before
_LOG_TAIL = 2000  # characters of the log shown when the world ends unexpectedly
_CONNECT_WITHIN = 4.0  # seconds; less than the world waits for the answer
_LAST_WORDS_WITHIN = 5.0  # seconds
_LISTEN_BACKLOG = 128
_NEARBY = 20  # ports after the preferred one that are tried, so that a URL is likely the same tomorrow


@dataclass(frozen=True)
class Options:
    """What to run. `paths` are what the manifests were read from. `ends_after` seconds the mesh ends by itself once it is ready; None: when told to."""

    name: str
    choice: Choice
    manifests: Sequence[Manifest]
    paths: Sequence[Path] = ()
    ready_within: float = READY_WITHIN
    ends_after: float | None = None


@dataclass(frozen=True)
class Mesh:
    """A mesh that is up, as a screen sees it."""

    name: str
    kubeconfig: Path
    published: dict[tuple[str, int], str]
    seconds: float


class Interrupted(TulleError):
    """The mesh was told to end before it was ready; nothing is left of it."""


class Screen(Protocol):
    """Where a person reads what happens."""

    def starting(self, choice: Choice) -> None:
        """Say which network the mesh will have, and why."""
        ...

    def progress(self, text: str) -> None:
        """Say what has been done, or is waited for."""
        ...

    def published(self, service: str, port: int, url: str) -> None:
        """Say where a Service's port is reached from the host."""
        ...

    def ready(self, mesh: Mesh) -> None:
        """Say that all is ready."""
        ...

    async def watch(self, mesh: Mesh) -> None:
        """Show the mesh at work until cancelled; may return early."""
        ...

    async def ending(self, mesh: Mesh) -> None:
        """Look at the mesh a last time before it ends; only called when it ends by itself."""
        ...


def run(options: Options, state: StateFolder, screen: Screen) -> None:
    """Have the mesh up until told to stop (SIGINT, SIGTERM, SIGHUP) or `ends_after`; return when nothing is left.

    :raises TulleError: it could not come up, or ended unexpectedly.
    """
    screen.starting(options.choice)
    state.tell(Running(options.name, os.getpid(), options.choice.mode))
    try:
        asyncio.run(_Supervisor(options, state, screen).run())
    except BaseExceptionGroup as group:
        told, _ = group.split(TulleError)
        if told is None:
            raise
        raise _first(told) from None


def _first(group: BaseExceptionGroup[TulleError]) -> TulleError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, TulleError)
    return error


class _Supervisor:
    def __init__(self, options: Options, state: StateFolder, screen: Screen) -> None:
        self._options, self._state, self._screen = options, state, screen
        self._published: dict[tuple[str, int], str] = {}
        self._stop = asyncio.Event()
        self._mesh: asyncio.Future[Mesh] | None = None

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop.set)
        self._mesh = loop.create_future()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        owner_read, owner_write = os.pipe2(os.O_CLOEXEC)
        world: asyncio.subprocess.Process | None = None
        link = Channel(ours)
        try:
            with theirs, self._open_log() as log:
                world = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "tulle.local.world",
                    self._options.choice.mode,
                    str(theirs.fileno()),
                    str(self._state.path),
                    stdin=owner_read,
                    stdout=log,
                    stderr=log,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
            self._send_start(link)
            await self._until_stopped(link, world)
        finally:
            os.close(owner_read)
            link.send(channel.Stop())
            if world is not None:
                await asyncio.shield(self._end(world, owner_write))
            else:
                os.close(owner_write)
            link.close()

    def _open_log(self) -> BinaryIO:
        return open(self._state.log, "ab")

    def _send_start(self, link: Channel) -> None:
        options = self._options
        with _listener(0) as api:
            resolver = _resolver()
            link.send(
                channel.Start(
                    name=options.name,
                    mode=options.choice.mode,
                    reason=options.choice.reason,
                    folder=str(self._state.path),
                    objects=[
                        channel.SourcedObject(manifest.obj, manifest.where) for manifest in options.manifests
                    ],
                    paths=[str(path) for path in options.paths],
                    resolver=resolver is not None,
                ),
                [api.fileno(), *([resolver.fileno()] if resolver else [])],
            )
            if resolver:
                resolver.close()

    async def _until_stopped(self, link: Channel, world: asyncio.subprocess.Process) -> None:
        """Serve the world's messages; return when the mesh has been told to stop or its time is over."""
        assert self._mesh is not None
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(self._serve(link, world))
            showing = group.create_task(self._show())
            stopped = group.create_task(self._stop.wait())
            try:
                async with asyncio.timeout(self._options.ready_within):
                    waited: set[asyncio.Future[Any]] = {stopped, self._mesh, serving}
                    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            except TimeoutError:
                raise TulleError(
                    f"not everything is ready after {self._options.ready_within:.0f} s",
                    "the last lines above say what was waited for, and what containers that ended wrote last",
                    "mend that and start it again; what only needs longer gets it with --ready-within SECONDS",
                ) from None
            if self._stop.is_set() and not self._mesh.done():
                raise Interrupted(
                    "stopped before everything was ready", "it was told to end while it was starting"
                )
            await asyncio.wait({stopped, showing, serving}, return_when=asyncio.FIRST_COMPLETED)
            for task in (serving, showing, stopped):
                task.cancel()

    async def _show(self) -> None:
        """Show the mesh until its time is over; without an end, until cancelled."""
        assert self._mesh is not None
        mesh = await self._mesh
        self._screen.ready(mesh)
        if self._options.ends_after is None:
            await self._screen.watch(mesh)
            await asyncio.Event().wait()
        else:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._options.ends_after):
                    await self._screen.watch(mesh)
                    await asyncio.Event().wait()
            await self._screen.ending(mesh)

    async def _serve(self, link: Channel, world: asyncio.subprocess.Process) -> None:
        async with asyncio.TaskGroup() as connecting:
            await self._hear(link, world, connecting)

    async def _hear(
        self, link: Channel, world: asyncio.subprocess.Process, connecting: asyncio.TaskGroup
    ) -> None:
        assert self._mesh is not None
        while True:
            try:
                message, descriptors = await link.receive()
            except ChannelClosed:
                # Its last words come after it has let go of the channel.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LAST_WORDS_WITHIN):
                        await world.wait()
                raise self._unexpected_end() from None
            for descriptor in descriptors:
                os.close(descriptor)  # the world has nothing to give
            if isinstance(message, channel.WantListener):
                self._open(link, message)
            elif isinstance(message, channel.WantConnection):
                connecting.create_task(_connect(link, message))
            elif isinstance(message, channel.Progress):
                self._screen.progress(message.text)
            elif isinstance(message, channel.Published):
                self._published[message.service, message.port] = message.url
                self._screen.published(message.service, message.port, message.url)
            elif isinstance(message, channel.Failed):
                raise TulleError(self._placed(message), message.why, message.next_step)
            elif isinstance(message, channel.Ready) and not self._mesh.done():
                self._mesh.set_result(
                    Mesh(self._options.name, self._state.kubeconfig, self._published, message.seconds)
                )

    def _placed(self, failure: channel.Failed) -> str:
        """Return what failed with FILE:LINE before it, as near to the fault as can be told."""
        for manifest in self._options.manifests:
            if manifest.where == failure.where:
                place = manifest.locate(failure.fields[0]) if failure.fields else manifest.where
                return f"{place}: {failure.what}"
        return f"{failure.where}: {failure.what}" if failure.where else failure.what

    def _open(self, link: Channel, wish: channel.WantListener) -> None:
        try:
            with _listener(wish.preferred, strict=wish.strict) as opened:
                link.send(channel.Grant(wish.number, opened.getsockname()[1]), [opened.fileno()])
        except (OSError, OverflowError) as error:
            link.send(channel.Refusal(wish.number, getattr(error, "strerror", None) or str(error)))

    def _unexpected_end(self) -> TulleError:
        tail = ""
        with contextlib.suppress(OSError):
            tail = self._state.log.read_text(errors="replace")[-_LOG_TAIL:].strip()
        return TulleError("the mesh ended unexpectedly", tail or "it left no word in its log")

    async def _end(self, world: asyncio.subprocess.Process, owner_write: int) -> None:
        try:
            async with asyncio.timeout(STOP_WITHIN):
                await world.wait()
        except TimeoutError:
            pass
        finally:
            os.close(owner_write)  # from here on the keeper counts seconds
        await world.wait()


async def _connect(link: Channel, wish: channel.WantConnection) -> None:
    """Connect from the host's network and hand the socket to the world, or say why not."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as out:
        out.setblocking(False)
        try:
            async with asyncio.timeout(_CONNECT_WITHIN):
                await asyncio.get_running_loop().sock_connect(out, (wish.ip, wish.port))
        except (OSError, OverflowError) as error:  # TimeoutError is an OSError
            link.send(channel.Refusal(wish.number, getattr(error, "strerror", None) or "nobody answers"))
        else:
            link.send(channel.Grant(wish.number, out.getsockname()[1]), [out.fileno()])


def _listener(preferred: int, *, strict: bool = False) -> socket.socket:
    """Listen on the host's loopback: at the preferred port, else (if not `strict`) at one soon after it, else at any.

    :raises OSError: no port could be had.
    """
    nearby = [] if strict or preferred == 0 else [*range(preferred + 1, min(preferred + _NEARBY, 65536)), 0]
    for port in (preferred, *nearby):
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        # Ports of a mesh that has just ended may be taken again at once.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
            listener.listen(_LISTEN_BACKLOG)
            return listener
        except OSError:
            listener.close()
            if port == (preferred, *nearby)[-1]:
                raise
    raise AssertionError("unreachable")


def _resolver() -> socket.socket | None:
    """Return a UDP socket connected to this machine's first name server, if it has one."""
    with contextlib.suppress(OSError):
        for line in Path("/etc/resolv.conf").read_text().splitlines():
            words = line.split()
            if len(words) >= 2 and words[0] == "nameserver":
                family = socket.AF_INET6 if ":" in words[1] else socket.AF_INET
                resolver = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
                try:
                    resolver.connect((words[1].partition("%")[0], 53))
                except OSError:
                    resolver.close()
                    continue
                return resolver
    return None
