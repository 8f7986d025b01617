"""The admission webhook: AdmissionReview in, AdmissionReview out, over the pure injector and the pure validator.

It owns the review protocol and its bounds (body size, JSON shape). A body that is not a review is answered 400; a
refusal names the object, the annotation or field, and the accepted form. It keeps no state.
"""

import base64
import copy
from typing import Any, Protocol

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tulle.inject.annotations import BadAnnotation, settings
from tulle.inject.config import InjectConfig
from tulle.inject.patch import diff
from tulle.inject.pod import Obj, Owner, Skipped, inject

__all__ = ["MAX_BODY", "Source", "app", "mutate", "validate"]

# An API server sends at most 3 MiB; anything above is not a review.
MAX_BODY = 3 * 1024 * 1024


class Source(Protocol):
    """What the webhook asks of its surroundings."""

    def config(self) -> InjectConfig:
        """Return the values in force."""
        ...

    async def namespace(self, name: str) -> Obj:
        """Return the namespace object; an empty object with its name when it is not known."""
        ...

    async def owner(self, namespace: str, reference: Obj) -> Owner:
        """Follow a pod's controller reference to its workload (a ReplicaSet's Deployment, a Job's CronJob)."""
        ...

    def problems(self, obj: Obj) -> list[str]:
        """Return what the mesh will not carry out in this object, each with its field path; empty when all is well."""
        ...


class _Review(msgspec.Struct):
    request: dict[str, Any]
    apiVersion: str = "admission.k8s.io/v1"


def app(source: Source) -> Starlette:
    """Return the ASGI application with /mutate, /validate and /healthz."""

    async def handle(request: Request, answer: Any) -> Response:
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > MAX_BODY:
            return PlainTextResponse("the body is larger than 3 MiB", status_code=413)
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                return PlainTextResponse("the body is larger than 3 MiB", status_code=413)
        try:
            review = msgspec.json.decode(bytes(body), type=_Review)
            uid = str(review.request["uid"])
        except (msgspec.DecodeError, KeyError, RecursionError) as error:
            return PlainTextResponse(f"not an AdmissionReview: {error}", status_code=400)
        response = {"uid": uid, **await answer(source, review.request)}
        return JSONResponse(
            {"apiVersion": review.apiVersion, "kind": "AdmissionReview", "response": response}
        )

    async def on_mutate(request: Request) -> Response:
        return await handle(request, mutate)

    async def on_validate(request: Request) -> Response:
        return await handle(request, validate)

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok")

    return Starlette(
        routes=[
            Route("/mutate", on_mutate, methods=["POST"]),
            Route("/validate", on_validate, methods=["POST"]),
            Route("/healthz", healthz),
        ]
    )


def _denied(message: str) -> Obj:
    return {"allowed": False, "status": {"code": 400, "reason": "BadRequest", "message": message}}


async def mutate(source: Source, request: Obj) -> Obj:
    """Answer a review of a Pod or a Service: allowed with a patch, allowed untouched, or refused with the reason."""
    obj = request.get("object")
    kind = (request.get("kind") or {}).get("kind")
    if not isinstance(obj, dict) or kind not in ("Pod", "Service"):
        return {"allowed": True}
    namespace_name = str(request.get("namespace") or "default")
    namespace = await source.namespace(namespace_name)
    try:
        if kind == "Service":
            return _patched(obj, with_opaque_ports(obj, namespace))
        owner = None
        metadata = obj.get("metadata") or {}
        for reference in metadata.get("ownerReferences") or []:
            if reference.get("controller"):
                owner = await source.owner(namespace_name, reference)
        outcome = inject(obj, namespace, source.config(), owner)
    except BadAnnotation as error:
        metadata = obj.get("metadata") or {}
        name = metadata.get("name") or metadata.get("generateName") or ""
        return _denied(f"{kind.lower()} {namespace_name}/{name}: {error}")
    warnings = list(outcome.warnings)
    if isinstance(outcome, Skipped):
        return {"allowed": True, **({"warnings": warnings} if warnings else {})}
    return _patched(obj, outcome.pod, warnings)


async def validate(source: Source, request: Obj) -> Obj:
    """Answer a review of one of the mesh's own kinds: refused when a field would not be carried out."""
    obj = request.get("object")
    if not isinstance(obj, dict):
        return {"allowed": True}
    problems = source.problems(obj)
    if not problems:
        return {"allowed": True}
    metadata = obj.get("metadata") or {}
    where = "/".join(part for part in (metadata.get("namespace"), metadata.get("name")) if part)
    return _denied(f"{obj.get('kind', 'object')} {where}: " + "; ".join(problems))


def with_opaque_ports(service: Obj, namespace: Obj) -> Obj:
    """Return the Service with its namespace's opaque ports copied on, as Linkerd does; its own annotation wins."""
    name = "config.linkerd.io/opaque-ports"
    own = (service.get("metadata") or {}).get("annotations") or {}
    inherited = ((namespace.get("metadata") or {}).get("annotations") or {}).get(name)
    settings(own, {})
    if inherited is None or name in own:
        return service
    result = copy.deepcopy(service)
    result.setdefault("metadata", {})["annotations"] = {**own, name: inherited}
    return result


def _patched(before: Obj, after: Obj, warnings: list[str] | None = None) -> Obj:
    operations = diff(before, after)
    answer: Obj = {"allowed": True, **({"warnings": warnings} if warnings else {})}
    if operations:
        answer |= {
            "patchType": "JSONPatch",
            "patch": base64.b64encode(msgspec.json.encode(operations)).decode(),
        }
    return answer
