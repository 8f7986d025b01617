"""Rules of Services and EndpointSlices. Pure."""

import ipaddress
from collections.abc import Iterator

from tulle.local.api.errors import Cause
from tulle.local.api.objects import Obj
from tulle.local.api.validation.names import LABEL_TEXT, check_labels, is_dns_label, is_dns_subdomain

__all__ = ["check_endpoint_slice", "check_service"]

_TYPES = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]


def check_service(service: Obj, old: Obj | None) -> Iterator[Cause]:
    """Yield what is wrong with a Service."""
    spec = service["spec"]
    if spec.get("type") not in _TYPES:
        yield Cause.unsupported("spec.type", spec.get("type"), _TYPES)
    if spec.get("sessionAffinity") not in ("ClientIP", "None"):
        yield Cause.unsupported("spec.sessionAffinity", spec.get("sessionAffinity"), ["ClientIP", "None"])
    yield from check_labels(spec.get("selector"), "spec.selector")
    ports = spec.get("ports") or []
    headless = spec.get("clusterIP") == "None"
    if spec.get("type") == "ExternalName":
        name = spec.get("externalName") or ""
        if not is_dns_subdomain(name.removesuffix(".")):
            yield Cause.invalid("spec.externalName", name, "a lowercase RFC 1123 subdomain is required")
    elif not ports and not headless:
        yield Cause.required("spec.ports")
    if headless and spec.get("type") not in ("ClusterIP", None):
        yield Cause.invalid(
            "spec.clusterIPs[0]", "None", f"may not be set to 'None' for {spec.get('type')} services"
        )
    yield from _check_ports(ports)


def _check_ports(ports: list[Obj]) -> Iterator[Cause]:
    names: set[str] = set()
    numbers: set[tuple[object, object]] = set()
    for index, port in enumerate(ports):
        where = f"spec.ports[{index}]"
        name = port.get("name") or ""
        if len(ports) > 1 and not name:
            yield Cause.required(f"{where}.name")
        elif name and not is_dns_label(name):
            yield Cause.invalid(f"{where}.name", name, LABEL_TEXT)
        if name and name in names:
            yield Cause.duplicate(f"{where}.name", name)
        names.add(name)
        number, protocol = port.get("port"), port.get("protocol")
        if not isinstance(number, int) or not 0 < number < 65536:
            yield Cause.invalid(f"{where}.port", number, "must be between 1 and 65535, inclusive")
        if protocol not in ("TCP", "UDP", "SCTP"):
            yield Cause.unsupported(f"{where}.protocol", protocol, ["SCTP", "TCP", "UDP"])
        if (number, protocol) in numbers:
            shown = f'{{"port":{number},"protocol":"{protocol}"}}'
            yield Cause(where, "FieldValueDuplicate", f"Duplicate value: {shown}")
        numbers.add((number, protocol))
        target = port.get("targetPort")
        if isinstance(target, int) and not 0 < target < 65536:
            yield Cause.invalid(f"{where}.targetPort", target, "must be between 1 and 65535, inclusive")
        elif isinstance(target, str) and (len(target) > 15 or not is_dns_label(target)):
            yield Cause.invalid(
                f"{where}.targetPort",
                target,
                "must contain only alphanumeric characters (a-z, 0-9), and hyphens (-)",
            )


def check_endpoint_slice(obj: Obj, old: Obj | None) -> Iterator[Cause]:
    """Yield what is wrong with an EndpointSlice."""
    family = obj.get("addressType")
    if family not in ("IPv4", "IPv6", "FQDN"):
        yield Cause.unsupported("addressType", family, ["FQDN", "IPv4", "IPv6"])
    if old is not None and old.get("addressType") != family:
        yield Cause.invalid("addressType", family, "field is immutable")
    for index, endpoint in enumerate(obj.get("endpoints") or ()):
        addresses = endpoint.get("addresses") or []
        if not addresses:
            yield Cause.required(f"endpoints[{index}].addresses", "must contain at least 1 address")
        for position, address in enumerate(addresses):
            if family != "FQDN" and not _is_address(address):
                yield Cause.invalid(
                    f"endpoints[{index}].addresses[{position}]", address, "must be a valid IP address"
                )


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
