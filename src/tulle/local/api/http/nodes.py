"""Requests that a node answers: logs, commands inside containers, connections to pods and Services."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime

import h11

from tulle.local.api.api import Api
from tulle.local.api.auth.users import User
from tulle.local.api.errors import ApiError, bad_request
from tulle.local.api.http.answers import Receive, Scope, Send
from tulle.local.api.http.channels import run_command
from tulle.local.api.http.forwarding import forward
from tulle.local.api.http.request import Query, ResourcePath
from tulle.local.api.http.resources import ResourceRequest
from tulle.local.api.nodeport import NodePort
from tulle.local.api.objects import Obj
from tulle.local.api.outgoing import Endpoint, ServiceUnreachable, exchange, service_endpoint
from tulle.local.api.targets import Target, WriteOptions

__all__ = ["container_of", "serve_socket", "serve_stream"]

PROXY_SECONDS = 30.0
"""Time for a pod to accept a proxied request and begin to answer."""

_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
        b"host",
        b"content-length",
    }
)


def _node(api: Api) -> NodePort:
    if api.node is None:
        raise ApiError(503, "ServiceUnavailable", "this API has no node that runs pods")
    return api.node


async def serve_stream(request: ResourceRequest) -> None:
    """Answer an HTTP request to a pod's log or proxy; commands need a WebSocket."""
    match request.path.subresource:
        case "log":
            await _logs(request)
        case "proxy":
            await _proxy(request)
        case _:
            pod = request.api.reader.get(request.resource, request.path.namespace, request.path.name).obj
            await _admit(request.api, request.user, request.path, request.query, pod)
            raise bad_request(
                f"pods/{request.path.subresource} needs a WebSocket upgrade (SPDY is not served): use kubectl 1.31 or later"
            )


def container_of(pod: Obj, wanted: str) -> str:
    """Return the container that is meant; raise 400 when it does not exist or several might be meant."""
    spec = pod["spec"]
    names = [
        c["name"]
        for kind in ("containers", "initContainers", "ephemeralContainers")
        for c in spec.get(kind) or ()
    ]
    name = pod["metadata"]["name"]
    if wanted:
        if wanted not in names:
            raise bad_request(f"container {wanted} is not valid for pod {name}")
        return wanted
    default = (pod["metadata"].get("annotations") or {}).get("kubectl.kubernetes.io/default-container")
    if default in names:
        return str(default)
    containers = [container["name"] for container in spec["containers"]]
    if len(containers) == 1:
        return str(containers[0])
    listed = " ".join(containers)
    raise bad_request(f"a container name must be specified for pod {name}, choose one of: [{listed}]")


async def _logs(request: ResourceRequest) -> None:
    node, query = _node(request.api), request.query
    pod = request.api.reader.get(request.resource, request.path.namespace, request.path.name).obj
    since = query.number("sinceSeconds")
    if since is None and query.text("sinceTime"):
        try:
            start = datetime.fromisoformat(query.text("sinceTime").replace("Z", "+00:00"))
        except ValueError as error:
            raise bad_request(f"sinceTime: {error}") from error
        since = max(1, int((request.api.clock.now() - start).total_seconds()))
    lines = node.logs(
        request.path.namespace or "",
        request.path.name,
        container_of(pod, query.text("container")),
        follow=query.flag("follow"),
        tail_lines=query.number("tailLines"),
        previous=query.flag("previous"),
        since_seconds=since,
        timestamps=query.flag("timestamps"),
    )
    try:
        async with asyncio.TaskGroup() as tasks:
            stream = tasks.create_task(_send_log(request, lines, query.number("limitBytes")))
            listener = tasks.create_task(_end_with_client(request, stream))
            await asyncio.wait((stream,))
            listener.cancel()
    except ExceptionGroup as group:
        refused = group.split(ApiError)[0]
        if refused is None:
            raise
        raise refused.exceptions[0] from None


async def _end_with_client(request: ResourceRequest, stream: asyncio.Task[None]) -> None:
    await request.exchange.disconnected()
    stream.cancel()


async def _send_log(request: ResourceRequest, lines: AsyncIterator[bytes], limit: int | None) -> None:
    first = await anext(lines, b"")
    await request.exchange.start(200, b"text/plain")
    left = limit
    line = first
    while line:
        piece = line if left is None else line[:left]
        await request.exchange.chunk(piece)
        if left is not None:
            left -= len(piece)
            if left <= 0:
                break
        line = await anext(lines, b"")
    await request.exchange.chunk(b"", more=False)


# --- proxy --------------------------------------------------------------------------------------------------------


