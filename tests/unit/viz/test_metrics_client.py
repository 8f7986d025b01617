"""The client of the metrics API: where it asks, and each way in which it may get no answer."""

from typing import Any

import msgspec
import pytest

from tulle.kube.client import ApiError, Unreachable
from tulle.viz.answers import Edges, Stat
from tulle.viz.client import MetricsClient, NoMetrics

pytestmark = pytest.mark.anyio


class Api:
    """An API that answers with bytes or an error, and remembers what it was asked."""

    server = "https://127.0.0.1:6443"

    def __init__(self, answer: bytes | Exception) -> None:
        self.answer = answer
        self.asked: list[tuple[str, dict[str, str]]] = []

    async def request(self, method: str, path: str, **params: str) -> bytes:
        self.asked.append((path, params))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def client(answer: bytes | Exception) -> tuple[MetricsClient, Api]:
    api = Api(answer)
    return MetricsClient(api, "mesh"), api  # type: ignore[arg-type]


async def test_it_asks_through_the_apis_proxy_to_the_service() -> None:
    metrics, api = client(msgspec.json.encode(Stat(kind="Pod", window_seconds=10.0, rows=[])))
    assert (await metrics.stat("po", namespace="shop", window=10)).rows == []
    path = "/api/v1/namespaces/mesh/services/tulle-viz:9990/proxy/api/stat"
    assert api.asked == [(path, {"kind": "po", "namespace": "shop", "window": "10"})]


async def test_what_is_not_given_is_not_asked() -> None:
    metrics, api = client(msgspec.json.encode(Edges(window_seconds=0.0, rows=[])))
    await metrics.edges()
    assert api.asked[0][1] == {"window": "60"}


@pytest.mark.parametrize(
    ("answer", "what", "step"),
    [
        (
            ApiError(503, "ServiceUnavailable", "no endpoints"),
            "no metrics from Service tulle-viz",
            "tulle check",
        ),
        (
            ApiError(404, "NotFound", 'services "tulle-viz" not found'),
            "no metrics from Service",
            "tulle check",
        ),
        (
            ApiError(403, "Forbidden", "services/proxy is forbidden"),
            "no metrics from Service",
            "services/proxy",
        ),
        (ApiError(500, "InternalError", "oops"), "no metrics from Service tulle-viz", "tulle check"),
        (
            Unreachable("ConnectError"),
            "the Kubernetes API https://127.0.0.1:6443 does not answer",
            "tulle check",
        ),
        (b"<html>", "the metrics API in namespace mesh answers in another shape", "tulle version"),
        (b'{"kind":"Pod"}', "the metrics API in namespace mesh answers in another shape", "tulle version"),
    ],
)
async def test_no_answer_is_told_in_three_parts(answer: Any, what: str, step: str) -> None:
    metrics, _ = client(answer)
    with pytest.raises(NoMetrics) as raised:
        await metrics.stat("deploy")
    assert raised.value.what.startswith(what)
    assert raised.value.why
    assert step in raised.value.next_step
