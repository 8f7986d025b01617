"""A command in a container, over the API's WebSocket: every message begins with the number of its stream.

0 standard input, 1 output, 2 error output, 3 the closing Status, 4 the terminal's size. With version 5 of the protocol,
255 followed by a number closes that stream; version 4 has no way to end standard input.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

import msgspec
from lightkube.config.kubeconfig import SingleConfig

from tulle.kube.client import Unreachable
from tulle.kube.sockets import Socket, open_socket

__all__ = ["CommandFailed", "Streams", "exit_code", "run_command"]

STDIN, STDOUT, STDERR, STATUS, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
V5, V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"


class CommandFailed(Exception):
    """The command could not be run; the text is the API's."""


class Streams(Protocol):
    """The near ends of a command's streams."""

    @property
    def stdin(self) -> bool:
        """Whether there is input to pass on."""
        ...

    @property
    def tty(self) -> bool:
        """Whether the command gets a terminal."""
        ...

    def write(self, stream: int, data: bytes) -> None:
        """Take output (1) or error output (2)."""
        ...

    def size(self) -> tuple[int, int]:
        """Return the terminal's columns and lines."""
        ...

    def on_resize(self, call: Callable[[], None]) -> None:
        """Call back when the terminal's size changes."""
        ...

    def input(self) -> AsyncIterator[bytes]:
        """Yield the input to its end."""
        ...


class _Cause(msgspec.Struct):
    reason: str = ""
    message: str = ""


class _Details(msgspec.Struct):
    causes: tuple[_Cause, ...] = ()


class _Status(msgspec.Struct):
    status: str = ""
    reason: str = ""
    message: str = ""
    details: _Details | None = None


def exit_code(status: bytes) -> int:
    """Read the closing Status. Raises CommandFailed when the command did not run to an end of its own."""
    try:
        said = msgspec.json.decode(status, type=_Status)
    except msgspec.MsgspecError as error:
        raise CommandFailed(f"the closing status is not a Status: {error}") from error
    if said.status == "Success":
        return 0
    for cause in said.details.causes if said.details else ():
        if said.reason == "NonZeroExitCode" and cause.reason == "ExitCode" and cause.message.isdecimal():
            return int(cause.message)
    raise CommandFailed(said.message or said.reason or "the API does not say why")


async def run_command(
    config: SingleConfig, namespace: str, pod: str, container: str, argv: Sequence[str], streams: Streams
) -> int:
    """Run a command to its end and return its exit code. Raises CommandFailed, ApiError or Unreachable."""
    params = [("container", container), ("stdout", "true"), ("command", argv[0])]
    params += [("command", word) for word in argv[1:]]
    if streams.stdin:
        params.append(("stdin", "true"))
    # A terminal has one output only.
    params.append(("tty", "true") if streams.tty else ("stderr", "true"))
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/exec"
    async with open_socket(config, path, params, (V5, V4)) as socket:
        try:
            async with asyncio.TaskGroup() as tasks:
                beside = [tasks.create_task(_feed(socket, streams))] if streams.stdin else []
                if streams.tty:
                    beside.append(tasks.create_task(_tell_size(socket, streams)))
                code = await _until_status(socket, streams)
                for task in beside:
                    task.cancel()
            return code
        except ExceptionGroup as group:
            raise group.exceptions[0] from None


async def _until_status(socket: Socket, streams: Streams) -> int:
    async for message in socket.messages():
        stream, data = message[:1], message[1:]
        if stream in (b"\x01", b"\x02"):
            if data:
                streams.write(stream[0], data)
        elif stream == bytes((STATUS,)):
            return exit_code(data)
    raise Unreachable("the API closed the connection before the command had ended")


async def _feed(socket: Socket, streams: Streams) -> None:
    async for data in streams.input():
        await socket.send(bytes((STDIN,)) + data)
    if socket.protocol == V5:
        await socket.send(bytes((CLOSE, STDIN)))


async def _tell_size(socket: Socket, streams: Streams) -> None:
    changed = asyncio.Event()
    changed.set()
    streams.on_resize(changed.set)
    while True:
        await changed.wait()
        changed.clear()
        columns, lines = streams.size()
        await socket.send(bytes((RESIZE,)) + msgspec.json.encode({"Width": columns, "Height": lines}))
