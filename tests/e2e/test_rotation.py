"""A trust anchor is replaced while traffic flows: through the ConfigMap and the Secret, as docs/identity.md tells."""

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial

import pytest

from tests.conformance.clients import Cluster, Kubectl, wait_until
from tests.e2e.machine import modes_here
from tests.e2e.mesh import mesh
from tests.e2e.test_traffic import Pods, heard, pods_manifest, restart, settled
from tulle.inject.install.certificates import make_issuer, make_trust_anchor

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]

DOMAIN = "cluster.local"
ROOTS = "linkerd-identity-trust-roots"


@pytest.fixture(scope="module", params=modes_here("netns"))
def pods(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pods]:
    manifest = pods_manifest(tmp_path_factory.mktemp("rotation"))
    with mesh(tmp_path_factory.mktemp("state"), request.param, str(manifest)) as running:
        found = Pods(Kubectl(Cluster(running.kubeconfig, embedded=True), "default"))
        wait_until(partial(found.serves, "stable:8080"), "stable:8080 serves")
        yield found


def patch(pods: Pods, kind: str, name: str, data: dict[str, str]) -> None:
    pods.kubectl("-n", "linkerd", "patch", kind, name, "--type=merge", "-p", json.dumps({"data": data}))


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_an_anchor_is_replaced_and_no_request_fails(pods: Pods) -> None:
    config = json.loads(pods.kubectl("-n", "linkerd", "get", "configmap", "linkerd-config", "-o", "json"))
    values = json.loads(config["data"]["values"]) | {"issuance_lifetime": 20}
    patch(pods, "configmap", "linkerd-config", {"values": json.dumps(values)})
    restart(pods, "tulle-controller", "linkerd")
    for deployment in ("stable", "client"):
        restart(pods, deployment)
    settled(pods, "stable", "client")
    wait_until(partial(pods.serves, "stable:8080"), "the new pods serve")

    roots = json.loads(pods.kubectl("-n", "linkerd", "get", "configmap", ROOTS, "-o", "json"))
    old = roots["data"]["ca-bundle.crt"]
    now = datetime.now(UTC)
    anchor = make_trust_anchor(DOMAIN, now)
    issuer = make_issuer(anchor, "linkerd", DOMAIN, now)

    def everywhere(metric: str) -> list[float]:
        return [pods.sidecar_metric(metric), pods.sidecar_metric(metric, "stable", "http")]

    def trusted() -> list[float]:
        return everywhere("identity_trust_anchors")

    def renewals() -> list[float]:
        return everywhere("identity_cert_refresh_count")

    def distrusted() -> list[float]:
        return everywhere("tls_distrusted_connections_total")

    def answered() -> float:
        return pods.sidecar_metric("response_total")

    def events() -> str:
        return pods.kubectl("-n", "linkerd", "get", "events", "-o", "jsonpath={.items[*].reason}")

    with ThreadPoolExecutor(2) as beside:
        load = beside.submit(pods.client, "load", "stable:8080", "10")
        patch(pods, "configmap", ROOTS, {"ca-bundle.crt": old + anchor.certificate_pem})
        wait_until(lambda: trusted() == [2, 2], "both anchors are trusted", seconds=15)
        heard(load)

        # As long as one command may take: their connections are verified by the old anchor and outlive it.
        load = beside.submit(pods.client, "load", "stable:8080", "36")
        calls = beside.submit(pods.client, "grpc-load", "stable:9090", "36")
        asked = answered()
        wait_until(lambda: answered() > asked + 100, "the load has begun")
        secret = {"crt.pem": encoded(issuer.certificate_pem), "key.pem": encoded(issuer.key_pem)}
        patch(pods, "secret", "linkerd-identity-issuer", secret)
        wait_until(lambda: "IssuerUpdated" in events(), "the new issuer is in force", seconds=15)
        before = renewals()
        wait_until(
            lambda: all(now > then for now, then in zip(renewals(), before, strict=True)),
            "certificates are renewed under the new anchor",
        )
        assert distrusted() == [0, 0]
        patch(pods, "configmap", ROOTS, {"ca-bundle.crt": anchor.certificate_pem})
        wait_until(lambda: trusted() == [1, 1], "the old anchor is dropped", seconds=15)
        if load.done():  # and nothing was left to drain
            pytest.fail(f"the load ended before the old anchor was dropped: {heard(load)}")
        # Whichever side hears of it first drains them; the other may find none left.
        wait_until(lambda: any(distrusted()), "the connections of the load drain")
        heard(load)
        heard(calls)
    assert pods.serves("stable:8080")
