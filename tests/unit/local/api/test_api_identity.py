"""Roles, tokens and certificates, without a server."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from tulle.local.api.auth.authentication import Authenticator
from tulle.local.api.auth.certificates import Authority, certificate_user
from tulle.local.api.auth.rbac import Attributes, Policy, allows
from tulle.local.api.auth.tokens import ISSUER, MAX_TOKEN, TokenAuthority, VerifiedToken
from tulle.local.api.auth.users import ANONYMOUS, MASTERS, User
from tulle.local.api.errors import ApiError
from tulle.local.api.store import Store


class FixedClock:
    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()


def put(store: Store, resource: str, namespace: str | None, name: str, **fields: Any) -> Any:
    metadata = {"name": name, "uid": f"uid-of-{name}", **({"namespace": namespace} if namespace else {})}
    return store.put(resource, namespace, name, {"metadata": metadata, **fields}).obj


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def store() -> Store:
    store = Store()
    put(store, "serviceaccounts", "ns", "bob")
    return store


@pytest.fixture
def tokens(store: Store, clock: FixedClock) -> TokenAuthority:
    return TokenAuthority(store, clock)


def account(store: Store) -> Any:
    record = store.get("serviceaccounts", "ns", "bob")
    assert record is not None
    return record.obj


def test_a_token_is_good_until_it_ends(store: Store, tokens: TokenAuthority, clock: FixedClock) -> None:
    token, expires = tokens.issue(account(store), [], 600)
    assert expires == int(clock.now().timestamp()) + 600
    verified = tokens.verify(token)
    assert isinstance(verified, VerifiedToken)
    assert (verified.user.name, verified.audiences) == ("system:serviceaccount:ns:bob", (ISSUER,))
    clock.time += timedelta(seconds=599)
    assert isinstance(tokens.verify(token), VerifiedToken)
    clock.time += timedelta(seconds=1)
    assert tokens.verify(token) == "token has expired"


def test_a_token_of_another_world_is_refused(store: Store, tokens: TokenAuthority, clock: FixedClock) -> None:
    token, _ = TokenAuthority(store, clock).issue(account(store), [], 600)
    assert tokens.verify(token) == "not signed by this API"


ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."


@given(st.integers(0, 2000), st.integers(1, len(ALPHABET) - 1))
def test_any_changed_byte_breaks_a_token(place: int, shift: int) -> None:
    store, clock = Store(), FixedClock()
    put(store, "serviceaccounts", "ns", "bob")
    tokens = TokenAuthority(store, clock)
    token, _ = tokens.issue(account(store), [], 600)
    position = place % len(token)
    other = ALPHABET[(ALPHABET.index(token[position]) + shift) % len(ALPHABET)]
    verified = tokens.verify(token[:position] + other + token[position + 1 :])
    # The last letter of a base64 text may carry bits that say nothing: then the token is the same one.
    assert isinstance(verified, str) or position == len(token) - 1 or token[position + 1] == "."


@given(st.text("eyJhbGciOiJub25lIn0.-_", max_size=60))
def test_any_text_is_refused(text: str) -> None:
    assert isinstance(TokenAuthority(Store(), FixedClock()).verify(text), str)


def test_a_huge_token_is_not_looked_at(tokens: TokenAuthority) -> None:
    assert tokens.verify("a." * MAX_TOKEN) == "not a token of this API"


def test_a_bound_token_dies_with_its_pod(store: Store, tokens: TokenAuthority) -> None:
    pod = put(store, "pods", "ns", "one", kind="Pod", spec={"nodeName": "here"})
    token, _ = tokens.issue(account(store), [], 600, pod)
    verified = tokens.verify(token)
    assert isinstance(verified, VerifiedToken)
    assert verified.user.extra["authentication.kubernetes.io/pod-name"] == ("one",)
    assert verified.user.extra["authentication.kubernetes.io/node-name"] == ("here",)
    store.remove("pods", "ns", "one", dict(pod))
    assert tokens.verify(token) == "the pod that the token is bound to does not exist any more"


RULES = [
    ({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}, Attributes("get", "", "pods"), True),
    ({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}, Attributes("list", "", "pods"), False),
    ({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}, Attributes("get", "apps", "pods"), False),
    (
        {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]},
        Attributes("get", "", "pods", "log"),
        False,
    ),
    (
        {"verbs": ["get"], "apiGroups": [""], "resources": ["pods/log"]},
        Attributes("get", "", "pods", "log"),
        True,
    ),
    (
        {"verbs": ["get"], "apiGroups": [""], "resources": ["*/log"]},
        Attributes("get", "", "pods", "log"),
        True,
    ),
    (
        {"verbs": ["get"], "apiGroups": [""], "resources": ["pods/*"]},
        Attributes("get", "", "pods", "log"),
        False,
    ),
    ({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}, Attributes("x", "y", "z", "w"), True),
    ({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}, Attributes("get", path="/healthz"), False),
    ({"verbs": ["get"], "nonResourceURLs": ["/api/*"]}, Attributes("get", path="/api/v1"), True),
    ({"verbs": ["get"], "nonResourceURLs": ["/api"]}, Attributes("get", path="/api/v1"), False),
    (
        {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]},
        Attributes("get", "", "pods", name="a"),
        True,
    ),
    (
        {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]},
        Attributes("get", "", "pods", name="b"),
        False,
    ),
    (
        {"verbs": ["list"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]},
        Attributes("list", "", "pods"),
        False,
    ),
    ({}, Attributes("get", "", "pods"), False),
]


@pytest.mark.parametrize(("rule", "wanted", "allowed"), RULES)
def test_rules(rule: Any, wanted: Attributes, allowed: bool) -> None:
    assert allows(rule, wanted) is allowed


def test_bindings_reach_users_groups_and_accounts_in_their_namespace() -> None:
    store = Store()
    rules = [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]
    group = "rbac.authorization.k8s.io"
    put(store, f"roles.{group}", "ns", "reader", rules=rules)
    put(store, f"clusterroles.{group}", None, "reader", rules=rules)
    subjects = [
        {"kind": "ServiceAccount", "name": "bob"},
        {"kind": "User", "name": "eve"},
        {"kind": "Group", "name": "ops"},
    ]
    put(
        store,
        f"rolebindings.{group}",
        "ns",
        "b",
        roleRef={"kind": "Role", "name": "reader"},
        subjects=subjects,
    )
    policy = Policy(store)

    def may(user: User, namespace: str) -> bool:
        return policy.authorize(user, Attributes("get", "", "pods", namespace=namespace))[0]

    bob, eve, op = User("system:serviceaccount:ns:bob"), User("eve"), User("x", ("ops",))
    for user in (bob, eve, op):
        assert may(user, "ns")
        assert not may(user, "other")
        assert not may(user, "")
    assert not may(User("system:serviceaccount:other:bob"), "ns")
    assert may(User("root", (MASTERS,)), "anywhere")
    put(
        store,
        f"clusterrolebindings.{group}",
        None,
        "c",
        roleRef={"kind": "ClusterRole", "name": "reader"},
        subjects=[{"kind": "User", "name": "eve"}],
    )
    assert may(eve, "other")
    allowed, reason = policy.authorize(eve, Attributes("get", "", "pods", namespace="other"))
    assert (allowed, reason) == (True, 'RBAC: allowed by ClusterRoleBinding "c" of ClusterRole "reader"')


def test_certificates_name_user_and_groups(clock: FixedClock) -> None:
    authority = Authority(clock)
    certificate = x509.load_pem_x509_certificate(authority.client("alice", ["ops", "dev"]).certificate)
    user = certificate_user(certificate.public_bytes(serialization.Encoding.DER))
    assert user == User("alice", ("ops", "dev", "system:authenticated"))


def test_a_server_certificate_holds_names_and_addresses(clock: FixedClock) -> None:
    certificate = x509.load_pem_x509_certificate(
        Authority(clock).server(["localhost", "127.0.0.1"]).certificate
    )
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]


def test_who_asks(store: Store, tokens: TokenAuthority, clock: FixedClock) -> None:
    authenticator = Authenticator(tokens, Policy(store))
    token, _ = tokens.issue(account(store), [], 600)
    bearer = (b"authorization", f"Bearer {token}".encode())
    assert authenticator.authenticate(None, []) == ANONYMOUS
    assert authenticator.authenticate(None, [bearer]).name == "system:serviceaccount:ns:bob"
    for bad in (b"Bearer nonsense", b"Basic YTpi", b"Bearer"):
        with pytest.raises(ApiError) as raised:
            authenticator.authenticate(None, [(b"authorization", bad)])
        assert raised.value.code == 401
    with pytest.raises(ApiError) as raised:
        authenticator.authenticate(None, [bearer, (b"impersonate-user", b"eve")])
    assert raised.value.code == 403


def test_masters_may_impersonate(store: Store, tokens: TokenAuthority, clock: FixedClock) -> None:
    pem = Authority(clock).client("root", [MASTERS]).certificate
    der = x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)
    authenticator = Authenticator(tokens, Policy(store))
    headers = [(b"impersonate-user", b"eve"), (b"impersonate-group", b"ops")]
    user = authenticator.authenticate(der, headers)
    assert (user.name, user.groups) == ("eve", ("ops", "system:authenticated"))
