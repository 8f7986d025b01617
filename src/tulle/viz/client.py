"""Reaches the metrics API from wherever a kubeconfig works: through the Kubernetes API's proxy to a Service."""

from typing import TypeVar

import msgspec

from tulle.errors import TulleError
from tulle.kube.client import ApiError, Client, Unreachable
from tulle.viz.answers import Edges, Stat, Summary, Targets

__all__ = ["MetricsClient", "NoMetrics"]

SERVICE = "tulle-viz:9990"
T = TypeVar("T")


class NoMetrics(TulleError):
    """The metrics API did not answer, or not as it should."""


class MetricsClient:
    """Asks the metrics API of one control plane."""

    def __init__(self, client: Client, namespace: str = "linkerd") -> None:
        self._client, self._namespace = client, namespace

    async def stat(
        self, kind: str, *, namespace: str | None = None, name: str | None = None, window: float = 60.0
    ) -> Stat:
        """Golden metrics by resource. Raises NoMetrics."""
        return await self._ask("stat", Stat, kind=kind, namespace=namespace, name=name, window=f"{window:g}")

    async def edges(self, *, namespace: str | None = None, without: str = "", window: float = 60.0) -> Edges:
        """Who calls whom. Raises NoMetrics."""
        return await self._ask("edges", Edges, namespace=namespace, without=without, window=f"{window:g}")

    async def summary(self) -> Summary:
        """Everything since the sidecars started. Raises NoMetrics."""
        return await self._ask("summary", Summary)

    async def targets(self) -> Targets:
        """The scraper's state. Raises NoMetrics."""
        return await self._ask("targets", Targets)

    async def _ask(self, what: str, shape: type[T], **params: str | None) -> T:
        given = {name: value for name, value in params.items() if value}
        path = f"/api/v1/namespaces/{self._namespace}/services/{SERVICE}/proxy/api/{what}"
        try:
            body = await self._client.request("GET", path, **given)
            return msgspec.json.decode(body, type=shape)
        except ApiError as error:
            raise self._trouble(error) from error
        except Unreachable as error:
            raise NoMetrics(
                f"the Kubernetes API {self._client.server} does not answer", str(error), "look: tulle check"
            ) from error
        except msgspec.MsgspecError as error:
            raise NoMetrics(
                f"the metrics API in namespace {self._namespace} answers in another shape",
                str(error),
                "command and control plane should have the same version: tulle version",
            ) from error

    def _trouble(self, error: ApiError) -> NoMetrics:
        if error.status in (404, 503):
            why, step = f"{error.message.strip()}", "see what is wrong with the control plane: tulle check"
        elif error.status in (401, 403):
            why, step = f"{error.message.strip()}", "use a kubeconfig that may get services/proxy there"
        else:
            why, step = str(error), "look: tulle check"
        return NoMetrics(
            f"no metrics from Service {SERVICE.partition(':')[0]} in namespace {self._namespace}", why, step
        )
