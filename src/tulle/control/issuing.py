"""The issuer in force: read from mounted files or through the API, checked as a whole, replaced while running.

A new issuer that does not pass is told of once, and the old one stays in force.
"""

import asyncio
import base64
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from tulle.clock import Clock
from tulle.control.issuer import BadIssuer, Issuer, load_issuer
from tulle.kube.client import ApiError, Client, Unreachable

__all__ = ["IssuerKeeper", "IssuerText", "from_api", "from_files"]

log = logging.getLogger("tulle.identity")

POLL_SECONDS = 5.0
SECRET, ROOTS = "linkerd-identity-issuer", "linkerd-identity-trust-roots"
# Linkerd's own scheme, then kubernetes.io/tls as cert-manager writes it.
FILES = (("crt.pem", "key.pem"), ("tls.crt", "tls.key"))


@dataclass(frozen=True)
class IssuerText:
    """The PEM texts of certificate, key and trust roots."""

    certificate: bytes
    key: bytes
    roots: bytes


def from_files(issuer_dir: Path, roots_dir: Path) -> Callable[[], Awaitable[IssuerText]]:
    """Read mounted Secret and ConfigMap volumes."""

    async def read() -> IssuerText:
        for certificate, key in FILES:
            if (issuer_dir / certificate).exists():
                # Small files on tmpfs, and atomically swapped as a directory by the kubelet.
                return IssuerText(
                    (issuer_dir / certificate).read_bytes(),
                    (issuer_dir / key).read_bytes(),
                    (roots_dir / "ca-bundle.crt").read_bytes(),
                )
        raise BadIssuer(f"{issuer_dir} holds neither crt.pem nor tls.crt")

    return read


def from_api(client: Client, namespace: str) -> Callable[[], Awaitable[IssuerText]]:
    """Read the Secret and the ConfigMap through the API."""

    async def read() -> IssuerText:
        secret = await client.get(f"/api/v1/namespaces/{namespace}/secrets/{SECRET}")
        config = await client.get(f"/api/v1/namespaces/{namespace}/configmaps/{ROOTS}")
        data = secret.get("data") or {}
        for certificate, key in FILES:
            if certificate in data:
                return IssuerText(
                    base64.b64decode(data[certificate]),
                    base64.b64decode(data.get(key, "")),
                    str((config.get("data") or {}).get("ca-bundle.crt", "")).encode(),
                )
        raise BadIssuer(f"Secret {namespace}/{SECRET} holds neither crt.pem nor tls.crt")

    return read


class IssuerKeeper:
    """Holds the issuer; `tell(reason, message, warning)` is called when something about it changes, and `anchors` with
    the text of the trust roots each time they have been read.
    """

    def __init__(
        self,
        read: Callable[[], Awaitable[IssuerText]],
        clock: Clock,
        tell: Callable[[str, str, bool], None] = lambda reason, message, warning: None,
        anchors: Callable[[bytes], None] = lambda roots: None,
    ) -> None:
        self._read, self._clock, self._tell, self._anchors = read, clock, tell, anchors
        self._text: IssuerText | None = None
        self._last: Issuer | None = None
        self.trouble = "the issuer has not been read yet"

    @property
    def current(self) -> Issuer | None:
        """The issuer to sign with; None before there is one and when it has expired."""
        issuer = self._last
        return issuer if issuer is not None and issuer.not_after > self._clock.now() else None

    async def run(self) -> None:
        """Keep the issuer fresh until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(POLL_SECONDS if self._last is not None else 0.5)

    async def refresh(self) -> None:
        """Read once and swap when there is something new and valid."""
        try:
            text = await self._read()
            # The roots also when the issuer is not good: a rotation adds the new root before the issuer under it.
            self._anchors(text.roots)
            if text == self._text:
                return
            issuer = load_issuer(text.certificate, text.key, text.roots, self._clock.now())
        except (BadIssuer, ApiError, Unreachable, OSError, ValueError) as error:
            if str(error) != self.trouble:
                self.trouble = str(error)
                log.error("the issuer cannot be used: %s", error)
                if isinstance(error, BadIssuer):
                    self._tell("IssuerValidationFailed", str(error), True)
            return
        renewed = self._last is not None and self._last.fingerprint != issuer.fingerprint
        self._text, self._last, self.trouble = text, issuer, ""
        log.info("issuer %s is in force until %s", issuer.fingerprint[:16], issuer.not_after)
        if renewed:
            self._tell(
                "IssuerUpdated",
                f"issuer {issuer.fingerprint[:16]} is in force until {issuer.not_after}",
                False,
            )
