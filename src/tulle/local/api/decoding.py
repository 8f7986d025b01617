"""From what a client sent to an object of its kind: identity, unknown fields, types, versions. Pure.

Raises the errors of a cluster: 400 for what cannot be read as the kind, with the path of each unknown field when the
client asks for strict validation (and a warning per field when it asks to be warned).
"""

from tulle.local.api import events
from tulle.local.api.errors import Cause, bad_request, invalid
from tulle.local.api.objects import Obj, copy_json, meta, name_of
from tulle.local.api.registry import ResourceType
from tulle.local.api.schema import TypeMismatch, drop_nulls, mismatches, prune, unknown_fields
from tulle.local.api.targets import Target, WriteOptions

__all__ = ["decode", "in_version", "to_storage"]


def decode(target: Target, sent: Obj, options: WriteOptions) -> Obj:
    """Return a copy of what was sent, pruned to the kind's fields, with kind, apiVersion and namespace in place."""
    resource = target.resource
    obj = copy_json(sent)
    if not isinstance(obj, dict):
        raise bad_request("the body is not a JSON object")
    _check_identity(target, obj)
    schema = resource.schema_of(target.version)
    if target.subresource == "status":
        # Nothing else counts there, and statuses are what changes most.
        obj = {key: obj[key] for key in ("kind", "apiVersion", "metadata", "status") if key in obj}
    unknown = [] if options.validation == "Ignore" else list(unknown_fields(schema, obj))
    if unknown and options.validation == "Strict":
        raise bad_request(f"{_subject(target)}: strict decoding error: {_listed(unknown)}")
    options.warnings.extend(f'unknown field "{path}"' for path in unknown)
    if unknown or options.validation == "Ignore":
        prune(schema, obj)
    for bad in mismatches(schema, obj):
        if resource.is_custom:
            cause = Cause.wrong_type(bad.path, bad.value, bad.expected)
            raise invalid(resource.kind, resource.group, name_of(obj), [cause])
        raise bad_request(f"{_subject(target)}: {_unmarshal(resource, bad)}")
    drop_nulls(schema, obj)
    return obj


def _check_identity(target: Target, obj: Obj) -> None:
    resource = target.resource
    kind, api_version = obj.get("kind"), obj.get("apiVersion")
    expected = target.api_version
    if kind in (None, "") and api_version in (None, ""):
        obj["kind"], obj["apiVersion"] = resource.kind, expected
    elif kind != resource.kind or api_version != expected:
        if not kind:
            raise bad_request("Object 'Kind' is missing in the request body")
        if kind != resource.kind:
            raise bad_request(
                f"{kind} in version {api_version!r} cannot be handled as a {resource.kind}: "
                f"the object's kind is {kind}, the resource {resource.plural} holds {resource.kind}"
            )
        raise bad_request(
            f"the API version in the data ({api_version}) does not match the expected API version ({expected})"
        )
    if obj.get("metadata") is not None and not isinstance(obj["metadata"], dict):
        raise bad_request(f"{_subject(target)}: metadata is not an object")
    metadata = meta(obj)
    if target.name and metadata.get("name") not in (None, "", target.name):
        raise bad_request(
            f"the name of the object ({metadata['name']}) does not match the name on the URL ({target.name})"
        )
    if target.name:
        metadata["name"] = target.name
    if not resource.namespaced:
        metadata.pop("namespace", None)
    elif metadata.get("namespace") in (None, ""):
        metadata["namespace"] = target.namespace
    elif metadata["namespace"] != target.namespace:
        raise bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )


def _subject(target: Target) -> str:
    version = target.version or target.resource.version
    return f'{target.resource.kind} in version "{version}" cannot be handled as a {target.resource.kind}'


def _listed(unknown: list[str]) -> str:
    return ", ".join(f'unknown field "{path}"' for path in unknown)


def _unmarshal(resource: ResourceType, bad: TypeMismatch) -> str:
    go = {"integer": "int32", "boolean": "bool", "array": "[]", "object": "map", "number": "float64"}
    wanted = go.get(bad.expected, bad.expected)
    found = {"integer": "number", "boolean": "bool"}.get(bad.found, bad.found)
    return f"json: cannot unmarshal {found} into Go struct field {resource.kind}.{bad.path} of type {wanted}"


def in_version(resource: ResourceType, stored: Obj, version: str | None) -> Obj:
    """Return a stored object as it reads in a version; the object itself is not changed."""
    if resource.group == "events.k8s.io":
        return events.from_core(stored)
    expected = resource.api_version(version)
    return stored if stored.get("apiVersion") == expected else {**stored, "apiVersion": expected}


def to_storage(resource: ResourceType, obj: Obj) -> Obj:
    """Return an object as it is stored."""
    if resource.group == "events.k8s.io":
        return events.to_core(obj)
    expected = resource.api_version()
    return obj if obj.get("apiVersion") == expected else {**obj, "apiVersion": expected}
