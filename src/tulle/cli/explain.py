"""`tulle explain`: the decision that the proxies would take for a request, and why."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tulle.cli.cluster import Cluster, cluster_options, connected, control_plane_option, namespace_option

if TYPE_CHECKING:
    from tulle.local.sources import Manifest
    from tulle.tools.explanation import Explanation

__all__ = ["command"]


@click.command(short_help="Show the decision the proxies would take for a request, and why.")
@click.option("--from", "source", required=True, metavar="KIND/NAME", help="Who sends, such as deploy/web.")
@click.option(
    "--to",
    "url",
    required=True,
    metavar="URL",
    help="What is asked: http://NAME[:PORT]/PATH, or grpc://NAME[:PORT]/SERVICE/METHOD.",
)
@click.option("--method", metavar="M", help="Method of the request. [default: GET; POST for grpc]")
@click.option("--header", "-H", "headers", multiple=True, metavar="K:V", help="A header of the request.")
@click.option("--output", "-o", type=click.Choice(["text", "json"]), default="text", show_default=True)
@control_plane_option
@namespace_option
@cluster_options
def command(
    source: str,
    url: str,
    method: str | None,
    headers: tuple[str, ...],
    output: str,
    linkerd_namespace: str,
    namespace: str | None,
    kubeconfig: str | None,
    context: str | None,
) -> None:
    """Work out a request's way without sending it: route, backends, endpoints, authorization, verdict.

    The proxies' own engine decides on the messages that the control plane would send them. Each step names the object
    that it comes from, with the line of YAML when `tulle up` applied it from a file.

    Example: tulle explain --from deploy/web --to http://voting.default:80/api/vote --header 'x-canary: yes'
    """
    from tulle.tools.question import Question, parse_request, parse_workload

    request = parse_request(url, method, headers)
    # Wrong usage is told before anything is connected to.
    parse_workload(source, namespace or "default")

    async def work(cluster: Cluster) -> "Explanation":
        from tulle.tools.explain import explain
        from tulle.tools.explain_cluster import read_mesh, read_world

        workload = parse_workload(source, cluster.namespace(namespace))
        mesh = await read_mesh(cluster.client, linkerd_namespace)
        world = await read_world(cluster.client)
        return explain(world, mesh, Question(workload, request, url), locate)

    explanation = connected(kubeconfig, context, work)
    if output == "json":
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(explanation), indent=2))
        return
    from tulle.tools.explain_text import lines

    for line in lines(explanation):
        click.echo(line)


def locate(source: str, field: str) -> str:
    """Return `file:line` of a field of the object at `file:line`, or the object's own when the file has changed."""
    manifest = next((found for found in _manifests(source.rpartition(":")[0]) if found.where == source), None)
    return manifest.locate(field) if manifest is not None and field else source


@cache
def _manifests(file: str) -> "tuple[Manifest, ...]":
    from tulle.errors import TulleError
    from tulle.local.sources import parse

    try:
        return tuple(parse(Path(file).read_text(), file))
    except (OSError, UnicodeDecodeError, TulleError):
        return ()  # the file is not here, or no longer what was applied: the object's own line is still true
