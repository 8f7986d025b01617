"""EndpointSlices and Endpoints from Services and their pods: who answers for a Service, on which port, ready or not.

Slices of Services without a selector belong to their author; Endpoints that an author wrote for such a Service are
mirrored into a slice, as in a cluster.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tulle.local.controllers.actions import Action, Create, Delete, Patch
from tulle.local.controllers.cluster import ENDPOINT_SLICES, ENDPOINTS, PODS, SERVICES, Key, Obj
from tulle.local.controllers.manager import Controller, itself
from tulle.local.controllers.metadata import (
    is_deleting,
    key_of,
    labels_of,
    name_of,
    namespace_of,
    owner_reference,
    phase_of,
    pod_is_ready,
    uid_of,
)
from tulle.local.controllers.selectors import matches_labels
from tulle.local.controllers.store import Stores

__all__ = [
    "CONTROLLER",
    "ENDPOINTS_PER_SLICE",
    "Port",
    "reconcile",
    "resolve_port",
    "services_of_pod",
    "slices_for",
]

SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
OURS = "endpointslice-controller.k8s.io"
MIRROR = "endpointslicemirroring-controller.k8s.io"
HEADLESS = "service.kubernetes.io/headless"
SKIP_MIRROR = "endpointslice.kubernetes.io/skip-mirror"

ENDPOINTS_PER_SLICE = 100
"""Most endpoints in one slice; Kubernetes' default."""

ENDPOINTS_ADDRESSES = 1000
"""Most addresses in an Endpoints object; Kubernetes' bound."""


@dataclass(frozen=True, slots=True, order=True)
class Port:
    """One port of a slice: the number is the pod's."""

    name: str
    protocol: str
    number: int
    app_protocol: str = ""

    def manifest(self) -> Obj:
        """Return the port as a slice carries it."""
        port: Obj = {"name": self.name, "protocol": self.protocol, "port": self.number}
        return {**port, "appProtocol": self.app_protocol} if self.app_protocol else port


def reconcile(key: Key, stores: Stores, now: datetime) -> Sequence[Action]:
    """Decide the slices and Endpoints of one Service."""
    service = stores[SERVICES].get(*key)
    present = [
        s for s in stores[ENDPOINT_SLICES].in_namespace(key[0]) if labels_of(s).get(SERVICE_NAME) == key[1]
    ]
    managed = [s for s in present if labels_of(s).get(MANAGED_BY) in (OURS, MIRROR)]
    if service is None or is_deleting(service):
        # The slices go with their owner; Endpoints share only its name.
        orphaned = stores[ENDPOINTS].get(*key)
        return _drop_endpoints(orphaned) if service is None else ()
    if not (service["spec"].get("selector")):
        # Whoever writes slices herself needs no mirror of her Endpoints.
        mirrored = _mirror(service, stores[ENDPOINTS].get(*key)) if len(managed) == len(present) else []
        return _slice_actions(mirrored, managed)
    if service["spec"].get("type") == "ExternalName":
        return _slice_actions([], managed)
    pods = [
        p
        for p in stores[PODS].in_namespace(key[0])
        if matches_labels(service["spec"]["selector"], labels_of(p))
    ]
    groups = list(groups_of(service, pods))
    actions = _slice_actions(slices_for(service, groups), managed)
    actions.extend(_endpoints_actions(_endpoints(service, groups), stores[ENDPOINTS].get(*key)))
    return actions


def services_of_pod(pod: Obj, stores: Stores) -> Iterable[Key]:
    """Yield the Services that select a pod."""
    for service in stores[SERVICES].in_namespace(namespace_of(pod)):
        if matches_labels(service["spec"].get("selector"), labels_of(pod)):
            yield key_of(service)


