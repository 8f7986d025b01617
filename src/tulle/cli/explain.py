"""`tulle explain`: the decision that the proxies would take for a request, or took for one, and why."""

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
@click.argument("request_id", required=False, metavar="[REQUEST-ID]")
@click.option("--from", "source", metavar="KIND/NAME", help="Who sends, such as deploy/web.")
@click.option(
    "--to",
    "url",
    metavar="URL",
    help="What is asked: http://NAME[:PORT]/PATH, or grpc://NAME[:PORT]/SERVICE/METHOD.",
)
@click.option("--method", metavar="M", help="Method of the request. [default: GET; POST for grpc]")
@click.option("--header", "-H", "headers", multiple=True, metavar="K:V", help="A header of the request.")
@click.option(
    "--pod", metavar="POD", help="With REQUEST-ID: whose sidecar is asked. [default: all of the namespace]"
)
@click.option("--output", "-o", type=click.Choice(["text", "json"]), default="text", show_default=True)
@control_plane_option
@namespace_option
@cluster_options
def command(
    request_id: str | None,
    source: str | None,
    url: str | None,
    method: str | None,
    headers: tuple[str, ...],
    pod: str | None,
    output: str,
    linkerd_namespace: str,
    namespace: str | None,
    kubeconfig: str | None,
    context: str | None,
) -> None:
    """Work out a request's way without sending it: route, backends, endpoints, authorization, verdict.

    The proxies' own engine decides on the messages that the control plane would send them. Each step names the object
    that it comes from, with the line of YAML when `tulle up` applied it from a file.

    With REQUEST-ID, which a refusal carries as `tulle-request-id`: how the sidecars of a namespace came to refuse that
    request, or why it failed. Each keeps its last 64.

    Example: tulle explain --from deploy/web --to http://voting.default:80/api/vote --header 'x-canary: yes'

    Example: tulle explain 9f86d081884c7d65 -n emojivoto
    """
    from tulle.errors import UsageError

    if request_id is not None:
        if source or url or method or headers:
            raise UsageError(
                "REQUEST-ID asks about a request that was sent",
                "--from, --to, --method and --header describe one that was not",
                "give either",
            )
        return _refused(request_id, pod, output, namespace, kubeconfig, context)
    if pod is not None or source is None or url is None:
        raise UsageError(
            "what is to be explained?",
            "there is neither a REQUEST-ID (--pod goes with it) nor both --from and --to",
            "tulle explain --from deploy/web --to http://voting/vote, or tulle explain REQUEST-ID",
        )
    explanation = _explanation(
        source, url, method, headers, linkerd_namespace, namespace, kubeconfig, context
    )
    if output == "json":
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(explanation), indent=2))
        return
    from tulle.tools.explain_text import lines

    for line in lines(explanation):
        click.echo(line)


def _explanation(
    source: str,
    url: str,
    method: str | None,
    headers: tuple[str, ...],
    linkerd_namespace: str,
    namespace: str | None,
    kubeconfig: str | None,
    context: str | None,
) -> "Explanation":
    """Work out the way of a request that was not sent."""
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

    return connected(kubeconfig, context, work)


def _refused(
    request_id: str,
    pod: str | None,
    output: str,
    namespace: str | None,
    kubeconfig: str | None,
    context: str | None,
) -> None:
    """Print how sidecars came to refuse the request of this id."""
    from tulle.errors import TulleError
    from tulle.tools.explain_refused import Asked, ask, lines

    async def work(cluster: Cluster) -> "tuple[str, int, Asked]":
        from tulle.cli.metrics import ADMIN_PORT
        from tulle.cli.pods import find_pod, meshed_pods
        from tulle.kube.forward import get_inside

        where = cluster.namespace(namespace)
        if pod is None:
            names = await meshed_pods(cluster.client, where)
        else:
            names = [(await find_pod(cluster.client, where, pod))["metadata"]["name"]]

        async def get(name: str, path: str) -> tuple[int, bytes]:
            return await get_inside(cluster.config, where, name, ADMIN_PORT, path)

        return where, len(names), await ask(get, names, request_id)

    where, count, asked = connected(kubeconfig, context, work)
    if not asked.found:
        silent = "".join(f"; {name} could not be asked: {why}" for name, why in asked.silent)
        raise TulleError(
            f"no sidecar knows a request {request_id}",
            f"asked {count} pods in namespace {where}; each keeps its last 64 refused or failed requests{silent}",
            "is it the namespace of the client or of the server (-n)? The answer's tulle-request-id is the id",
        )
    if output == "json":
        import msgspec

        entries = [{"pod": found.pod, **found.entry} for found in asked.found]
        click.echo(msgspec.json.format(msgspec.json.encode(entries), indent=2))
        return
    for number, found in enumerate(asked.found):
        if number:
            click.echo()
        for line in lines(found):
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
