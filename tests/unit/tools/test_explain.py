"""Explanations of hypothetical requests: routes, backends, authorization, and the lines that each comes from."""

from pathlib import Path

import pytest

from tests.unit.tools.shop import MANIFEST, objects
from tulle.cli import explain as cli
from tulle.compile.mesh import Mesh
from tulle.errors import TulleError, UsageError
from tulle.kube.world import World
from tulle.tools.explain import explain
from tulle.tools.explain_text import lines
from tulle.tools.explanation import Explanation
from tulle.tools.question import Question, parse_request, parse_workload


def ask(source: str, url: str, *headers: str, method: str | None = None) -> Explanation:
    question = Question(parse_workload(source, "shop"), parse_request(url, method, headers), url)
    return explain(World.of(objects()), Mesh(), question, cli.locate)


def line_of(text: str, nth: int = 0) -> str:
    """The `file:line` of a line of the manifest, counted among those that read the same."""
    numbers = [n for n, line in enumerate(MANIFEST.read_text().splitlines(), 1) if line.strip() == text]
    return f"{MANIFEST}:{numbers[nth]}"


def test_the_route_its_rule_and_each_backend_name_their_line() -> None:
    found = ask("deploy/web", "http://voting/api/vote")

    assert found.outbound is not None and found.outbound.rule is not None
    assert (found.outbound.rule.route.name, found.outbound.rule.rule) == ("split", 2)
    assert [(step.name, step.share) for step in found.backends] == [
        ("Service shop/voting:80", 0.9),
        ("Service shop/gone:80", 0.1),
    ]
    assert [str(step.origin) for step in found.backends] == [
        line_of("- name: voting"),
        line_of("- name: gone"),
    ]
    matched = next(step for step in found.candidates if step.candidate.outcome == "matched")
    assert str(matched.origin) == line_of("- backendRefs:")
    assert str(found.target_origin) == line_of("- name: http")


def test_every_other_rule_says_why_it_did_not_decide() -> None:
    found = ask("deploy/web", "http://voting/api/vote")

    others = {step.candidate.rule: step.candidate for step in found.candidates if step.candidate.rule != 2}
    assert {rule: (other.outcome, other.because, other.saw) for rule, other in others.items()} == {
        0: ("mismatch", "header x-canary is yes", "nothing"),
        1: ("mismatch", "path is at or below /old", '"/api/vote"'),
    }


def test_a_header_takes_the_request_to_another_backend() -> None:
    found = ask("deploy/web", "http://voting/api/vote", "X-Canary: yes")

    assert [step.name for step in found.backends] == ["Service shop/canary:80"]
    (server,) = found.backends[0].servers
    assert (server.mtls, server.verdict) == (False, None)
    assert found.outcome == "allowed"
    assert [s.candidate.outcome for s in found.candidates if s.candidate.rule == 2] == ["shadowed"]


def test_a_missing_backend_fails_its_share() -> None:
    found = ask("deploy/web", "http://voting/")

    gone = found.backends[1]
    assert gone.reason is not None and gone.reason.code == "backend-invalid"
    assert "gone" in gone.why
    assert found.outcome == "mixed"


def test_authorization_is_decided_by_the_clients_identity() -> None:
    web = ask("deploy/web", "http://voting/").backends[0].servers[0]
    assert web.verdict is not None and web.verdict.permit is not None
    assert web.verdict.permit.name == "only-web"

    bot = ask("deploy/bot", "http://voting/").backends[0].servers[0]
    assert bot.verdict is not None and bot.verdict.reason is not None
    assert bot.verdict.reason.code == "unauthorized"
    (authorization,) = bot.authorizations
    assert authorization.lacks == "client identity web.shop.serviceaccount.identity.linkerd.cluster.local"
    assert [str(origin) for origin in authorization.origins] == [
        line_of("requiredAuthenticationRefs:", 0),
        line_of("identities:"),
    ]
    assert bot.inert == [
        "AuthorizationPolicy shop/dangling: NetworkAuthentication shop/nowhere does not exist"
    ]


def test_a_client_without_a_sidecar_meets_no_route_and_has_no_identity() -> None:
    found = ask("deploy/old", "http://voting/old")

    assert found.outbound is None and not found.client.meshed
    (server,) = found.backends[0].servers
    assert not server.mtls
    assert server.authorizations[0].lacks == "mesh TLS"
    assert found.outcome == "refused"


def test_a_redirect_names_its_location() -> None:
    found = ask("deploy/web", "http://voting/old/x?q=1")

    assert found.outcome == "allowed"
    assert "http://new.example.com/old/x?q=1 (302)" in found.summary


