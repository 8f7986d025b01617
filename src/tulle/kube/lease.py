"""Who may write: a coordination.k8s.io Lease held by one of several replicas.

The decision is pure. Whether another's lease has run out is judged by how long *we* have seen it unchanged, never by
comparing clocks of two machines.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from tulle.clock import Clock
from tulle.kube.client import ApiError, Unreachable

__all__ = ["LEASE_SECONDS", "Election", "Take", "Wait", "decide"]

log = logging.getLogger("tulle.kube")

LEASE_SECONDS = 15
RENEW_DEADLINE = 10.0
RETRY_SECONDS = 2.0


class Leases(Protocol):
    """The calls that an election makes."""

    async def get(self, path: str) -> Any:
        """Fetch an object. Raises ApiError or Unreachable."""
        ...

    async def create(self, path: str, body: Any) -> Any:
        """Create an object. Raises ApiError or Unreachable."""
        ...

    async def update(self, path: str, body: Any) -> Any:
        """Replace an object. Raises ApiError or Unreachable."""
        ...


@dataclass(frozen=True, slots=True)
class Take:
    """Write the lease with this `spec`; it is ours when that succeeds."""

    spec: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wait:
    """Somebody else holds it."""

    holder: str


def decide(spec: dict[str, Any], me: str, unchanged_for: float, now: datetime) -> Take | Wait:
    """Decide on a lease's spec (empty: there is none), seen unchanged for so many seconds."""
    holder = spec.get("holderIdentity") or ""
    stamp = now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    lasts = spec.get("leaseDurationSeconds")
    if holder not in ("", me) and unchanged_for < (
        lasts if isinstance(lasts, int) and lasts > 0 else LEASE_SECONDS
    ):
        return Wait(holder)
    taken = {
        "holderIdentity": me,
        "leaseDurationSeconds": LEASE_SECONDS,
        "renewTime": stamp,
        "acquireTime": spec.get("acquireTime", stamp) if holder == me else stamp,
        "leaseTransitions": int(spec.get("leaseTransitions") or 0) + (holder not in ("", me)),
    }
    return Take(taken)


@dataclass
class Election:
    """Takes part in one election."""

    api: Leases
    namespace: str
    name: str
    me: str
    clock: Clock
    leading: bool = False
    _seen: dict[str, Any] = field(default_factory=dict)
    _seen_at: float = 0.0
    _renewed_at: float = 0.0

    async def run(self, lead: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `lead` while elected: it is cancelled when the lease is lost, and started again when it is won."""
        async with self._resigning():
            while True:
                if await self._try():
                    await self._lead(lead)
                await asyncio.sleep(RETRY_SECONDS)

    async def _lead(self, lead: Callable[[], Coroutine[Any, Any, None]]) -> None:
        log.info("leading %s/%s as %s", self.namespace, self.name, self.me)
        self.leading = True
        try:
            async with asyncio.TaskGroup() as tasks:
                leading = tasks.create_task(lead(), name=f"leading {self.name}")
                while self.clock.monotonic() - self._renewed_at < RENEW_DEADLINE:
                    await asyncio.sleep(RETRY_SECONDS)
                    if not await self._try() and self._seen.get("holderIdentity") != self.me:
                        break
                leading.cancel()
        finally:
            self.leading = False
        log.warning("no longer leading %s/%s", self.namespace, self.name)

    async def _try(self) -> bool:
        """Take or renew the lease if that is due; tells whether it is ours."""
        collection = f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases"
        body: dict[str, Any] = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self.name, "namespace": self.namespace},
        }
        started = self.clock.monotonic()
        try:
            async with asyncio.timeout(RENEW_DEADLINE):
                try:
                    found = await self.api.get(f"{collection}/{self.name}")
                except ApiError as error:
                    if error.status != 404:
                        raise
                    found = None
                spec = (found or {}).get("spec") or {}
                if spec != self._seen:
                    self._seen, self._seen_at = spec, started
                decision = decide(spec, self.me, started - self._seen_at, self.clock.now())
                if isinstance(decision, Wait):
                    return False
                body["spec"] = decision.spec
                if found is None:
                    await self.api.create(collection, body)
                else:
                    body["metadata"] = found["metadata"]
                    await self.api.update(f"{collection}/{self.name}", body)
        except (ApiError, Unreachable, TimeoutError) as error:
            log.debug("lease %s/%s: %s", self.namespace, self.name, error)
            return False
        self._seen, self._seen_at, self._renewed_at = decision.spec, started, started
        return True

    @contextlib.asynccontextmanager
    async def _resigning(self) -> AsyncIterator[None]:
        """Give the lease back on the way out, so that the next leader need not wait for it to run out."""
        try:
            yield
        except asyncio.CancelledError:
            with contextlib.suppress(ApiError, Unreachable, TimeoutError):
                async with asyncio.timeout(1.0):
                    path = f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases/{self.name}"
                    found = await self.api.get(path)
                    if (found.get("spec") or {}).get("holderIdentity") == self.me:
                        found["spec"]["holderIdentity"] = ""
                        await self.api.update(path, found)
            raise
