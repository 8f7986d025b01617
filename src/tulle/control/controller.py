"""The control plane put together: which roles run, on which ports, and when it is ready.

All roles share one loop, one World and one client. The parts that other packages bring (the admission webhook, routes
of the metrics API) are handed in, so this package does not know them.
"""

import asyncio
import contextlib
import gc
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, Protocol, get_args

import grpc
import grpc.aio
import httpx2
from starlette.routing import BaseRoute

from tulle.clock import Clock
from tulle.compile.mesh import Mesh
from tulle.control.admin import admin_app
from tulle.control.anchors import TrustAnchors
from tulle.control.destination import DestinationService
from tulle.control.events import Event, Events
from tulle.control.http import bind, serve
from tulle.control.identity import IdentityService
from tulle.control.issuer import LIFETIME
from tulle.control.issuing import IssuerKeeper, IssuerText
from tulle.control.lag import Lag
from tulle.control.limits import StreamLimits
from tulle.control.metrics import Sample, Sources
from tulle.control.policy import PolicyService
from tulle.control.reporting import Reporter
from tulle.control.rpc import listen
from tulle.control.serving import ServingCertificate
from tulle.control.tokens import Caller, TokenReviews
from tulle.control.views import Views
from tulle.kube import kinds
from tulle.kube.client import Client
from tulle.kube.kinds import Kind
from tulle.kube.lease import Election

__all__ = ["ROLES", "Addition", "Controller", "Ports", "Role", "Settings", "Webhook"]

log = logging.getLogger("tulle.control")

Role = Literal["identity", "destination", "policy", "inject"]
ROLES: tuple[Role, ...] = get_args(Role)
STOP_GRACE_SECONDS = 1.0


@dataclass
class Ports:
    """Where the control plane listens; 0 takes any free port, which is then written here."""

    identity: int = 8080
    destination: int = 8086
    policy: int = 8090
    webhook: int = 8443
    admin: int = 9990


@dataclass(frozen=True)
class Webhook:
    """The admission webhook: an ASGI application and the certificate that it is served with."""

    app: Any
    certificate: ServingCertificate


def watched_by(roles: frozenset[Role]) -> tuple[Kind, ...]:
    """Return the kinds that a process with these roles must know: identity alone needs none."""
    if roles & {"destination", "policy"}:
        return kinds.CONTROLLER
    return (kinds.NAMESPACE, kinds.REPLICA_SET, kinds.JOB) if "inject" in roles else ()


class Addition(Protocol):
    """Another part that lives in this process: its routes are on the admin port, its work runs beside ours."""

    @property
    def routes(self) -> Sequence[BaseRoute]:
        """What to mount."""
        ...

    def samples(self) -> Iterable[tuple[str, str, str, float]]:
        """Return its own metrics as (name, counter or gauge, help without full stop, value)."""
        ...

    async def run(self) -> None:
        """Work until cancelled; begun once the cluster has been read."""
        ...


@dataclass(frozen=True)
class Settings:
    """What runs and where."""

    roles: frozenset[Role]
    mesh: Mesh
    address: str = "0.0.0.0"
    ports: Ports = field(default_factory=Ports)
    # Tells replicas apart in the election of the status writer.
    replica: str = "tulle-controller"
    issuance_lifetime: timedelta = LIFETIME


