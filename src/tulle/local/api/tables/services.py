"""Tables of Services and what routes to pods. Pure."""

from datetime import datetime

from tulle.local.api.objects import Obj, lookup
from tulle.local.api.tables.printing import Cells, Printer, age, joined, label_text, text_columns

__all__ = ["PRINTERS"]


def _port(port: Obj) -> str:
    node = f":{port['nodePort']}" if port.get("nodePort") else ""
    return f"{port['port']}{node}/{port.get('protocol', 'TCP')}"


def _external(service: Obj) -> str:
    spec = service["spec"]
    match spec.get("type"):
        case "ExternalName":
            return str(spec.get("externalName") or "<none>")
        case "LoadBalancer":
            entries = lookup(service, ("status", "loadBalancer", "ingress")) or ()
            known = [entry.get("ip") or entry.get("hostname") or "" for entry in entries]
            return ",".join([*known, *(spec.get("externalIPs") or ())]) or "<pending>"
        case _:
            return joined(spec.get("externalIPs") or ())


def _service(obj: Obj, now: datetime) -> Cells:
    spec = obj.get("spec") or {}
    return [
        obj["metadata"]["name"],
        spec.get("type", "ClusterIP"),
        spec.get("clusterIP") or "<none>",
        _external(obj),
        joined([_port(port) for port in spec.get("ports") or ()]),
        age(obj["metadata"].get("creationTimestamp"), now),
        label_text(spec.get("selector")),
    ]


def _endpoints(obj: Obj, now: datetime) -> Cells:
    shown: list[str] = []
    for subset in obj.get("subsets") or ():
        ports = subset.get("ports") or [{}]
        for port in ports:
            suffix = f":{port['port']}" if port.get("port") else ""
            shown.extend(f"{address['ip']}{suffix}" for address in subset.get("addresses") or ())
    return [obj["metadata"]["name"], joined(shown, 3), age(obj["metadata"].get("creationTimestamp"), now)]


def _endpoint_slice(obj: Obj, now: datetime) -> Cells:
    ports = ["*" if port.get("port") is None else str(port["port"]) for port in obj.get("ports") or ()]
    addresses = [
        address for endpoint in obj.get("endpoints") or () for address in endpoint.get("addresses") or ()
    ]
    return [
        obj["metadata"]["name"],
        obj.get("addressType", ""),
        joined(ports, 3) if ports else "<unset>",
        joined(addresses, 3) if addresses else "<unset>",
        age(obj["metadata"].get("creationTimestamp"), now),
    ]


def _ingress(obj: Obj, now: datetime) -> Cells:
    spec = obj.get("spec") or {}
    hosts = [rule["host"] for rule in spec.get("rules") or () if rule.get("host")]
    entries = lookup(obj, ("status", "loadBalancer", "ingress")) or ()
    return [
        obj["metadata"]["name"],
        spec.get("ingressClassName") or "<none>",
        joined(hosts, 3) if hosts else "*",
        ",".join(entry.get("ip") or entry.get("hostname") or "" for entry in entries),
        "80, 443" if spec.get("tls") else "80",
        age(obj["metadata"].get("creationTimestamp"), now),
    ]


def _network_policy(obj: Obj, now: datetime) -> Cells:
    selector = label_text(lookup(obj, ("spec", "podSelector")))
    return [obj["metadata"]["name"], selector, age(obj["metadata"].get("creationTimestamp"), now)]


PRINTERS = {
    "services": Printer(text_columns("Type,Cluster-IP,External-IP,Port(s),Age", "Selector"), _service),
    "endpoints": Printer(text_columns("Endpoints,Age"), _endpoints),
    "endpointslices.discovery.k8s.io": Printer(
        text_columns("AddressType,Ports,Endpoints,Age"), _endpoint_slice
    ),
    "ingresses.networking.k8s.io": Printer(text_columns("Class,Hosts,Address,Ports,Age"), _ingress),
    "networkpolicies.networking.k8s.io": Printer(text_columns("Pod-Selector,Age"), _network_policy),
}
