"""`tulle logs`: what a container has written."""

import sys

import click

from tulle.cli.cluster import Cluster, cluster_options, connected, namespace_option

__all__ = ["command"]

INTERRUPTED = 130


@click.command()
@click.argument("pod")
@click.option("--container", "-c", metavar="NAME", help="Which container; linkerd-proxy is the sidecar.")
@click.option("--follow", "-f", is_flag=True, help="Go on as more is written.")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N lines.")
@click.option("--since", type=click.IntRange(min=1), metavar="SECONDS", help="Only what is not older.")
@click.option("--previous", "-p", is_flag=True, help="Of the run before the last restart.")
@click.option("--timestamps", is_flag=True, help="Begin each line with its time.")
@namespace_option
@cluster_options
def command(
    pod: str,
    container: str | None,
    follow: bool,
    tail: int | None,
    since: int | None,
    previous: bool,
    timestamps: bool,
    namespace: str | None,
    kubeconfig: str | None,
    context: str | None,
) -> None:
    """Print a container's log.

    POD is a pod's name, or deploy/NAME, svc/NAME and the like for the first of its pods.

    Example: tulle logs deploy/web -n emojivoto -c linkerd-proxy -f
    """
    params = {
        "follow": "true" if follow else None,
        "previous": "true" if previous else None,
        "timestamps": "true" if timestamps else None,
        "tailLines": None if tail is None else str(tail),
        "sinceSeconds": None if since is None else str(since),
    }

    async def show(cluster: Cluster) -> None:
        from contextlib import aclosing

        from tulle.cli.pods import container_of, find_pod

        where = cluster.namespace(namespace)
        found = await find_pod(cluster.client, where, pod)
        path = f"/api/v1/namespaces/{where}/pods/{found['metadata']['name']}/log"
        given = {name: value for name, value in params.items() if value is not None}
        stream = cluster.client.stream(path, container=container_of(found, container), **given)
        async with aclosing(stream) as pieces:
            async for piece in pieces:
                sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()

    try:
        connected(kubeconfig, context, show)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
