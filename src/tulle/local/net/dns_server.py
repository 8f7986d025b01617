"""The cluster's DNS over UDP and TCP, and the way out for names that are not the cluster's.

Names outside are forwarded through a socket that was connected to the host's resolver before the world was
entered (a socket keeps its network); with no such socket, or no answer in time, the asker hears SERVFAIL.
"""

import asyncio
import random
import socket
import struct
from collections.abc import Sequence

from tulle.local.net.dns import Answer, MalformedQuestion, Question, Rcode, Zone, encode, parse
from tulle.local.net.model import ServiceRoute

__all__ = ["DnsServer"]

FORWARD_WITHIN = 2.0  # seconds
FORWARDS_AT_ONCE = 256
STREAM_IDLE = 10.0  # seconds a TCP client may keep a connection without a question
_STREAMS_BACKLOG = 64
_PORT_ATTEMPTS = 8
"""Ports that the kernel may offer for TCP before one is free for UDP, too."""


class DnsServer:
    """Answers on one address until `stop`. `upstream` is a UDP socket connected to the host's resolver."""

    def __init__(self, address: str, port: int, upstream: socket.socket | None = None) -> None:
        self._address, self._port = address, port
        self._zone = Zone.of(())
        self._upstream = upstream
        self._forwarding: dict[int, asyncio.Future[bytes]] = {}
        self._transport: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to answer, over UDP and TCP at one port; with port 0 at one that is free for both.

        :raises OSError: the address is taken.
        """
        loop = asyncio.get_running_loop()
        for attempts_left in reversed(range(_PORT_ATTEMPTS if self._port == 0 else 1)):
            # TCP first: the host's programs hold far more TCP ports than UDP ones.
            self._server = await asyncio.start_server(
                self._stream, self._address, self._port, backlog=_STREAMS_BACKLOG
            )
            local = (self._address, self._server.sockets[0].getsockname()[1])
            try:
                self._transport, _ = await loop.create_datagram_endpoint(
                    lambda: _Datagrams(self), local_addr=local
                )
                break
            except OSError:
                self._server.close()
                if not attempts_left:
                    raise
        if self._upstream is not None:
            self._upstream.setblocking(False)
            loop.add_reader(self._upstream.fileno(), self._hear_upstream)

    @property
    def port(self) -> int:
        """Where it listens, once started."""
        assert self._transport is not None
        number: int = self._transport.get_extra_info("sockname")[1]
        return number

    async def stop(self) -> None:
        """Stop answering and close the sockets."""
        if self._upstream is not None:
            asyncio.get_running_loop().remove_reader(self._upstream.fileno())
            self._upstream.close()
        if self._transport is not None:
            self._transport.close()
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()

    def set_services(self, routes: Sequence[ServiceRoute]) -> None:
        """Answer from these Services from now on."""
        self._zone = Zone.of(routes)

    def _decide(self, message: bytes) -> tuple[Question, Answer]:
        question = parse(message)
        if question.flags & 0x7800:
            return question, Answer(Rcode.NOTIMP)
        return question, self._zone.lookup(question.name, question.kind)

    def datagram(self, message: bytes, asker: tuple[str, int]) -> None:
        """Answer one UDP question, at once or after the host's resolver has."""
        try:
            question, answer = self._decide(message)
        except MalformedQuestion:
            return
        if answer.ours:
            self._send(encode(question, answer), asker)
            return
        task = asyncio.get_running_loop().create_task(self._forward_datagram(question, message, asker))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _send(self, message: bytes, asker: tuple[str, int]) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(message, asker)

    async def _forward_datagram(self, question: Question, message: bytes, asker: tuple[str, int]) -> None:
        self._send(await self._forward(question, message), asker)

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                async with asyncio.timeout(STREAM_IDLE):
                    (size,) = struct.unpack("!H", await reader.readexactly(2))
                    message = await reader.readexactly(size)
                question, answer = self._decide(message)
                if answer.ours:
                    reply = encode(question, answer, stream=True)
                else:
                    reply = await self._forward(question, message)
                writer.write(struct.pack("!H", len(reply)) + reply)
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, MalformedQuestion, ConnectionError):
            pass  # idle, done, or not DNS: the connection is closed either way
        finally:
            writer.close()

    async def _forward(self, question: Question, message: bytes) -> bytes:
        """Ask the host's resolver under a number of our own, so that two pods' questions never mix."""
        failure = encode(question, Answer(Rcode.SERVFAIL, ours=False))
        if self._upstream is None or len(self._forwarding) >= FORWARDS_AT_ONCE:
            return failure
        ident = random.randrange(1 << 16)
        while ident in self._forwarding:
            ident = random.randrange(1 << 16)
        heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._forwarding[ident] = heard
        try:
            self._upstream.send(struct.pack("!H", ident) + message[2:])
            async with asyncio.timeout(FORWARD_WITHIN):
                reply = await heard
        except (TimeoutError, OSError):
            return failure
        finally:
            del self._forwarding[ident]
        return message[:2] + reply[2:]

    def _hear_upstream(self) -> None:
        assert self._upstream is not None
        try:
            message = self._upstream.recv(65536)
        except OSError:
            # Nobody listens there (ICMP): those who wait hear SERVFAIL now, not after their deadline.
            for waiting in self._forwarding.values():
                if not waiting.done():
                    waiting.set_exception(OSError("the host's resolver refuses"))
            return
        if len(message) >= 12:
            heard = self._forwarding.get(int.from_bytes(message[:2], "big"))
            if heard is not None and not heard.done():
                heard.set_result(message)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._server.datagram(data, addr)
