"""A Kubernetes API for tests, over real HTTP: list, watch with bookmarks, 410, TokenReview, and scripted faults."""

import asyncio
import contextlib
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

from lightkube.config.kubeconfig import KubeConfig, SingleConfig
from lightkube.config.models import Cluster, User
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tulle.control.http import bind, serve
from tulle.kube.world import kind_of

Obj = dict[str, Any]


class FakeKubernetes:
    """Objects by collection path, with one resource version for all; `faults` are answered once each, in order."""

    def __init__(self, objects: list[Obj] = (), absent: tuple[str, ...] = ()) -> None:  # type: ignore[assignment]
        self.version = 100
        self.objects: dict[str, dict[tuple[str, str], Obj]] = defaultdict(dict)
        self.history: dict[str, list[tuple[int, str, Obj]]] = defaultdict(list)
        self.compacted = 0
        self.absent = absent
        self.tokens: dict[str, Obj] = {}
        self.faults: dict[str, list[Response]] = defaultdict(list)
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.created: list[Obj] = []
        self.secrets: dict[str, Obj] = {}
        self.other: dict[str, Obj] = {}
        self._changed = asyncio.Condition()
        self._cut = 0
        self.url = ""
        for each in objects:
            self._store("ADDED", each)

    def config(self) -> SingleConfig:
        return KubeConfig.from_one(cluster=Cluster(server=self.url), user=User(token="t")).get()  # type: ignore[return-value]

    async def apply(self, *objects: Obj) -> None:
        for each in objects:
            path, key = _where(each)
            self._store("MODIFIED" if key in self.objects[path] else "ADDED", each)
        await self._notify()

    async def delete(self, *objects: Obj) -> None:
        for each in objects:
            self._store("DELETED", each)
        await self._notify()

    async def compact(self) -> None:
        """Forget the history: watches from before get 410."""
        self.compacted = self.version
        self.history.clear()

    async def cut_watches(self) -> None:
        """End all open watch streams."""
        self._cut += 1
        await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _store(self, event: str, each: Obj) -> None:
        self.version += 1
        each = json.loads(json.dumps(each))
        each["metadata"]["resourceVersion"] = str(self.version)
        path, key = _where(each)
        if event == "DELETED":
            self.objects[path].pop(key, None)
        else:
            self.objects[path][key] = each
        self.history[path].append((self.version, event, each))

    async def _handle(self, request: Request) -> Response:
        path, params = request.url.path, dict(request.query_params)
        self.requests.append((request.method, path, params))
        if self.faults[path]:
            return self.faults[path].pop(0)
        if path.endswith("/tokenreviews"):
            return self._review(await request.json())
        if request.method in ("POST", "PUT", "PATCH"):
            return self._write(request.method, path, await request.json())
        if path in self.other:
            return JSONResponse(self.other[path])
        if any(word in path for word in self.absent) or path.rpartition("/")[2].count("-"):
            return JSONResponse(_status(404, "NotFound"), 404)
        if params.get("watch") == "true":
            return self._watch(path, params)
        items = list(self.objects[path].values())
        start, limit = int(params.get("continue") or 0), int(params.get("limit") or 500)
        page = items[start : start + limit]
        more = str(start + limit) if start + limit < len(items) else ""
        return JSONResponse(
            {"metadata": {"resourceVersion": str(self.version), "continue": more}, "items": page}
        )

    def _write(self, method: str, path: str, body: Obj) -> Response:
        self.created.append({"path": path, **body})
        if path.endswith(("/events",)):
            return JSONResponse(body, 201)
        if method == "POST":
            path = f"{path}/{body['metadata']['name']}"
            if path in self.other:
                return JSONResponse(_status(409, "AlreadyExists"), 409)
            body.setdefault("metadata", {})["resourceVersion"] = "1"
        elif method == "PUT":
            now = self.other.get(path)
            if now is None:
                return JSONResponse(_status(404, "NotFound"), 404)
            if body["metadata"].get("resourceVersion") != now["metadata"]["resourceVersion"]:
                return JSONResponse(_status(409, "Conflict"), 409)
            body["metadata"]["resourceVersion"] = str(int(now["metadata"]["resourceVersion"]) + 1)
        self.other[path] = body
        return JSONResponse(body, 200)

    def _review(self, body: Obj) -> Response:
        user = self.tokens.get(body["spec"]["token"])
        audiences = body["spec"].get("audiences")
        if user is None or (audiences and user.get("audience", audiences[0]) not in audiences):
            status: Obj = {"authenticated": False, "error": "unknown token"}
        else:
            status = {"authenticated": True, "user": user, "audiences": audiences or []}
        return JSONResponse({**body, "status": status}, 201)

    def _watch(self, path: str, params: dict[str, str]) -> Response:
        since = int(params.get("resourceVersion") or 0)
        if since < self.compacted:
            gone = {"type": "ERROR", "object": _status(410, "Expired")}
            return Response(json.dumps(gone) + "\n", media_type="application/json")

        async def lines() -> AsyncIterator[str]:
            seen, cut = since, self._cut
            while True:
                for version, event, each in list(self.history[path]):
                    if version > seen:
                        yield json.dumps({"type": event, "object": each}) + "\n"
                seen = max(seen, self.version)
                yield (
                    json.dumps({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(seen)}}})
                    + "\n"
                )
                async with self._changed:
                    if seen == self.version and self._cut == cut:
                        await self._changed.wait()
                if self._cut != cut:
                    return

        return StreamingResponse(lines(), media_type="application/json")

    @contextlib.asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator["FakeKubernetes"]:
        app = Starlette(routes=[Route("/{rest:path}", self._handle, methods=["GET", "POST", "PUT", "PATCH"])])
        listener = bind("127.0.0.1", port)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with asyncio.TaskGroup() as tasks:
            server = tasks.create_task(serve(app, listener))
            await asyncio.sleep(0)  # a task that never ran cannot close its listener
            try:
                yield self
            finally:
                self._cut += 1
                await self._notify()
                server.cancel()


def _where(each: Obj) -> tuple[str, tuple[str, str]]:
    kind = kind_of(each)
    assert kind is not None, each
    version = each["apiVersion"].rpartition("/")[2]
    return kind.path(version), (each["metadata"].get("namespace", ""), each["metadata"]["name"])


def _status(code: int, reason: str) -> Obj:
    return {
        "kind": "Status",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": f"{reason} by script",
    }
