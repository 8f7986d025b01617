"""Service addresses as packet-filter rules of the world: a pure difference between what is and what should be.

A client outside the mesh dials a Service's virtual address and reaches a random ready endpoint; with no endpoint
its connection is refused at once. (A meshed client is captured inside its own pod, before these rules.)
One change of one Service is one small transaction, whatever the number of Services.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tulle.local.net.model import ServiceRoute

__all__ = ["POD_RANGE", "SERVICE_RANGE", "Table", "base_rules", "change", "table_of"]

POD_RANGE = "10.42.0.0/16"
SERVICE_RANGE = "10.96.0.0/16"
_TABLE = "ip tulle"

Address = tuple[str, str, int]  # virtual address, protocol in lower case, port


@dataclass(frozen=True)
class Table:
    """What the packet filter should do: for each address of a Service port its endpoints, never none."""

    endpoints: Mapping[Address, Sequence[tuple[str, int]]]

    @property
    def hairpins(self) -> set[str]:
        """Pods that may be sent their own packets back."""
        return {ip for endpoints in self.endpoints.values() for ip, _ in endpoints}


EMPTY = Table({})


def table_of(routes: Iterable[ServiceRoute]) -> Table:
    """Keep what has a virtual address and an endpoint; the rest is refused by the base rules."""
    return Table(
        {
            (route.virtual_ip, route.protocol.lower(), route.port): sorted(
                {(backend.ip, backend.port) for backend in route.backends}
            )
            for route in routes
            if route.virtual_ip is not None and route.backends
        }
    )


def base_rules(way_out: tuple[str, int]) -> str:
    """Return the rules that never change. `way_out` is where connections that leave the mesh are accepted.

    A pod that dials a Service and is chosen as its endpoint would see a packet from its own address: such
    packets get the world's address as source. Both chains of type nat see only a connection's first packet.
    """
    return f"""
table {_TABLE} {{
  map services {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  set hairpins {{ type ipv4_addr . ipv4_addr; }}
  chain prerouting {{
    type nat hook prerouting priority -100;
    ip daddr . meta l4proto . th dport vmap @services
    ip daddr {{ {POD_RANGE}, {SERVICE_RANGE} }} accept
    fib daddr type local accept
    iifname "pod*" meta l4proto tcp dnat to {way_out[0]}:{way_out[1]}
  }}
  chain output {{
    type nat hook output priority -100;
    ip daddr . meta l4proto . th dport vmap @services
  }}
  chain refuse {{
    type filter hook prerouting priority -90;
    ip daddr != {SERVICE_RANGE} accept
    fib daddr type local accept
    meta l4proto tcp reject with tcp reset
    reject with icmp type port-unreachable
  }}
  chain postrouting {{
    type nat hook postrouting priority 100;
    ip saddr . ip daddr @hairpins masquerade
  }}
}}
"""


def change(before: Table, after: Table) -> str:
    """Return one atomic nft script that turns `before` into `after`; empty when there is nothing to do."""
    lines: list[str] = []
    for address in sorted(before.endpoints.keys() - after.endpoints.keys()):
        lines.append(f"delete element {_TABLE} services {{ {_key(address)} }}")
        lines.append(f"flush chain {_TABLE} {_chain(address)}")
        lines.append(f"delete chain {_TABLE} {_chain(address)}")
    for address in sorted(after.endpoints):
        endpoints = after.endpoints[address]
        old = before.endpoints.get(address)
        if old == endpoints:
            continue
        lines.append(f"{'add' if old is None else 'flush'} chain {_TABLE} {_chain(address)}")
        lines.append(f"add rule {_TABLE} {_chain(address)} {_destination(address, endpoints)}")
        if old is None:
            lines.append(f"add element {_TABLE} services {{ {_key(address)} : goto {_chain(address)} }}")
    for verb, pods in (
        ("delete", before.hairpins - after.hairpins),
        ("add", after.hairpins - before.hairpins),
    ):
        if pods:
            pairs = ", ".join(f"{ip} . {ip}" for ip in sorted(pods))
            lines.append(f"{verb} element {_TABLE} hairpins {{ {pairs} }}")
    return "".join(line + "\n" for line in lines)


def _key(address: Address) -> str:
    return f"{address[0]} . {address[1]} . {address[2]}"


def _chain(address: Address) -> str:
    return f"to_{address[0].replace('.', '_')}_{address[1]}_{address[2]}"


def _destination(address: Address, endpoints: Sequence[tuple[str, int]]) -> str:
    choices = ", ".join(f"{number} : {ip} . {port}" for number, (ip, port) in enumerate(endpoints))
    return f"meta l4proto {address[1]} dnat to numgen random mod {len(endpoints)} map {{ {choices} }}"
