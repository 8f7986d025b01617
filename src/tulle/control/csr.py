"""What a certificate signing request must be: an ECDSA P-256 key and exactly the one expected name, nothing else.

The request is an attacker's chance to get a certificate for somebody else, so everything that is not expected is
refused rather than dropped.
"""

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID, NameOID

__all__ = ["MAX_CSR", "BadRequest", "check_csr"]

MAX_CSR = 8 * 1024


class BadRequest(ValueError):
    """The signing request is not what the identity may ask for; the text says in what."""


def check_csr(der: bytes, identity: str) -> ec.EllipticCurvePublicKey:
    """Return the key to certify for `identity`. Raises BadRequest."""
    if len(der) > MAX_CSR:
        raise BadRequest(f"the CSR has {len(der)} bytes; at most {MAX_CSR} are accepted")
    try:
        request = x509.load_der_x509_csr(der)
        key = request.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise BadRequest("the CSR's key is not ECDSA P-256")
        if not request.is_signature_valid:
            raise BadRequest("the CSR is not signed by its own key")
        _check_subject(request.subject, identity)
        if any(attribute.oid != EXTENSION_REQUEST for attribute in request.attributes):
            raise BadRequest("the CSR has attributes besides its extension request")
        _check_extensions(request.extensions, identity)
    except BadRequest:
        raise
    except (
        ValueError,
        TypeError,
        UnsupportedAlgorithm,
        x509.DuplicateExtension,
        x509.InvalidVersion,
    ) as error:
        raise BadRequest(f"the CSR cannot be read: {error}") from error
    return key


# PKCS #9 extensionRequest
EXTENSION_REQUEST = x509.ObjectIdentifier("1.2.840.113549.1.9.14")


def _check_subject(subject: x509.Name, identity: str) -> None:
    for attribute in subject:
        if attribute.oid != NameOID.COMMON_NAME:
            raise BadRequest(
                f"the CSR's subject has {attribute.rfc4514_string()}; only a common name is accepted"
            )
        if attribute.value not in ("", identity):
            raise BadRequest(f"the CSR's common name is {attribute.value!r}, not {identity!r}")


def _check_extensions(extensions: x509.Extensions, identity: str) -> None:
    names: x509.SubjectAlternativeName | None = None
    for extension in extensions:
        if extension.oid != ExtensionOID.SUBJECT_ALTERNATIVE_NAME:
            raise BadRequest(
                f"the CSR asks for the extension {extension.oid.dotted_string}; only a SAN is accepted"
            )
        assert isinstance(extension.value, x509.SubjectAlternativeName)
        names = extension.value
    listed = list(names) if names is not None else []
    if len(listed) != 1 or not isinstance(listed[0], x509.DNSName) or listed[0].value != identity:
        shown = ", ".join(str(name.value) for name in listed) or "none"
        raise BadRequest(f"the CSR's names are {shown}; exactly the DNS name {identity!r} is accepted")
