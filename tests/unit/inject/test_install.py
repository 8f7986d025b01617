"""The install manifests: what is in them, and that their certificates hold together."""

import base64
import ssl
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store

from tulle.inject.install import InstallValues, read_values, render, write_values

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def objects() -> dict[tuple[str, str], dict[str, Any]]:
    return {(obj["kind"], obj["metadata"]["name"]): obj for obj in render(InstallValues(), NOW)}


Objects = dict[tuple[str, str], dict[str, Any]]


def test_the_controller_answers_behind_linkerds_service_names(objects: Objects) -> None:
    services = {name for kind, name in objects if kind == "Service"}
    assert services >= {
        "linkerd-identity-headless",
        "linkerd-dst-headless",
        "linkerd-policy",
        "linkerd-proxy-injector",
    }
    template = objects["Deployment", "tulle-controller"]["spec"]["template"]
    for kind, name in objects:
        if kind == "Service":
            selector = objects[kind, name]["spec"]["selector"]
            assert selector.items() <= template["metadata"]["labels"].items()
    names = [c["name"] for c in template["spec"]["initContainers"]]
    assert names == ["linkerd-init", "linkerd-proxy"]
    env = {item["name"]: item.get("value") for item in template["spec"]["initContainers"][1]["env"]}
    assert env["LINKERD2_PROXY_IDENTITY_SVC_ADDR"] == "localhost.:8080"


def test_the_issuer_is_signed_by_the_trust_anchor_and_may_sign(objects: Objects) -> None:
    roots = x509.load_pem_x509_certificate(
        objects["ConfigMap", "linkerd-identity-trust-roots"]["data"]["ca-bundle.crt"].encode()
    )
    issuer = x509.load_pem_x509_certificate(
        objects["Secret", "linkerd-identity-issuer"]["stringData"]["crt.pem"].encode()
    )
    issuer.verify_directly_issued_by(roots)
    constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert constraints.ca and constraints.path_length == 0
    assert issuer.not_valid_after_utc == roots.not_valid_after_utc


def test_the_webhook_serves_a_certificate_that_its_bundle_verifies(objects: Objects) -> None:
    secret = objects["Secret", "linkerd-proxy-injector-k8s-tls"]["stringData"]
    configuration = objects["MutatingWebhookConfiguration", "linkerd-proxy-injector-webhook-config"][
        "webhooks"
    ][0]
    bundle = base64.b64decode(configuration["clientConfig"]["caBundle"])
    store = Store(x509.load_pem_x509_certificates(bundle))
    name = x509.DNSName("linkerd-proxy-injector.linkerd.svc")
    verifier = PolicyBuilder().store(store).time(NOW).build_server_verifier(name)
    verifier.verify(x509.load_pem_x509_certificate(secret["tls.crt"].encode()), [])
    ssl.create_default_context(cadata=bundle.decode())


def test_only_the_issuers_key_is_in_the_manifests(objects: Objects) -> None:
    keys = [
        value
        for obj in objects.values()
        for value in obj.get("stringData", {}).values()
        if "PRIVATE KEY" in value
    ]
    assert len(keys) == 2  # the issuer's and the webhook's


def test_values_survive_the_config_map() -> None:
    values = InstallValues(inject_by_default=True, capture="explicit", proxy_mark="0x7e11")
    assert read_values(write_values(values)) == values
