"""`tulle controller`: run the control plane against a Kubernetes API."""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tulle.errors import TulleError, UsageError

if TYPE_CHECKING:
    from tulle.compile.mesh import Mesh
    from tulle.control.controller import Addition, Role, Webhook
    from tulle.control.views import Views

ROLES = "identity,destination,policy,inject"
FIRST_PORTS = {"identity": 8080, "destination": 8086, "policy": 8090, "webhook": 8443, "admin": 9990}


@click.command()
@click.option("--roles", default=ROLES, show_default=True, help="Comma list of what this process does.")
@click.option(
    "--kubeconfig", help="File that names the API; default: $KUBECONFIG, else the pod's service account."
)
@click.option("--context", help="Context of the kubeconfig.")
@click.option("--namespace", default="linkerd", show_default=True, help="The control plane's namespace.")
@click.option("--address", envvar="TULLE_CONTROLLER_ADDRESS", help="Address to listen on. [default: all]")
@click.option(
    "--log-level", default="info", show_default=True, type=click.Choice(["debug", "info", "warning"])
)
@click.option("--config-dir", envvar="TULLE_CONFIG_DIR", help="Directory of the ConfigMap linkerd-config.")
@click.option(
    "--trust-roots-dir", envvar="TULLE_TRUST_ROOTS_DIR", help="Directory of the trust roots' ConfigMap."
)
@click.option("--issuer-dir", envvar="TULLE_ISSUER_DIR", help="Directory of the issuer's Secret.")
@click.option("--tls-dir", envvar="TULLE_TLS_DIR", help="Directory of the webhook's tls.crt and tls.key.")
@click.option("--port", "ports", multiple=True, metavar="NAME=PORT", help=f"Other ports than {FIRST_PORTS}.")
@click.option(
    "--allow-l5d-request-headers",
    is_flag=True,
    envvar="TULLE_ALLOW_L5D_REQUEST_HEADERS",
    help="Let requests ask for timeouts and retries of their own.",
)
def command(**options: Any) -> None:
    """Run the control plane.

    It keeps no state: it reads the cluster, answers proxies, and can be stopped and started at any time.

    Example: tulle controller --kubeconfig ~/.kube/config --roles destination,policy
    """
    # Start-up makes many objects and no garbage; the controller sets its own pace once the cluster has been read.
    gc.set_threshold(100_000)
    logging.basicConfig(
        level=options["log_level"].upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    # One line for every request of every proxy is not a log.
    for chatty in ("httpx2", "httpcore2", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        asyncio.run(_run(options))
    except* OSError as group:
        first = _first(group)
        raise TulleError(
            "the control plane cannot start", str(first), "free the port or give --port"
        ) from first


def _first(group: BaseExceptionGroup[OSError]) -> BaseException:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


async def _run(options: dict[str, Any]) -> None:
    from tulle.clock import SystemClock
    from tulle.control.controller import Controller, Ports, Settings
    from tulle.control.issuing import from_api, from_files
    from tulle.kube.client import Client, load_config

    roles = _roles(options["roles"])
    mesh, lifetime = _installation(options["config_dir"], options["namespace"])
    mesh = replace(mesh, allow_l5d_request_headers=options["allow_l5d_request_headers"])
    settings = Settings(
        roles=roles,
        mesh=mesh,
        address=_address(options["address"]),
        ports=Ports(**_ports(options["ports"])),
        replica=os.environ.get("POD_NAME") or f"{socket.gethostname()}-{os.getpid()}",
        issuance_lifetime=lifetime,
    )
    async with Client(load_config(options["kubeconfig"], options["context"])) as client:
        if options["issuer_dir"] and options["trust_roots_dir"]:
            issuer = from_files(Path(options["issuer_dir"]), Path(options["trust_roots_dir"]))
        else:
            issuer = from_api(client, options["namespace"])
        webhook = None
        if "inject" in roles:
            webhook = partial(
                _webhook,
                client=client,
                tls_dir=options["tls_dir"],
                config_dir=options["config_dir"],
                roots_dir=options["trust_roots_dir"],
            )
        controller = Controller(client, settings, SystemClock(), issuer, webhook, _metrics_api)
        logging.getLogger("tulle.control").info("roles %s, API %s", ",".join(sorted(roles)), client.server)
        await _until_told(controller.run())


async def _until_told(work: Any) -> None:
    """Run until SIGTERM or SIGINT, which end it in order."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(work, name="controller")
        waiting = tasks.create_task(stop.wait(), name="signal")
        await asyncio.wait((running, waiting), return_when=asyncio.FIRST_COMPLETED)
        running.cancel()
        waiting.cancel()


def _roles(text: str) -> "frozenset[Role]":
    from tulle.control.controller import ROLES as KNOWN

    asked = [role.strip() for role in text.split(",") if role.strip()]
    unknown = [role for role in asked if role not in KNOWN]
    if unknown or not asked:
        raise UsageError(
            f"--roles {text!r}: {unknown[0] if unknown else 'nothing'!r} is not a role",
            "",
            f"choose from {', '.join(KNOWN)}",
        )
    return frozenset(role for role in KNOWN if role in asked)


def _address(text: str | None) -> str:
    """Listen where told; where pods have loopback addresses, HOST is this pod's."""
    if text:
        return text
    host = os.environ.get("HOST", "")
    try:
        return str(ip_address(host))
    except ValueError:
        return "0.0.0.0"


def _ports(asked: Sequence[str]) -> dict[str, int]:
    ports = dict(FIRST_PORTS)
    for text in asked:
        name, _, number = text.partition("=")
        if name not in ports or not number.isdecimal() or int(number) > 65535:
            raise UsageError(f"--port {text!r} is not NAME=PORT", "", f"NAME is one of {', '.join(ports)}")
        ports[name] = int(number)
    return ports


def _installation(config_dir: str | None, namespace: str) -> "tuple[Mesh, timedelta]":
    """Return the mesh's names and how long certificates are valid."""
    from tulle.compile.mesh import Mesh
    from tulle.control.issuer import LIFETIME
    from tulle.inject.install.values import read_values
    from tulle.tools.installation import mesh_of

    if not config_dir:
        return Mesh(control_plane_namespace=namespace), LIFETIME
    path = Path(config_dir, "values")
    try:
        values = read_values(path.read_text())
        return mesh_of(values), timedelta(seconds=values.issuance_lifetime)
    except (OSError, ValueError) as error:
        raise TulleError(f"cannot read {path}", str(error), "install again with `tulle install`") from error


def _webhook(
    views: "Views", *, client: Any, tls_dir: str | None, config_dir: str | None, roots_dir: str | None
) -> "Webhook":
    from tulle.cli.admission import AdmissionSource
    from tulle.control.controller import Webhook
    from tulle.control.serving import ServingCertificate
    from tulle.inject.webhook import app

    if not (tls_dir and config_dir and roots_dir):
        raise UsageError(
            "the role inject needs its certificate and configuration",
            "--tls-dir, --config-dir and --trust-roots-dir are not all given",
            "run it by the manifests of `tulle install`, or leave inject out of --roles",
        )
    source = AdmissionSource(
        views.world, client, Path(config_dir, "values"), Path(roots_dir, "ca-bundle.crt")
    )
    return Webhook(app(source), ServingCertificate(Path(tls_dir)))


def _metrics_api(views: "Views", mesh: "Mesh") -> "Addition":
    """Scrape the sidecars and answer what `tulle stat` asks."""
    from tulle.clock import SystemClock
    from tulle.viz.service import MetricsApi

    return MetricsApi(views.world, mesh, SystemClock())
