"""Certify over real gRPC: who gets a certificate, for what name, and everybody who does not."""

import asyncio
import datetime
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from starlette.responses import JSONResponse

from tests.fakes.cluster import voting
from tests.fakes.kubernetes import FakeKubernetes
from tests.unit.control.conftest import Running, running, until
from tulle.api import IDENTITY_CERTIFY, IDENTITY_WATCH_TRUST_ANCHORS, identity_pb2
from tulle.clock import SystemClock
from tulle.control.anchors import MAX_ANCHORS
from tulle.control.csr import BadRequest, check_csr
from tulle.control.issuer import BadIssuer, load_issuer
from tulle.control.issuing import IssuerKeeper, IssuerText

NAME = "voting.default.serviceaccount.identity.linkerd.cluster.local"
NOW = datetime.datetime(2026, 6, 1, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
CERTIFICATE_SIGNS = {"key_cert_sign": True, "crl_sign": True}
POD = {
    "username": "system:serviceaccount:default:voting",
    "extra": {"authentication.kubernetes.io/pod-name": ["voting-1"]},
}


@dataclass
class Authority:
    certificate: x509.Certificate
    key: Any

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def key_pem(self) -> bytes:
        pem: bytes = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return pem


def authority(
    name: str, signer: Authority | None = None, ca: bool = True, now: Any = None, key: Any = None
) -> Authority:
    now = now or datetime.datetime.now(datetime.UTC)
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    usage = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    ) | (CERTIFICATE_SIGNS if ca else {})
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer.certificate.subject if signer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + 10 * DAY)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign((signer or Authority(None, key)).key, hashes.SHA256())  # type: ignore[arg-type]
    )
    return Authority(certificate, key)


ROOT = authority("root")
ISSUER = authority("issuer", ROOT)
TEXT = IssuerText(ISSUER.pem, ISSUER.key_pem, ROOT.pem)


async def given() -> IssuerText:
    return TEXT


def csr(
    *names: str | x509.GeneralName,
    key: Any = None,
    cn: str | None = None,
    change: Callable[[Any], Any] | None = None,
) -> bytes:
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, cn)] if cn is not None else []
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    if names:
        alternative = [x509.DNSName(n) if isinstance(n, str) else n for n in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(alternative), critical=False)
    if change is not None:
        builder = change(builder)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


async def certify(plane: Running, request: bytes, token: bytes = b"good", name: str = NAME) -> Any:
    port = plane.controller.settings.ports.identity
    message = identity_pb2.CertifyRequest(identity=name, token=token, certificate_signing_request=request)
    return await plane.ask(port, IDENTITY_CERTIFY, message, identity_pb2.CertifyResponse)


async def test_a_workload_gets_a_leaf_for_its_own_name() -> None:
    async with FakeKubernetes(voting()).serving() as kubernetes, running(kubernetes, given) as plane:
        kubernetes.tokens["good"] = POD
        await until(lambda: plane.controller.issuer.current is not None)
        answer = await certify(plane, csr(NAME, cn=NAME))
        leaf = x509.load_der_x509_certificate(answer.leaf_certificate)
        assert [x509.load_der_x509_certificate(c) for c in answer.intermediate_certificates] == [
            ISSUER.certificate
        ]
        await until(lambda: any(e.get("reason") == "IssuedLeafCertificate" for e in kubernetes.created))
    leaf.verify_directly_issued_by(ISSUER.certificate)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.DNSName(NAME)]
    assert leaf.subject.rfc4514_string() == "OU=voting-1,O=default"
    life = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    assert life == datetime.timedelta(hours=24, seconds=20)
    assert answer.valid_until.ToDatetime(datetime.UTC) == leaf.not_valid_after_utc
    purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(purposes) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert leaf.extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
    subject_key = ISSUER.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    authority_key = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert authority_key.key_identifier == subject_key.digest


