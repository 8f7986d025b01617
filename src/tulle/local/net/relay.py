"""Bytes from one connection to another, both ways, each direction ending by itself; and a listener that does so.

Used for published ports and for the loopback network's localhost:4140. The mesh's own traffic never passes here.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable

__all__ = ["Dial", "accept_and_relay", "relay"]

_CHUNK = 65536
_BACKLOG = 128
CONNECTIONS = 1024  # relayed at once by one listener; more wait in its backlog
DIAL_WITHIN = 5.0  # seconds
ACCEPT_AGAIN = 0.1  # seconds after an accept that failed

log = logging.getLogger(__name__)

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Dial = Callable[[socket.socket], Awaitable[Streams | None]]


async def relay(one: Streams, other: Streams) -> None:
    """Copy until both directions have ended, or one has failed; then close both."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(pump(one[0], other[1]))
            group.create_task(pump(other[0], one[1]))
    except* OSError:
        pass  # a peer went away: the other side learns it by the close below
    finally:
        for _, writer in (one, other):
            writer.close()


async def accept_and_relay(listener: socket.socket, dial: Dial) -> None:
    """Serve a listening socket until cancelled. `dial` gets the accepted socket; None closes it."""
    listener.setblocking(False)
    places = asyncio.Semaphore(CONNECTIONS)
    loop = asyncio.get_running_loop()

    async def serve(accepted: socket.socket) -> None:
        try:
            try:
                reader, writer = await asyncio.open_connection(sock=accepted)
            except OSError:
                accepted.close()
                return  # whoever dialled has gone already
            other: Streams | None = None
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(DIAL_WITHIN):
                    other = await dial(accepted)
            if other is None:
                writer.close()
            else:
                await relay((reader, writer), other)
        finally:
            places.release()

    try:
        async with asyncio.TaskGroup() as group:
            while True:
                await places.acquire()
                try:
                    accepted, _ = await loop.sock_accept(listener)
                except OSError as error:
                    # The dialler has gone, or no descriptor is free: the listener goes on for those who come later.
                    log.warning("a connection could not be accepted: %s", error)
                    places.release()
                    await asyncio.sleep(ACCEPT_AGAIN)
                    continue
                group.create_task(serve(accepted))
    finally:
        listener.close()
