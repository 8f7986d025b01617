"""Requests about resources: from path, query and body to calls of the API, and back to objects, tables or streams."""

from dataclasses import dataclass
from typing import Any, cast

import msgspec

from tulle.local.api import decoding
from tulle.local.api.api import Api
from tulle.local.api.auth.users import User
from tulle.local.api.errors import ApiError, Cause, bad_request, invalid, method_not_allowed, no_such_resource
from tulle.local.api.http.answers import Exchange
from tulle.local.api.http.request import Accepted, Query, ResourcePath
from tulle.local.api.http.watches import serve_watch, watch_options
from tulle.local.api.lifecycle import Propagation
from tulle.local.api.objects import Obj
from tulle.local.api.patch import PatchKind
from tulle.local.api.reads import Match, Page, revision_of
from tulle.local.api.registry import ResourceType
from tulle.local.api.store import Record
from tulle.local.api.tables import metadata_only, printer_for, table
from tulle.local.api.targets import FieldValidation, Target, WriteOptions

__all__ = ["PATCH_TYPES", "ResourceRequest", "serve_resource"]

PATCH_TYPES: dict[str, PatchKind] = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
}


@dataclass(frozen=True, slots=True)
class ResourceRequest:
    """One request about a resource, understood and allowed."""

    api: Api
    exchange: Exchange
    path: ResourcePath
    query: Query
    accepted: Accepted
    user: User
    verb: str
    resource: ResourceType

    @property
    def target(self) -> Target:
        """Return what the request is about."""
        namespace = self.path.namespace if self.resource.namespaced else None
        return Target(
            self.resource, namespace, self.path.name, self.path.subresource or None, self.path.version
        )

    def target_of(self, plural: str, name: str) -> Target:
        """Return an object of a core resource in the request's namespace."""
        return Target(self.api.registry.find("", plural), self.path.namespace, name)

    def write_options(self) -> WriteOptions:
        """Return how a write is asked for."""
        validation = self.query.text("fieldValidation") or "Warn"
        if validation not in ("Ignore", "Warn", "Strict"):
            cause = Cause.unsupported("fieldValidation", validation, ["Ignore", "Strict", "Warn"])
            raise invalid("CreateOptions", "meta.k8s.io", "", [cause])
        manager = self.query.text("fieldManager")
        if len(manager) > 128:
            cause = Cause("fieldManager", "FieldValueTooLong", "Too long: may not be more than 128 bytes")
            raise invalid("CreateOptions", "meta.k8s.io", "", [cause])
        if not manager:
            manager = self.exchange.header(b"user-agent").partition("/")[0][:128] or "unknown"
        return WriteOptions(
            self.user, self.query.dry_run, manager, cast(FieldValidation, validation), self.exchange.warnings
        )


async def serve_resource(request: ResourceRequest) -> None:
    """Carry out a request about a resource and answer it."""
    resource, verb = request.resource, request.verb
    served = resource.served(request.path.version)
    if served is not None and served.deprecated:
        request.exchange.warnings.append(served.deprecated)
    if verb not in resource.verbs or (verb in ("update", "patch") and not request.path.name):
        raise method_not_allowed()
    if resource.namespaced and request.path.namespace is None and verb not in ("list", "watch"):
        raise no_such_resource() if request.path.name else method_not_allowed()
    match verb:
        case "get":
            await _get(request)
        case "list":
            await _list(request)
        case "watch":
            await _watch(request)
        case "create":
            await _create(request)
        case "update":
            await _update(request)
        case "patch":
            await _patch(request)
        case "delete":
            await _delete(request)
        case _:
            await _delete_collection(request)


async def _answer(request: ResourceRequest, obj: Obj, status: int = 200) -> None:
    shown = decoding.in_version(request.resource, obj, request.path.version)
    match request.accepted.form:
        case "table":
            metadata = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
            printer = printer_for(request.resource, request.path.version)
            shown = table(
                printer, [shown], request.api.clock.now(), metadata=metadata, include=_include(request.query)
            )
        case "metadata":
            shown = metadata_only(shown)
        case _:
            pass
    await request.exchange.answer(shown, status, as_yaml=request.accepted.yaml)


