"""Service addresses and node ports: handed out on create, kept on update, refused when taken."""

import ipaddress
from collections.abc import Iterator

from tulle.local.api.errors import Cause, invalid
from tulle.local.api.objects import Obj, name_of
from tulle.local.api.registry import ResourceType
from tulle.local.api.store import Store

__all__ = ["NODE_PORTS", "Allocator", "keep", "prepare"]

NODE_PORTS = range(30000, 32768)
"""Ports handed out to Services of type NodePort and LoadBalancer."""

_RESERVED = 16
"""The first addresses of the range are given only to Services that ask for them by name (API, DNS)."""


class Allocator:
    """Finds free addresses by looking at the Services there are; keeps no state that could drift from them."""

    def __init__(self, store: Store, cidr: str) -> None:
        self._store = store
        self.network = ipaddress.ip_network(cidr)
        self._next = _RESERVED

    def _services(self) -> Iterator[Obj]:
        for record in self._store.collection("services").records.values():
            yield record.obj

    def used_addresses(self) -> set[str]:
        """Return the addresses that Services have."""
        return {str(service["spec"].get("clusterIP")) for service in self._services()}

    def used_ports(self) -> set[int]:
        """Return the node ports that Services have."""
        return {
            int(port["nodePort"])
            for service in self._services()
            for port in service["spec"].get("ports") or ()
            if port.get("nodePort")
        }

    def address(self) -> str | None:
        """Return a free address, or None when the range is used up. Addresses are not reused at once."""
        used = self.used_addresses()
        size = self.network.num_addresses - 1
        for _ in range(size):
            candidate = str(self.network[self._next])
            self._next = self._next + 1 if self._next + 1 < size else _RESERVED
            if candidate not in used:
                return candidate
        return None

    def port(self, also_used: set[int]) -> int | None:
        """Return a free node port, or None when there is none."""
        used = self.used_ports() | also_used
        return next((port for port in NODE_PORTS if port not in used), None)


def keep(resource: ResourceType, live: Obj, new: Obj) -> None:
    """Carry over, in place, the addresses and ports that an update leaves out."""
    if resource.key != "services":
        return
    before, after = live["spec"], new.setdefault("spec", {})
    if after.get("type", "ClusterIP") == "ExternalName" or before.get("type") == "ExternalName":
        return
    if not after.get("clusterIP") and before.get("clusterIP"):
        after["clusterIP"] = before["clusterIP"]
    if (
        not after.get("clusterIPs")
        and after.get("clusterIP") == before.get("clusterIP")
        and before.get("clusterIPs")
    ):
        after["clusterIPs"] = list(before["clusterIPs"])
    if after.get("type") in ("NodePort", "LoadBalancer"):
        known = {
            (p.get("name"), p.get("protocol"), p.get("port")): p.get("nodePort")
            for p in before.get("ports") or ()
        }
        for port in after.get("ports") or ():
            if not port.get("nodePort"):
                old = known.get((port.get("name"), port.get("protocol", "TCP"), port.get("port")))
                if old:
                    port["nodePort"] = old


def prepare(allocator: Allocator, resource: ResourceType, obj: Obj, live: Obj | None) -> None:
    """Give a Service, in place, what it needs and does not have; raise 422 for what it may not have."""
    if resource.key != "services":
        return
    spec = obj["spec"]
    causes: list[Cause] = []
    if spec["type"] == "ExternalName":
        spec.pop("clusterIP", None)
        spec.pop("clusterIPs", None)
    else:
        _cluster_ip(allocator, spec, live, causes)
        _node_ports(allocator, spec, live, causes)
    if causes:
        raise invalid(resource.kind, resource.group, name_of(obj), causes)


def _cluster_ip(allocator: Allocator, spec: Obj, live: Obj | None, causes: list[Cause]) -> None:
    wanted = spec.get("clusterIP") or ""
    before = (live or {}).get("spec", {}).get("clusterIP")
    if before and wanted and before != wanted:
        causes.append(Cause.invalid("spec.clusterIPs[0]", [wanted], "may not change once set"))
        return
    if not wanted:
        address = allocator.address()
        if address is None:
            causes.append(Cause("spec.clusterIP", "InternalError", f"no free address in {allocator.network}"))
            return
        spec["clusterIP"] = address
    elif wanted != "None" and wanted != before:
        try:
            inside = ipaddress.ip_address(wanted) in allocator.network
        except ValueError:
            causes.append(Cause.invalid("spec.clusterIPs[0]", wanted, "must be a valid IP address"))
            return
        if not inside:
            why = f"failed to allocate IP {wanted}: the provided IP is not in the valid range {allocator.network}"
            causes.append(Cause.invalid("spec.clusterIPs", [wanted], why))
        elif wanted in allocator.used_addresses():
            why = f"failed to allocate IP {wanted}: provided IP is already allocated"
            causes.append(Cause.invalid("spec.clusterIPs", [wanted], why))
    spec["clusterIPs"] = [spec.get("clusterIP") or "None"]


def _node_ports(allocator: Allocator, spec: Obj, live: Obj | None, causes: list[Cause]) -> None:
    if spec["type"] not in ("NodePort", "LoadBalancer"):
        for port in spec.get("ports") or ():
            port.pop("nodePort", None)
        return
    mine = {p.get("nodePort") for p in (live or {}).get("spec", {}).get("ports") or ()}
    taken: set[int] = set()
    for index, port in enumerate(spec.get("ports") or ()):
        where = f"spec.ports[{index}].nodePort"
        wanted = port.get("nodePort")
        if not wanted:
            wanted = allocator.port(taken)
            if wanted is None:
                causes.append(Cause(where, "InternalError", "no free node port"))
                continue
            port["nodePort"] = wanted
        elif wanted not in NODE_PORTS:
            span = f"{NODE_PORTS.start}-{NODE_PORTS.stop - 1}"
            causes.append(
                Cause.invalid(
                    where,
                    wanted,
                    f"provided port is not in the valid range. The range of valid ports is {span}",
                )
            )
        elif wanted not in mine and wanted in allocator.used_ports() | taken:
            causes.append(Cause.invalid(where, wanted, "provided port is already allocated"))
        taken.add(wanted)
