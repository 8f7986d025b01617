"""The issuer: a CA certificate with its key, checked as a whole before it is used, and the leaves that it signs."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["LIFETIME", "BadIssuer", "Issuer", "Leaf", "load_issuer"]

SKEW = timedelta(seconds=20)
LIFETIME = timedelta(hours=24)
DER = serialization.Encoding.DER


class BadIssuer(ValueError):
    """An issuer cannot be used; the text says why."""


@dataclass(frozen=True)
class Leaf:
    """A signed certificate and the chain that leads to (not including) the trust anchor, all DER."""

    certificate: bytes
    chain: tuple[bytes, ...]
    not_after: datetime
    serial: int


@dataclass(frozen=True)
class Issuer:
    """A validated CA certificate, its key, and what is between it and the anchor."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    chain: tuple[bytes, ...]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate in hexadecimal."""
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    @property
    def not_after(self) -> datetime:
        """When it ends to be valid."""
        return self.certificate.not_valid_after_utc

    def sign(
        self,
        key: ec.EllipticCurvePublicKey,
        identity: str,
        namespace: str,
        pod: str,
        now: datetime,
        lifetime: timedelta = LIFETIME,
    ) -> Leaf:
        """Certify a key for an identity. The subject tells peers the pod: `O=<namespace>, OU=<pod>` when known.

        The leaf is valid for `lifetime`, begins 20 s in the past for clocks that run behind, and never outlives its
        issuer.
        """
        not_after = min(now + lifetime, self.not_after).replace(microsecond=0)
        subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, namespace)]
        if pod:
            subject.append(x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, pod))
        usage = x509.KeyUsage(
            digital_signature=True,
            key_encipherment=True,
            content_commitment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=False,
            crl_sign=False,
            encipher_only=False,
            decipher_only=False,
        )
        purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        leaf = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
            .issuer_name(self.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - SKEW)
            .not_valid_after(not_after)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(purposes, critical=False)
            .add_extension(_authority_key(self.certificate), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(identity)]), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return Leaf(leaf.public_bytes(DER), self.chain, not_after, leaf.serial_number)


def load_issuer(certificate: bytes, key: bytes, roots: bytes, now: datetime) -> Issuer:
    """Read PEM texts and check the whole chain up to one of the roots. Raises BadIssuer."""
    try:
        certificates = x509.load_pem_x509_certificates(certificate)
        anchors = x509.load_pem_x509_certificates(roots)
        secret = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadIssuer(f"a PEM file cannot be read: {error}") from error
    if not isinstance(secret, ec.EllipticCurvePrivateKey) or not isinstance(secret.curve, ec.SECP256R1):
        raise BadIssuer("the issuer's key is not ECDSA P-256")
    issuer = certificates[0]
    if secret.public_key() != issuer.public_key():
        raise BadIssuer("the issuer's key does not belong to its certificate")
    chain = _path(certificates, anchors)
    for each in chain:
        _check_ca(each, now)
    return Issuer(issuer, secret, tuple(each.public_bytes(DER) for each in chain if each not in anchors))


def _path(
    certificates: Sequence[x509.Certificate], anchors: Sequence[x509.Certificate]
) -> list[x509.Certificate]:
    """Follow the issuers from the first certificate to an anchor; the anchor itself is left out unless it is first."""
    path = [certificates[0]]
    while path[-1] not in anchors:
        if any(_issued(anchor, path[-1]) for anchor in anchors):
            return path
        above = next((c for c in certificates if c not in path and _issued(c, path[-1])), None)
        if above is None:
            raise BadIssuer(f"no trust anchor has issued {path[-1].subject.rfc4514_string()!r}")
        path.append(above)
    return path


def _issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _check_ca(certificate: x509.Certificate, now: datetime) -> None:
    name = certificate.subject.rfc4514_string()
    if now < certificate.not_valid_before_utc or now >= certificate.not_valid_after_utc:
        raise BadIssuer(
            f"{name!r} is valid from {certificate.not_valid_before_utc} to {certificate.not_valid_after_utc}, not now"
        )
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except (x509.ExtensionNotFound, ValueError) as error:
        raise BadIssuer(f"{name!r} lacks what makes a CA: {error}") from error
    if not constraints.ca or not usage.key_cert_sign:
        raise BadIssuer(f"{name!r} may not sign certificates")


def _authority_key(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        known = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        public = issuer.public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(public)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known)