def _include(query: Query) -> str:
    return query.text("includeObject") or "Metadata"


async def _get(request: ResourceRequest) -> None:
    target = request.target
    record = request.api.reader.get(target.resource, target.namespace, target.name)
    shown = decoding.in_version(target.resource, record.obj, target.version)
    if request.accepted == Accepted() and shown is record.obj:
        await request.exchange.raw(record.json)
    else:
        await _answer(request, record.obj)


async def _list(request: ResourceRequest) -> None:
    resource, query = request.resource, request.query
    selector = _selector(request)
    match = query.text("resourceVersionMatch")
    if match not in ("", "Exact", "NotOlderThan"):
        cause = Cause.unsupported("resourceVersionMatch", match, ["Exact", "NotOlderThan"])
        raise invalid("ListOptions", "meta.k8s.io", "", [cause])
    if match and not query.text("resourceVersion"):
        raise bad_request("resourceVersionMatch is forbidden unless resourceVersion is provided")
    page = request.api.reader.list_page(
        resource,
        request.path.namespace,
        selector,
        limit=max(0, query.number("limit") or 0),
        token=query.text("continue"),
        revision=revision_of(query.text("resourceVersion")),
        match=cast(Match, match),
    )
    metadata: Obj = {"resourceVersion": str(page.revision)}
    if page.continue_token:
        metadata["continue"] = page.continue_token
        if not selector:
            metadata["remainingItemCount"] = page.remaining
    await _answer_list(request, page, metadata)


async def _answer_list(request: ResourceRequest, page: Page, metadata: Obj) -> None:
    resource, version = request.resource, request.path.version
    accepted, exchange = request.accepted, request.exchange
    if accepted.form == "object" and not accepted.yaml and resource.group != "events.k8s.io":
        await exchange.raw(_list_json(resource, version, page.records, metadata))
        return
    objects = [decoding.in_version(resource, record.obj, version) for record in page.records]
    if accepted.form == "table":
        printer = printer_for(resource, version)
        now = request.api.clock.now()
        shown = table(printer, objects, now, metadata=metadata, include=_include(request.query))
    elif accepted.form == "metadata":
        items = [metadata_only(obj) for obj in objects]
        shown = {
            "kind": "PartialObjectMetadataList",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": metadata,
            "items": items,
        }
    else:
        shown = {
            "kind": resource.list_kind,
            "apiVersion": resource.api_version(version),
            "metadata": metadata,
            "items": objects,
        }
    await exchange.answer(shown, as_yaml=accepted.yaml)


def _list_json(resource: ResourceType, version: str, records: list[Record], metadata: Obj) -> bytes:
    """Join the encoded objects: each was encoded once, for whoever read it first."""
    head = {"kind": resource.list_kind, "apiVersion": resource.api_version(version), "metadata": metadata}
    encoded = msgspec.json.encode(head)[:-1] + b',"items":['
    stored = version == resource.version
    items = (
        record.json if stored else msgspec.json.encode(decoding.in_version(resource, record.obj, version))
        for record in records
    )
    return encoded + b",".join(items) + b"]}"


def _selector(request: ResourceRequest) -> Any:
    query, resource = request.query, request.resource
    labels, fields = query.text("labelSelector"), query.text("fieldSelector")
    try:
        selector = request.api.selector(resource, labels, fields)
    except ApiError as error:
        if "field label not supported" in error.message:
            where = f"{resource.group}/{request.path.version}, Resource={resource.plural}"
            error = bad_request(
                f'Unable to find "{where}" that match label selector "{labels}", field selector "{fields}": {error.message}'
            )
        raise error from None
    if request.path.name and request.verb == "watch":
        return type(selector)(selector.labels, (*selector.fields, ("metadata.name", True, request.path.name)))
    return selector


async def _watch(request: ResourceRequest) -> None:
    options = watch_options(request.query, _selector(request))
    await serve_watch(
        request.api,
        request.exchange,
        request.resource,
        request.path.version,
        request.path.namespace,
        options,
        request.accepted,
        _include(request.query),
    )


async def _create(request: ResourceRequest) -> None:
    if request.path.name:
        raise method_not_allowed()
    body = await request.exchange.document()
    obj = await request.api.writer.create(request.target, _object(body), request.write_options())
    await _answer(request, obj, 201)


