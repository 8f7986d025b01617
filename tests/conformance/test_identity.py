"""Who may ask: tokens, their reviews, roles."""

import base64
import json
from typing import Any

import httpx2
import kubernetes as kubernetes_client
import pytest

from tests.conformance.clients import Cluster, Kubectl, wait_until

kubernetes: Any = kubernetes_client

pytestmark = pytest.mark.conformance


@pytest.fixture
def bearer(cluster: Cluster, official: Any) -> Any:
    """Makes HTTPS clients that authenticate with a token (or with nothing)."""
    made: list[httpx2.Client] = []

    def client(token: str | None) -> httpx2.Client:
        import ssl

        context = ssl.create_default_context(cafile=official.configuration.ssl_ca_cert)
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        made.append(httpx2.Client(base_url=official.configuration.host, verify=context, headers=headers))
        return made[-1]

    yield client
    for one in made:
        one.close()


def claims(token: str) -> Any:
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def review(official: Any, token: str, *audiences: str) -> Any:
    api = kubernetes.client.AuthenticationV1Api(official)
    spec: dict[str, Any] = {"token": token}
    if audiences:
        spec["audiences"] = list(audiences)
    return api.create_token_review({"spec": spec}).status


def request_token(core: Any, namespace: str, account: str, **spec: Any) -> Any:
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"audiences": [], **spec},
    }
    return core.create_namespaced_service_account_token(account, namespace, body)


def test_a_token_names_its_account(core: Any, official: Any, namespace: str) -> None:
    core.create_namespaced_service_account(namespace, {"metadata": {"name": "bob"}})
    answer = request_token(core, namespace, "bob", expirationSeconds=600)
    token = answer.status.token
    assert claims(token)["sub"] == f"system:serviceaccount:{namespace}:bob"
    assert claims(token)["exp"] - claims(token)["iat"] == 600
    status = review(official, token)
    assert status.authenticated is True
    assert status.user.username == f"system:serviceaccount:{namespace}:bob"
    assert set(status.user.groups) == {
        "system:serviceaccounts",
        f"system:serviceaccounts:{namespace}",
        "system:authenticated",
    }


def test_a_bound_token_names_its_pod_and_dies_with_it(
    core: Any, official: Any, namespace: str, kubectl: Kubectl
) -> None:
    kubectl("create", "serviceaccount", "bob")
    pod = {
        "metadata": {"name": "one"},
        "spec": {"serviceAccountName": "bob", "containers": [{"name": "a", "image": "b"}]},
    }
    made = core.create_namespaced_pod(namespace, pod)
    reference = {"kind": "Pod", "apiVersion": "v1", "name": "one", "uid": made.metadata.uid}
    token = request_token(core, namespace, "bob", boundObjectRef=reference).status.token
    status = review(official, token)
    assert status.user.extra["authentication.kubernetes.io/pod-name"] == ["one"]
    assert status.user.extra["authentication.kubernetes.io/pod-uid"] == [made.metadata.uid]
    kubectl("delete", "pod", "one", "--force", "--grace-period=0")
    # A cluster may believe what it has just reviewed for some seconds more.
    wait_until(lambda: not review(official, token).authenticated, "the token dies with its pod")


def test_audiences_are_kept_apart(core: Any, official: Any, namespace: str, bearer: Any) -> None:
    core.create_namespaced_service_account(namespace, {"metadata": {"name": "bob"}})
    token = request_token(core, namespace, "bob", audiences=["identity.l5d.io"]).status.token
    status = review(official, token, "identity.l5d.io", "other")
    assert (status.authenticated, status.audiences) == (True, ["identity.l5d.io"])
    assert not review(official, token, "other").authenticated
    assert not review(official, token).authenticated, "a token for somebody else is none for the API"
    assert bearer(token).get("/api/v1/namespaces").status_code == 401


def test_forged_tokens_are_refused(core: Any, official: Any, namespace: str, bearer: Any) -> None:
    core.create_namespaced_service_account(namespace, {"metadata": {"name": "bob"}})
    head, body, signature = request_token(core, namespace, "bob").status.token.split(".")
    payload = claims(f"{head}.{body}.{signature}")
    payload["sub"] = payload["sub"].replace("bob", "default")
    changed = base64.urlsafe_b64encode(json.dumps(payload).encode()).rstrip(b"=").decode()
    unsigned = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    for forged in (
        f"{head}.{changed}.{signature}",
        f"{unsigned}.{body}.",
        f"{head}.{body}.AAAA",
        "nonsense",
        "a.b.c",
    ):
        assert not review(official, forged).authenticated
        assert bearer(forged).get("/api/v1/namespaces").status_code == 401


