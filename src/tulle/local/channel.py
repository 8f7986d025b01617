"""Messages between `tulle up` and its world: JSON with descriptors beside it, over a socket pair.

The socket pair is also how each side learns that the other has ended. A message that would not fit a datagram
travels in a memfd, so there is no limit to its length.
"""

import array
import asyncio
import os
import socket
from collections import deque
from collections.abc import Sequence

import msgspec

__all__ = [
    "Channel",
    "ChannelClosed",
    "Failed",
    "Grant",
    "Message",
    "Progress",
    "Published",
    "Ready",
    "Refusal",
    "Start",
    "Stop",
    "WantConnection",
    "WantListener",
]

_INLINE = 16384  # bytes; a longer message goes through a memfd
_MOST_DESCRIPTORS = 8
_RECEIVE = 32768


class ChannelClosed(Exception):
    """The other side has ended."""


class SourcedObject(msgspec.Struct, frozen=True):
    """An object to apply and where the user wrote it."""

    obj: dict[str, object]
    where: str


class Start(msgspec.Struct, frozen=True, tag="start"):
    """What to run. Descriptors: the API's listener, and if `resolver`, a socket to the host's resolver."""

    name: str
    mode: str
    reason: str
    folder: str
    objects: list[SourcedObject]
    paths: list[str]
    resolver: bool


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """End everything and then yourself."""


class WantListener(msgspec.Struct, frozen=True, tag="want_listener"):
    """Open a listener on the host's loopback; `preferred` is taken if free, and nothing else if `strict`."""

    number: int
    preferred: int
    strict: bool = False


class WantConnection(msgspec.Struct, frozen=True, tag="want_connection"):
    """Connect from the host's network to an address outside the mesh."""

    number: int
    ip: str
    port: int


class Grant(msgspec.Struct, frozen=True, tag="grant"):
    """The socket that was wanted, and its own port. Descriptors: the socket."""

    number: int
    port: int


class Refusal(msgspec.Struct, frozen=True, tag="refusal"):
    """The socket that was wanted could not be had."""

    number: int
    why: str


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """A line for the person who waits."""

    text: str


class Published(msgspec.Struct, frozen=True, tag="published"):
    """A Service's port that can be reached from the host."""

    service: str
    port: int
    url: str


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """All that was asked for is ready. `seconds` since the world began."""

    seconds: float


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The mesh cannot come up; the three parts of the error, and for a refused object where it was written.

    `fields` are the paths that the API objects to; the owner, who has the files, finds their lines.
    """

    what: str
    why: str
    next_step: str
    where: str = ""
    fields: list[str] = []


Message = (
    Start | Stop | WantListener | WantConnection | Grant | Refusal | Progress | Published | Ready | Failed
)

_decoder = msgspec.json.Decoder(Message)
_encoder = msgspec.json.Encoder()


class Channel:
    """One end. Sending never waits for the other side's reading of earlier messages."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._link.setblocking(False)
        self._heard: deque[tuple[Message, list[int]]] = deque()
        self._outgoing: deque[tuple[bytes, list[int]]] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False
        asyncio.get_running_loop().add_reader(link.fileno(), self._readable)

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send a message; copies of the descriptors go with it. Nothing happens when the other side has ended."""
        if self._closed:
            return
        body = _encoder.encode(message)
        held = [os.dup(descriptor) for descriptor in descriptors]
        if len(body) > _INLINE:
            memory = os.memfd_create("message", os.MFD_CLOEXEC)
            with os.fdopen(os.dup(memory), "wb") as file:
                file.write(body)
            held.insert(0, memory)
            body = b"@"
        self._outgoing.append((body, held))
        self._writable()

    def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        while self._outgoing:
            body, held = self._outgoing[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", held))] if held else []
            try:
                self._link.sendmsg([body], rights)
            except BlockingIOError:
                loop.add_writer(self._link.fileno(), self._writable)
                return
            except OSError:
                self._close_outgoing()
                break
            self._outgoing.popleft()
            for descriptor in held:
                os.close(descriptor)
        loop.remove_writer(self._link.fileno())

    def _close_outgoing(self) -> None:
        while self._outgoing:
            for descriptor in self._outgoing.popleft()[1]:
                os.close(descriptor)

    async def receive(self) -> tuple[Message, list[int]]:
        """Return the next message and its descriptors, which become the caller's.

        :raises ChannelClosed: the other side has ended and all it said was heard.
        """
        while not self._heard:
            if self._closed:
                raise ChannelClosed
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._heard.popleft()

    def _readable(self) -> None:
        while not self._closed:
            try:
                body, ancillary, _, _ = self._link.recvmsg(_RECEIVE, socket.CMSG_SPACE(4 * _MOST_DESCRIPTORS))
            except BlockingIOError:
                break
            except OSError:
                body, ancillary = b"", []
            if not body:
                self._closed = True
                asyncio.get_running_loop().remove_reader(self._link.fileno())
                break
            descriptors = array.array("i")
            for _, _, data in ancillary:
                descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
            held = list(descriptors)
            for descriptor in held:
                os.set_inheritable(descriptor, False)
            if body == b"@":
                with os.fdopen(held.pop(0), "rb") as memory:
                    memory.seek(0)
                    body = memory.read()
            self._heard.append((_decoder.decode(body), held))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        """Let the other side know that this one has ended."""
        if not self._closed:
            self._closed = True
            asyncio.get_running_loop().remove_reader(self._link.fileno())
        asyncio.get_running_loop().remove_writer(self._link.fileno())
        self._close_outgoing()
        self._link.close()