def _object(body: Any) -> Obj:
    if not isinstance(body, dict):
        raise bad_request("the request's body is not an object")
    return body


async def _update(request: ResourceRequest) -> None:
    body = await request.exchange.document()
    obj = await request.api.writer.update(request.target, _object(body), request.write_options())
    await _answer(request, obj)


async def _patch(request: ResourceRequest) -> None:
    content_type = request.exchange.header(b"content-type").partition(";")[0].strip().lower()
    kind = PATCH_TYPES.get(content_type)
    if kind is None:
        message = "the body of the request was in an unknown format - accepted media types include: "
        raise ApiError(415, "UnsupportedMediaType", message + ", ".join(PATCH_TYPES))
    options = request.write_options()
    if kind == "apply" and not request.query.text("fieldManager"):
        cause = Cause.required("fieldManager", "is required for apply patch")
        raise invalid("PatchOptions", "meta.k8s.io", "", [cause])
    if kind != "apply" and request.query.flag("force"):
        cause = Cause.forbidden("force", "may not be specified for non-apply patch")
        raise invalid("PatchOptions", "meta.k8s.io", "", [cause])
    body = await request.exchange.document()
    target = request.target
    before = request.api.store.get(target.resource.key, target.namespace, target.name)
    obj = await request.api.writer.patch(target, kind, body, options, force=request.query.flag("force"))
    await _answer(request, obj, 201 if before is None else 200)


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """How a deletion is asked for, from the body or the query."""

    grace: int | None = None
    propagation: Propagation = "Background"
    uid: str | None = None
    resource_version: str | None = None
    dry_run: bool = False


async def _delete_options(request: ResourceRequest) -> DeleteOptions:
    body = _object(await request.exchange.document())
    query = request.query
    grace = body.get("gracePeriodSeconds", query.number("gracePeriodSeconds"))
    propagation = body.get("propagationPolicy") or query.text("propagationPolicy") or "Background"
    if body.get("orphanDependents") is True or query.text("orphanDependents") == "true":
        propagation = "Orphan"
    if propagation not in ("Background", "Foreground", "Orphan") or not isinstance(grace, (int, type(None))):
        cause = Cause.unsupported("propagationPolicy", propagation, ["Foreground", "Background", "Orphan"])
        raise invalid("DeleteOptions", "meta.k8s.io", "", [cause])
    conditions = body.get("preconditions") or {}
    dry_run = query.dry_run or body.get("dryRun") == ["All"]
    return DeleteOptions(
        grace,
        cast(Propagation, propagation),
        conditions.get("uid"),
        conditions.get("resourceVersion"),
        dry_run,
    )


async def _delete(request: ResourceRequest) -> None:
    if request.path.subresource:
        raise method_not_allowed()
    asked = await _delete_options(request)
    options = WriteOptions(request.user, asked.dry_run, warnings=request.exchange.warnings)
    last, gone = await request.api.writer.delete(
        request.target,
        options,
        grace=asked.grace,
        propagation=asked.propagation,
        uid=asked.uid,
        resource_version=asked.resource_version,
    )
    if not gone or request.resource.key == "pods":
        await _answer(request, last)
        return
    details: Obj = {
        "name": request.path.name,
        "kind": request.resource.plural,
        "uid": last["metadata"]["uid"],
    }
    if request.resource.group:
        details["group"] = request.resource.group
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
    await request.exchange.answer(status, as_yaml=request.accepted.yaml)


async def _delete_collection(request: ResourceRequest) -> None:
    asked = await _delete_options(request)
    page = request.api.reader.list_page(request.resource, request.path.namespace, _selector(request))
    options = WriteOptions(request.user, asked.dry_run, warnings=request.exchange.warnings)
    for record in page.records:
        metadata = record.obj["metadata"]
        target = Target(
            request.resource, metadata.get("namespace"), metadata["name"], version=request.path.version
        )
        try:
            await request.api.writer.delete(target, options, grace=asked.grace, propagation=asked.propagation)
        except ApiError as error:
            if error.code != 404:
                raise
    await _answer_list(request, page, {"resourceVersion": str(page.revision)})
