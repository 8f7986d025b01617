"""Manifests into the API, in order, with errors that name the file and the line of the field."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tulle.errors import TulleError
from tulle.local.api import Api, ApiError
from tulle.local.channel import SourcedObject
from tulle.local.sources import SOURCE_ANNOTATION

__all__ = ["Refused", "annotated", "apply", "fields_of"]

FIELD_MANAGER = "tulle-up"
_FIELD = re.compile(r'(?:unknown|duplicate) field "([^"]+)"')


class Refused(TulleError):
    """The API refused an object. `where` it was written (empty: it is Tulle's own), `fields` that it objects to."""

    def __init__(self, what: str, why: str, next_step: str, *, where: str, fields: Sequence[str]) -> None:
        super().__init__(what, why, next_step)
        self.where, self.fields = where, list(fields)


@dataclass(frozen=True)
class _Address:
    plural: str
    group: str
    namespaced: bool


def annotated(sourced: SourcedObject) -> dict[str, Any]:
    """Return the object with the annotation that says where it was written."""
    obj = dict(sourced.obj)
    metadata: dict[str, Any] = dict(obj["metadata"])  # type: ignore[call-overload]
    if sourced.where:
        metadata["annotations"] = {**(metadata.get("annotations") or {}), SOURCE_ANNOTATION: sourced.where}
    obj["metadata"] = metadata
    return obj


def fields_of(error: ApiError) -> list[str]:
    """Return the paths of the fields that an answer of the API objects to."""
    causes = error.details.get("causes") or ()
    named = [str(cause["field"]) for cause in causes if cause.get("field")]
    return named or _FIELD.findall(error.message)


async def apply(api: Api, objects: Iterable[SourcedObject]) -> None:
    """Create or update each object.

    :raises Refused: the API does not take one; nothing after it was applied.
    """
    for sourced in objects:
        obj = annotated(sourced)
        metadata = obj["metadata"]
        title = f"{obj['kind']} {metadata['name']}"
        address = _address(api, obj, sourced.where)
        namespace = (metadata.get("namespace") or "default") if address.namespaced else None
        try:
            await api.patch(
                address.plural,
                metadata["name"],
                obj,
                group=address.group,
                namespace=namespace,
                kind="apply",
                field_manager=FIELD_MANAGER,
                force=True,
            )
        except ApiError as error:
            raise Refused(
                f"{title} was refused",
                error.message,
                "correct the manifest",
                where=sourced.where,
                fields=fields_of(error),
            ) from error


def _address(api: Api, obj: dict[str, Any], where: str) -> _Address:
    group, _, version = str(obj["apiVersion"]).rpartition("/")
    resource = api.registry.of_kind(group, version, str(obj["kind"]))
    if resource is None:
        raise Refused(
            f"there is no kind {obj['kind']} in {obj['apiVersion']}",
            "neither Kubernetes' own kinds nor a definition applied before it has that name",
            "correct kind and apiVersion, or apply its CustomResourceDefinition first",
            where=where,
            fields=["kind"],
        )
    return _Address(resource.plural, resource.group, resource.namespaced)
