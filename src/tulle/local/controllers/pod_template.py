"""Pods from templates: hashes, names, owners. Pure."""

import hashlib
import json

from tulle.local.controllers.cluster import PODS, Kind, Obj
from tulle.local.controllers.metadata import name_of, namespace_of, owner_reference

__all__ = ["HASH_LABEL", "REVISION_LABEL", "pod_from_template", "template_hash", "without_hash"]

HASH_LABEL = "pod-template-hash"
REVISION_LABEL = "controller-revision-hash"
"""Of the pods of DaemonSets and StatefulSets, as the other is of ReplicaSets."""

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""Kubernetes' alphabet for generated names: no vowels, so no words."""


def template_hash(template: Obj, collisions: int = 0) -> str:
    """Return a short name-safe hash of a pod template; `collisions` makes another one for the same template."""
    text = json.dumps(without_hash(template), sort_keys=True, separators=(",", ":")) + (
        str(collisions) if collisions else ""
    )
    digest = hashlib.sha256(text.encode()).digest()
    return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in digest[:10])


def without_hash(template: Obj) -> Obj:
    """Return the template without the label that a Deployment adds, and without empty metadata."""
    metadata = template.get("metadata") or {}
    labels = {name: value for name, value in (metadata.get("labels") or {}).items() if name != HASH_LABEL}
    rest = {
        name: value
        for name, value in metadata.items()
        if name not in ("labels", "creationTimestamp") and value
    }
    return {**template, "metadata": {**rest, **({"labels": labels} if labels else {})}}


def pod_from_template(
    kind: Kind, owner: Obj, template: Obj, *, name: str = "", labels: dict[str, str] | None = None
) -> Obj:
    """Return the pod that `owner` asks for; without `name` the API makes one up from the owner's."""
    metadata = template.get("metadata") or {}
    made: Obj = {"namespace": namespace_of(owner), "ownerReferences": [owner_reference(kind, owner)]}
    if name:
        made["name"] = name
    else:
        made["generateName"] = f"{name_of(owner)}-"
    made["labels"] = {**(metadata.get("labels") or {}), **(labels or {})}
    for field in ("annotations", "finalizers"):
        if metadata.get(field):
            made[field] = metadata[field]
    return {
        "apiVersion": PODS.api_version,
        "kind": PODS.name,
        "metadata": made,
        "spec": template.get("spec") or {},
    }
