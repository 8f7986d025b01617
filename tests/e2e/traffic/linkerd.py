"""What stands for the image of linkerd2-proxy: `linkerd.py BINARY` makes the key and the signing request, then runs it."""

import os
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

__all__ = ["key_and_request"]


def key_and_request(folder: Path, identity: str) -> None:
    """Write what linkerd2-proxy wants to find in its identity's folder: its key and the signing request."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(identity)]), critical=False)
        .sign(key, SHA256())
    )
    der = serialization.Encoding.DER
    private = key.private_bytes(der, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.p8").write_bytes(private)
    (folder / "csr.der").write_bytes(request.public_bytes(der))


def main(binary: str) -> None:
    """Prepare the identity's folder as the image's own wrapper does, and become the proxy."""
    folder = Path(os.environ["LINKERD2_PROXY_IDENTITY_DIR"])
    key_and_request(folder, os.environ["LINKERD2_PROXY_IDENTITY_LOCAL_NAME"])
    os.execv(binary, [binary])


if __name__ == "__main__":
    main(sys.argv[1])
