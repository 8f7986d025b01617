"""`tulle inject`: add the sidecar to manifests."""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import click

from tulle.errors import TulleError, UsageError
from tulle.inject import BadAnnotation, InjectConfig
from tulle.inject.annotations import INJECT, settings
from tulle.inject.pod import Obj
from tulle.inject.stream import annotate, sidecar, transform

__all__ = ["command", "read_sources", "run"]


def read_sources(files: Iterable[str]) -> list[tuple[str, str]]:
    """Return (name, text) of each file, of each YAML file below a directory, or of standard input for `-`."""
    sources: list[tuple[str, str]] = []
    for name in files:
        if name == "-":
            sources.append(("standard input", sys.stdin.read()))
            continue
        path = Path(name)
        if not path.exists():
            raise UsageError(
                f"{name}: no such file or directory", "", "name a YAML file, a directory, or - for stdin"
            )
        paths = (
            sorted(p for p in path.rglob("*") if p.suffix in (".yaml", ".yml")) if path.is_dir() else [path]
        )
        if not paths:
            raise UsageError(f"{name}: holds no .yaml or .yml file")
        sources.extend((str(each), each.read_text()) for each in paths)
    return sources


def run(files: Iterable[str], change: Callable[[Obj], tuple[Obj, str]]) -> None:
    """Print the changed manifests to stdout and a line for each object to stderr."""
    reports = []
    for name, text in read_sources(files):
        try:
            result, done = transform(text, name, change)
        except BadAnnotation as error:
            raise TulleError(f"{name}: {error}", "", "correct the annotation and call again") from error
        click.echo(result, nl=False)
        reports += done
    click.echo("", err=True)
    for report in reports:
        click.echo(str(report), err=True)


@click.command(short_help="Add the sidecar to manifests.")
@click.argument("files", nargs=-1, required=True)
@click.option("--manual", is_flag=True, help="Write the whole sidecar instead of the annotation alone.")
@click.option("--ingress", is_flag=True, help="Inject in ingress mode (linkerd.io/inject: ingress).")
@click.option(
    "--native-sidecar/--no-native-sidecar", default=None, help="Run the proxy as a native sidecar, or not."
)
@click.option("--opaque-ports", help="Ports on which the protocol is not detected, such as 3306,6379.")
@click.option("--skip-inbound-ports", help="Inbound ports that bypass the proxy.")
@click.option("--skip-outbound-ports", help="Outbound ports that bypass the proxy.")
@click.option(
    "--default-inbound-policy", help="Policy for ports without a Server, such as all-authenticated."
)
@click.option("--proxy-log-level", help="Log level of the proxy.")
@click.option("--proxy-cpu-limit", help="CPU limit of the proxy, such as 500m.")
@click.option("--proxy-memory-limit", help="Memory limit of the proxy, such as 64Mi.")
@click.option(
    "--kubeconfig", type=click.Path(), help="Cluster to read the trust anchors from (with --manual)."
)
def command(
    files: tuple[str, ...], manual: bool, ingress: bool, kubeconfig: str | None, **flags: object
) -> None:
    """Add the sidecar to the manifests in FILES (- for stdin); the result goes to stdout.

    Example: kubectl get deploy web -o yaml | tulle inject - | kubectl apply -f -
    """
    annotations = {INJECT: "ingress" if ingress else "enabled"}
    for flag, value in flags.items():
        if value is None:
            continue
        name = "proxy-enable-native-sidecar" if flag == "native_sidecar" else flag.replace("_", "-")
        annotations[f"config.linkerd.io/{name}"] = (
            str(value).lower() if isinstance(value, bool) else str(value)
        )
    try:
        settings(annotations, {})
    except BadAnnotation as error:
        raise UsageError(str(error)) from error
    if not manual:
        run(files, lambda obj: annotate(obj, annotations))
        return
    config = _installed_config(kubeconfig)
    run(files, lambda obj: sidecar(obj, config, annotations))


def _installed_config(kubeconfig: str | None) -> InjectConfig:
    """Read the installation's values and trust anchors from the cluster."""
    from lightkube import Client, KubeConfig
    from lightkube.core.exceptions import ApiError, ConfigError, LoadResourceError
    from lightkube.resources.core_v1 import ConfigMap

    from tulle.inject.install import inject_config, read_values

    try:
        client = Client(KubeConfig.from_file(kubeconfig) if kubeconfig else KubeConfig.from_env())
        installed = client.get(ConfigMap, "linkerd-config", namespace="linkerd").data or {}
        roots = client.get(ConfigMap, "linkerd-identity-trust-roots", namespace="linkerd").data or {}
        return inject_config(read_values(installed["values"]), roots["ca-bundle.crt"])
    except (ApiError, ConfigError, LoadResourceError, KeyError, OSError) as error:
        raise TulleError(
            "the installation's values cannot be read from the cluster",
            str(error),
            "check with `tulle check`, or inject without --manual",
        ) from error
