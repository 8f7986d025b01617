"""`python -m tulle.local.api KUBECONFIG`: the API alone, without nodes, for tests and for trying it out."""

import asyncio
import signal
import socket
import sys
from pathlib import Path

from tulle.local.api.api import Api
from tulle.local.api.http.server import ApiServer
from tulle.local.api.kubeconfig import admin_kubeconfig, write_kubeconfig
from tulle.local.api.store import HISTORY


async def serve(path: Path, history: int) -> None:
    """Serve on a free port of loopback until SIGTERM or SIGINT; write the kubeconfig once ready."""
    api = Api(history=history)
    await api.seed()
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with ApiServer(api) as server:
        await server.listen(listener)
        await api.publish(["127.0.0.1"], port)
        write_kubeconfig(path, admin_kubeconfig(api.authority, f"https://127.0.0.1:{port}"))
        await stop.wait()


def main() -> None:
    """Read the arguments: where to write the kubeconfig, and how many changes to keep."""
    history = int(sys.argv[2]) if len(sys.argv) > 2 else HISTORY
    asyncio.run(serve(Path(sys.argv[1]), history))


if __name__ == "__main__":
    main()