class Controller:
    """One control plane process."""

    def __init__(
        self,
        client: Client,
        settings: Settings,
        clock: Clock,
        issuer: Callable[[], Awaitable[IssuerText]],
        webhook: Callable[[Views], Webhook] | None = None,
        addition: Callable[[Views, Mesh], Addition] | None = None,
    ) -> None:
        self.settings, self.clock = settings, clock
        self.views = Views(client, clock, watched_by(settings.roles))
        self.events = Events(client, clock)
        self.reporter = Reporter(self.views.world, settings.mesh, client, self.events, clock)
        self.views.listen(self.reporter.touch)
        self._election = Election(
            client, settings.mesh.control_plane_namespace, "tulle-status-writer", settings.replica, clock
        )
        self.limits = StreamLimits()
        self.started = asyncio.Event()
        self.lag = Lag(clock)
        mesh = settings.mesh
        anchors = TrustAnchors()
        self.issuer = IssuerKeeper(issuer, clock, self._tell_of_issuer, anchors.update)
        self.identity = IdentityService(
            mesh,
            TokenReviews(client),
            lambda: self.issuer.current,
            clock,
            self._tell_of_leaf,
            settings.issuance_lifetime,
            anchors,
        )
        self._webhook = webhook(self.views) if webhook is not None and "inject" in settings.roles else None
        self._addition = addition(self.views, settings.mesh) if addition is not None else None

    async def run(self) -> None:
        """Serve until cancelled. Raises OSError (in an ExceptionGroup) when a port cannot be bound."""
        settings, roles = self.settings, self.settings.roles
        # Proxies' metrics are plain HTTP: no trust store is loaded for them.
        relay = httpx2.AsyncClient(
            trust_env=False,
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            limits=httpx2.Limits(max_connections=64),
        )
        async with relay, self._grpc_servers(), asyncio.TaskGroup() as tasks:
            admin = bind(settings.address, settings.ports.admin)
            settings.ports.admin = admin.getsockname()[1]
            tasks.create_task(self.views.run(), name="views")
            tasks.create_task(self.events.run(), name="events")
            tasks.create_task(self._settle(), name="settle")
            if "identity" in roles:
                tasks.create_task(self.issuer.run(), name="issuer")
            if "policy" in roles:
                tasks.create_task(self._report(), name="status writer")
            if self._webhook is not None:
                listener = bind(settings.address, settings.ports.webhook)
                settings.ports.webhook = listener.getsockname()[1]
                certificate = self._webhook.certificate
                tasks.create_task(serve(self._webhook.app, listener, tls=certificate.context), name="webhook")
                tasks.create_task(certificate.run(), name="webhook certificate")
            app = admin_app(
                self.views,
                settings.mesh,
                self._sources(),
                self.not_ready,
                relay,
                self._addition.routes if self._addition is not None else (),
            )
            tasks.create_task(serve(app, admin), name="admin")
            if self._addition is not None:
                tasks.create_task(self._add(self._addition), name="addition")
            tasks.create_task(self.lag.run(), name="lag")
            self.started.set()

    def not_ready(self) -> list[str]:
        """Say what is missing before proxies may be sent here; trouble later on does not count, for then the last
        known state is served.
        """
        missing = [
            f"{reflector.kind} not listed: {reflector.trouble or 'under way'}"
            for reflector in self.views.watcher.reflectors.values()
            if not reflector.synced
        ]
        if "identity" in self.settings.roles and self.issuer.current is None:
            missing.append(f"no issuer: {self.issuer.trouble or 'it has expired'}")
        return missing

    @contextlib.asynccontextmanager
    async def _grpc_servers(self) -> AsyncIterator[None]:
        settings = self.settings
        hub, mesh = self.views.hub, settings.mesh
        servers: list[grpc.aio.Server] = []

        async def start(port: int, handlers: Sequence[grpc.GenericRpcHandler]) -> int:
            host = f"[{settings.address}]" if ":" in settings.address else settings.address
            server, bound = await listen(f"{host}:{port}", handlers)
            servers.append(server)
            return bound

        try:
            ports = settings.ports
            if "identity" in settings.roles:
                ports.identity = await start(ports.identity, [self.identity.handler()])
            if "destination" in settings.roles:
                destination = DestinationService(self.views, mesh, hub, self.limits)
                ports.destination = await start(ports.destination, [destination.handler()])
            if "policy" in settings.roles:
                policy = PolicyService(self.views, mesh, hub, self.limits)
                ports.policy = await start(ports.policy, policy.handlers())
            yield
        finally:
            await asyncio.shield(asyncio.gather(*(server.stop(STOP_GRACE_SECONDS) for server in servers)))

    async def _report(self) -> None:
        await self.views.watcher.wait_synced()
        await self._election.run(self.reporter.run)

    async def _add(self, addition: Addition) -> None:
        await self.views.watcher.wait_synced()
        await addition.run()

    async def _settle(self) -> None:
        await self.views.watcher.wait_synced()
        # What was listed stays: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(200_000, 20, 100)
        world = self.views.world
        log.info(
            "the cluster has been read: %d objects",
            sum(len(r.store) for r in self.views.watcher.reflectors.values()),
        )
        log.debug("world version %d", world.version)

    def _sources(self) -> Sources:
        has_identity = "identity" in self.settings.roles
        return Sources(
            self.clock,
            self.views.watcher,
            self.views.hub,
            self.limits,
            self.lag,
            self.identity if has_identity else None,
            self.issuer if has_identity else None,
            self._added_samples,
        )

    def _added_samples(self) -> Iterable[Sample]:
        if self._addition is None:
            return ()
        return [Sample(name, kind, text, value) for name, kind, text, value in self._addition.samples()]

    def _tell_of_issuer(self, reason: str, message: str, warning: bool) -> None:
        namespace = self.settings.mesh.control_plane_namespace
        self.events.tell(Event("Secret", namespace, "linkerd-identity-issuer", reason, message, warning))

    def _tell_of_leaf(self, caller: Caller, expiry: str) -> None:
        account = self.settings.mesh.identity(caller.namespace, caller.service_account)
        message = f"issued certificate for {account} until {expiry}" + (
            f" to pod {caller.pod}" if caller.pod else ""
        )
        self.events.tell(
            Event(
                "ServiceAccount", caller.namespace, caller.service_account, "IssuedLeafCertificate", message
            )
        )
