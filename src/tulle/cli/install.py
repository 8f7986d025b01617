"""`tulle install`: print the control plane's manifests."""

from dataclasses import fields

import click
import yaml

from tulle.clock import SystemClock
from tulle.errors import UsageError
from tulle.inject.annotations import SPECS, BadAnnotation, settings
from tulle.inject.install import InstallValues, render

__all__ = ["command"]

MIN_LIFETIME = 10


@click.command(short_help="Print the control plane's manifests.")
@click.option(
    "--namespace", "-n", default="linkerd", show_default=True, help="Namespace of the control plane."
)
@click.option(
    "--set", "overrides", multiple=True, metavar="NAME=VALUE", help="Set a value; --help-values lists them."
)
@click.option("--help-values", is_flag=True, help="List the values and their defaults.")
@click.option("--output", "-o", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True)
def command(namespace: str, overrides: tuple[str, ...], help_values: bool, output: str) -> None:
    """Print namespace, CRDs, RBAC, certificates, controller, Services and webhooks for `kubectl apply -f -`.

    A trust anchor and an issuer are made anew at each call, so apply one printing and keep it.

    Example: tulle install | kubectl apply -f -
    """
    if help_values:
        for field in fields(InstallValues):
            click.echo(f"{field.name:26} {field.default!r}")
        return
    objects = render(_values(namespace, overrides), SystemClock().now())
    if output == "json":
        import msgspec

        listing = {"apiVersion": "v1", "kind": "List", "items": objects}
        click.echo(msgspec.json.format(msgspec.json.encode(listing), indent=2))
    else:
        click.echo(yaml.safe_dump_all(objects, sort_keys=False, explicit_start=True), nl=False)


def _values(namespace: str, overrides: tuple[str, ...]) -> InstallValues:
    known = {field.name: field for field in fields(InstallValues)}
    chosen: dict[str, object] = {"namespace": namespace}
    for override in overrides:
        name, equals, text = override.partition("=")
        key = name.replace("-", "_")
        if not equals or key not in known:
            raise UsageError(
                f"--set {override}: no such value", "", f"choose among {', '.join(sorted(known))}"
            )
        default = known[key].default
        try:
            if isinstance(default, bool):
                chosen[key] = {"true": True, "false": False}[text]
            elif isinstance(default, int):
                chosen[key] = int(text)
            else:
                chosen[key] = text
        except (KeyError, ValueError) as error:
            raise UsageError(f"--set {override}: expected a value like {default!r}") from error
    if int(str(chosen.get("issuance_lifetime", MIN_LIFETIME))) < MIN_LIFETIME:
        raise UsageError(
            f"--set issuance_lifetime={chosen['issuance_lifetime']}: too short",
            "proxies renew at 70 % of it and must have time to try again",
            f"choose at least {MIN_LIFETIME} (seconds)",
        )
    for key in (
        "default_inbound_policy",
        "opaque_ports",
        "image_pull_policy",
        "trace_collector",
        "trace_collector_service_account",
    ):
        if key in chosen:
            _check(key.replace("_", "-"), str(chosen[key]))
    if chosen.get("capture", "init") not in ("init", "cni", "explicit"):
        raise UsageError(f"--set capture={chosen['capture']}: not known", "", "choose init, cni or explicit")
    return InstallValues(**chosen)  # type: ignore[arg-type]


def _check(name: str, text: str) -> None:
    assert name in SPECS
    try:
        settings({f"config.linkerd.io/{name}": text}, {})
    except BadAnnotation as error:
        raise UsageError(f"--set {name}={text}: not valid", "", f"accepted: {error.accepted}") from error
