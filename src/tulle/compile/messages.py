"""The few protobuf values that every message uses: addresses, durations, object references; and the bytes of an Update.

Update messages are joined from the cached bytes of their endpoints: encoding an endpoint is two hundred times dearer
than joining it (protobuf repeated fields concatenate).
"""

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from google.protobuf.duration_pb2 import Duration

from tulle.api import destination_pb2, meta_pb2, net_pb2
from tulle.kube.objects import View

__all__ = [
    "SOURCE",
    "added",
    "default_metadata",
    "duration",
    "ip",
    "ip_text",
    "is_address",
    "network",
    "no_endpoints",
    "removed",
    "resource",
    "tcp_address",
]

SOURCE = "tulle.dev/source"
"""Annotation with the `file:line` that an object was applied from."""

Address = tuple[str, int]


def ip(text: str) -> net_pb2.IPAddress:
    """Encode an address in text form. Raises ValueError."""
    address = ip_address(text)
    number = int(address)
    if isinstance(address, IPv4Address):
        return net_pb2.IPAddress(ipv4=number)
    return net_pb2.IPAddress(ipv6=net_pb2.IPv6(first=number >> 64, last=number & (1 << 64) - 1))


def is_address(ip_text: str, port: int = 1) -> bool:
    """Tell whether a text is an address and a number a port; objects may say anything."""
    try:
        ip_address(ip_text)
    except ValueError:
        return False
    return 1 <= port <= 65535


def ip_text(address: net_pb2.IPAddress) -> str:
    """Decode an address to its text form; an unset one is 0.0.0.0, an IPv4-mapped one is IPv4."""
    if address.WhichOneof("ip") == "ipv6":
        wide = IPv6Address(address.ipv6.first << 64 | address.ipv6.last)
        return str(wide.ipv4_mapped or wide)
    return str(IPv4Address(address.ipv4))


def tcp_address(address: Address) -> net_pb2.TcpAddress:
    """Encode (ip, port)."""
    return net_pb2.TcpAddress(ip=ip(address[0]), port=address[1])


def network(cidr: str) -> net_pb2.IPNetwork:
    """Encode a network; host bits are cleared, a bare address is a network of one. Raises ValueError."""
    net = ip_network(cidr, strict=False)
    return net_pb2.IPNetwork(ip=ip(str(net.network_address)), prefix_len=net.prefixlen)


def duration(seconds: float) -> Duration:
    """Encode seconds, to the millisecond."""
    message = Duration()
    message.FromMilliseconds(round(seconds * 1000))
    return message


def default_metadata(name: str) -> meta_pb2.Metadata:
    """Name a rule that no object wrote."""
    return meta_pb2.Metadata(default=name)


def resource(
    group: str, kind: str, view: View | tuple[str, str], *, port: int = 0, section: str = ""
) -> meta_pb2.Metadata:
    """Name the object that a rule comes from; given as (namespace, name) when it does not exist."""
    namespace, name = view if isinstance(view, tuple) else (view.namespace, view.name)
    # Linkerd's word for the group of Services and Pods; its proxy takes no policy whose metadata has an empty one.
    group = group or "core"
    source = "" if isinstance(view, tuple) else view.annotations.get(SOURCE, "")
    return meta_pb2.Metadata(
        resource=meta_pb2.Resource(
            group=group,
            kind=kind,
            name=name,
            namespace=namespace,
            port=port if 0 <= port <= 65535 else 0,
            section=section,
            source=source,
        )
    )


def added(endpoints: Iterable[bytes], labels: Mapping[str, str]) -> bytes:
    """Return the Update that adds encoded WeightedAddrs under shared labels."""
    parts = [b"".join((b"\x0a", _varint(len(encoded)), encoded)) for encoded in endpoints]
    parts.append(destination_pb2.WeightedAddrSet(metric_labels=labels).SerializeToString(deterministic=True))
    body = b"".join(parts)
    return b"".join((b"\x0a", _varint(len(body)), body))


def removed(addresses: Iterable[Address]) -> bytes:
    """Return the Update that removes addresses."""
    gone = destination_pb2.AddrSet(addrs=[tcp_address(address) for address in sorted(addresses)])
    return destination_pb2.Update(remove=gone).SerializeToString()


def no_endpoints(exists: bool) -> bytes:
    """Return the Update that says there are none, and whether the Service exists."""
    none = destination_pb2.NoEndpoints(exists=exists)
    return destination_pb2.Update(no_endpoints=none).SerializeToString()


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
