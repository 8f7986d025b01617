"""Fields that a built-in kind must have, read from the schema. Pure."""

from collections.abc import Iterator
from typing import Any

from tulle.local.api.errors import Cause
from tulle.local.api.schema import Schema

__all__ = ["missing_fields"]

_OPTIONAL = frozenset(
    {
        "authentication_v1.TokenRequestSpec.audiences",
        "core_v1.Event.involvedObject",
        "core_v1.Event.metadata",
        "discovery_v1.EndpointSlice.endpoints",
        "policy_v1.Eviction.metadata",
        "rbac_v1.RoleRef.apiGroup",
        "events_v1.Event.eventTime",
        "core_v1.PodCertificateProjection.keyType",
        "core_v1.EventSeries.count",
    }
)
"""Required in the published schema, but filled in or left out by real clients without complaint."""


def missing_fields(schema: Schema, value: Any, path: str = "") -> Iterator[Cause]:
    """Yield a cause per required field that is absent; what controllers write into status is their own business."""
    if isinstance(value, dict):
        for key in schema.required:
            if value.get(key) is None and f"{schema.name}.{key}" not in _OPTIONAL:
                yield Cause.required(f"{path}.{key}" if path else key)
        for key, item in value.items():
            if isinstance(item, (dict, list)) and (path or key not in ("metadata", "status")):
                yield from missing_fields(schema.child(key), item, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and schema.items is not None:
        for index, item in enumerate(value):
            yield from missing_fields(schema.items, item, f"{path}[{index}]")
