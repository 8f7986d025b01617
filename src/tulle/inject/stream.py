"""`tulle inject` and `uninject`: YAML documents in, YAML documents out, and a line of report for each object.

As Linkerd's command does, `inject` only annotates (the webhook adds the sidecar when the pod is created) unless the
whole sidecar is asked for; objects of other kinds pass through untouched. Pure: text in, text out.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from tulle.errors import TulleError
from tulle.inject.annotations import CONFIG_PREFIX, INJECT, TAP_ENABLED
from tulle.inject.config import InjectConfig
from tulle.inject.pod import SIDECARS, Injected, Obj, Owner, inject
from tulle.kube.yaml import Loader

__all__ = ["Report", "annotate", "documents", "remove", "sidecar", "transform"]

TEMPLATED = ("Deployment", "ReplicationController", "ReplicaSet", "Job", "DaemonSet", "StatefulSet")
VOLUMES = (
    "linkerd-proxy-init-xtables-lock",
    "linkerd-identity-end-entity",
    "linkerd-identity-token",
    "linkerd-podinfo",
)


@dataclass(frozen=True)
class Report:
    """What happened to one object: `outcome` is injected, uninjected, skipped, or why not."""

    kind: str
    name: str
    outcome: str

    def __str__(self) -> str:
        return f'{self.kind.lower()} "{self.name}" {self.outcome}'


def documents(text: str, source: str) -> Iterator[Obj]:
    """Yield the objects of a YAML text, the members of a List one by one.

    Raises TulleError with file, line and column when the text is not YAML, or a document is not an object.
    """
    try:
        for document in yaml.load_all(text, Loader=Loader):
            if document is None:
                continue
            if not isinstance(document, dict):
                raise TulleError(
                    f"{source}: a document is not a Kubernetes object", f"it is {type(document).__name__}"
                )
            if document.get("kind") == "List" and isinstance(document.get("items"), list):
                yield from document["items"]
            else:
                yield document
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        problem = getattr(error, "problem", None) or str(error)
        raise TulleError(f"{where}: broken YAML", str(problem), "correct the file and call again") from error


def transform(text: str, source: str, change: Callable[[Obj], tuple[Obj, str]]) -> tuple[str, list[Report]]:
    """Apply `change` to each object of a YAML text; return the new text and a report for each."""
    objects, reports = [], []
    for obj in documents(text, source):
        changed, outcome = change(obj)
        objects.append(changed)
        name = str(
            (obj.get("metadata") or {}).get("name") or (obj.get("metadata") or {}).get("generateName") or ""
        )
        reports.append(Report(str(obj.get("kind", "object")), name, outcome))
    return yaml.safe_dump_all(objects, sort_keys=False, explicit_start=True, width=4096), reports


def _pod_of(obj: Obj) -> Obj | None:
    """Return the part of a (copied) object that is a pod or a pod template; None when it has none."""
    kind, spec = obj.get("kind"), obj.get("spec")
    if kind == "Pod":
        return obj
    if not isinstance(spec, dict):
        return None
    if kind == "CronJob":
        spec = (spec.get("jobTemplate") or {}).get("spec") or {}
    elif kind not in TEMPLATED:
        return None
    template = spec.get("template")
    return template if isinstance(template, dict) else None


def annotate(obj: Obj, annotations: Mapping[str, str]) -> tuple[Obj, str]:
    """Return the object with these annotations on its pod template (or on itself: Pod, Namespace)."""
    result = copy.deepcopy(obj)
    target = result if result.get("kind") == "Namespace" else _pod_of(result)
    if target is None:
        return obj, "skipped"
    if (target.get("spec") or {}).get("hostNetwork"):
        return obj, "skipped: hostNetwork is true"
    if _sidecars(target):
        return obj, "skipped: known 3rd party sidecar or proxy already present"
    metadata = target.setdefault("metadata", {})
    metadata["annotations"] = {**(metadata.get("annotations") or {}), **annotations}
    return result, "injected"


def sidecar(obj: Obj, config: InjectConfig, annotations: Mapping[str, str]) -> tuple[Obj, str]:
    """Return the object with the whole sidecar in its pod template; raises BadAnnotation."""
    result, outcome = annotate(obj, annotations)
    pod = _pod_of(result)
    if outcome != "injected" or pod is None:
        return result, outcome
    metadata = obj.get("metadata") or {}
    owner = None if pod is result else Owner(str(obj["kind"]).lower(), str(metadata.get("name", "")))
    done = inject(pod, {"metadata": {"name": metadata.get("namespace", "default")}}, config, owner)
    if not isinstance(done, Injected):
        return obj, f"skipped: {done.detail}"
    pod.update(done.pod)
    return result, "injected"


def remove(obj: Obj) -> tuple[Obj, str]:
    """Return the object without the sidecar, its volumes, labels and annotations."""
    result = copy.deepcopy(obj)
    target = result if result.get("kind") == "Namespace" else _pod_of(result)
    if target is None:
        return obj, "skipped"
    metadata = target.get("metadata") or {}
    for member in ("annotations", "labels"):
        kept = {name: text for name, text in (metadata.get(member) or {}).items() if not _is_ours(name)}
        if metadata.get(member) and kept:
            metadata[member] = kept
        else:
            metadata.pop(member, None)
    spec = target.get("spec")
    if (isinstance(spec, dict) and target is not result) or result.get("kind") == "Pod":
        _strip(spec or {})
    return (result, "uninjected") if result != obj else (obj, "skipped")


def _is_ours(name: str) -> bool:
    return name.startswith((CONFIG_PREFIX, "linkerd.io/")) or name in (INJECT, TAP_ENABLED)


def _sidecars(pod: Obj) -> bool:
    spec = pod.get("spec") or {}
    names = {c.get("name") for c in [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]}
    return bool(names.intersection(SIDECARS))


def _strip(spec: dict[str, Any]) -> None:
    for member in ("containers", "initContainers"):
        if member in spec:
            spec[member] = [container for container in spec[member] if container.get("name") not in SIDECARS]
    if "volumes" in spec:
        spec["volumes"] = [volume for volume in spec["volumes"] if volume.get("name") not in VOLUMES]
    for member in ("initContainers", "volumes"):
        if member in spec and not spec[member]:
            del spec[member]
