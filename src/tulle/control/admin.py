"""The admin HTTP server on 9990: /live, /ready, /metrics, /sd and the relay to the proxies' metrics."""

from collections.abc import Callable, Sequence
from typing import Any

import httpx2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from tulle.compile.mesh import Mesh
from tulle.compile.pods import meshed
from tulle.control.discovery import admin_port, scrape_targets
from tulle.control.metrics import Sources, exposition
from tulle.control.views import Views

__all__ = ["admin_app"]

RELAY_SECONDS = 5.0
RELAY_MAX_BYTES = 16 * 1024 * 1024
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def admin_app(
    views: Views,
    mesh: Mesh,
    sources: Sources,
    not_ready: Callable[[], list[str]],
    relay: httpx2.AsyncClient,
    more: Sequence[BaseRoute] = (),
) -> Any:
    """Return the ASGI application; `not_ready` lists what is still missing, `more` are routes of other parts."""

    async def live(_: Request) -> Response:
        return PlainTextResponse("live\n")

    async def ready(_: Request) -> Response:
        missing = not_ready()
        if missing:
            return PlainTextResponse("not ready: " + "; ".join(missing) + "\n", status_code=503)
        return PlainTextResponse("ready\n")

    async def metrics(_: Request) -> Response:
        return Response(exposition(sources.samples()), media_type=METRICS_TYPE)

    async def discovery(request: Request) -> Response:
        via = request.query_params.get("via")
        if via not in (None, "host"):
            return PlainTextResponse(f"via={via!r} is not known; the only value is host\n", status_code=400)
        host = request.headers.get("host") if via else None
        if via and not host:
            return PlainTextResponse("via=host needs a Host header\n", status_code=400)
        return JSONResponse(scrape_targets(views.world, mesh, host))

    async def proxy_metrics(request: Request) -> Response:
        namespace, name = request.path_params["namespace"], request.path_params["pod"]
        pod = views.world.pod(namespace, name)
        if pod is None or not meshed(mesh, pod) or not pod.ips:
            return PlainTextResponse(f"no meshed pod {namespace}/{name}\n", status_code=404)
        host = f"[{pod.ips[0]}]" if ":" in pod.ips[0] else pod.ips[0]
        try:
            return await _relayed(relay, f"http://{host}:{admin_port(pod)}/metrics")
        except (httpx2.HTTPError, httpx2.StreamError, OSError) as error:
            why = f"{namespace}/{name}: {type(error).__name__}: {error}\n"
            return PlainTextResponse(why, status_code=502)

    return Starlette(
        routes=[
            Route("/live", live),
            Route("/ready", ready),
            Route("/metrics", metrics),
            Route("/sd", discovery),
            Route("/proxy/{namespace}/{pod}/metrics", proxy_metrics),
            *more,
        ]
    )


async def _relayed(relay: httpx2.AsyncClient, url: str) -> Response:
    """Return a proxy's page, held to RELAY_MAX_BYTES: what a pod serves is not to fill the controller."""
    async with relay.stream("GET", url, timeout=RELAY_SECONDS) as answer:
        body = bytearray()
        async for chunk in answer.aiter_bytes():
            body += chunk
            if len(body) > RELAY_MAX_BYTES:
                return PlainTextResponse("the proxy's page is larger than 16 MiB\n", status_code=502)
    return Response(bytes(body), status_code=answer.status_code, media_type=METRICS_TYPE)
