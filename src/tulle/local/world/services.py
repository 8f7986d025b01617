"""Services and their EndpointSlices, as the API holds them, read into the network's ServiceRoutes. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from tulle.local.net import Backend, ServiceRoute

__all__ = ["meshed", "routes"]

Obj = Mapping[str, Any]
_SIDECAR = "linkerd-proxy"
_SERVICE_NAME = "kubernetes.io/service-name"
_PROTOCOLS: Mapping[str, Literal["TCP", "UDP"]] = {"TCP": "TCP", "UDP": "UDP"}


def routes(services: Iterable[Obj], slices: Iterable[Obj]) -> list[ServiceRoute]:
    """Return a route for each TCP or UDP port of each Service, in a stable order.

    A headless Service without ports has one route with port 0, for its names alone; so has an ExternalName
    Service, whose name stands for another.
    """
    by_service: dict[tuple[str, str], list[Obj]] = {}
    for piece in slices:
        metadata = piece["metadata"]
        name = (metadata.get("labels") or {}).get(_SERVICE_NAME)
        if name:
            by_service.setdefault((metadata.get("namespace", "default"), name), []).append(piece)
    found: list[ServiceRoute] = []
    for service in services:
        found += _routes_of(service, by_service)
    return sorted(found, key=lambda route: (route.namespace, route.name, route.port, route.protocol))


def _routes_of(service: Obj, by_service: Mapping[tuple[str, str], list[Obj]]) -> Iterable[ServiceRoute]:
    metadata, spec = service["metadata"], service.get("spec") or {}
    namespace, name = metadata.get("namespace", "default"), metadata["name"]
    if spec.get("type") == "ExternalName":
        other = str(spec.get("externalName") or "").rstrip(".").lower()
        if other:
            yield ServiceRoute(namespace, name, "", 0, external_name=other)
        return
    virtual_ip = spec.get("clusterIP") or None
    headless = virtual_ip == "None"
    if virtual_ip is None:
        return  # not yet allocated
    pieces = by_service.get((namespace, name), [])
    unready_too = bool(spec.get("publishNotReadyAddresses"))
    if headless and not spec.get("ports"):
        backends = tuple(_backends(pieces, None, "TCP", unready_too))
        yield ServiceRoute(namespace, name, "", 0, "TCP", None, backends)
    for port in spec.get("ports") or ():
        protocol = _PROTOCOLS.get(port.get("protocol", "TCP"))
        if protocol is None:
            continue  # SCTP: the Service gets an Event that says so
        port_name = port.get("name") or ""
        yield ServiceRoute(
            namespace,
            name,
            port_name,
            port["port"],
            protocol,
            None if headless else virtual_ip,
            tuple(_backends(pieces, port_name, protocol, unready_too)),
        )


def _backends(
    pieces: Iterable[Obj], port_name: str | None, protocol: str, unready_too: bool
) -> Iterable[Backend]:
    found: set[Backend] = set()
    for piece in pieces:
        for port in piece.get("ports") or ([{"port": 0}] if port_name is None else ()):
            if port_name is not None and (
                (port.get("name") or "") != port_name or port.get("protocol", "TCP") != protocol
            ):
                continue
            for endpoint in piece.get("endpoints") or ():
                ready = (endpoint.get("conditions") or {}).get("ready")
                # Unknown counts as ready, as the EndpointSlice API says.
                if ready is False and not unready_too:
                    continue
                for address in endpoint.get("addresses") or ():
                    found.add(Backend(address, port.get("port") or 0, endpoint.get("hostname") or ""))
    return sorted(found)


def meshed(pods: Iterable[Obj]) -> frozenset[str]:
    """Return the addresses of the pods that have a sidecar."""
    return frozenset(
        pod["status"]["podIP"]
        for pod in pods
        if (pod.get("status") or {}).get("podIP")
        and any(
            container["name"] == _SIDECAR
            for field in ("initContainers", "containers")
            for container in pod["spec"].get(field) or ()
        )
    )
