"""`Identity.Certify`: a proxy proves by its token who it is and gets a certificate for exactly that name.
`Identity.WatchTrustAnchors`: whom it is to trust, while that changes.

Order of checks: size and shape, the rate, the token (asked of the API), the name, the request. The token is never
logged. Bounds: reviews under way at once, and certificates per pod.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import grpc

from tulle.api import identity_pb2
from tulle.clock import Clock
from tulle.compile.mesh import Mesh
from tulle.control.anchors import TrustAnchors
from tulle.control.csr import MAX_CSR, BadRequest, check_csr
from tulle.control.issuer import LIFETIME, Issuer
from tulle.control.limits import Buckets, StreamLimits
from tulle.control.rpc import Context, Refusal, service, stream, unary
from tulle.control.tokens import Caller, Foreign, Reviewer, could_not_tell
from tulle.kube.client import ApiError, Unreachable

__all__ = ["IdentityService"]

log = logging.getLogger("tulle.identity")

REVIEWS_AT_ONCE = 64
REVIEWS_WAITING = 5_000
REVIEW_SECONDS = 8.0
# A proxy renews once in 17 hours; ten at once cover restarts and retries, one in 20 s a crash loop.
PER_POD_BURST, PER_POD_RATE = 10.0, 0.05
# Tokens that name no pod are counted by their service account, which may have thousands of pods.
PER_ACCOUNT_BURST, PER_ACCOUNT_RATE = 2_000.0, 50.0


@dataclass
class IdentityService:
    """Certifies workloads. `issuer` returns the one in force, None before there is one."""

    mesh: Mesh
    reviewer: Reviewer
    issuer: Callable[[], Issuer | None]
    clock: Clock
    issued: Callable[[Caller, str], None] = lambda caller, expiry: None
    lifetime: timedelta = LIFETIME
    anchors: TrustAnchors = field(default_factory=TrustAnchors)
    # Every proxy of the mesh follows the anchors, so what is bounded is each peer and the whole.
    followers: StreamLimits = field(default_factory=lambda: StreamLimits(per_workload=100_000))
    outcomes: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("issued", "refused", "failed"), 0)
    )

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(REVIEWS_AT_ONCE)
        self._waiting = 0
        self._pods = Buckets(self.clock, PER_POD_RATE, PER_POD_BURST)
        self._accounts = Buckets(self.clock, PER_ACCOUNT_RATE, PER_ACCOUNT_BURST)

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the service for a gRPC server."""
        return service(
            "io.linkerd.proxy.identity.Identity",
            {
                "Certify": unary(self._certify, identity_pb2.CertifyRequest),
                "WatchTrustAnchors": stream(
                    self._watch, identity_pb2.WatchTrustAnchorsRequest, self.followers, lambda request: "all"
                ),
            },
        )

    async def _watch(self, request: identity_pb2.WatchTrustAnchorsRequest, context: Context) -> None:
        async for message in self.anchors.follow():
            await context.write(message)

    async def _certify(self, request: identity_pb2.CertifyRequest, context: Context) -> bytes:
        try:
            answer = await self.certify(request)
        except Refusal as error:
            failed = error.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
            self.outcomes["failed" if failed else "refused"] += 1
            log.warning("certificate for %.300r refused: %s", request.identity, error)
            raise
        self.outcomes["issued"] += 1
        return answer.SerializeToString()

    async def certify(self, request: identity_pb2.CertifyRequest) -> identity_pb2.CertifyResponse:
        """Check everything and sign. Raises Refusal."""
        if not request.identity or len(request.certificate_signing_request) > MAX_CSR:
            raise Refusal(
                grpc.StatusCode.INVALID_ARGUMENT, "identity, token and a CSR of at most 8 KiB are needed"
            )
        issuer = self.issuer()
        if issuer is None:
            raise Refusal(grpc.StatusCode.UNAVAILABLE, "there is no valid issuer certificate")
        caller = await self._review(request.token)
        expected = self.mesh.identity(caller.namespace, caller.service_account)
        if request.identity != expected:
            raise Refusal(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"the token belongs to {expected!r}, the request is for {request.identity[:300]!r}",
            )
        buckets = self._pods if caller.pod else self._accounts
        if not buckets.take((caller.namespace, caller.service_account, caller.pod)):
            raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{expected} asks for certificates too often")
        try:
            key = check_csr(request.certificate_signing_request, expected)
        except BadRequest as error:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
        leaf = issuer.sign(key, expected, caller.namespace, caller.pod, self.clock.now(), self.lifetime)
        self.issued(caller, leaf.not_after.isoformat())
        response = identity_pb2.CertifyResponse(
            leaf_certificate=leaf.certificate, intermediate_certificates=leaf.chain
        )
        response.valid_until.FromDatetime(leaf.not_after)
        return response

    async def _review(self, token: bytes) -> Caller:
        if self._waiting >= REVIEWS_WAITING:
            raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many token reviews are waiting")
        self._waiting += 1
        try:
            async with asyncio.timeout(REVIEW_SECONDS), self._slots:
                return await self.reviewer.review(token)
        except Foreign as error:
            raise Refusal(
                grpc.StatusCode.FAILED_PRECONDITION, f"the token is not accepted: {error}"
            ) from error
        except (ApiError, Unreachable) as error:
            log.warning("token review failed: %s", error)
            raise Refusal(grpc.StatusCode.UNAVAILABLE, could_not_tell(error)) from error
        except TimeoutError as error:
            raise Refusal(grpc.StatusCode.UNAVAILABLE, "the token review took too long") from error
        finally:
            self._waiting -= 1
