"""Whose token is it: TokenReview through the Kubernetes API, first for the mesh's audience, then for the default one."""

from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from tulle.kube.client import ApiError, Unreachable

__all__ = ["AUDIENCE", "Caller", "Foreign", "Reviewer", "TokenReviews"]

AUDIENCE = "identity.l5d.io"
PATH = "/apis/authentication.k8s.io/v1/tokenreviews"
POD_NAME = "authentication.kubernetes.io/pod-name"
MAX_TOKEN = 16 * 1024


@dataclass(frozen=True, slots=True)
class Caller:
    """A service account, and the pod that its token is bound to ("" when it is not bound)."""

    namespace: str
    service_account: str
    pod: str = ""


class Foreign(Exception):
    """The token is not one of this cluster's service accounts; the text says what the API answered."""


class Reviewer(Protocol):
    """Whoever can tell the owner of a token."""

    async def review(self, token: bytes) -> Caller:
        """Return the owner. Raises Foreign, or ApiError and Unreachable when nobody could tell."""
        ...


class Poster(Protocol):
    """The one call that reviewing needs of a Kubernetes client."""

    async def create(self, path: str, body: Any) -> Any:
        """Create an object. Raises ApiError or Unreachable."""
        ...


class _User(msgspec.Struct):
    username: str = ""
    extra: dict[str, list[str]] | None = None


class _Status(msgspec.Struct):
    authenticated: bool = False
    user: _User | None = None
    audiences: list[str] | None = None
    error: str = ""


class _Review(msgspec.Struct):
    status: _Status = msgspec.field(default_factory=_Status)


@dataclass
class TokenReviews:
    """Reviews tokens by a Kubernetes API."""

    api: Poster

    async def review(self, token: bytes) -> Caller:
        """Return the owner of a token. Raises Foreign, ApiError or Unreachable."""
        if not token or len(token) > MAX_TOKEN:
            raise Foreign(f"a token of {len(token)} bytes")
        try:
            text = token.decode("ascii").strip()
        except UnicodeDecodeError as error:
            raise Foreign("the token is not text") from error
        status = await self._ask(text, [AUDIENCE])
        if not status.authenticated or AUDIENCE not in (status.audiences or [AUDIENCE]):
            status = await self._ask(text, None)
        if not status.authenticated or status.user is None:
            raise Foreign(status.error or "the API does not know the token")
        prefix, _, account = status.user.username.partition("system:serviceaccount:")
        namespace, colon, name = account.partition(":")
        if prefix or not (namespace and colon and name):
            raise Foreign(f"{status.user.username!r} is not a service account")
        pods = (status.user.extra or {}).get(POD_NAME, [])
        return Caller(namespace, name, pods[0] if pods else "")

    async def _ask(self, token: str, audiences: list[str] | None) -> _Status:
        spec: dict[str, Any] = {"token": token}
        if audiences:
            spec["audiences"] = audiences
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
        answer = await self.api.create(PATH, body)
        try:
            return msgspec.convert(answer, _Review).status
        except msgspec.ValidationError as error:
            raise Unreachable(f"the API's TokenReview cannot be read: {error}") from error


def could_not_tell(error: ApiError | Unreachable) -> str:
    """Say for the caller why its token could not be reviewed, without the API's internals."""
    return f"the token cannot be reviewed now: {type(error).__name__}"
