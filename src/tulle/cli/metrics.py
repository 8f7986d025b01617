"""`tulle metrics`: a sidecar's raw metrics."""

import click

from tulle.cli.cluster import Cluster, cluster_options, connected, namespace_option

__all__ = ["command"]

ADMIN_PORT = 4191


@click.command()
@click.argument("pod")
@namespace_option
@cluster_options
def command(pod: str, namespace: str | None, kubeconfig: str | None, context: str | None) -> None:
    """Print a proxy's raw metrics, as Prometheus reads them.

    POD is a pod's name, or deploy/NAME, svc/NAME and the like for the first of its pods.

    Example: tulle metrics deploy/web -n emojivoto | grep response_total
    """

    async def fetch(cluster: Cluster) -> bytes:
        from tulle.cli.pods import find_pod
        from tulle.errors import TulleError
        from tulle.kube.client import ApiError

        where = cluster.namespace(namespace)
        name = (await find_pod(cluster.client, where, pod))["metadata"]["name"]
        path = f"/api/v1/namespaces/{where}/pods/{name}:{ADMIN_PORT}/proxy/metrics"
        try:
            return await cluster.client.request("GET", path)
        except ApiError as error:
            if error.status not in (400, 404, 500, 502, 503):
                raise
            raise TulleError(
                f"pod {name} in namespace {where} shows no metrics on port {ADMIN_PORT}",
                error.message.strip(),
                f"has it a sidecar? tulle stat po/{name} -n {where}",
            ) from error

    click.echo(connected(kubeconfig, context, fetch), nl=False)
