"""The meshes' sidecars under Tulle's control plane: tulle-proxy, and linkerd2-proxy where LINKERD2_PROXY_BIN names one.

Both get the environment that Tulle's injector gives to a pod, and the same control plane, so they are told the same.
"""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from tests.bench.places import OUTBOUND, Places, tracked
from tests.bench.plane import APP_PORTS, NAMESPACE, PORTS
from tests.bench.processes import LOAD_CORE, PROXY_CORE, running, until
from tests.bench.scenarios import Scenario
from tests.e2e.traffic.linkerd import key_and_request

__all__ = ["control_plane", "linkerd_binary", "sidecar_pair"]

INBOUND, ADMIN, TAP = 4143, 4191, 4190
SUFFIX = "serviceaccount.identity.linkerd.cluster.local"


def linkerd_binary() -> Path | None:
    """Return the linkerd2-proxy that the environment names; None when it names none."""
    named = os.environ.get("LINKERD2_PROXY_BIN", "")
    return Path(named) if named else None


@contextmanager
def control_plane(places: Places, folder: Path) -> Iterator[None]:
    """Run the control plane at the client's side, reachable on loopback from both."""
    address = "0.0.0.0" if places.transparent else "127.0.0.1"
    module = [sys.executable, "-m", "tests.bench.plane"]
    commands = [
        (places.client, [*module, str(folder), address, places.client_ip, places.app_ip, places.plain_ip])
    ]
    if places.transparent:
        commands.append((places.app, [*module, "relay", places.client_ip]))
    with ExitStack() as stack:
        for number, (place, command) in enumerate(commands):
            log = folder / f"plane-{number}.log"
            process = stack.enter_context(running(place, LOAD_CORE, command, log))
            until("the control plane", partial(_said_ready, log), process, log)
        yield


def _said_ready(log: Path) -> bool:
    return "ready\n" in log.read_text()


def _environment(name: str, ip: str, folder: Path, *, linkerd: bool) -> Mapping[str, str]:
    identity = f"{name}.{NAMESPACE}.{SUFFIX}"
    workload = {"ns": NAMESPACE, "pod": name}
    keys = folder / f"{name}-identity"
    keys.mkdir(exist_ok=True)
    if linkerd:
        key_and_request(keys, identity)
    control = {
        f"LINKERD2_PROXY_{role}_SVC_ADDR": f"127.0.0.1:{PORTS[service]}"
        for role, service in (("IDENTITY", "identity"), ("DESTINATION", "destination"), ("POLICY", "policy"))
    }
    return {
        **control,
        "PATH": os.environ.get("PATH", ""),
        "_pod_name": name, "_pod_ns": NAMESPACE, "_pod_ip": ip, "_pod_sa": name, "_l5d_ns": "linkerd",
        "LINKERD2_PROXY_LOG": "warn,linkerd=info",
        "LINKERD2_PROXY_CORES": "1",
        "LINKERD2_PROXY_DESTINATION_CONTEXT": json.dumps({**workload, "nodeName": "n1"}),
        "LINKERD2_PROXY_DESTINATION_PROFILE_NETWORKS": "10.0.0.0/8,127.99.0.0/16",
        "LINKERD2_PROXY_DESTINATION_PROFILE_SUFFIXES": "svc.cluster.local.",
        "LINKERD2_PROXY_POLICY_WORKLOAD": json.dumps(workload),
        "LINKERD2_PROXY_POLICY_CLUSTER_NETWORKS": "10.0.0.0/8,127.99.0.0/16",
        "LINKERD2_PROXY_INBOUND_DEFAULT_POLICY": "all-unauthenticated",
        "LINKERD2_PROXY_CONTROL_LISTEN_ADDR": f"{ip}:{TAP}",
        "LINKERD2_PROXY_ADMIN_LISTEN_ADDR": f"{ip}:{ADMIN}",
        "LINKERD2_PROXY_OUTBOUND_LISTEN_ADDR": f"{'127.0.0.1' if ip.startswith('10.') else ip}:{OUTBOUND}",
        "LINKERD2_PROXY_INBOUND_LISTEN_ADDR": f"{ip if ip.startswith('127.') else '0.0.0.0'}:{INBOUND}",
        "LINKERD2_PROXY_INBOUND_IPS": ip,
        "LINKERD2_PROXY_INBOUND_PORTS": ",".join(map(str, APP_PORTS.values())),
        "LINKERD2_PROXY_INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION": "25,587,3306",
        "LINKERD2_PROXY_INBOUND_ACCEPT_KEEPALIVE": "10000ms",
        "LINKERD2_PROXY_OUTBOUND_CONNECT_KEEPALIVE": "10000ms",
        "LINKERD2_PROXY_IDENTITY_DIR": str(keys),
        "LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS": (folder / "anchors.pem").read_text(),
        "LINKERD2_PROXY_IDENTITY_TOKEN_FILE": str(folder / f"{name}.token"),
        "LINKERD2_PROXY_IDENTITY_LOCAL_NAME": identity,
    }  # fmt: skip


@contextmanager
def sidecar_pair(
    commands: Mapping[str, Sequence[str]],
    scenario: Scenario,
    places: Places,
    folder: Path,
    *,
    linkerd: bool = False,
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run the sidecar of `client`, and that of `app` when the scenario has two hops, by their commands; each is ready."""
    sides = [("client", places.client, places.client_ip)]
    if scenario.hops == 2:
        sides.append(("app", places.app, places.app_ip))
    with ExitStack() as stack:
        if linkerd:
            stack.enter_context(tracked(places))
        processes = []
        for name, place, ip in sides:
            log = folder / f"{name}-sidecar.log"
            log.write_bytes(b"")
            env = _environment(name, ip, folder, linkerd=linkerd)
            process = stack.enter_context(running(place, PROXY_CORE, commands[name], log, env))
            until(f"the sidecar of {name}", partial(_ready, place, ip), process, log)
            processes.append(process)
        yield processes


def _ready(place: Sequence[str], ip: str) -> bool:
    url = f"http://{ip}:{ADMIN}/ready"
    if place:
        asked = subprocess.run([*place, "curl", "-sf", "-o", "/dev/null", url], timeout=5, check=False)
        return asked.returncode == 0
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
