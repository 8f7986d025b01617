"""The rules an object must keep, kind by kind, with the texts of a cluster. Pure: an object in, ApiError out."""

from tulle.local.api.errors import Cause, invalid
from tulle.local.api.objects import Obj, name_of
from tulle.local.api.registry import ResourceType
from tulle.local.api.structural import check_values
from tulle.local.api.validation.kinds import check_kind
from tulle.local.api.validation.names import check_metadata
from tulle.local.api.validation.required import missing_fields

__all__ = ["Cause", "check"]

MAX_CAUSES = 100
"""Complaints in one answer; the rest would not be read."""


def check(
    resource: ResourceType,
    obj: Obj,
    old: Obj | None,
    version: str | None = None,
    subresource: str | None = None,
) -> None:
    """Raise 422 with everything that is wrong with an object (and, with `old`, with the change to it)."""
    if subresource == "status" and not resource.is_custom:
        return
    causes = list(check_metadata(resource.plural, obj["metadata"]))
    schema = resource.schema_of(version)
    if resource.is_custom:
        causes += check_values(schema, obj)
    else:
        missing = list(missing_fields(schema, obj))
        causes += missing
        if not missing:
            causes += check_kind(resource, obj, old)
    if causes:
        raise invalid(resource.kind, resource.group, name_of(obj), causes[:MAX_CAUSES])