def _endpoint(request: ResourceRequest) -> Endpoint:
    parts = request.path.name.split(":")
    scheme = parts.pop(0) if len(parts) == 3 else ""
    name, port = parts[0], parts[1] if len(parts) > 1 else ""
    if scheme not in ("", "http"):
        raise bad_request(f"invalid proxy scheme {scheme}: only http is proxied")
    namespace = request.path.namespace or ""
    if request.resource.plural == "services":
        try:
            return service_endpoint(request.api.store, namespace, name, port)
        except ServiceUnreachable as error:
            raise ApiError(503, "ServiceUnavailable", str(error)) from error
    pod = request.api.reader.get(request.resource, namespace, name).obj
    address = (pod.get("status") or {}).get("podIP")
    if not address:
        raise bad_request("address not allowed: the pod has no address yet")
    ports = [p for c in pod["spec"]["containers"] for p in c.get("ports") or ()]
    if port and not port.isdigit():
        found = next((p["containerPort"] for p in ports if p.get("name") == port), None)
        if found is None:
            raise bad_request(f"pod {name} has no port named {port}")
        return Endpoint(address, int(found))
    return Endpoint(address, int(port) if port else int(ports[0]["containerPort"]) if ports else 80)


async def _proxy(request: ResourceRequest) -> None:
    endpoint = _endpoint(request)
    asked: Obj = {
        "kind": f"{request.resource.kind}ProxyOptions",
        "apiVersion": "v1",
        "path": request.path.rest or "/",
    }
    await request.api.writer.admit_connection(request.target, asked, WriteOptions(request.user))
    scope = request.exchange.scope
    body = await request.exchange.body()
    raw_path = scope["raw_path"].decode("ascii")
    target = raw_path.partition("/proxy")[2] or "/"
    query = scope["query_string"].decode("ascii")
    headers = [(n, v) for n, v in scope["headers"] if n not in _HOP_BY_HOP and n != b"authorization"]
    headers += [(b"host", f"{endpoint.address}:{endpoint.port}".encode()), (b"connection", b"close")]
    if body or scope["method"] in ("POST", "PUT", "PATCH"):
        headers.append((b"content-length", str(len(body)).encode()))
    try:
        async with asyncio.timeout(PROXY_SECONDS):
            reader, writer = await request.api.dial(endpoint.address, endpoint.port)
            method = scope["method"]
            answer = await exchange(
                reader, writer, method, f"{target}?{query}" if query else target, headers, body
            )
    except (OSError, TimeoutError, h11.RemoteProtocolError) as error:
        why = f"error trying to reach service: dial tcp {endpoint.address}:{endpoint.port}: {error or 'timed out'}"
        raise ApiError(503, "ServiceUnavailable", why) from error
    content_type = next((v for n, v in answer.headers if n.lower() == b"content-type"), b"text/plain")
    kept = [
        (n, v)
        for n, v in answer.headers
        if n.lower() not in _HOP_BY_HOP | {b"content-type", b"cache-control"}
    ]
    await request.exchange.start(answer.status, content_type, kept)
    async for chunk in answer.body:
        await request.exchange.chunk(chunk)
    await request.exchange.chunk(b"", more=False)


# --- WebSockets ---------------------------------------------------------------------------------------------------


async def _admit(api: Api, user: User, path: ResourcePath, query: Query, pod: Obj) -> None:
    """Check what is asked of a pod, and ask admission about it; raise the ApiError that the client should read."""
    _node(api)
    kind = "PodExecOptions" if path.subresource == "exec" else "PodPortForwardOptions"
    asked: Obj = {"kind": kind, "apiVersion": "v1"}
    for name in ("stdin", "stdout", "stderr", "tty"):
        if query.flag(name):
            asked[name] = True
    asked |= {name: query.text(name) for name in ("container",) if query.text(name)}
    asked |= {name: query.texts(name) for name in ("command", "ports") if query.texts(name)}
    if path.subresource == "exec":
        container_of(pod, query.text("container"))
    elif not (pod.get("status") or {}).get("podIP"):
        raise bad_request("unable to forward port because pod is not running")
    target = Target(api.registry.find("", "pods"), path.namespace, path.name, path.subresource)
    await api.writer.admit_connection(target, asked, WriteOptions(user))


async def serve_socket(
    api: Api, user: User, path: ResourcePath, query: Query, scope: Scope, receive: Receive, send: Send
) -> None:
    """Carry out a WebSocket request: a command in a container, or ports of a pod."""
    node = _node(api)
    if path.plural != "pods" or path.subresource not in ("exec", "portforward"):
        raise bad_request(f"{path.plural}/{path.subresource} is not served over WebSocket here")
    namespace = path.namespace or ""
    pod = api.reader.get(api.registry.find("", "pods"), namespace, path.name).obj
    await _admit(api, user, path, query, pod)
    if path.subresource == "portforward":
        ports = [int(port) for text in query.texts("ports") for port in text.split(",") if port.isdigit()]
        await forward(node, pod["status"]["podIP"], ports, scope, receive, send)
        return
    argv = query.texts("command")
    if not argv:
        raise bad_request("you must specify at least one command for the container")
    container = container_of(pod, query.text("container"))
    await run_command(
        lambda: node.exec(
            namespace, path.name, container, argv, stdin=query.flag("stdin"), tty=query.flag("tty")
        ),
        scope,
        receive,
        send,
    )