def resolve_port(port: Obj, pod: Obj) -> int | None:
    """Return the number that a Service port means at a pod; None when the pod has no port of that name."""
    target = port.get("targetPort")
    if target is None or target == 0 or target == "":
        return int(port["port"])
    if isinstance(target, int) or str(target).isdigit():
        return int(target)
    protocol = port.get("protocol") or "TCP"
    sidecars = [c for c in pod["spec"].get("initContainers") or () if c.get("restartPolicy") == "Always"]
    for container in (*(pod["spec"].get("containers") or ()), *sidecars):
        for entry in container.get("ports") or ():
            if entry.get("name") == target and (entry.get("protocol") or "TCP") == protocol:
                return int(entry["containerPort"])
    return None


def groups_of(service: Obj, pods: Iterable[Obj]) -> Iterator[tuple[tuple[Port, ...], list[Obj]]]:
    """Yield the Service's pods that have an address, grouped by the port numbers that its ports mean there."""
    groups: dict[tuple[Port, ...], list[Obj]] = {}
    for pod in sorted(pods, key=name_of):
        if not (pod.get("status") or {}).get("podIP") or phase_of(pod) in ("Succeeded", "Failed"):
            continue
        ports = tuple(_ports(service, pod))
        if ports or not service["spec"].get("ports"):
            groups.setdefault(ports, []).append(pod)
    yield from sorted(groups.items())


def _ports(service: Obj, pod: Obj) -> Iterator[Port]:
    for port in service["spec"].get("ports") or ():
        number = resolve_port(port, pod)
        if number is not None:
            yield Port(
                port.get("name") or "", port.get("protocol") or "TCP", number, port.get("appProtocol") or ""
            )


def slices_for(service: Obj, groups: Sequence[tuple[tuple[Port, ...], list[Obj]]]) -> list[Obj]:
    """Return the slices that the groups amount to; a Service without endpoints has one empty slice."""
    made = []
    for ports, pods in groups or [((), [])]:
        for start in range(0, max(len(pods), 1), ENDPOINTS_PER_SLICE):
            some = pods[start : start + ENDPOINTS_PER_SLICE]
            endpoints = [_endpoint(service, pod) for pod in some]
            made.append(_slice(service, OURS, f"{ports}{start}", [p.manifest() for p in ports], endpoints))
    return made


def _slice(service: Obj, manager: str, identity: str, ports: list[Obj], endpoints: list[Obj]) -> Obj:
    suffix = hashlib.sha256(identity.encode()).hexdigest()[:5]
    labels = {**labels_of(service), SERVICE_NAME: name_of(service), MANAGED_BY: manager}
    if service["spec"].get("clusterIP") == "None":
        labels[HEADLESS] = ""
    return {
        "apiVersion": ENDPOINT_SLICES.api_version,
        "kind": ENDPOINT_SLICES.name,
        "metadata": {
            "name": f"{name_of(service)}-{suffix}",
            "namespace": namespace_of(service),
            "labels": labels,
            "ownerReferences": [owner_reference(SERVICES, service)],
        },
        "addressType": "IPv4",
        "ports": ports,
        "endpoints": endpoints,
    }


def _endpoint(service: Obj, pod: Obj) -> Obj:
    ready, leaving = pod_is_ready(pod), is_deleting(pod)
    always = bool(service["spec"].get("publishNotReadyAddresses"))
    endpoint: Obj = {
        "addresses": [pod["status"]["podIP"]],
        "conditions": {"ready": always or (ready and not leaving), "serving": ready, "terminating": leaving},
        "targetRef": {
            "kind": "Pod",
            "namespace": namespace_of(pod),
            "name": name_of(pod),
            "uid": uid_of(pod),
        },
    }
    if pod["spec"].get("nodeName"):
        endpoint["nodeName"] = pod["spec"]["nodeName"]
    if pod["spec"].get("hostname") and pod["spec"].get("subdomain") == name_of(service):
        endpoint["hostname"] = pod["spec"]["hostname"]
    return endpoint


