"""What a pod is told where nothing can be captured: addresses and ports in its environment. Pure.

In loopback mode an app binds HOST (the pod's address) and PORT; its clients find the sidecar by http_proxy; the sidecar
listens on the pod's address and knows which real port stands for which port of the manifest.
"""

import re
from collections.abc import Callable, Mapping

from tulle.local.api.objects import Obj

__all__ = ["PROXY_CONTAINER", "PROXY_INIT", "app_variables", "container_ports", "proxy_variables"]

PROXY_CONTAINER = "linkerd-proxy"
PROXY_INIT = "linkerd-init"
OUTBOUND_PORT = 4140

Port = Callable[[int], int]

_LISTEN = re.compile(r"^LINKERD2_PROXY_\w*LISTEN_ADDRS?$")
_CONTROL = re.compile(r"^LINKERD2_PROXY_\w+_SVC_ADDR$")


def container_ports(pod: Obj, *, but: str = PROXY_CONTAINER) -> list[int]:
    """Return the TCP ports that the pod's containers declare, those of container `but` left out."""
    spec = pod["spec"]
    ports = {
        int(port["containerPort"])
        for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ()))
        if container["name"] != but
        for port in container.get("ports") or ()
        if (port.get("protocol") or "TCP") == "TCP"
    }
    return sorted(ports)


def app_variables(container: Obj, *, ip: str, meshed: bool, app_port: Port) -> dict[str, str]:
    """Return what an app is told; the manifest's own variables come later and win."""
    env = {"HOST": ip}
    ports = [
        int(p["containerPort"]) for p in container.get("ports") or () if (p.get("protocol") or "TCP") == "TCP"
    ]
    if ports:
        env["PORT"] = str(app_port(ports[0]))
    if meshed:
        proxy = f"http://{ip}:{OUTBOUND_PORT}"
        # HTTPS_PROXY is what grpc-go asks for, even where it speaks no TLS; a tunnel's bytes are routed all the same.
        names = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "grpc_proxy")
        env |= dict.fromkeys(names, proxy)
        env |= dict.fromkeys(("no_proxy", "NO_PROXY"), f"localhost,127.0.0.1,::1,{ip}")
    return env


def proxy_variables(
    env: Mapping[str, str], *, ip: str, ports: list[int], app_port: Port, plain_port: Port
) -> dict[str, str]:
    """Return the sidecar's environment with its listeners on the pod's address and its ports explained.

    Nothing redirects a connection to a control-plane pod into that pod's sidecar, so control addresses name the port
    at which the sidecar listens in the app's stead.
    """
    changed = dict(env)
    for name, value in env.items():
        if _LISTEN.match(name):
            listeners = dict.fromkeys(
                f"{ip}:{address.rpartition(':')[2]}" for address in value.split(",") if address
            )
            changed[name] = ",".join(listeners)
        elif _CONTROL.match(name) and value:
            host, _, port = value.rpartition(":")
            if host in ("localhost", "localhost.", "127.0.0.1"):
                changed[name] = f"{ip}:{app_port(int(port))}"
            else:
                changed[name] = f"{host}:{plain_port(int(port))}"
    moved = [f"{port}={app_port(port)}" for port in ports if app_port(port) != port]
    if moved:
        changed["TULLE_PROXY_INBOUND_PORT_MAP"] = ",".join(moved)
    if ports:
        changed["TULLE_PROXY_INBOUND_EXTRA_LISTENERS"] = ",".join(
            f"{ip}:{plain_port(port)}={port}" for port in ports
        )
    return changed
