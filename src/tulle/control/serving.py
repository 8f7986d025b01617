"""A server certificate on disk that may be replaced while it is being served: new handshakes get the new one."""

import asyncio
import logging
import ssl
from pathlib import Path

from tulle.errors import TulleError

__all__ = ["ServingCertificate"]

log = logging.getLogger("tulle.control")

POLL_SECONDS = 10.0


class ServingCertificate:
    """tls.crt and tls.key of a directory, as a TLS context. Raises TulleError when they cannot be used."""

    def __init__(self, directory: Path) -> None:
        self._files = (directory / "tls.crt", directory / "tls.key")
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            self._read_at = self._stamp()
            self.context.load_cert_chain(*self._files)
        except (OSError, ssl.SSLError) as error:
            raise TulleError(
                f"cannot use the certificate in {directory}",
                str(error),
                "it needs tls.crt and tls.key in PEM",
            ) from error

    async def run(self) -> None:
        """Look for a new pair until cancelled; one that cannot be used is told of and left."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            self.refresh()

    def refresh(self) -> bool:
        """Load the pair again when a file has changed; tells whether a new one is served now."""
        try:
            stamp = self._stamp()
            if stamp == self._read_at:
                return False
            # A context that cannot load a pair is left without one: try on another first.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*self._files)
            self.context.load_cert_chain(*self._files)
        except (OSError, ssl.SSLError) as error:
            log.error("the new certificate %s cannot be used: %s", self._files[0], error)
            return False
        self._read_at = stamp
        log.info("serving the new certificate %s", self._files[0])
        return True

    def _stamp(self) -> tuple[int, ...]:
        return tuple(file.stat().st_mtime_ns for file in self._files)