async def test_foreign_tokens_and_other_names_are_refused() -> None:
    async with FakeKubernetes(voting()).serving() as kubernetes, running(kubernetes, given) as plane:
        kubernetes.tokens |= {
            "good": POD,
            "person": {"username": "alice"},
            "short": {"username": "system:serviceaccount:default"},
        }
        await until(lambda: plane.controller.issuer.current is not None)
        other = NAME.replace("voting.", "web.", 1)
        for token, name in (
            (b"unknown", NAME),
            (b"person", NAME),
            (b"short", NAME),
            (b"good", other),
            (b"", NAME),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await certify(plane, csr(name), token, name)
            assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION, (token, name)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await certify(plane, csr(NAME, other))
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert plane.controller.identity.outcomes == {"issued": 0, "refused": 6, "failed": 0}


async def test_a_token_of_the_default_audience_is_accepted() -> None:
    async with FakeKubernetes(voting()).serving() as kubernetes, running(kubernetes, given) as plane:
        kubernetes.tokens["good"] = POD | {"audience": "https://kubernetes.default.svc"}
        await until(lambda: plane.controller.issuer.current is not None)
        assert (await certify(plane, csr(NAME))).leaf_certificate


async def test_no_review_no_certificate() -> None:
    async with FakeKubernetes(voting()).serving() as kubernetes, running(kubernetes, given) as plane:
        await until(lambda: plane.controller.issuer.current is not None)
        path = "/apis/authentication.k8s.io/v1/tokenreviews"
        kubernetes.faults[path] = [JSONResponse({"message": "etcd secret detail"}, 500)]
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await certify(plane, csr(NAME))
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        assert "etcd" not in (refused.value.details() or "")


async def test_a_pod_that_asks_without_end_is_slowed_and_others_are_not() -> None:
    async with FakeKubernetes(voting()).serving() as kubernetes, running(kubernetes, given) as plane:
        kubernetes.tokens["good"] = POD
        other = {"authentication.kubernetes.io/pod-name": ["voting-2"]}
        kubernetes.tokens["other"] = POD | {"extra": other}
        await until(lambda: plane.controller.issuer.current is not None)
        codes = []
        for _ in range(12):
            try:
                await certify(plane, csr(NAME))
                codes.append(grpc.StatusCode.OK)
            except grpc.aio.AioRpcError as error:
                codes.append(error.code())
        assert codes == [grpc.StatusCode.OK] * 10 + [grpc.StatusCode.RESOURCE_EXHAUSTED] * 2
        assert (await certify(plane, csr(NAME), b"other")).leaf_certificate


async def test_without_an_issuer_the_service_is_unavailable_and_not_ready() -> None:
    async with FakeKubernetes(voting()).serving() as kubernetes, running(kubernetes) as plane:
        kubernetes.tokens["good"] = POD
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await certify(plane, csr(NAME))
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        await until(lambda: plane.controller.views.watcher.synced)
        assert [text for text in plane.controller.not_ready() if "issuer" in text]


@pytest.mark.parametrize(
    ("request_der", "why"),
    [
        (csr(NAME, key=rsa.generate_private_key(65537, 2048)), "not ECDSA P-256"),
        (csr(NAME, key=ec.generate_private_key(ec.SECP384R1())), "not ECDSA P-256"),
        (csr(), "none"),
        (csr("web." + NAME), "exactly the DNS name"),
        (csr("*." + NAME.partition(".")[2]), "exactly the DNS name"),
        (csr(NAME.upper()), "exactly the DNS name"),
        (csr(NAME, NAME), "exactly the DNS name"),
        (csr(NAME, "evil.example"), "exactly the DNS name"),
        (csr(NAME, x509.UniformResourceIdentifier("spiffe://cluster.local/x")), "exactly the DNS name"),
        (csr(x509.RFC822Name("a@b.example")), "exactly the DNS name"),
        (csr(NAME, cn="evil.example"), "common name"),
        (
            csr(NAME, change=lambda b: b.add_extension(x509.BasicConstraints(True, None), critical=True)),
            "only a SAN is accepted",
        ),
        (
            csr(NAME, change=lambda b: b.add_attribute(x509.oid.AttributeOID.CHALLENGE_PASSWORD, b"x")),
            "attributes besides",
        ),
        (csr(NAME)[:-3] + b"abc", "signed|read"),
        (b"", "cannot be read"),
        (b"\x30\x82\xff\xff" + b"\x00" * 100, "cannot be read"),
        (b"\x30" * 9000, "at most"),
    ],
)
def test_a_csr_that_asks_for_anything_else_is_refused(request_der: bytes, why: str) -> None:
    with pytest.raises(BadRequest, match=why):
        check_csr(request_der, NAME)


def test_a_csr_is_accepted_with_an_empty_subject_or_its_own_name() -> None:
    for request in (csr(NAME), csr(NAME, cn=NAME)):
        assert isinstance(check_csr(request, NAME).curve, ec.SECP256R1)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (replace(TEXT, certificate=authority("foreign").pem), "does not belong"),
        (replace(TEXT, roots=authority("other root").pem), "no trust anchor has issued"),
        (replace(TEXT, key=b"garbage"), "cannot be read"),
        (
            (lambda leaf: IssuerText(leaf.pem, leaf.key_pem, ROOT.pem))(authority("leaf", ROOT, ca=False)),
            "may not sign",
        ),
        (
            (lambda old: IssuerText(old.pem, old.key_pem, ROOT.pem))(
                authority("old", ROOT, now=datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
            ),
            "valid from",
        ),
    ],
)
def test_an_issuer_is_checked_as_a_whole(text: IssuerText, why: str) -> None:
    with pytest.raises(BadIssuer, match=why):
        load_issuer(text.certificate, text.key, text.roots, datetime.datetime.now(datetime.UTC))


