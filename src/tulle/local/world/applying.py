"""Manifests into the API, in order, with errors that name the file and the line of the field."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from tulle.errors import TulleError
from tulle.local.api import Api, ApiError
from tulle.local.channel import SourcedObject
from tulle.local.sources import SOURCE_ANNOTATION

__all__ = ["LAST_APPLIED", "Refused", "annotated", "apply", "fields_of"]

FIELD_MANAGER = "tulle-up"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_FIELD = re.compile(r'(?:unknown|duplicate) field "([^"]+)"|into Go struct field \w+\.(\S+) of type')


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


def annotated(sourced: SourcedObject, namespace: str | None) -> dict[str, Any]:
    """Return a user's object with the annotations that say where it was written, and what (see kubectl apply).

    With the second, in the very bytes of kubectl, `kubectl apply -f` of the same file changes nothing, and of the
    file edited it knows which fields have been taken out.
    """
    obj = dict(sourced.obj)
    metadata: dict[str, Any] = dict(obj["metadata"])  # type: ignore[call-overload]
    if sourced.where:
        annotations = metadata.get("annotations") or {}
        place = {} if namespace is None else {"namespace": namespace}
        written = {**obj, "metadata": {**metadata, "annotations": annotations, **place}}
        text = msgspec.json.encode(written, order="sorted").decode() + "\n"
        metadata["annotations"] = {**annotations, SOURCE_ANNOTATION: sourced.where, LAST_APPLIED: text}
    obj["metadata"] = metadata
    return obj


def fields_of(error: ApiError) -> list[str]:
    """Return the paths of the fields that an answer of the API objects to."""
    causes = error.details.get("causes") or ()
    named = [str(cause["field"]) for cause in causes if cause.get("field")]
    return named or [match[match.lastindex or 0] for match in _FIELD.finditer(error.message)]


async def apply(api: Api, objects: Iterable[SourcedObject]) -> None:
    """Create or update each object.

    :raises Refused: the API does not take one; nothing after it was applied.
    """
    for sourced in objects:
        metadata: dict[str, Any] = sourced.obj["metadata"]  # type: ignore[assignment]
        title = f"{sourced.obj['kind']} {metadata['name']}"
        address = _address(api, sourced.obj, sourced.where)
        namespace = (metadata.get("namespace") or "default") if address.namespaced else None
        try:
            await api.patch(
                address.plural,
                metadata["name"],
                annotated(sourced, namespace),
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


def _address(api: Api, obj: Mapping[str, object], where: str) -> _Address:
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
