"""`tulle explain`: the decision that the proxies would take for a request, and why."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tulle.local.sources import Manifest
    from tulle.tools.explanation import Explanation
    from tulle.tools.question import Question

__all__ = ["command"]


@click.command(short_help="Show the decision the proxies would take for a request, and why.")
@click.option("--from", "source", required=True, metavar="KIND/NAME", help="Who sends, such as deploy/web.")
@click.option(
    "--to",
    "url",
    required=True,
    metavar="URL",
    help="http://NAME[:PORT]/PATH, or grpc://NAME/SERVICE/METHOD.",
)
@click.option("--method", help="Method of the request.  [default: GET; POST for grpc]")
@click.option(
    "--header", "-H", "headers", multiple=True, metavar="NAME:VALUE", help="A header of the request."
)
@click.option("--namespace", "-n", default="default", show_default=True, help="Namespace of the workload.")
@click.option("--output", "-o", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option(
    "--kubeconfig", help="The cluster to read.  [default: $KUBECONFIG, else the mesh that runs here]"
)
@click.option("--context", help="Context of the kubeconfig.")
@click.option(
    "--control-plane-namespace", default="linkerd", show_default=True, help="Where the control plane is."
)
def command(
    source: str,
    url: str,
    method: str | None,
    headers: tuple[str, ...],
    namespace: str,
    output: str,
    kubeconfig: str | None,
    context: str | None,
    control_plane_namespace: str,
) -> None:
    """Work out a request's way without sending it: route, backends, endpoints, authorization, verdict.

    The proxies' own engine decides on the messages that the control plane would send them. Each step names the object
    that it comes from, with the line of YAML when `tulle up` applied it from a file.

    Example: tulle explain --from deploy/web --to http://voting.default:80/api/vote --header 'x-canary: yes'
    """
    import asyncio

    from tulle.tools.question import Question, parse_request, parse_workload

    question = Question(parse_workload(source, namespace), parse_request(url, method, headers), url)
    explanation = asyncio.run(_explain(question, kubeconfig, context, control_plane_namespace))
    if output == "json":
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(explanation), indent=2))
    else:
        from tulle.tools.explain_text import lines

        for line in lines(explanation):
            click.echo(line)


async def _explain(
    question: "Question", kubeconfig: str | None, context: str | None, namespace: str
) -> "Explanation":
    from tulle.kube.client import Client, load_config
    from tulle.tools.explain import explain
    from tulle.tools.explain_cluster import read_mesh, read_world

    async with Client(load_config(kubeconfig or _running(), context)) as client:
        mesh = await read_mesh(client, namespace)
        world = await read_world(client)
    return explain(world, mesh, question, locate)


def _running() -> str | None:
    """Return the kubeconfig of the one mesh that runs on this machine, unless the environment names a cluster."""
    import os

    from tulle.local.state import folder_of, running_names

    names = [] if os.environ.get("KUBECONFIG") else running_names()
    return str(folder_of(names[0]) / "kubeconfig") if len(names) == 1 else None


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
