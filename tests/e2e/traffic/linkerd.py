"""What stands for the image of linkerd2-proxy: `linkerd.py BINARY` makes the key and the signing request, then runs it."""

import os
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256


def main(binary: str) -> None:
    """Prepare the identity's folder as the image's own wrapper does, and become the proxy."""
    folder = Path(os.environ["LINKERD2_PROXY_IDENTITY_DIR"])
    name = os.environ["LINKERD2_PROXY_IDENTITY_LOCAL_NAME"]
    key = ec.generate_private_key(ec.SECP256R1())
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, SHA256())
    )
    der = serialization.Encoding.DER
    private = key.private_bytes(der, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.p8").write_bytes(private)
    (folder / "csr.der").write_bytes(request.public_bytes(der))
    os.execv(binary, [binary])


main(sys.argv[1])
