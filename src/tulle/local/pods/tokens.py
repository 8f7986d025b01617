"""The node agent's tokens: TokenRequests to the embedded API, bound to the pod."""

from collections.abc import Sequence
from typing import Protocol

from tulle.local.api.objects import Obj
from tulle.local.controllers.metadata import parse_time
from tulle.local.pods.ports import Token, TokenSource

__all__ = ["tokens_from"]


class TokenRequests(Protocol):
    """The part of the API that answers TokenRequests."""

    async def request_token(
        self,
        namespace: str,
        account: str,
        *,
        audiences: Sequence[str] = (),
        seconds: int = 3600,
        pod: Obj | None = None,
    ) -> Obj:
        """Return the TokenRequest with its status."""
        ...


def tokens_from(api: TokenRequests) -> TokenSource:
    """Return a source of tokens bound to their pod.

    The source raises ApiError(404) while the pod's ServiceAccount does not exist.
    """

    async def issue(pod: Obj, *, audiences: Sequence[str], seconds: int) -> Token:
        account = pod["spec"].get("serviceAccountName") or "default"
        namespace = pod["metadata"]["namespace"]
        answer = await api.request_token(namespace, account, audiences=audiences, seconds=seconds, pod=pod)
        expires = parse_time(answer["status"]["expirationTimestamp"])
        assert expires is not None
        return Token(answer["status"]["token"], expires)

    return issue
