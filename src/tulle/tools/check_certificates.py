"""Whether the mesh's certificates are valid and for how long: pure judgements of PEM texts and a time."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tulle.control.issuer import BadIssuer, load_issuer
from tulle.tools.check import Check, failed, passed, warned

__all__ = ["anchors", "issuer", "serving"]

SOON = timedelta(days=60)
MINIMUM_RSA_BITS = 2048
RENEW_ROOTS = "replace the trust anchor before that; see docs/check.md"
RENEW_ISSUER = "replace Secret linkerd-identity-issuer; see docs/check.md"
INSTALL_AGAIN = "install again: tulle install | kubectl apply -f -"


def anchors(bundle: bytes, now: datetime) -> list[Check]:
    """Judge every trust anchor of a PEM bundle."""
    try:
        certificates = x509.load_pem_x509_certificates(bundle)
    except ValueError as error:
        return [failed("trust anchors can be read", str(error), INSTALL_AGAIN)]
    return [_validity("trust anchor", each, now, RENEW_ROOTS) for each in certificates]


def issuer(certificate: bytes, key: bytes, bundle: bytes, now: datetime) -> list[Check]:
    """Judge the issuer: its key, its chain to an anchor, its validity."""
    try:
        found = x509.load_pem_x509_certificates(certificate)[0]
    except ValueError as error:
        return [failed("the issuer's certificate can be read", str(error), RENEW_ISSUER)]
    checks = [_validity("issuer", found, now, RENEW_ISSUER)]
    try:
        load_issuer(certificate, key, bundle, now)
    except BadIssuer as error:
        checks.append(failed("the issuer can sign for the trust anchors", str(error), RENEW_ISSUER))
    else:
        checks.append(passed("the issuer can sign for the trust anchors"))
    return checks


def serving(what: str, certificate: bytes, bundles: Sequence[bytes], now: datetime) -> list[Check]:
    """Judge the webhook's certificate: validity, and that every webhook configuration trusts it."""
    hint = INSTALL_AGAIN
    try:
        found = x509.load_pem_x509_certificates(certificate)[0]
        authorities = [x509.load_pem_x509_certificates(bundle) for bundle in bundles]
    except ValueError as error:
        return [failed(f"{what}'s certificate can be read", str(error), hint)]
    checks = [_validity(what, found, now, hint)]
    trusted = all(any(_issued(authority, found) for authority in bundle) for bundle in authorities)
    if trusted:
        checks.append(passed(f"webhook configurations trust {what}'s certificate"))
    else:
        reason = "a caBundle holds no certificate that has signed it"
        checks.append(failed(f"webhook configurations trust {what}'s certificate", reason, hint))
    return checks


def _validity(what: str, certificate: x509.Certificate, now: datetime, hint: str) -> Check:
    name = certificate.subject.rfc4514_string() or certificate.fingerprint(hashes.SHA256()).hex()[:16]
    until = certificate.not_valid_after_utc
    if now < certificate.not_valid_before_utc:
        begin = certificate.not_valid_before_utc
        return failed(
            f"{what} {name} is valid",
            f"it begins to be valid at {begin:%Y-%m-%d %H:%M} UTC",
            "set this machine's clock",
        )
    if now >= until:
        return failed(f"{what} {name} is valid", f"it expired at {until:%Y-%m-%d %H:%M} UTC", hint)
    if weakness := _weakness(certificate):
        return failed(f"{what} {name} has a supported key", weakness, hint)
    left = until - now
    text = f"{what} {name} is valid until {until:%Y-%m-%d} ({_span(left)} left)"
    return warned(text, f"less than {SOON.days} days are left", hint) if left < SOON else passed(text)


def _weakness(certificate: x509.Certificate) -> str:
    key = certificate.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        return (
            ""
            if isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1)
            else f"curve {key.curve.name} is not supported"
        )
    if isinstance(key, rsa.RSAPublicKey):
        return "" if key.key_size >= MINIMUM_RSA_BITS else f"an RSA key of {key.key_size} bits is too short"
    return f"a key of type {type(key).__name__} is not supported"


def _issued(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _span(left: timedelta) -> str:
    return f"{left.days} days" if left.days else f"{left.seconds // 3600} h"
