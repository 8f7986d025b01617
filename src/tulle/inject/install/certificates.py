"""The certificates an installation is born with: trust anchor, issuer, and the webhook's serving pair.

ECDSA P-256 throughout. Every CA carries KeyUsage and its key identifiers, for strict verifiers refuse one without.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["Pair", "make_issuer", "make_serving", "make_trust_anchor"]

# Tolerates clocks that run behind the one that installs.
BACKDATE = timedelta(minutes=5)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> str:
        """The certificate as PEM text."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def key_pem(self) -> str:
        """The private key as unencrypted PKCS #8 PEM text."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()


def _build(
    name: str, key: ec.EllipticCurvePrivateKey, signer: Pair | None, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer_key = (signer.key if signer else key).public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer.certificate.subject if signer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _authority(name: str, signer: Pair | None, path_length: int, now: datetime, life: timedelta) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _build(name, key, signer, now, life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign((signer.key if signer else key), hashes.SHA256())
    )
    return Pair(certificate, key)


def make_trust_anchor(domain: str, now: datetime) -> Pair:
    """Return a root for the mesh `root.linkerd.<domain>`, valid for 365 days as Linkerd's installer makes it."""
    return _authority(f"root.linkerd.{domain}", None, 1, now, timedelta(days=365))


def make_issuer(anchor: Pair, namespace: str, domain: str, now: datetime) -> Pair:
    """Return the CA that signs the workloads' leaves, signed by the anchor; valid as long as the anchor."""
    life = anchor.certificate.not_valid_after_utc - now
    return _authority(f"identity.{namespace}.{domain}", anchor, 0, now, life)


def make_serving(names: list[str], now: datetime) -> tuple[Pair, Pair]:
    """Return (CA, serving pair) for an HTTPS server of these DNS names, valid for 365 days."""
    authority = _authority("webhook.tulle", None, 0, now, timedelta(days=365))
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _build(names[0], key, authority, now, timedelta(days=365))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return authority, Pair(certificate, key)
