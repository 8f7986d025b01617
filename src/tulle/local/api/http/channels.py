"""Kubernetes' channels over a WebSocket: every binary message begins with a byte that names its stream.

Commands: 0 standard input, 1 output, 2 error output, 3 the closing Status, 4 terminal size; in v5 a message on 255
closes the stream that it names.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from tulle.local.api.errors import ApiError, bad_request
from tulle.local.api.http.answers import Receive, Scope, Send
from tulle.local.api.nodeport import ExecSession
from tulle.local.api.objects import Obj

__all__ = ["accept", "run_command"]

STDIN, STDOUT, STDERR, STATUS, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
EXEC_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")


async def accept(scope: Scope, receive: Receive, send: Send, known: Sequence[str]) -> str:
    """Accept a WebSocket with the first protocol that both sides know; raise 400 when there is none."""
    offered = scope.get("subprotocols") or []
    chosen = next((name for name in known if name in offered), "")
    if offered and not chosen:
        raise bad_request(
            f"unable to upgrade: unable to negotiate protocol: client supports {offered}, server accepts {list(known)}"
        )
    await receive()
    await send({"type": "websocket.accept", "subprotocol": chosen or None})
    return chosen


def _exit_status(code: int) -> Obj:
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


async def run_command(
    start: Callable[[], Awaitable[ExecSession]], scope: Scope, receive: Receive, send: Send
) -> None:
    """Run a command between a WebSocket and a container until it ends or the client goes away."""
    # Accepted before the command is started: a client that is refused here would fall back to SPDY and hide the reason.
    await accept(scope, receive, send, EXEC_PROTOCOLS)
    try:
        session = await start()
    except ApiError as error:
        await _end(send, error.status)
        return
    try:
        async with asyncio.TaskGroup() as tasks:
            listener = tasks.create_task(_feed(session, receive))
            await _relay(session, send)
            listener.cancel()
    finally:
        await session.close()


async def _end(send: Send, status: Obj) -> None:
    await send({"type": "websocket.send", "bytes": bytes((STATUS,)) + msgspec.json.encode(status)})
    await send({"type": "websocket.close", "code": 1000})


async def _relay(session: ExecSession, send: Send) -> None:
    async for stream, data in session.output():
        channel = STDOUT if stream == "stdout" else STDERR
        await send({"type": "websocket.send", "bytes": bytes((channel,)) + data})
    await _end(send, _exit_status(await session.wait()))


async def _feed(session: ExecSession, receive: Receive) -> None:
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            await session.close()
            return
        data = message.get("bytes") or (message.get("text") or "").encode()
        if not data:
            continue
        channel, payload = data[0], data[1:]
        if channel == STDIN and payload:
            await session.write(payload)
        elif channel == CLOSE and payload[:1] == bytes((STDIN,)):
            await session.write(b"")
        elif channel == RESIZE:
            try:
                size = msgspec.json.decode(payload, type=dict[str, int])
            except msgspec.DecodeError:
                continue
            session.resize(size.get("Width", 80), size.get("Height", 24))
