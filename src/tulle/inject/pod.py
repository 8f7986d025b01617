"""The injection itself: (pod, namespace, config) → the pod with its sidecar, or the reason why not.

Pure. The shape is Linkerd's (native sidecar by default), so that either proxy runs under either injector: container
`linkerd-proxy`, init container `linkerd-init`, an identity token and a memory volume for keys, Linkerd's environment.
"""

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tulle.inject.annotations import (
    DISABLE_TAP,
    INJECT,
    TAP_ENABLED,
    BadAnnotation,
    Settings,
    settings,
    unknown,
)
from tulle.inject.config import InjectConfig
from tulle.inject.containers import init_container, proxy_container, volumes
from tulle.inject.tracing import trace

__all__ = ["Injected", "Obj", "Owner", "Skipped", "inject"]

Obj = dict[str, Any]

SIDECARS = ("linkerd-proxy", "linkerd-init", "linkerd-network-validator")


@dataclass(frozen=True)
class Owner:
    """The workload a pod belongs to: kind in lower case as in Linkerd's labels ("deployment"), and its name."""

    kind: str
    name: str


@dataclass(frozen=True)
class Injected:
    """The pod with its sidecar, and what its author should hear of (misspelt annotations, UDP ports)."""

    pod: Obj
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Skipped:
    """The pod stays as it is; `reason` is a stable word, `detail` says it to a person."""

    reason: str
    detail: str
    warnings: tuple[str, ...] = ()


def inject(pod: Obj, namespace: Obj, config: InjectConfig, owner: Owner | None = None) -> Injected | Skipped:
    """Return the pod with the sidecar added, or why it is left alone.

    `pod` may be a Pod or a pod template ({"metadata", "spec"}); neither argument is changed. Raises BadAnnotation
    when an injection annotation of the pod or its namespace has a value that is not accepted.
    """
    annotations = _annotations(pod)
    namespace_annotations = _annotations(namespace)
    warnings = tuple(f"annotation {name} is not known to the injector" for name in unknown(annotations))
    mode = _mode(annotations, namespace_annotations, namespace, config)
    if mode == "disabled":
        return Skipped("injection_disabled", f"{INJECT} is not enabled on the pod or its namespace", warnings)
    spec = pod.get("spec") or {}
    if spec.get("hostNetwork"):
        return Skipped(
            "host_network_enabled", "the pod uses the host's network (hostNetwork: true)", warnings
        )
    present = {c.get("name") for c in [*spec.get("containers", []), *spec.get("initContainers", [])]}
    if present.intersection(SIDECARS):
        return Skipped("sidecar_already_exists", "the pod already has a proxy", warnings)

    values = settings(annotations, namespace_annotations)
    if config.tap_identity and _tap_is_disabled(annotations, namespace_annotations):
        config = replace(config, tap_identity="")
    udp = [
        f"{container.get('name')}:{port.get('containerPort')}"
        for container in spec.get("containers", [])
        for port in container.get("ports", [])
        if port.get("protocol") == "UDP"
    ]
    if udp:
        warnings += (f"UDP ports bypass the mesh: {', '.join(udp)}",)
    return Injected(_with_sidecar(pod, namespace, config, values, owner, ingress=mode == "ingress"), warnings)


def _annotations(obj: Mapping[str, Any]) -> Mapping[str, str]:
    return (obj.get("metadata") or {}).get("annotations") or {}


def _mode(
    pod: Mapping[str, str], namespace: Mapping[str, str], namespace_obj: Obj, config: InjectConfig
) -> str:
    for annotations in (pod, namespace):
        value = annotations.get(INJECT)
        if value is None:
            continue
        if value not in ("enabled", "disabled", "ingress"):
            raise BadAnnotation(INJECT, value, "enabled, disabled or ingress")
        return value
    name = (namespace_obj.get("metadata") or {}).get("name", "")
    protected = name in (*config.never_inject, config.control_plane_namespace)
    return "enabled" if config.inject_by_default and not protected else "disabled"


def _tap_is_disabled(pod: Mapping[str, str], namespace: Mapping[str, str]) -> bool:
    value = pod.get(DISABLE_TAP, namespace.get(DISABLE_TAP, "false"))
    if value not in ("true", "false"):
        raise BadAnnotation(DISABLE_TAP, value, "true or false")
    return value == "true"


def _with_sidecar(
    pod: Obj, namespace: Obj, config: InjectConfig, values: Settings, owner: Owner | None, *, ingress: bool
) -> Obj:
    result = copy.deepcopy(pod)
    metadata = result.setdefault("metadata", {})
    namespace_name = metadata.get("namespace") or (namespace.get("metadata") or {}).get("name") or "default"

    labels = metadata["labels"] = dict(metadata.get("labels") or {})
    labels["linkerd.io/control-plane-ns"] = config.control_plane_namespace
    labels["linkerd.io/workload-ns"] = namespace_name
    if owner:
        labels[f"linkerd.io/proxy-{owner.kind}"] = owner.name[:63]

    annotations = metadata["annotations"] = dict(metadata.get("annotations") or {})
    annotations["linkerd.io/created-by"] = f"tulle/inject {config.proxy_version}"
    annotations["linkerd.io/proxy-version"] = str(values.get("proxy-version", config.proxy_version))
    annotations["linkerd.io/trust-root-sha256"] = hashlib.sha256(config.trust_anchors.encode()).hexdigest()
    if config.tap_identity:
        annotations[TAP_ENABLED] = "true"
    for name, text in _annotations(namespace).items():
        if name.startswith("config.linkerd.io/"):
            annotations.setdefault(name, text)

    spec = result.setdefault("spec", {})
    native = bool(values.get("proxy-enable-native-sidecar", config.native_sidecar))
    proxy = proxy_container(spec, config, values, native=native, ingress=ingress)
    first: list[Obj] = []
    if config.capture == "init":
        first.append(init_container(config, values))
    if native:
        first.append(proxy)
    else:
        containers = spec.setdefault("containers", [])
        containers.insert(0 if values.get("proxy-await", True) else len(containers), proxy)
    if first:
        spec["initContainers"] = [*first, *(spec.get("initContainers") or [])]
    spec["volumes"] = [
        *(spec.get("volumes") or []),
        *volumes(config),
        *trace(proxy, metadata, config, values),
    ]
    return result
