"""The mesh's trust anchors as they are now, and everybody who follows them.

A text that cannot be used is told of once and changes nothing: proxies are never sent an empty list, or half of one.
"""

import asyncio
import logging
from collections.abc import AsyncIterator

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tulle.api import identity_pb2

__all__ = ["MAX_ANCHORS", "TrustAnchors"]

log = logging.getLogger("tulle.identity")

# During a rotation there are two, in a federation of clusters some more; proxies refuse more than this.
MAX_ANCHORS = 64


class TrustAnchors:
    """Holds the anchors, encoded once for all streams."""

    def __init__(self) -> None:
        self._text = b""
        self._message: bytes | None = None
        self._changed = asyncio.Event()
        self.trouble = ""

    def update(self, text: bytes) -> None:
        """Take in the PEM text of all anchors; one that cannot be used leaves the former in force."""
        if text == self._text:
            return
        self._text = text
        try:
            certificates = x509.load_pem_x509_certificates(text)
            if len(certificates) > MAX_ANCHORS:
                raise ValueError(f"there are {len(certificates)}, and at most {MAX_ANCHORS} are taken")
        except ValueError as error:
            self.trouble = str(error)
            log.error("the trust anchors cannot be used, the former stay in force: %s", error)
            return
        self.trouble = ""
        # Sorted and each once: another order of the same anchors is no change.
        encoded = sorted({each.public_bytes(serialization.Encoding.DER) for each in certificates})
        message = identity_pb2.TrustAnchors(certificates=encoded).SerializeToString()
        if message != self._message:
            self._message = message
            log.info("%d trust anchors are in force", len(encoded))
            self._changed.set()
            self._changed = asyncio.Event()

    async def follow(self) -> AsyncIterator[bytes]:
        """Yield the encoded message that is in force, and each that replaces it; a slow reader gets the newest."""
        told: bytes | None = None
        while True:
            changed = self._changed
            if self._message is not None and self._message != told:
                told = self._message
                yield told
            else:
                await changed.wait()
