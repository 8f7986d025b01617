"""Every protocol and every decision through a real mesh: two sidecars, mutual TLS, policy from the control plane.

The client is a program inside a pod (tests/e2e/traffic); what is asserted is what it heard.
"""

import json
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.clients import Cluster, Kubectl, wait_until
from tests.e2e.machine import modes_here
from tests.e2e.mesh import mesh

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(150)]

PROGRAMS = Path(__file__).parent / "traffic"


class Pods:
    """The pods of a mesh that is up, and the clients in them."""

    def __init__(self, kubectl: Kubectl) -> None:
        self.kubectl = kubectl

    def run(self, *words: str, client: str = "client", container: str = "app") -> str:
        """Run a command in a client pod and return what it prints."""
        return self.kubectl("exec", f"deploy/{client}", "-c", container, "--", *words)

    def client(self, verb: str, authority: str, *words: str, client: str = "client") -> dict[str, Any]:
        """Run the client program and return what it saw."""
        command = (sys.executable, str(PROGRAMS / "client.py"), verb, authority, *words)
        seen: dict[str, Any] = json.loads(self.run(*command, client=client))
        return seen

    def curl(self, authority: str, path: str = "/", *words: str, client: str = "client") -> "Answer":
        """Ask with curl."""
        text = self.run(
            "curl", "-sS", "-i", "--max-time", "10", *words, f"http://{authority}{path}", client=client
        )
        head, _, body = text.replace("\r\n", "\n").partition("\n\n")
        first, *fields = head.split("\n")
        headers = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
        return Answer(int(first.split()[1]), headers, body)

    def serves(self, authority: str) -> bool:
        """Tell whether it answers 200."""
        return self.curl(authority).status == 200

    def sidecar_metric(self, name: str, deployment: str = "client", container: str = "app") -> float:
        """Return a number of a pod's sidecar, the client's unless another is named; 0 without one."""
        curl = ("sh", "-c", "curl -s --noproxy '*' http://${HOST:-127.0.0.1}:4191/metrics")
        page = self.run(*curl, client=deployment, container=container)
        return sum(
            float(line.split()[-1]) for line in page.splitlines() if line.split("{")[0].split()[0] == name
        )


class Answer:
    """An HTTP answer."""

    def __init__(self, status: int, headers: dict[str, str], body: str) -> None:
        self.status, self.headers, self.body = status, headers, body

    def __repr__(self) -> str:
        return f"Answer({self.status}, {self.headers}, {self.body!r})"


def pods_manifest(folder: Path) -> Path:
    """Write the manifest of the pods into a folder."""
    manifest = folder / "pods.yaml"
    text = (PROGRAMS / "manifest.yaml").read_text()
    server = str(PROGRAMS / "server.py")
    manifest.write_text(text.replace("{python}", sys.executable).replace("{server}", server))
    return manifest


@pytest.fixture(scope="module", params=modes_here("netns", "loopback"))
def pods(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pods]:
    manifest = pods_manifest(tmp_path_factory.mktemp("traffic"))
    with mesh(tmp_path_factory.mktemp("state"), request.param, str(manifest)) as running:
        found = Pods(Kubectl(Cluster(running.kubeconfig, embedded=True), "default"))
        for authority in ("stable:8080", "canary:8080"):
            wait_until(partial(found.serves, authority), f"{authority} serves")
        yield found


def test_grpc_streams_trailers_failures_and_cancellation_cross_the_mesh(pods: Pods) -> None:
    seen = wait_until(
        lambda: (answer := pods.client("grpc", "stable:9090")).get("unary") and answer, "grpc serves"
    )
    assert seen["unary"] == ["echo hello", {"x-trailer": "after the message"}]
    assert seen["fail"][:2] == ["FAILED_PRECONDITION", "not today: ünïcode"]
    assert seen["fail"][2]["x-trailer"] == "after a failure"
    assert seen["stream"] == sum(range(1000))
    assert seen["stream trailers"] == {"x-trailer": "after the stream"}
    assert seen["bidi"] == [100, "echo 99"]
    assert seen["after a cancel"] == "echo again"


def test_a_websocket_echoes_messages_and_closes(pods: Pods) -> None:
    seen = pods.client("websocket", "stable:8080")
    assert seen["messages"][:3] == ["echo 0", "echo 1", "echo 2"]
    assert (len(seen["messages"]), seen["longest"], seen["closed"]) == (50, 100_005, True)


def test_a_server_may_speak_first_on_an_opaque_port(pods: Pods) -> None:
    seen = pods.client("greet", "stable:9000")
    assert (seen["greeting"], seen["echo"]) == ("220 opaque greets you", "echo hello")
    assert seen["seconds"] < 2, "nothing waits for the client's first bytes"


