"""A real linkerd2-proxy in some of the pods, under Tulle's control plane, with tulle-proxy at the other end of the wire.

LINKERD2_PROXY_BIN names the binary; without it nothing of this runs. The control plane's own sidecar is Tulle's in every
case, so identity, discovery and policy of the other proxy go through it.
"""

import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml

from tests.conformance.clients import Cluster, Kubectl, wait_until
from tests.e2e.machine import refusal
from tests.e2e.mesh import mesh
from tests.e2e.test_traffic import PROGRAMS, Pods

BINARY = os.environ.get("LINKERD2_PROXY_BIN", "")

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(240),
    pytest.mark.skipif(not BINARY, reason="LINKERD2_PROXY_BIN names no linkerd2-proxy"),
    pytest.mark.skipif(bool(refusal("netns")), reason=f"netns: {refusal('netns')}"),
]

CLIENTS, SERVERS = {"client", "friend"}, {"stable", "canary", "guarded"}
WHERE = {"callers": CLIENTS, "servers": SERVERS, "everywhere": CLIENTS | SERVERS}


@pytest.fixture(scope="module", params=list(WHERE))
def pods(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pods]:
    folder = tmp_path_factory.mktemp("traffic")
    text = (PROGRAMS / "manifest.yaml").read_text()
    text = text.replace("{python}", sys.executable).replace("{server}", str(PROGRAMS / "server.py"))
    objects = list(yaml.safe_load_all(text))
    for each in objects:
        if each["kind"] == "Deployment" and each["metadata"]["name"] in WHERE[request.param]:
            annotations = each["spec"]["template"]["metadata"].setdefault("annotations", {})
            annotations["config.linkerd.io/proxy-image"] = "cr.l5d.io/linkerd/proxy"
    (folder / "pods.yaml").write_text(yaml.safe_dump_all(objects))
    command = [sys.executable, str(PROGRAMS / "linkerd.py"), str(Path(BINARY).resolve())]
    (folder / "tulle.toml").write_text(
        f'[[images]]\nimage = "cr.l5d.io/linkerd/proxy"\ncommand = {command}\n'
    )
    with mesh(tmp_path_factory.mktemp("state"), "netns", str(folder / "pods.yaml")) as running:
        found = Pods(Kubectl(Cluster(running.kubeconfig, embedded=True), "default"))
        for authority in ("stable:8080", "canary:8080"):
            wait_until(partial(found.serves, authority), f"{authority} serves")
        yield found


def test_grpc_streams_trailers_failures_and_cancellation_cross(pods: Pods) -> None:
    seen = wait_until(
        lambda: (answer := pods.client("grpc", "stable:9090")).get("unary") and answer, "grpc serves"
    )
    assert seen["unary"] == ["echo hello", {"x-trailer": "after the message"}]
    assert seen["fail"][:2] == ["FAILED_PRECONDITION", "not today: ünïcode"]
    assert seen["stream"] == sum(range(1000))
    assert seen["bidi"] == [100, "echo 99"]
    assert seen["after a cancel"] == "echo again"


def test_a_websocket_crosses(pods: Pods) -> None:
    seen = pods.client("websocket", "stable:8080")
    assert (len(seen["messages"]), seen["longest"], seen["closed"]) == (50, 100_005, True)


def test_an_opaque_port_crosses_and_its_server_speaks_first(pods: Pods) -> None:
    seen = pods.client("greet", "stable:9000")
    assert (seen["greeting"], seen["echo"]) == ("220 opaque greets you", "echo hello")


def test_requests_cross_and_the_split_is_followed(pods: Pods) -> None:
    statuses = pods.client("load", "split:8080", "3")["statuses"]
    assert set(statuses) == {"200 stable", "200 canary"}
    total = sum(statuses.values())
    assert abs(statuses["200 canary"] / total - 0.25) < 4 * (0.25 * 0.75 / total) ** 0.5


def test_the_identity_of_the_caller_arrives(pods: Pods) -> None:
    answer = pods.curl("stable:8080", "/", "-H", "l5d-client-id: admin", client="friend")
    identity = "friend.default.serviceaccount.identity.linkerd.cluster.local"
    assert answer.headers["seen-l5d-client-id"] == identity
    assert answer.headers["seen-host"] == "stable:8080"
    # The bridge between the proxies is theirs alone.
    assert not [name for name in answer.headers if name.startswith("seen-l5d-orig")]


def test_http10_needs_no_host(pods: Pods) -> None:
    answer = pods.curl("stable:8080", "/", "--http1.0", "-H", "Host:")
    assert (answer.status, "seen-host" in answer.headers) == (200, False)


def test_who_waits_for_leave_to_send_gets_it(pods: Pods) -> None:
    """linkerd2-proxy keeps interim answers to itself; the sidecar before it does not let its client wait for ever."""
    for _ in range(3):
        seen = pods.client("expect", "stable:8080")
        assert (seen["statuses"], seen["body"]) == ([100, 200], "hello")
        assert seen["seconds"] < 10


def test_of_an_absolute_uri_and_a_host_that_differ_the_uri_counts(pods: Pods) -> None:
    seen = pods.client("ask", "stable:8080", "http://stable:8080/a", "other.example")
    assert (seen["status"], seen["fields"]["seen-target"]) == (200, "http://stable:8080/a")


def test_a_target_in_utf8_arrives_as_it_is(pods: Pods) -> None:
    seen = pods.client("ask", "stable:8080", "/café?🍩=1", "stable:8080")
    assert (seen["status"], seen["fields"]["seen-target"]) == (200, "/café?🍩=1")


def test_an_answer_before_the_end_of_a_large_request_reaches_its_client(pods: Pods) -> None:
    for _ in range(5):
        seen = pods.client("early", "stable:8080", "10")
        assert (seen["status"], seen["body"]) == (413, "too much")


def test_policy_is_in_force_whichever_proxy_asks_or_decides(pods: Pods) -> None:
    assert pods.curl("guarded:8080").status == 403
    assert pods.curl("guarded:8080", client="friend").body == "guarded"
    assert pods.client("deny", "guarded:9090")["code"] == "PERMISSION_DENIED"
    assert pods.client("deny", "guarded:9090", client="friend") == {"code": "OK"}


def test_timeouts_of_routes_are_kept(pods: Pods) -> None:
    assert pods.curl("hurried:8080").status == 200
    assert pods.curl("hurried:8080", "/slow").status == 504


def test_a_service_without_endpoints_fails(pods: Pods) -> None:
    assert pods.curl("nobody:8080").status in (503, 504)