def test_a_service_that_selects_nothing_says_so() -> None:
    found = ask("deploy/web", "http://empty/")

    (backend,) = found.backends
    assert backend.reason is not None and backend.reason.code == "no-endpoints"
    assert backend.why == "no pod has the labels app=nobody"
    assert (found.outcome, found.summary) == (
        "refused",
        "the request is answered 503 (no-endpoints: the service has no endpoints)",
    )


def test_a_port_that_the_service_does_not_have_is_refused() -> None:
    found = ask("deploy/web", "http://voting:81/")

    assert found.outcome == "refused"
    assert "forbidden" in found.summary


def test_a_virtual_address_means_its_service() -> None:
    assert ask("deploy/web", "http://10.96.0.20/").target == "Service shop/voting:80"
    assert ask("deploy/old", "http://10.96.0.21/").backends[0].name == "Service shop/canary:80"


def test_a_pods_address_means_the_pod() -> None:
    found = ask("deploy/web", "http://10.42.0.5:8080/")

    assert [server.pod for server in found.backends[0].servers] == ["shop/voting-1"]


@pytest.mark.parametrize(
    ("url", "summary"),
    [
        ("http://votin/", "did you mean voting (namespace shop)?"),
        ("http://voting.other/", "there is voting in namespace shop"),
        ("http://example.com/", "no policy of the mesh applies"),
    ],
)
def test_a_name_outside_the_cluster_is_said_to_be(url: str, summary: str) -> None:
    found = ask("deploy/web", url)

    assert found.outcome == "outside"
    assert summary in found.summary


def test_the_text_holds_every_decision_with_its_line() -> None:
    text = "\n".join(lines(ask("deploy/bot", "http://voting/api/vote?choice=:doughnut:")))

    for part in (
        "GET http://voting/api/vote?choice=:doughnut: from Deployment shop/bot",
        "client     pod shop/bot-1 10.42.0.3, identity bot.shop.",
        "target     Service shop/voting:80",
        "route      HTTPRoute shop/split, rule 2: any path",
        "HTTPRoute shop/split, rule 0: not so: header x-canary is yes, saw nothing",
        "backend     90% Service shop/voting:80",
        "endpoint pod shop/voting-1 at 10.42.0.5:8080, over mTLS",
        "needs client identity web.shop.",
        "saw client identity bot.shop.",
        "unauthorized: client is not authorized (403)",
        "verdict    REFUSED",
        line_of("identities:"),
    ):
        assert part in text, f"{part}\n{text}"


def test_a_workload_without_a_pod_is_an_error_that_names_those_there_are() -> None:
    with pytest.raises(TulleError, match="Deployment shop/nobody has no running pod") as error:
        ask("deploy/nobody", "http://voting/")
    assert "Deployment web" in error.value.why


@pytest.mark.parametrize("source", ["web", "deploy/", "/web", "thing/web", "a/b/c/d"])
def test_a_workload_that_cannot_be_read_is_wrong_usage(source: str) -> None:
    with pytest.raises(UsageError, match="not a workload"):
        parse_workload(source, "shop")


@pytest.mark.parametrize(
    ("url", "method", "headers"),
    [
        ("https://voting/", None, ()),
        ("ftp://voting/", None, ()),
        ("http:///x", None, ()),
        ("http://voting:99999/", None, ()),
        ("http://voting/", "GE T", ()),
        ("http://voting/", None, ("no-colon",)),
        ("http://voting/", None, ("bad name: x",)),
    ],
)
def test_a_request_that_cannot_be_read_is_wrong_usage(
    url: str, method: str | None, headers: tuple[str, ...]
) -> None:
    with pytest.raises(UsageError):
        parse_request(url, method, headers)


def test_grpc_is_a_post_over_http2() -> None:
    request = parse_request("grpc://voting-svc:8080/emojivoto.v1.VotingService/VoteDoughnut", None, ())

    assert (request.method, request.http2, request.authority) == ("POST", True, "voting-svc:8080")
    assert request.path == "/emojivoto.v1.VotingService/VoteDoughnut"


def test_a_file_that_has_changed_since_gives_the_objects_own_line(tmp_path: Path) -> None:
    file = tmp_path / "route.yaml"
    file.write_text("kind: Service\napiVersion: v1\nmetadata:\n  name: a\n")

    assert cli.locate(f"{file}:1", "metadata.name") == f"{file}:4"
    assert cli.locate(f"{file}:9", "metadata.name") == f"{file}:9"
    assert cli.locate("/no/such/file.yaml:3", "metadata.name") == "/no/such/file.yaml:3"
