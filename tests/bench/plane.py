"""The control plane of the comparison: Tulle's own, on an embedded Kubernetes API with the bench's pods in it.

`python -m tests.bench.plane FOLDER ADDRESS CLIENT_IP APP_IP PLAIN_IP` serves identity, destination and policy on
ADDRESS in plain text (proxies accept that on loopback alone), writes the trust anchors and a token for each pod into
the folder, prints `ready` and runs until SIGTERM.

`python -m tests.bench.plane relay TARGET` makes the same ports reachable on this place's loopback.
"""

import asyncio
import contextlib
import signal
import sys
from pathlib import Path

from tests.fakes.cluster import Obj, endpoint, node, pod, service, slice_of
from tests.unit.control.test_embedded_api import LEFT_OUT, create
from tulle.clock import SystemClock
from tulle.compile.mesh import Mesh
from tulle.control.controller import Controller, Ports, Settings
from tulle.control.http import bind
from tulle.control.issuing import from_api
from tulle.inject.install import InstallValues, render
from tulle.kube.client import Client, load_config
from tulle.local.api import Api
from tulle.local.api.http.server import ApiServer
from tulle.local.api.kubeconfig import admin_kubeconfig, write_kubeconfig

__all__ = ["NAMESPACE", "PORTS"]

NAMESPACE = "default"
PORTS = {"identity": 18080, "destination": 18086, "policy": 18090}
APP_PORTS = {"http": 8080, "large": 8090, "grpc": 8081, "sink": 8082, "echo": 8083}
OPAQUE = {"config.linkerd.io/opaque-ports": "8082,8083"}


def objects(client_ip: str, app_ip: str, plain_ip: str) -> list[Obj]:
    """Return a meshed client, a meshed application and one without a sidecar, with their Services."""
    found: list[Obj] = [node("n1")]
    for name, ip, meshed in (("client", client_ip, True), ("app", app_ip, True), ("plain", plain_ip, False)):
        found.append(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": NAMESPACE}}
        )
        ports = [
            {"name": each, "containerPort": number, "protocol": "TCP"} for each, number in APP_PORTS.items()
        ]
        container = {"name": "app", "image": "bench", "ports": ports}
        found.append(pod(name, ip, app=name, meshed=meshed, containers=[container], annotations=OPAQUE))
    for name, address, ip in (("app", "10.96.99.1", app_ip), ("plain", "10.96.99.2", plain_ip)):
        ports = [
            {"name": each, "port": number, "targetPort": number, "protocol": "TCP"}
            for each, number in APP_PORTS.items()
        ]
        listed = [{"name": each, "port": number, "protocol": "TCP"} for each, number in APP_PORTS.items()]
        found.append(service(name, address, ports=ports, annotations=OPAQUE))
        found.append(slice_of(name, [endpoint(name, ip)], ports=listed))
    return found


async def main(folder: Path, address: str, client_ip: str, app_ip: str, plain_ip: str) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    api = Api()
    await api.seed()
    installed = render(InstallValues(), SystemClock().now())
    await create(api, *(each for each in installed if each["kind"] not in LEFT_OUT))
    await create(api, *objects(client_ip, app_ip, plain_ip))
    roots = await api.get("configmaps", "linkerd-identity-trust-roots", namespace="linkerd")
    (folder / "anchors.pem").write_text(roots["data"]["ca-bundle.crt"])
    for name in ("client", "app"):
        found = await api.get("pods", name, namespace=NAMESPACE)
        token = await api.request_token(NAMESPACE, name, audiences=["identity.l5d.io"], pod=found)
        (folder / f"{name}.token").write_text(token["status"]["token"])
    async with contextlib.AsyncExitStack() as stack:
        web = await stack.enter_async_context(ApiServer(api))
        listener = bind("127.0.0.1", 0)
        await web.listen(listener)
        path = folder / "kubeconfig"
        write_kubeconfig(
            path, admin_kubeconfig(api.authority, f"https://127.0.0.1:{listener.getsockname()[1]}")
        )
        client = await stack.enter_async_context(Client(load_config(str(path))))
        settings = Settings(
            roles=frozenset(("identity", "destination", "policy")),
            mesh=Mesh(),
            address=address,
            ports=Ports(webhook=0, admin=0, **PORTS),
        )
        controller = Controller(client, settings, SystemClock(), from_api(client, "linkerd"))
        async with asyncio.TaskGroup() as tasks:
            work = tasks.create_task(controller.run())
            await controller.started.wait()
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            await stop.wait()
            work.cancel()


async def relay(target: str) -> None:
    """Carry connections to loopback's ports to the same ports of `target`, until killed."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = writer.get_extra_info("sockname")[1]
        try:
            onward, back = await asyncio.open_connection(target, port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_copy(reader, back), _copy(onward, writer), return_exceptions=True)

    servers = [await asyncio.start_server(carry, "127.0.0.1", port) for port in PORTS.values()]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.gather(*(server.serve_forever() for server in servers))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


if __name__ == "__main__":
    if sys.argv[1] == "relay":
        asyncio.run(relay(sys.argv[2]))
    else:
        asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:6]))
