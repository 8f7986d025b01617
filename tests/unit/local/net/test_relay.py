"""Bytes between two connections: both ways, each end by itself, and nothing left open."""

import asyncio
import errno
import socket
from typing import Any

import pytest

from tulle.local.net.relay import Streams, accept_and_relay


async def relayed(dial_to: tuple[str, int] | None) -> tuple[asyncio.Task[None], tuple[str, int]]:
    """Start a relay; return its task and where it listens."""
    listener = socket.create_server(("127.0.0.1", 0))

    async def dial(accepted: socket.socket) -> Streams | None:
        return await asyncio.open_connection(*dial_to) if dial_to else None

    task = asyncio.get_running_loop().create_task(accept_and_relay(listener, dial))
    return task, listener.getsockname()


async def stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


async def test_an_answer_that_waits_for_the_end_of_the_question_arrives() -> None:
    """The client's end is passed on while the other direction stays open."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        question = await reader.read()
        writer.write(question[::-1])
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    task, there = await relayed(server.sockets[0].getsockname())
    reader, writer = await asyncio.open_connection(*there)
    question = b"x" * 300_000 + b"end"
    writer.write(question)
    writer.write_eof()
    assert await reader.read() == question[::-1]
    writer.close()
    await writer.wait_closed()
    await stop(task)
    server.close()


async def test_with_nobody_to_dial_the_connection_is_closed() -> None:
    task, there = await relayed(None)
    reader, writer = await asyncio.open_connection(*there)
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    await stop(task)


async def test_a_target_that_refuses_closes_one_connection_and_not_the_relay() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        nowhere = gone.getsockname()
    task, there = await relayed(nowhere)
    for _ in range(2):
        reader, writer = await asyncio.open_connection(*there)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
    await stop(task)


async def test_a_relay_that_is_cancelled_listens_no_more() -> None:
    task, there = await relayed(None)
    _, writer = await asyncio.open_connection(*there)
    writer.close()
    await stop(task)
    try:
        _, writer = await asyncio.open_connection(*there)
    except ConnectionRefusedError:
        return
    writer.close()
    raise AssertionError("somebody still listens")


async def test_an_accept_that_fails_does_not_end_the_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    """No descriptor may be free for a moment, or the dialler gone before it was looked at."""
    loop = asyncio.get_running_loop()
    accept, failures = loop.sock_accept, [OSError(errno.EMFILE, "Too many open files")]

    async def failing_once(listener: socket.socket) -> tuple[socket.socket, Any]:
        if failures:
            raise failures.pop()
        return await accept(listener)

    monkeypatch.setattr(loop, "sock_accept", failing_once)
    task, there = await relayed(None)
    reader, writer = await asyncio.open_connection(*there)
    assert await reader.read() == b""
    assert not failures
    writer.close()
    await writer.wait_closed()
    await stop(task)
