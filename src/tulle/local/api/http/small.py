"""Requests to the small doors: reviews, tokens, scale, binding, eviction, finalize."""

from typing import Any

from tulle.local.api import decoding, subresources
from tulle.local.api.errors import bad_request, method_not_allowed
from tulle.local.api.http.resources import PATCH_TYPES, ResourceRequest
from tulle.local.api.objects import Obj
from tulle.local.api.patch import PatchKind
from tulle.local.api.schema import builtin, unknown_fields

__all__ = ["serve_review", "serve_small"]

_SUCCESS: Obj = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


async def _body(request: ResourceRequest) -> Obj:
    body = await request.exchange.document()
    if not isinstance(body, dict):
        raise bad_request("the request's body is not an object")
    return body


async def serve_review(request: ResourceRequest) -> None:
    """Answer a review."""
    if request.verb != "create":
        raise method_not_allowed()
    review = decoding.decode(request.target, await _body(request), request.write_options())
    plural, namespace = request.resource.plural, request.path.namespace
    if plural == "bindings":
        target = request.target_of("pods", str((review.get("metadata") or {}).get("name") or ""))
        await subresources.bind(request.api.writer, target, review, request.write_options())
        await request.exchange.answer(_SUCCESS, 201)
        return
    answer = request.api.reviews.answer(plural, namespace, review, request.user)
    await request.exchange.answer(answer, 201, as_yaml=request.accepted.yaml)


async def serve_small(request: ResourceRequest) -> None:
    """Carry out a request to a subresource that is no part of the object itself."""
    match request.path.subresource, request.verb:
        case "scale", "get" | "update" | "patch":
            await _scale(request)
        case "token", "create":
            await _token(request)
        case "binding", "create":
            await subresources.bind(
                request.api.writer, request.target, await _body(request), request.write_options()
            )
            await request.exchange.answer(_SUCCESS, 201)
        case "eviction", "create":
            body = await _body(request)
            _known(body, "policy_v1.Eviction")
            await subresources.evict(request.api.writer, request.target, body, request.write_options())
            await request.exchange.answer(_SUCCESS, 201)
        case "finalize", "update":
            options = request.write_options()
            obj = await subresources.finalize(
                request.api.writer, request.target, await _body(request), options
            )
            await request.exchange.answer(obj)
        case _:
            raise method_not_allowed()


def _known(body: Obj, definition: str) -> None:
    unknown = list(unknown_fields(builtin(definition), body))
    if unknown:
        named = ", ".join(f'unknown field "{path}"' for path in unknown)
        raise bad_request(f"strict decoding error: {named}")


async def _scale(request: ResourceRequest) -> None:
    writer, target, version = request.api.writer, request.target, request.path.version
    if request.verb == "get":
        obj = writer.current(target)
    else:
        kind: PatchKind | None = None
        if request.verb == "patch":
            kind = PATCH_TYPES.get(
                request.exchange.header(b"content-type").partition(";")[0].strip().lower(), "merge"
            )
        body: Any = await request.exchange.document()
        obj = await subresources.set_scale(writer, target, kind, body, request.write_options())
    await request.exchange.answer(
        subresources.scale_of(request.resource, obj, version), as_yaml=request.accepted.yaml
    )


async def _token(request: ResourceRequest) -> None:
    body = await _body(request)
    _known(body, "authentication_v1.TokenRequest")
    namespace = request.path.namespace or ""
    await request.exchange.answer(request.api.reviews.request_token(namespace, request.path.name, body), 201)
