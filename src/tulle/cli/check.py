"""`tulle check`: verify the machine, the API, the control plane, certificates and each sidecar."""

import json
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

import tulle
from tulle.cli.cluster import cluster_options, control_plane_option, kubeconfig_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from tulle.tools.check import Category
    from tulle.tools.check_gather import Certificates
    from tulle.tools.check_machine import MachineFacts

__all__ = ["command"]

PROGRAM_SECONDS = 5.0


@click.command()
@click.option("--pre", is_flag=True, help="Only the machine: before the first `tulle up`.")
@click.option("--output", "-o", type=click.Choice(["text", "json"]), default="text", show_default=True)
@control_plane_option
@cluster_options
def command(
    pre: bool, output: str, linkerd_namespace: str, kubeconfig: str | None, context: str | None
) -> None:
    """Verify the machine, the API, the control plane and each proxy.

    Each line is √ (well), ‼ (will matter) or × (does not work), the latter two with a hint. Exits with 1 if anything
    does not work.

    Example: tulle check -o json
    """
    from tulle.tools.check import as_json, as_text, succeeded
    from tulle.tools.check_machine import machine

    categories: list[Category] = [machine(_machine_facts())]
    if not pre:
        categories += _cluster_categories(linkerd_namespace, kubeconfig, context)
    click.echo(
        json.dumps(as_json(categories), indent=2, ensure_ascii=False)
        if output == "json"
        else as_text(categories)
    )
    sys.exit(0 if succeeded(categories) else 1)


def _cluster_categories(namespace: str, kubeconfig: str | None, context: str | None) -> "Sequence[Category]":
    import asyncio

    from tulle.clock import SystemClock
    from tulle.errors import TulleError
    from tulle.kube.client import Client, load_config
    from tulle.tools import check_cluster
    from tulle.tools.check import Category, failed
    from tulle.tools.check_gather import Certificates, gather

    try:
        config = load_config(kubeconfig_of(kubeconfig), context)

        async def read() -> tuple[check_cluster.Cluster, Certificates]:
            async with Client(config) as client:
                return await gather(client, namespace)

        cluster, certificates = asyncio.run(read())
    except TulleError as error:
        reason = "\n".join(part for part in (error.what, error.why) if part)
        hint = error.next_step or "give --kubeconfig FILE"
        return [Category("kubernetes-api", [failed("an API is configured", reason, hint)])]
    found = [check_cluster.api(cluster)]
    if cluster.version.found is None:
        return found
    found.append(check_cluster.control_plane(cluster, tulle.__version__))
    now = SystemClock().now()
    found.append(_certificates(certificates, now))
    found.append(check_cluster.proxies(cluster, tulle.__version__, now))
    return found


def _certificates(read: "Certificates", now: "datetime") -> "Category":
    from tulle.tools import check_certificates
    from tulle.tools.check import Category, warned

    hint = "install the control plane, or use a kubeconfig that may read it"
    checks = [warned(f"{what} can be read", why, hint) for what, why in read.trouble]
    if read.roots:
        checks += check_certificates.anchors(read.roots, now)
    if read.roots and read.issuer:
        checks += check_certificates.issuer(read.issuer, read.issuer_key, read.roots, now)
    if read.serving:
        checks += check_certificates.serving("the webhook", read.serving, read.bundles, now)
    return Category("certificates", checks)


def _machine_facts() -> "MachineFacts":
    """Look at this machine."""
    from tulle.local import proxy_binary
    from tulle.local.net.choose import choose
    from tulle.local.net.probe import facts
    from tulle.local.state import folder_of
    from tulle.tools.check_machine import MachineFacts

    # First of all: it forks, and must do so before there are threads.
    choice = choose("auto", facts("auto"))
    path, version, trouble = "", "", ""
    try:
        path = str(proxy_binary.find_proxy())
        version = _version_of(path)
    except proxy_binary.ProxyNotFound as error:
        trouble = f"{error.what}: {error.why}"
    except (OSError, subprocess.SubprocessError) as error:
        trouble = f"{path}: {error}"
    state = folder_of("tulle").parent
    return MachineFacts(
        system=platform.system(),
        kernel=platform.release(),
        python=sys.version_info[:3],
        version=tulle.__version__,
        proxy_path=path,
        proxy_version=version,
        proxy_trouble=trouble,
        engine_trouble=_engine_trouble(),
        network=choice.mode,
        network_reason=choice.reason,
        loopback_trouble=_loopback_trouble(),
        state_folder=str(state),
        state_trouble=_state_trouble(state),
    )


def _version_of(path: str) -> str:
    done = subprocess.run(
        [path, "--version"], capture_output=True, text=True, timeout=PROGRAM_SECONDS, check=True
    )
    return done.stdout.split()[-1] if done.stdout.split() else ""


def _engine_trouble() -> str:
    try:
        import tulle._engine  # noqa: F401 - whether it can be imported is the question
    except ImportError as error:
        return str(error)
    return ""


def _loopback_trouble() -> str:
    try:
        with socket.create_server(("127.1.0.1", 0)):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def _state_trouble(folder: Path) -> str:
    """Look at the nearest folder that is there; the rest would be made in it."""
    there = next((each for each in (folder, *folder.parents) if each.exists()), Path("/"))
    return "" if os.access(there, os.W_OK | os.X_OK) else f"{there} may not be written"
