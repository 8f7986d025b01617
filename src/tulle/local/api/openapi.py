"""OpenAPI v3 documents per group version, made from the schemas: for kubectl's explain, apply and validation. Pure.

Built-in definitions carry names, types and merge keys, no prose. Paths say only what kubectl looks for: that patches
of a kind know `fieldValidation` and `dryRun`.
"""

from collections.abc import Iterable
from typing import Any

from tulle.local.api.discovery import GIT_VERSION
from tulle.local.api.errors import no_such_resource
from tulle.local.api.objects import Obj
from tulle.local.api.registry import Registry, ResourceType
from tulle.local.api.schema import Schema, builtin

__all__ = ["group_version", "group_versions", "swagger", "swagger_protobuf"]

_PACKAGES = {
    "meta_v1": "io.k8s.apimachinery.pkg.apis.meta.v1",
    "apiextensions_v1": "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1",
}


def group_versions(registry: Registry, revision: str) -> Obj:
    """Return the answer of /openapi/v3: where each group version's document is."""
    paths: Obj = {}
    for resource in registry:
        for version in resource.versions:
            path = f"apis/{resource.group}/{version}" if resource.group else f"api/{version}"
            paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={revision}"}
    return {"paths": paths}


def group_version(registry: Registry, group: str, version: str) -> Obj:
    """Return the document of one group version; raise 404."""
    served = [resource for resource in registry if resource.group == group and version in resource.versions]
    if not served:
        raise no_such_resource()
    schemas: Obj = {}
    paths: Obj = {}
    for resource in served:
        name = _kind_name(resource, version)
        gvk = {"group": group, "version": version, "kind": resource.kind}
        schemas[name] = {**_definition(resource, version, schemas), "x-kubernetes-group-version-kind": [gvk]}
        paths |= _paths(resource, version, gvk, name)
    info = {"title": "Kubernetes", "version": GIT_VERSION}
    return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": schemas}}


def swagger(registry: Registry) -> Obj:
    """Return a small /openapi/v2 document: the kinds there are, without their fields (see the v3 documents)."""
    definitions: Obj = {}
    for resource in registry:
        for version in resource.versions:
            gvk = {"group": resource.group, "version": version, "kind": resource.kind}
            definitions[_kind_name(resource, version)] = {
                "type": "object",
                "x-kubernetes-group-version-kind": [gvk],
                "x-kubernetes-preserve-unknown-fields": True,
            }
    info = {"title": "Kubernetes", "version": GIT_VERSION}
    return {"swagger": "2.0", "info": info, "paths": {}, "definitions": definitions}


def swagger_protobuf() -> bytes:
    """Return an empty OpenAPI v2 document in protobuf (gnostic's openapi.v2.Document).

    kubectl asks for it about kinds that no v3 document has; finding nothing there, it says that the kind is unknown.
    """

    def text(field: int, value: str) -> bytes:
        data = value.encode()
        return bytes((field << 3 | 2, len(data))) + data

    info = text(1, "Kubernetes") + text(2, GIT_VERSION)
    return text(1, "2.0") + bytes((2 << 3 | 2, len(info))) + info


def _kind_name(resource: ResourceType, version: str) -> str:
    if resource.is_custom:
        return ".".join([*reversed(resource.group.split(".")), version, resource.kind])
    return _name(resource.schema.name)


def _name(definition: str) -> str:
    module, _, kind = definition.partition(".")
    group, _, version = module.partition("_")
    return f"{_PACKAGES.get(module) or f'io.k8s.api.{group}.{version}'}.{kind}"


def _definition(resource: ResourceType, version: str, schemas: Obj) -> Obj:
    schema = resource.schema_of(version)
    if not resource.is_custom:
        return _object(schema, schemas)
    document: Obj = dict(schema.raw) or {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    properties = dict(document.get("properties") or {})
    properties |= {"apiVersion": {"type": "string"}, "kind": {"type": "string"}}
    properties["metadata"] = _reference(builtin("meta_v1.ObjectMeta"), schemas)
    return {**document, "properties": properties}


def _object(schema: Schema, schemas: Obj) -> Obj:
    document: Obj = {"type": "object", "description": ""}
    document["properties"] = {key: _field(child, schemas) for key, child in schema.properties.items()}
    if schema.required:
        document["required"] = list(schema.required)
    return document


def _reference(schema: Schema, schemas: Obj) -> Obj:
    name = _name(schema.name)
    if name not in schemas:
        schemas[name] = {}
        schemas[name] = _object(schema, schemas)
    return {"allOf": [{"$ref": f"#/components/schemas/{name}"}], "default": {}}


def _field(schema: Schema, schemas: Obj) -> Obj:
    if schema.definition:
        document = _reference(schema, schemas)
    elif schema.type == "array":
        document = {"type": "array", "items": _field(schema.element, schemas)}
        document |= _merge_marks(schema)
    elif schema.type == "object":
        document = {"type": "object"}
        if schema.values is not None:
            document["additionalProperties"] = _field(schema.values, schemas)
    elif schema.format in ("int-or-string", "quantity"):
        document = {"oneOf": [{"type": "string"}, {"type": "integer" if schema.int_or_string else "number"}]}
    elif schema.type:
        document = {"type": schema.type}
        if schema.format:
            document["format"] = schema.format
    else:
        document = {}
    if schema.retain_keys:
        strategy = document.get("x-kubernetes-patch-strategy")
        document["x-kubernetes-patch-strategy"] = f"{strategy},retainKeys" if strategy else "retainKeys"
    return document


def _merge_marks(schema: Schema) -> Obj:
    if schema.list_keys:
        return {
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": list(schema.list_keys),
            "x-kubernetes-patch-merge-key": schema.list_keys[0],
            "x-kubernetes-patch-strategy": "merge",
        }
    if schema.list_set:
        return {"x-kubernetes-list-type": "set", "x-kubernetes-patch-strategy": "merge"}
    return {"x-kubernetes-list-type": "atomic"}


def _paths(resource: ResourceType, version: str, gvk: Obj, name: str) -> Obj:
    base = f"/apis/{resource.group}/{version}" if resource.group else f"/api/{version}"
    scope = "/namespaces/{namespace}" if resource.namespaced else ""
    collection = f"{base}{scope}/{resource.plural}"
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}

    def operation(action: str, *parameters: str) -> Obj:
        return {
            "operationId": f"{action}{resource.group.replace('.', '')}{version}{resource.kind}",
            "parameters": list(_parameters(parameters)),
            "responses": {"200": {"description": "OK", "content": content}},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk,
        }

    write = ("dryRun", "fieldManager", "fieldValidation")
    found: Obj = {collection: {}}
    if "list" in resource.verbs:
        found[collection]["get"] = operation("list", "labelSelector", "fieldSelector", "limit", "continue")
    if "create" in resource.verbs:
        found[collection]["post"] = operation("post", *write)
    if "patch" in resource.verbs:
        found[f"{collection}/{{name}}"] = {
            "get": operation("get"),
            "put": operation("put", *write),
            "patch": operation("patch", *write, "force"),
            "delete": operation("delete", "dryRun", "gracePeriodSeconds", "propagationPolicy"),
        }
    return found


def _parameters(names: Iterable[str]) -> Iterable[Any]:
    for name in names:
        yield {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
