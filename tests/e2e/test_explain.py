"""What `tulle explain` says is what the proxies then do."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.machine import modes_here
from tests.e2e.mesh import SOURCE, Mesh, mesh, tulle

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

MANIFEST = SOURCE / "tulle" / "emojivoto" / "manifests" / "two-services.yaml"
POLICY = """\
apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: {name: voting-http}
spec:
  podSelector: {matchLabels: {app: voting}}
  port: 80
  proxyProtocol: HTTP/1
---
apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: only-others}
spec:
  targetRef: {group: policy.linkerd.io, kind: Server, name: voting-http}
  requiredAuthenticationRefs:
    - {group: policy.linkerd.io, kind: MeshTLSAuthentication, name: others}
---
apiVersion: policy.linkerd.io/v1alpha1
kind: MeshTLSAuthentication
metadata: {name: others}
spec:
  identities: [other.default.serviceaccount.identity.linkerd.cluster.local]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: ways}
spec:
  parentRefs: [{group: "", kind: Service, name: emojisvc}]
  rules:
    - matches: [{path: {type: PathPrefix, value: /old}}]
      filters: [{type: RequestRedirect, requestRedirect: {hostname: new.example.com}}]
    - matches: [{path: {type: PathPrefix, value: /gone}}]
      backendRefs: [{name: gone, port: 80}]
    - matches: [{path: {type: Exact, value: /}}]
"""


@pytest.fixture(scope="module", params=modes_here("netns", "loopback"))
def article(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Mesh, Path]]:
    """The two services with a policy and a route, and the file that holds these."""
    policy = tmp_path_factory.mktemp("policy") / "policy.yaml"
    policy.write_text(POLICY)
    with mesh(tmp_path_factory.mktemp("state"), request.param, str(MANIFEST), str(policy)) as running:
        yield running, policy


def explained(mesh: Mesh, deployment: str, url: str) -> dict[str, Any]:
    """Ask explain."""
    words = ["explain", "--from", f"deploy/{deployment}", "--to", url, "-o", "json"]
    done = tulle(mesh.home, *words, "--kubeconfig", str(mesh.kubeconfig))
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def sent(mesh: Mesh, deployment: str, url: str) -> tuple[int, str]:
    """Send the request from inside the pod; return the status and the proxy's reason, empty when a server answered."""
    status, fields = answered(mesh, deployment, url)
    return status, fields.get("tulle-reason", "")


def answered(mesh: Mesh, deployment: str, url: str) -> tuple[int, dict[str, str]]:
    """Send the request from inside the pod; return the status and the fields of the answer's head."""
    done = subprocess.run(
        [
            *("kubectl", "--kubeconfig", str(mesh.kubeconfig), "exec", f"deploy/{deployment}"),
            *(
                "-c",
                deployment.split("-")[0],
                "--",
                "curl",
                "-sS",
                "-D",
                "-",
                "-o",
                "/dev/null",
                "-m",
                "5",
                url,
            ),
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, f"{done.stderr}\n{mesh.log}"
    first, *fields = done.stdout.split("\n")
    pairs = (field.partition(":") for field in fields)
    return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in pairs if value}


@pytest.mark.parametrize(
    ("deployment", "url", "outcome", "status", "reason"),
    [
        ("voting-v1", "http://emojisvc/", "allowed", 200, ""),
        ("voting-v1", "http://emojisvc/old/x", "allowed", 302, "redirected"),
        ("voting-v1", "http://emojisvc/gone", "refused", 500, "backend-invalid"),
        ("voting-v1", "http://emojisvc/none", "refused", 404, "route-not-found"),
        ("emojisvc-v1", "http://voting/", "refused", 403, "unauthorized"),
    ],
)
def test_explain_says_what_the_proxies_do(
    article: tuple[Mesh, Path], deployment: str, url: str, outcome: str, status: int, reason: str
) -> None:
    running, _ = article

    said = explained(running, deployment, url)

    assert said["outcome"] == outcome, said["summary"]
    assert reason == "" or reason in json.dumps(said)
    assert sent(running, deployment, url) == (status, reason), running.log


def test_each_decision_names_its_line(article: tuple[Mesh, Path]) -> None:
    running, policy = article
    written = policy.read_text().splitlines()

    def line(text: str) -> str:
        return f"{policy}:{1 + next(n for n, each in enumerate(written) if each.strip().startswith(text))}"

    gone = explained(running, "voting-v1", "http://emojisvc/gone")
    assert gone["backends"][0]["origin"]["line"] == line("backendRefs: [{name: gone")

    refused = explained(running, "emojisvc-v1", "http://voting/")
    (authorization,) = refused["backends"][0]["servers"][0]["authorizations"]
    assert authorization["lacks"].startswith("client identity other.default.")
    assert [origin["line"] for origin in authorization["origins"]] == [
        line("requiredAuthenticationRefs:"),
        line("identities:"),
    ]


def test_a_refused_request_is_explained_by_the_id_of_its_answer(article: tuple[Mesh, Path]) -> None:
    running, _ = article
    status, fields = answered(running, "emojisvc-v1", "http://voting/vote?by=id")
    assert status == 403
    words = ["explain", fields["tulle-request-id"], "--kubeconfig", str(running.kubeconfig)]

    text = tulle(running.home, *words)
    data = tulle(running.home, *words, "-o", "json")
    of_client = tulle(running.home, *words, "--pod", "deploy/emojisvc-v1")
    unknown = tulle(running.home, "explain", "no-such-id", "--kubeconfig", str(running.kubeconfig))

    assert text.returncode == 0, f"{text.stderr}\n{running.log}"
    assert "request    GET voting/vote?by=id" in text.stdout
    assert "needs client identity other.default.serviceaccount" in text.stdout
    assert "verdict    REFUSED: 403 (unauthorized" in text.stdout
    (entry,) = json.loads(data.stdout)
    assert entry["pod"].startswith("voting-v1") and entry["direction"] == "inbound"
    assert of_client.returncode == 1, "the client's sidecar has refused nothing"
    assert unknown.returncode == 1
    assert "no sidecar knows a request no-such-id" in unknown.stderr
    assert "asked 2 pods in namespace default" in unknown.stderr