def _slice_actions(wanted: Sequence[Obj], present: Sequence[Obj]) -> list[Action]:
    by_name = {name_of(s): s for s in present}
    actions: list[Action] = []
    for obj in wanted:
        before = by_name.pop(name_of(obj), None)
        if before is None:
            actions.append(Create(ENDPOINT_SLICES, obj))
        elif not _same(obj, before, ("ports", "endpoints")) or labels_of(obj) != labels_of(before):
            # null takes away what the old object had and the new one lacks
            labels = {**dict.fromkeys(labels_of(before)), **labels_of(obj)}
            body = {"metadata": {"labels": labels}, "ports": obj["ports"], "endpoints": obj["endpoints"]}
            actions.append(Patch(ENDPOINT_SLICES, namespace_of(obj), name_of(obj), body))
    actions.extend(
        Delete(ENDPOINT_SLICES, namespace_of(s), name_of(s)) for s in by_name.values() if not is_deleting(s)
    )
    return actions


def _endpoints(service: Obj, groups: Sequence[tuple[tuple[Port, ...], list[Obj]]]) -> Obj:
    subsets = []
    for ports, pods in groups:
        ready, unready = [], []
        for pod in pods[:ENDPOINTS_ADDRESSES]:
            endpoint = _endpoint(service, pod)
            address = {"ip": endpoint["addresses"][0], "targetRef": endpoint["targetRef"]}
            address |= {field: endpoint[field] for field in ("nodeName", "hostname") if field in endpoint}
            if endpoint["conditions"]["ready"]:
                ready.append(address)
            elif not endpoint["conditions"]["terminating"]:
                unready.append(address)
        subset: Obj = {}
        if ready:
            subset["addresses"] = ready
        if unready:
            subset["notReadyAddresses"] = unready
        if subset:
            if ports:
                subset["ports"] = [{k: v for k, v in port.manifest().items() if v != ""} for port in ports]
            subsets.append(subset)
    labels = dict(labels_of(service)) | {"endpoints.kubernetes.io/managed-by": "endpoint-controller"}
    metadata = {"name": name_of(service), "namespace": namespace_of(service), "labels": labels}
    return {"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": subsets}


def _endpoints_actions(wanted: Obj, before: Obj | None) -> list[Action]:
    if before is None:
        return [Create(ENDPOINTS, wanted)]
    if _same(wanted, before, ("subsets",)) and labels_of(wanted) == labels_of(before):
        return []
    labels = {**dict.fromkeys(labels_of(before)), **labels_of(wanted)}
    body = {"metadata": {"labels": labels}, "subsets": wanted["subsets"]}
    return [Patch(ENDPOINTS, namespace_of(wanted), name_of(wanted), body)]


def _drop_endpoints(endpoints: Obj | None) -> list[Action]:
    if endpoints is None or is_deleting(endpoints):
        return []
    return [Delete(ENDPOINTS, namespace_of(endpoints), name_of(endpoints))]


def _mirror(service: Obj, endpoints: Obj | None) -> list[Obj]:
    if endpoints is None or labels_of(endpoints).get(SKIP_MIRROR) == "true":
        return []
    made = []
    for subset in endpoints.get("subsets") or ():
        ports = [
            {"name": p.get("name") or "", "protocol": p.get("protocol") or "TCP", "port": p["port"]}
            for p in subset.get("ports") or ()
        ]
        found = [
            {
                "addresses": [address["ip"]],
                "conditions": {"ready": ready},
                **{
                    field: address[field]
                    for field in ("hostname", "nodeName", "targetRef")
                    if field in address
                },
            }
            for field, ready in (("addresses", True), ("notReadyAddresses", False))
            for address in subset.get(field) or ()
        ]
        made.append(_slice(service, MIRROR, json.dumps(ports, sort_keys=True), ports, found))
    return made


def _same(wanted: Obj, before: Mapping[str, Any], fields: Sequence[str]) -> bool:
    return all((wanted.get(field) or []) == (before.get(field) or []) for field in fields)


def _service_of_slice(obj: Obj, _stores: Stores) -> Iterable[Key]:
    name = labels_of(obj).get(SERVICE_NAME)
    return ((namespace_of(obj), name),) if name else ()


CONTROLLER = Controller(
    name="endpointslice",
    watches={SERVICES: itself, PODS: services_of_pod, ENDPOINT_SLICES: _service_of_slice, ENDPOINTS: itself},
    reconcile=reconcile,
    gathers=frozenset({PODS}),
)
