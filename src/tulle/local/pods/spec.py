"""A pod's spec as the node agent understands it: containers in their roles, probes, hooks, policies.

Read once from the Kubernetes object; everything behind works on these types.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from tulle.local.api.objects import Obj

__all__ = ["ContainerSpec", "Hook", "PodSpec", "Probe", "ProbeKind", "Role", "parse_pod", "quantity"]


class Role(Enum):
    """Where in a pod's life a container runs."""

    INIT = "init"
    """Runs to completion before the next one starts."""
    SIDECAR = "sidecar"
    """An init container with restartPolicy Always: starts in order, runs as long as the pod, stops last."""
    MAIN = "main"


class ProbeKind(Enum):
    """What a probe decides."""

    STARTUP = "Startup"
    LIVENESS = "Liveness"
    READINESS = "Readiness"


@dataclass(frozen=True, slots=True)
class Probe:
    """One probe: times in seconds, thresholds in consecutive results, `action` as in the manifest (httpGet, exec, …)."""

    kind: ProbeKind
    action: Mapping[str, Any]
    initial_delay: float
    period: float
    timeout: float
    success_threshold: int
    failure_threshold: int
    grace: float | None


@dataclass(frozen=True, slots=True)
class Hook:
    """A lifecycle hook: `action` as in the manifest (exec, httpGet, tcpSocket, sleep)."""

    action: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """One container; `raw` is its manifest for what only one module reads (env, mounts, ports)."""

    name: str
    role: Role
    image: str
    command: tuple[str, ...]
    args: tuple[str, ...]
    raw: Obj
    probes: Mapping[ProbeKind, Probe]
    post_start: Hook | None
    pre_stop: Hook | None
    restarts_always: bool


@dataclass(frozen=True, slots=True)
class PodSpec:
    """A pod; `init` holds init containers and native sidecars in their order."""

    namespace: str
    name: str
    uid: str
    init: tuple[ContainerSpec, ...]
    main: tuple[ContainerSpec, ...]
    restart_policy: str
    grace: float
    active_deadline: float | None
    readiness_gates: tuple[str, ...]
    raw: Obj

    @property
    def containers(self) -> tuple[ContainerSpec, ...]:
        """All containers, in the order in which they start."""
        return (*self.init, *self.main)


DEFAULT_GRACE_SECONDS = 30.0


def parse_pod(pod: Obj) -> PodSpec:
    """Read a Pod object."""
    spec, metadata = pod["spec"], pod["metadata"]
    policy = spec.get("restartPolicy") or "Always"
    grace = spec.get("terminationGracePeriodSeconds")
    deadline = spec.get("activeDeadlineSeconds")
    return PodSpec(
        namespace=metadata.get("namespace") or "default",
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        init=tuple(
            _container(c, Role.SIDECAR if c.get("restartPolicy") == "Always" else Role.INIT, policy)
            for c in spec.get("initContainers") or ()
        ),
        main=tuple(_container(c, Role.MAIN, policy) for c in spec.get("containers") or ()),
        restart_policy=policy,
        grace=DEFAULT_GRACE_SECONDS if grace is None else float(grace),
        active_deadline=None if deadline is None else float(deadline),
        readiness_gates=tuple(gate["conditionType"] for gate in spec.get("readinessGates") or ()),
        raw=pod,
    )


def _container(raw: Obj, role: Role, pod_policy: str) -> ContainerSpec:
    probes = {}
    for kind, field in (
        (ProbeKind.STARTUP, "startupProbe"),
        (ProbeKind.LIVENESS, "livenessProbe"),
        (ProbeKind.READINESS, "readinessProbe"),
    ):
        if raw.get(field) and role is not Role.INIT:
            probes[kind] = _probe(kind, raw[field])
    lifecycle = raw.get("lifecycle") or {}
    return ContainerSpec(
        name=raw["name"],
        role=role,
        image=raw.get("image") or "",
        command=tuple(raw.get("command") or ()),
        args=tuple(raw.get("args") or ()),
        raw=raw,
        probes=probes,
        post_start=Hook(lifecycle["postStart"]) if lifecycle.get("postStart") else None,
        pre_stop=Hook(lifecycle["preStop"]) if lifecycle.get("preStop") else None,
        restarts_always=role is Role.SIDECAR or (role is Role.MAIN and pod_policy == "Always"),
    )


def _probe(kind: ProbeKind, raw: Obj) -> Probe:
    def number(field: str, default: float) -> float:
        value = raw.get(field)
        return default if value is None else float(value)

    grace = raw.get("terminationGracePeriodSeconds")
    return Probe(
        kind=kind,
        action={k: v for k, v in raw.items() if k in ("httpGet", "tcpSocket", "exec", "grpc")},
        initial_delay=number("initialDelaySeconds", 0),
        period=max(number("periodSeconds", 10), 1),
        timeout=max(number("timeoutSeconds", 1), 1),
        success_threshold=max(int(number("successThreshold", 1)), 1),
        failure_threshold=max(int(number("failureThreshold", 3)), 1),
        grace=None if grace is None else float(grace),
    )


_UNITS = {
    "n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60,
}  # fmt: skip


def quantity(text: str | int | float) -> float:
    """Return the number that a Kubernetes quantity stands for ("250m" is 0.25, "1Gi" is 2**30).

    Raises ValueError for text that is no quantity.
    """
    text = str(text).strip()
    unit = text.lstrip("+-.0123456789")
    if unit not in _UNITS and unit[:1] in ("e", "E"):
        return float(text)
    if unit not in _UNITS:
        raise ValueError(f"{text!r} is not a quantity (write a number with one of m, k, M, G, Ki, Mi, Gi)")
    return float(text.removesuffix(unit)) * _UNITS[unit]
