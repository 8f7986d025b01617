"""`tulle exec`: a command inside a pod, with its streams, its terminal and its exit code."""

import sys

import click

from tulle.cli.cluster import Cluster, cluster_options, connected, namespace_option

__all__ = ["command"]

INTERRUPTED = 130


@click.command(context_settings={"ignore_unknown_options": False})
@click.argument("pod")
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND…")
@click.option("--container", "-c", metavar="NAME", help="Which container; default: the application's.")
@click.option("--stdin", "-i", is_flag=True, help="Pass standard input on.")
@click.option("--tty", "-t", is_flag=True, help="Give the command a terminal.")
@namespace_option
@cluster_options
def command(
    pod: str,
    argv: tuple[str, ...],
    container: str | None,
    stdin: bool,
    tty: bool,
    namespace: str | None,
    kubeconfig: str | None,
    context: str | None,
) -> None:
    """Run a command inside a pod: in its network, as its container's user, with its environment.

    POD is a pod's name, or deploy/NAME, svc/NAME and the like for the first of its pods. Exits with the command's own
    exit code.

    Example: tulle exec deploy/web -n emojivoto -- curl -s http://voting-svc:8801/metrics
    """
    from tulle.errors import TulleError, UsageError

    if tty and not (stdin and sys.stdin.isatty()):
        raise UsageError(
            "--tty needs a terminal", "-i is not given, or standard input is none", "tulle exec -it POD -- sh"
        )

    async def run(cluster: Cluster) -> int:
        from tulle.cli.pods import container_of, find_pod
        from tulle.cli.terminal import Streams
        from tulle.kube.client import ApiError
        from tulle.kube.commands import CommandFailed, run_command

        where = cluster.namespace(namespace)
        found = await find_pod(cluster.client, where, pod)
        name, chosen = found["metadata"]["name"], container_of(found, container)
        try:
            with Streams(stdin=stdin, tty=tty) as streams:
                return await run_command(cluster.config, where, name, chosen, argv, streams)
        except (ApiError, CommandFailed) as error:
            if isinstance(error, ApiError) and error.status in (401, 403):
                raise
            raise TulleError(
                f"{argv[0]} could not be run in container {chosen} of pod {name}",
                error.message if isinstance(error, ApiError) else str(error),
                f"is the program there, and does the container run? kubectl describe pod {name} -n {where}",
            ) from error

    try:
        code = connected(kubeconfig, context, run)
    except KeyboardInterrupt:
        code = INTERRUPTED
    sys.exit(code)
