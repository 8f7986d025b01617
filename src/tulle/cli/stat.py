"""`tulle stat`: golden metrics of workloads, pods, Services and namespaces."""

from typing import TYPE_CHECKING

import click

from tulle.cli.cluster import Cluster, cluster_options, connected, control_plane_option, namespace_option

if TYPE_CHECKING:
    from tulle.viz.answers import Stat

__all__ = ["command"]

LONGEST_WINDOW = 600


@click.command()
@click.argument("kind")
@click.argument("name", required=False)
@namespace_option
@click.option("--all-namespaces", "-A", is_flag=True, help="Look in all namespaces.")
@click.option(
    "--time-window",
    "-t",
    default="1m",
    show_default=True,
    metavar="TIME",
    help="How far to look back (10s, 1m); the control plane keeps the last 60 looks.",
)
@click.option(
    "--output", "-o", type=click.Choice(["table", "wide", "json"]), default="table", show_default=True
)
@control_plane_option
@cluster_options
def command(
    kind: str,
    name: str | None,
    namespace: str | None,
    all_namespaces: bool,
    time_window: str,
    output: str,
    linkerd_namespace: str,
    kubeconfig: str | None,
    context: str | None,
) -> None:
    """Show golden metrics of workloads.

    KIND is deploy, sts, ds, rs, job, cj, po, svc or ns, by any name that kubectl knows; NAME picks one; KIND/NAME
    works too. Success, requests per second and latencies are those of requests that reached the pods; for svc those
    that clients saw.

    Example: tulle stat deploy -n emojivoto -o wide
    """
    from tulle.errors import TulleError, UsageError
    from tulle.viz import kinds
    from tulle.viz.client import MetricsClient

    if name is None and "/" in kind:
        kind, _, name = kind.partition("/")
    try:
        full_kind = kinds.kind_named(kind)
    except kinds.UnknownKind as error:
        raise UsageError(f"cannot show {kind}", str(error), "for instance: tulle stat deploy") from error
    window = _seconds(time_window)
    everywhere = all_namespaces or full_kind == "Namespace"

    async def ask(cluster: Cluster) -> "tuple[Stat, str]":
        metrics = MetricsClient(cluster.client, linkerd_namespace)
        chosen = cluster.namespace(namespace)
        where = None if everywhere else chosen
        return await metrics.stat(kind, namespace=where, name=name, window=window), chosen

    stat, chosen = connected(kubeconfig, context, ask)
    if output == "json":
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(stat)).decode())
        return
    if stat.rows:
        _print_table(stat, wide=output == "wide", namespaces=everywhere and full_kind != "Namespace")
        return
    where = "" if everywhere else f" in namespace {chosen}"
    if name is not None:
        raise TulleError(
            f"{full_kind} {name} is not there{where}",
            "no such resource, or none of its pods runs",
            f"list them: tulle stat {kind} -A",
        )
    click.echo(f"No resources found{where}.", err=True)


def _print_table(stat: "Stat", *, wide: bool, namespaces: bool) -> None:
    from tulle.cli.golden import COLUMNS, WIDE_COLUMNS, columns, stat_cells

    header = COLUMNS + (WIDE_COLUMNS if wide else ())
    rows = [stat_cells(row, wide=wide) for row in stat.rows]
    if namespaces:
        header = ("NAMESPACE", *header)
        rows = [(row.namespace, *cells) for row, cells in zip(stat.rows, rows, strict=True)]
        click.echo(columns(header, rows, left=2))
    else:
        click.echo(columns(header, rows))


def _seconds(text: str) -> float:
    from tulle.cli.demo import seconds
    from tulle.errors import UsageError

    try:
        window = seconds(text)
    except ValueError as error:
        raise UsageError(f"--time-window: {error}", "", "write for instance 10s or 1m") from error
    if not 1 <= window <= LONGEST_WINDOW:
        raise UsageError(f"--time-window {text} is not between 1s and 10m")
    return window
