"""The metrics API on the control plane's admin port: /api/stat, /api/edges, /api/summary, /api/targets.

All answers are JSON (`tulle.viz.answers`). A wrong parameter is answered 400 with a sentence that names it.
"""

import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import httpx2
import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from tulle.clock import Clock
from tulle.compile.mesh import Mesh
from tulle.kube.world import World
from tulle.viz import kinds, queries
from tulle.viz.scraper import Scraper, fetch_from

__all__ = ["MetricsApi"]

LONGEST_WINDOW_SECONDS = 600.0
DEFAULT_WINDOW_SECONDS = 60.0
_POOL = httpx2.Limits(max_connections=64, max_keepalive_connections=64, keepalive_expiry=30.0)


class BadParameter(ValueError):
    """A query parameter cannot be used; the text names it."""


class MetricsApi:
    """The scraper and the routes that answer from what it keeps."""

    def __init__(self, world: World, mesh: Mesh, clock: Clock) -> None:
        self._world, self._mesh = world, mesh
        # Sidecars' pages are plain HTTP: no trust store is loaded for them.
        self._http = httpx2.AsyncClient(
            trust_env=False, verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), limits=_POOL, timeout=None
        )
        self.scraper = Scraper(world, mesh, fetch_from(self._http), clock)

    async def run(self) -> None:
        """Scrape until cancelled."""
        async with self._http:
            await self.scraper.run()

    @property
    def routes(self) -> Sequence[BaseRoute]:
        """What to mount on the admin port."""
        return [
            Route("/api/stat", _answering(self._stat)),
            Route("/api/edges", _answering(self._edges)),
            Route("/api/summary", _answering(self._summary)),
            Route("/api/targets", _answering(self._targets)),
        ]

    def samples(self) -> Iterable[tuple[str, str, str, float]]:
        """Return the pipeline's own metrics: (name, counter or gauge, help, value)."""
        return self.scraper.samples()

    def _stat(self, request: Request) -> Any:
        _only(request, "kind", "namespace", "name", "window")
        try:
            kind = kinds.kind_named(request.query_params.get("kind", "deploy"))
        except kinds.UnknownKind as error:
            raise BadParameter(f"kind: {error}") from error
        return queries.stat(
            self.scraper.store,
            self._world,
            self._mesh,
            kind,
            namespace=request.query_params.get("namespace"),
            name=request.query_params.get("name"),
            seconds=_window(request),
        )

    def _edges(self, request: Request) -> Any:
        _only(request, "namespace", "without", "window")
        return queries.edges(
            self.scraper.store,
            namespace=request.query_params.get("namespace"),
            without=request.query_params.get("without", ""),
            seconds=_window(request),
        )

    def _summary(self, request: Request) -> Any:
        _only(request)
        return queries.summary(self.scraper.store, self._world, self._mesh)

    def _targets(self, request: Request) -> Any:
        _only(request)
        return self.scraper.targets()


def _answering(answer: Callable[[Request], Any]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            body = msgspec.json.encode(answer(request))
        except BadParameter as error:
            return PlainTextResponse(f"{error}\n", status_code=400)
        return Response(body, media_type="application/json", headers={"Cache-Control": "no-store"})

    return endpoint


def _only(request: Request, *known: str) -> None:
    unknown = [name for name in request.query_params if name not in known]
    if unknown:
        raise BadParameter(f"{unknown[0]!r} is no parameter here; known: {', '.join(known) or 'none'}")


def _window(request: Request) -> float:
    text = request.query_params.get("window", str(DEFAULT_WINDOW_SECONDS))
    try:
        seconds = float(text)
    except ValueError as error:
        raise BadParameter(f"window: {text!r} is not a number of seconds") from error
    if not 1.0 <= seconds <= LONGEST_WINDOW_SECONDS:
        raise BadParameter(f"window: {text} is not between 1 and {LONGEST_WINDOW_SECONDS:g} seconds")
    return seconds