def test_a_deleted_account_takes_its_tokens_along(core: Any, official: Any, namespace: str) -> None:
    core.create_namespaced_service_account(namespace, {"metadata": {"name": "bob"}})
    token = request_token(core, namespace, "bob").status.token
    core.delete_namespaced_service_account("bob", namespace)
    core.create_namespaced_service_account(namespace, {"metadata": {"name": "bob"}})
    # An account of the same name is another one.
    wait_until(lambda: not review(official, token).authenticated, "the token dies with its account")


def test_a_short_life_is_refused(core: Any, namespace: str) -> None:
    core.create_namespaced_service_account(namespace, {"metadata": {"name": "bob"}})
    with pytest.raises(kubernetes.client.ApiException) as raised:
        request_token(core, namespace, "bob", expirationSeconds=10)
    assert "may not specify a duration less than 10 minutes" in raised.value.body


def test_roles_decide_what_a_token_may_do(core: Any, namespace: str, kubectl: Kubectl, bearer: Any) -> None:
    kubectl("create", "serviceaccount", "bob")
    token = request_token(core, namespace, "bob").status.token
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    refused = bearer(token).get(path)
    assert refused.status_code == 403
    user = f"system:serviceaccount:{namespace}:bob"
    said = f'User "{user}" cannot list resource "configmaps" in API group "" in the namespace "{namespace}"'
    assert said in refused.json()["message"]
    kubectl("create", "role", "reader", "--verb=get,list,watch", "--resource=configmaps")
    kubectl("create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={namespace}:bob")
    assert bearer(token).get(path).status_code == 200
    assert bearer(token).post(path, json={"metadata": {"name": "a"}}).status_code == 403
    assert bearer(token).get("/api/v1/namespaces/default/configmaps").status_code == 403


def test_can_i(kubectl: Kubectl) -> None:
    assert kubectl("auth", "can-i", "create", "pods") == "yes\n"
    account = f"--as=system:serviceaccount:{kubectl.namespace}:default"
    assert kubectl.run("auth", "can-i", "create", "pods", account, check=False).stdout == "no\n"
    kubectl(
        "create", "rolebinding", "e", "--clusterrole=edit", f"--serviceaccount={kubectl.namespace}:default"
    )
    assert kubectl("auth", "can-i", "create", "pods", account) == "yes\n"
    assert "pods" in kubectl("auth", "can-i", "--list", account)
    assert kubectl("auth", "whoami", account, "-o", "jsonpath={.status.userInfo.username}").endswith(
        ":default"
    )


def test_a_role_may_name_objects(kubectl: Kubectl) -> None:
    kubectl("create", "role", "one", "--verb=get", "--resource=configmaps", "--resource-name=mine")
    kubectl("create", "rolebinding", "one", "--role=one", f"--serviceaccount={kubectl.namespace}:default")
    account = f"--as=system:serviceaccount:{kubectl.namespace}:default"
    assert kubectl("auth", "can-i", "get", "configmaps/mine", account) == "yes\n"
    assert kubectl.run("auth", "can-i", "get", "configmaps/yours", account, check=False).stdout == "no\n"


def test_strangers_see_only_the_version_and_health(bearer: Any, cluster: Cluster) -> None:
    stranger = bearer(None)
    assert stranger.get("/version").status_code == 200
    assert stranger.get("/readyz").text == "ok"
    for path in ("/api/v1/namespaces", "/api/v1/secrets", "/apis/apps/v1/deployments"):
        answer = stranger.get(path)
        assert answer.status_code in ((401,) if cluster.embedded else (401, 403))
        assert answer.json()["kind"] == "Status"


def test_kubectl_creates_a_token(kubectl: Kubectl, official: Any) -> None:
    token = kubectl("create", "token", "default", "--duration=20m", "--audience=a").strip()
    assert claims(token)["aud"] == ["a"]
    assert review(official, token, "a").authenticated