def test_a_server_may_speak_first_on_a_port_that_nobody_marked(pods: Pods) -> None:
    """The sidecar asks a silent client's server whether it speaks first."""
    seen = pods.client("greet", "stable:9001")
    assert (seen.get("greeting"), seen.get("echo")) == ("220 unmarked greets you", "echo hello"), seen
    assert seen["seconds"] < 1, "neither sidecar waits for its detection timeout"


def test_weights_split_traffic_between_two_backends(pods: Pods) -> None:
    statuses = pods.client("load", "split:8080", "3")["statuses"]
    assert set(statuses) == {"200 stable", "200 canary"}
    total = sum(statuses.values())
    assert total > 200
    assert abs(statuses["200 canary"] / total - 0.25) < 4 * (0.25 * 0.75 / total) ** 0.5


def test_a_route_without_an_answer_in_time_is_a_504(pods: Pods) -> None:
    assert pods.curl("hurried:8080").status == 200
    answer = pods.curl("hurried:8080", "/slow")
    assert (answer.status, answer.headers["tulle-reason"]) == (504, "request-timeout")
    assert "l5d-proxy-error" in answer.headers
    assert pods.curl("stable:8080", "/slow").status == 200


def test_a_caller_whom_no_policy_lets_in_is_refused_with_the_reason(pods: Pods) -> None:
    answer = pods.curl("guarded:8080")
    assert (answer.status, answer.headers["tulle-reason"]) == (403, "unauthorized")
    assert "l5d-proxy-error" in answer.headers
    assert pods.curl("guarded:8080", client="friend").body == "guarded"


def test_a_grpc_caller_whom_no_policy_lets_in_hears_permission_denied(pods: Pods) -> None:
    seen = pods.client("deny", "guarded:9090")
    assert (seen["code"], seen["tulle-reason"]) == ("PERMISSION_DENIED", "unauthorized")
    assert seen["details"]
    assert pods.client("deny", "guarded:9090", client="friend") == {"code": "OK"}


def test_a_policy_that_changes_is_in_force_soon(pods: Pods) -> None:
    def identities(*names: str) -> str:
        return json.dumps({"spec": {"identityRefs": [{"kind": "ServiceAccount", "name": n} for n in names]}})

    def patch(*names: str) -> None:
        pods.kubectl("patch", "meshtlsauthentication", "friends", "--type=merge", "-p", identities(*names))

    patch("friend", "default")
    wait_until(lambda: pods.curl("guarded:8080").status == 200, "the caller is let in", seconds=30)
    patch("friend")
    wait_until(lambda: pods.curl("guarded:8080").status == 403, "the caller is refused", seconds=30)


def test_what_a_namespace_wants_kept_in_the_mesh_is_not_sent_in_the_clear(pods: Pods) -> None:
    def annotate(change: str) -> None:
        pods.kubectl("annotate", "namespace", "strict", "--overwrite", change)

    def reason() -> str | None:
        return pods.curl("plain.strict:8080").headers.get("tulle-reason")

    assert (pods.curl("plain.strict:8080").status, reason()) == (502, "mesh-tls-required")
    annotate("tulle.dev/require-mesh-tls=false")
    wait_until(lambda: pods.curl("plain.strict:8080").body == "plain", "it is sent in the clear", seconds=30)
    annotate("tulle.dev/require-mesh-tls=true")
    wait_until(lambda: reason() == "mesh-tls-required", "it is refused again", seconds=30)


def test_a_service_that_selects_nothing_answers_503_within_three_seconds(pods: Pods) -> None:
    answer = pods.curl("nobody:8080", "/", "--max-time", "3")
    assert (answer.status, answer.headers["tulle-reason"]) == (503, "no-endpoints")
    assert "nobody" in answer.headers["l5d-proxy-error"]
    seen = pods.client("deny", "nobody:8080")
    assert (seen["code"], seen["tulle-reason"]) == ("UNAVAILABLE", "no-endpoints")


def test_the_identity_that_the_application_sees_is_the_clients_own(pods: Pods) -> None:
    claimed = ("-H", "l5d-client-id: admin", "-H", "x-marker: kept")
    answer = pods.curl("stable:8080", "/", *claimed, client="friend")
    identity = "friend.default.serviceaccount.identity.linkerd.cluster.local"
    assert answer.headers["seen-l5d-client-id"] == identity
    assert answer.headers["seen-x-marker"] == "kept"


@pytest.fixture
def beside() -> Iterator[ThreadPoolExecutor]:
    """Run load while the test does something to the mesh."""
    with ThreadPoolExecutor(2) as pool:
        yield pool


