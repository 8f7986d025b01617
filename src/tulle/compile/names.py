"""Names that proxies ask for: authorities such as `voting`, `voting.default:80` or `10.1.2.3:80`, and workloads.

Short names mean what they mean to a pod's resolver: its own namespace first.
"""

import json
import re
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from tulle.compile.mesh import ClientContext, Mesh
from tulle.kube.world import World

__all__ = [
    "AddressTarget",
    "BadName",
    "ServiceTarget",
    "may_appear",
    "parse_context",
    "parse_workload",
    "resolve",
    "split_port",
]

DEFAULT_PORT = 80
LABEL = re.compile(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?")
MAX_CONTEXT_BYTES = 4096


class BadName(ValueError):
    """A name, port or context cannot be read; the text says which and why."""


@dataclass(frozen=True, slots=True)
class ServiceTarget:
    """A port of a Service, or with `hostname` of one pod of a headless Service."""

    namespace: str
    name: str
    port: int
    hostname: str = ""

    def path(self, mesh: Mesh) -> str:
        """Return the full `name:port`."""
        prefix = f"{self.hostname}." if self.hostname else ""
        return f"{prefix}{mesh.service_fqdn(self.namespace, self.name)}:{self.port}"


@dataclass(frozen=True, slots=True)
class AddressTarget:
    """An address and port: a Service's virtual address, a pod's, or anybody's."""

    ip: str
    port: int


def split_port(authority: str, default: int | None = DEFAULT_PORT) -> tuple[str, int]:
    """Split `host[:port]` or `[v6]:port`. Raises BadName for a malformed or missing port."""
    text = authority.strip()
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port_text = rest.removeprefix(":") if rest.startswith(":") or not rest else "?"
    elif text.count(":") > 1:
        host, port_text = text, ""
    else:
        host, _, port_text = text.partition(":")
    if not port_text:
        if default is None:
            raise BadName(f"{authority!r} names no port")
        return host, default
    if not (port_text.isascii() and port_text.isdigit() and 1 <= int(port_text) <= 65535):
        raise BadName(f"{authority!r}: {port_text!r} is not a port")
    return host, int(port_text)


def resolve(
    world: World, mesh: Mesh, authority: str, client: ClientContext
) -> ServiceTarget | AddressTarget | None:
    """Return what an authority means to the client, or None for a name that is not the cluster's.

    A Service need not exist for its full name to be one. Raises BadName.
    """
    host, port = split_port(authority)
    try:
        return AddressTarget(str(ip_address(host)), port)
    except ValueError:
        pass
    name = host.lower().removesuffix(".")
    full = name.removesuffix(f".svc.{mesh.cluster_domain}")
    if full == name:
        full = name.removesuffix(".svc")
    labels = full.split(".")
    if not all(LABEL.fullmatch(label) for label in labels):
        raise BadName(f"{authority!r} is not a DNS name")
    if full != name:
        return _service(labels, port)
    return _short(world, labels, port, client)


def may_appear(
    world: World, mesh: Mesh, target: ServiceTarget | AddressTarget | None, authority: str
) -> bool:
    """Tell whether a target that nothing is known of could be one whose creation has not been heard of yet.

    An address must be the cluster's, a Service's namespace must exist, and a short name must not look like a name of
    the outside (`example.com`, where no namespace `com` exists).
    """
    match target:
        case AddressTarget(ip):
            address = ip_address(ip)
            return any(address in ip_network(cidr) for cidr in mesh.cluster_networks)
        case ServiceTarget(namespace):
            return world.namespace(namespace) is not None
        case None:
            labels = split_port(authority)[0].lower().removesuffix(".").split(".")
            return len(labels) == 1 or (len(labels) <= 3 and world.namespace(labels[-1]) is not None)


def _service(labels: list[str], port: int) -> ServiceTarget | None:
    if len(labels) == 2:
        return ServiceTarget(labels[1], labels[0], port)
    if len(labels) == 3:
        return ServiceTarget(labels[2], labels[1], port, labels[0])
    return None


def _short(world: World, labels: list[str], port: int, client: ClientContext) -> ServiceTarget | None:
    candidates = []
    if len(labels) == 1 and client.namespace:
        candidates = [ServiceTarget(client.namespace, labels[0], port)]
    elif len(labels) == 2:
        candidates = [ServiceTarget(labels[1], labels[0], port)]
        if client.namespace:
            candidates.append(ServiceTarget(client.namespace, labels[1], port, labels[0]))
    elif len(labels) == 3:
        candidates = [ServiceTarget(labels[2], labels[1], port, labels[0])]
    for target in candidates:
        service = world.service(target.namespace, target.name)
        if service is not None and (not target.hostname or service.headless):
            return target
    return None


def parse_workload(text: str) -> ClientContext:
    """Read a workload as proxies name it: `{"ns": …, "pod": …}` or `ns:pod`. Raises BadName."""
    if text.startswith("{"):
        context = parse_context(text)
    else:
        namespace, colon, pod = text.partition(":")
        if not colon:
            raise BadName(f"{text[:200]!r} is not a workload; expected {{'ns': …, 'pod': …}}")
        context = ClientContext(namespace, pod)
    if not context.namespace or not context.pod:
        raise BadName(f"{text[:200]!r} lacks the namespace or the pod of the workload")
    return context


def parse_context(token: str) -> ClientContext:
    """Read the context token that a proxy passes on; unknown keys are left alone, an empty token is allowed.

    Raises BadName when it is neither empty nor a JSON object of strings.
    """
    if not token:
        return ClientContext()
    if len(token) > MAX_CONTEXT_BYTES:
        raise BadName(f"the context has {len(token)} bytes; at most {MAX_CONTEXT_BYTES} are accepted")
    try:
        read = json.loads(token)
    except (ValueError, RecursionError) as error:
        raise BadName(f"the context is not JSON: {error}") from error
    if not isinstance(read, dict):
        raise BadName("the context is not a JSON object")
    values = [read.get(key) or "" for key in ("ns", "pod", "nodeName")]
    if not all(isinstance(value, str) for value in values):
        raise BadName("ns, pod and nodeName of the context must be strings")
    return ClientContext(*values)
