"""What the API asks of the node for a pod: its log, a command inside it, a connection to it.

The pod runner implements NodePort; an API without nodes has none and answers 503 to such requests.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Literal, Protocol, TypeAlias

__all__ = ["ExecSession", "NodePort", "OutputStream"]

OutputStream: TypeAlias = Literal["stdout", "stderr"]


class ExecSession(Protocol):
    """One running command inside a container."""

    def output(self) -> AsyncIterator[tuple[OutputStream, bytes]]:
        """Yield what the command writes, as it writes it, until it has closed both streams."""
        ...

    async def write(self, data: bytes) -> None:
        """Hand bytes to the command's standard input; return when they are taken. Empty bytes close it."""
        ...

    def resize(self, columns: int, rows: int) -> None:
        """Tell the command's terminal its size; without a terminal, nothing happens."""
        ...

    async def wait(self) -> int:
        """Wait for the command and return its exit code (128 + signal when a signal ended it)."""
        ...

    async def close(self) -> None:
        """Kill the command if it still runs and free what the session holds; safe to call twice."""
        ...


class NodePort(Protocol):
    """The node agent as the API sees it. Methods raise ApiError for what the client should read."""

    def logs(
        self,
        namespace: str,
        pod: str,
        container: str,
        *,
        follow: bool,
        tail_lines: int | None,
        previous: bool,
        since_seconds: int | None,
        timestamps: bool,
    ) -> AsyncIterator[bytes]:
        """Yield a container's log, whole lines; with `follow`, until the container ends."""
        ...

    async def exec(
        self, namespace: str, pod: str, container: str, argv: Sequence[str], *, stdin: bool, tty: bool
    ) -> ExecSession:
        """Start a command inside a container."""
        ...

    async def dial(self, address: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to a pod's address, whatever network it lives in."""
        ...

    async def dial_inside(self, address: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to a port of the pod with this address as one of its processes does."""
        ...