def heard(load: "Future[dict[str, Any]]", within: float = 60) -> dict[str, Any]:
    seen = load.result(within)
    failed = {status: count for status, count in seen["statuses"].items() if not status.startswith("200 ")}
    print(f"{seen['total']} requests, failed: {failed}")
    assert seen["total"] > 100
    assert not failed, seen["failures"]
    return seen


def restart(pods: Pods, deployment: str, namespace: str = "default") -> None:
    pods.kubectl("-n", namespace, "rollout", "restart", f"deployment/{deployment}")
    pods.kubectl("-n", namespace, "rollout", "status", f"deployment/{deployment}", "--timeout=60s")


def settled(pods: Pods, *deployments: str) -> None:
    """Wait until the pods of a former revision are gone: `kubectl exec deployment/x` may go to one that is ending."""
    state = ("-o", "jsonpath={.items[*].metadata.deletionTimestamp}")

    def ending() -> bool:
        return any(pods.kubectl("get", "pods", "-l", f"app={name}", *state).strip() for name in deployments)

    wait_until(lambda: not ending(), "the former pods are gone", seconds=60)


@pytest.mark.slow
def test_no_request_fails_while_the_controller_is_away_and_comes_back(
    pods: Pods, beside: ThreadPoolExecutor
) -> None:
    selector = ("-l", "linkerd.io/control-plane-component=controller")

    def controllers() -> set[str]:
        return set(pods.kubectl("-n", "linkerd", "get", "pods", *selector, "-o", "name").split())

    before = controllers()
    load = beside.submit(pods.client, "load", "stable:8080", "12")
    pods.kubectl("-n", "linkerd", "delete", "pod", *selector, "--grace-period=1")
    wait_until(lambda: controllers() - before, "a new controller pod")
    pods.kubectl("-n", "linkerd", "rollout", "status", "deployment/tulle-controller", "--timeout=60s")
    heard(load)
    # What changes afterwards arrives: the sidecars have found the new one.
    pods.kubectl("scale", "deployment/canary", "--replicas=0")
    wait_until(lambda: pods.curl("canary:8080").status == 503, "the change arrives", seconds=20)
    pods.kubectl("scale", "deployment/canary", "--replicas=1")
    wait_until(lambda: pods.curl("canary:8080").status == 200, "the change arrives", seconds=20)


@pytest.mark.slow
def test_no_request_fails_while_a_deployment_is_restarted(pods: Pods, beside: ThreadPoolExecutor) -> None:
    load = beside.submit(pods.client, "load", "stable:8080", "15")
    calls = beside.submit(pods.client, "grpc-load", "stable:9090", "15")
    restart(pods, "stable")
    heard(load)
    heard(calls)


@pytest.mark.slow
def test_no_request_fails_while_programs_end_as_soon_as_they_have_answered(
    pods: Pods, beside: ThreadPoolExecutor
) -> None:
    """No hook gives discovery a head start: a request that finds its application gone is sent to another."""
    load = beside.submit(pods.client, "load", "polite:8080", "25", "8")
    for _ in range(2):
        restart(pods, "polite")
    heard(load)


@pytest.mark.slow
def test_no_call_fails_while_programs_end_as_soon_as_they_have_answered(
    pods: Pods, beside: ThreadPoolExecutor
) -> None:
    calls = beside.submit(pods.client, "grpc-load", "polite:9090", "25", "8")
    for _ in range(2):
        restart(pods, "polite")
    heard(calls)


@pytest.mark.slow
def test_certificates_are_renewed_and_no_connection_breaks(pods: Pods, beside: ThreadPoolExecutor) -> None:
    """Last, because it reinstalls the mesh's configuration: leaves of 20 s, renewed after 14."""
    config = json.loads(pods.kubectl("-n", "linkerd", "get", "configmap", "linkerd-config", "-o", "json"))
    values = json.loads(config["data"]["values"]) | {"issuance_lifetime": 20}
    patch = json.dumps({"data": {"values": json.dumps(values)}})
    pods.kubectl("-n", "linkerd", "patch", "configmap", "linkerd-config", "-p", patch)
    restart(pods, "tulle-controller", "linkerd")
    for deployment in ("stable", "client"):
        restart(pods, deployment)
    settled(pods, "stable", "client")
    wait_until(partial(pods.serves, "stable:8080"), "the new pods serve")
    before = pods.sidecar_metric("identity_cert_refresh_count")
    held = beside.submit(pods.client, "hold", "stable:9000", "30")
    load = beside.submit(pods.client, "load", "stable:8080", "30")
    heard(load)
    assert held.result(20)["broken"] is False
    assert pods.sidecar_metric("identity_cert_refresh_count") - before >= 2