def test_intermediates_are_returned_and_the_anchor_is_not() -> None:
    middle = authority("middle", ROOT)
    last = authority("last", middle)
    chain = last.pem + middle.pem + ROOT.pem
    issuer = load_issuer(chain, last.key_pem, ROOT.pem, datetime.datetime.now(datetime.UTC))
    assert [x509.load_der_x509_certificate(c) for c in issuer.chain] == [last.certificate, middle.certificate]


def test_a_leaf_lives_as_long_as_the_installation_says() -> None:
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    issuer = load_issuer(TEXT.certificate, TEXT.key, TEXT.roots, now)
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    assert issuer.sign(key, NAME, "default", "", now).not_after == now + datetime.timedelta(hours=24)
    short = datetime.timedelta(seconds=20)
    assert issuer.sign(key, NAME, "default", "", now, short).not_after == now + short


def test_a_leaf_never_outlives_its_issuer() -> None:
    issuer = load_issuer(TEXT.certificate, TEXT.key, TEXT.roots, datetime.datetime.now(datetime.UTC))
    late = issuer.not_after - datetime.timedelta(hours=1)
    leaf = issuer.sign(ec.generate_private_key(ec.SECP256R1()).public_key(), NAME, "default", "", late)
    assert leaf.not_after == issuer.not_after


async def test_a_new_issuer_is_taken_over_and_a_bad_one_is_told_of_and_left() -> None:
    told: list[str] = []
    now = {"text": TEXT}

    async def read() -> IssuerText:
        await asyncio.sleep(0)
        return now["text"]

    keeper = IssuerKeeper(read, SystemClock(), lambda reason, message, warning: told.append(reason))
    await keeper.refresh()
    first = keeper.current
    now["text"] = replace(TEXT, key=b"garbage")
    await keeper.refresh()
    await keeper.refresh()
    assert keeper.current is first and told == ["IssuerValidationFailed"]
    renewed = authority("renewed", ROOT)
    now["text"] = IssuerText(renewed.pem, renewed.key_pem, ROOT.pem)
    await keeper.refresh()
    assert keeper.current is not None and keeper.current.certificate == renewed.certificate
    assert told == ["IssuerValidationFailed", "IssuerUpdated"]


async def test_followers_of_the_anchors_get_each_change_and_never_an_unusable_list() -> None:
    old, new = authority("root"), authority("root")
    issuer = authority("issuer", old)
    roots = [old.pem]

    async def read() -> IssuerText:
        return IssuerText(issuer.pem, issuer.key_pem, b"".join(roots))

    async with running(FakeKubernetes(), read) as plane:
        service = plane.controller.identity
        await until(lambda: plane.controller.issuer.current is not None)
        port = plane.controller.settings.ports.identity
        stream = plane.stream(
            port,
            IDENTITY_WATCH_TRUST_ANCHORS,
            identity_pb2.WatchTrustAnchorsRequest(),
            identity_pb2.TrustAnchors,
        ).__aiter__()
        assert list((await anext(stream)).certificates) == [old.der]

        roots.append(new.pem)
        await plane.controller.issuer.refresh()
        assert sorted((await anext(stream)).certificates) == sorted([old.der, new.der])
        assert service.followers.open == 1

        for unusable in (b"", b"no PEM", new.pem[:-40], new.pem * (MAX_ANCHORS + 1)):
            roots[:] = [unusable]
            await plane.controller.issuer.refresh()
            assert service.anchors.trouble
        roots[:] = [new.pem, old.pem, new.pem]
        await plane.controller.issuer.refresh()
        assert not service.anchors.trouble

        roots[:] = [new.pem]
        await plane.controller.issuer.refresh()
        # The next word is of this change: the unusable texts and the other order said nothing.
        assert list((await anext(stream)).certificates) == [new.der]
