"""Serves the embedded API with its controllers, but no node, for the conformance suite: `python embedded.py KUBECONFIG HISTORY`.

Pods are made by controllers and never scheduled, so nothing runs and everything that is deleted goes at once.
"""

import asyncio
import signal
import socket
import sys
from pathlib import Path

from tulle.local.api import Api
from tulle.local.api.http.server import ApiServer
from tulle.local.api.kubeconfig import admin_kubeconfig, write_kubeconfig
from tulle.local.controllers import namespaces, scheduling
from tulle.local.controllers.cluster import EVENTS
from tulle.local.controllers.garbage import collect_garbage
from tulle.local.controllers.manager import Manager
from tulle.local.controllers.running import CONTROLLERS, kinds_of


async def _control(api: Api) -> None:
    kinds = kinds_of(api.registry)
    controllers = [controller for controller in CONTROLLERS if controller is not scheduling.CONTROLLER]
    manager = Manager(api, api.clock, [*controllers, namespaces.controller(api.authority.bundle.decode())])
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(manager.run())
        owned = lambda: (kind for kind in kinds() if kind != EVENTS)  # noqa: E731
        tasks.create_task(collect_garbage(api, manager.stores, owned, followed=manager.kinds))
        namespaced = lambda: ((kind.group, kind.plural) for kind in kinds() if kind.namespaced)  # noqa: E731
        tasks.create_task(namespaces.empty_namespaces(api, manager.stores, namespaced))


async def main(path: Path, history: int) -> None:
    """Serve until SIGTERM."""
    api = Api(history=history, bookmark_seconds=0.5)
    await api.seed()
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with ApiServer(api) as server, asyncio.TaskGroup() as tasks:
        await server.listen(listener)
        await api.publish(["127.0.0.1"], port)
        control = tasks.create_task(_control(api))
        write_kubeconfig(path, admin_kubeconfig(api.authority, f"https://127.0.0.1:{port}"))
        await stop.wait()
        control.cancel()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
