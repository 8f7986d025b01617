"""A container's environment: literals, references to fields, ConfigMaps and Secrets, Service variables, $(VAR). Pure.

`Lookup` is everything it may ask; a reference that leads nowhere raises ConfigError unless it is optional.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from tulle.local.api.objects import Obj
from tulle.local.pods.spec import quantity

__all__ = ["ConfigError", "Lookup", "expand", "field_value", "resolve", "resource_value", "service_variables"]


class ConfigError(Exception):
    """The container's configuration names something that is not there (yet)."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """What a container's environment and files are made from.

    `config_map` and `secret` return the object's data (a Secret's decoded) or None. `pod` is the Pod object with the
    status fields that are known already; `allocatable` is the node's capacity by resource name.
    """

    pod: Obj
    config_map: Callable[[str], Mapping[str, bytes] | None]
    secret: Callable[[str], Mapping[str, bytes] | None]
    allocatable: Mapping[str, str]


def resolve(container: Obj, lookup: Lookup, service_env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a container, in the order in which a cluster lets them override one another.

    Raises ConfigError for a reference that leads nowhere.
    """
    env = dict(service_env)
    for source in container.get("envFrom") or ():
        env.update(_from_source(source, lookup))
    for entry in container.get("env") or ():
        name = entry["name"]
        if entry.get("valueFrom"):
            value = _value_from(entry["valueFrom"], container, lookup)
            if value is not None:
                env[name] = value
        else:
            env[name] = expand(entry.get("value") or "", env)
    return env


_REFERENCE = re.compile(r"\$(\$|\(([^()]*)\))")


def expand(text: str, env: Mapping[str, str]) -> str:
    """Replace $(NAME) by the variable; $$ is a dollar sign; a name that is not defined stays as it is."""

    def value(match: re.Match[str]) -> str:
        if match[1] == "$":
            return "$"
        return env.get(match[2], match[0])

    return _REFERENCE.sub(value, text)


def _from_source(source: Obj, lookup: Lookup) -> Iterable[tuple[str, str]]:
    prefix = source.get("prefix") or ""
    for field, find, kind in (
        ("configMapRef", lookup.config_map, "configmap"),
        ("secretRef", lookup.secret, "secret"),
    ):
        reference = source.get(field)
        if reference:
            data = find(reference["name"])
            if data is None:
                if not reference.get("optional"):
                    raise ConfigError(f'{kind} "{reference["name"]}" not found')
                continue
            for name, value in data.items():
                yield prefix + name, value.decode(errors="replace")


def _value_from(source: Obj, container: Obj, lookup: Lookup) -> str | None:
    if source.get("fieldRef"):
        return field_value(source["fieldRef"]["fieldPath"], lookup.pod)
    if source.get("resourceFieldRef"):
        return resource_value(source["resourceFieldRef"], container, lookup)
    for field, find, kind in (
        ("configMapKeyRef", lookup.config_map, "configmap"),
        ("secretKeyRef", lookup.secret, "secret"),
    ):
        reference = source.get(field)
        if reference:
            data = find(reference["name"])
            if data is not None and reference["key"] in data:
                return data[reference["key"]].decode(errors="replace")
            if reference.get("optional"):
                return None
            if data is None:
                raise ConfigError(f'{kind} "{reference["name"]}" not found')
            where = f"{lookup.pod['metadata'].get('namespace')}/{reference['name']}"
            raise ConfigError(f"couldn't find key {reference['key']} in {kind} {where}")
    raise ConfigError(f"valueFrom {', '.join(source)} is not carried out here")


_SUBSCRIPT = re.compile(r"^metadata\.(labels|annotations)\['(.+)'\]$")


def field_value(path: str, pod: Obj) -> str:
    """Return a field of the pod as the downward API gives it.

    Raises ConfigError for a path that the downward API does not have.
    """
    metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    subscript = _SUBSCRIPT.match(path)
    if subscript:
        return str((metadata.get(subscript[1]) or {}).get(subscript[2], ""))
    match path:
        case "metadata.name" | "metadata.namespace" | "metadata.uid":
            return str(metadata.get(path.removeprefix("metadata."), ""))
        case "metadata.labels" | "metadata.annotations":
            items = (metadata.get(path.removeprefix("metadata.")) or {}).items()
            return "\n".join(f"{name}={_quoted(value)}" for name, value in sorted(items))
        case "spec.nodeName":
            return str(spec.get("nodeName", ""))
        case "spec.serviceAccountName":
            return str(spec.get("serviceAccountName") or "default")
        case "status.podIP" | "status.hostIP":
            return str(status.get(path.removeprefix("status."), ""))
        case "status.podIPs" | "status.hostIPs":
            return ",".join(entry["ip"] for entry in status.get(path.removeprefix("status.")) or ())
    raise ConfigError(f"fieldRef {path!r} is not a field that the downward API has")


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def resource_value(reference: Obj, container: Obj, lookup: Lookup) -> str:
    """Return a resource request or limit in units of its divisor, rounded up; the node's capacity where none is set.

    Raises ConfigError for a container or resource that does not exist.
    """
    resource = reference["resource"]
    wanted = reference.get("containerName")
    if wanted and wanted != container.get("name"):
        spec = lookup.pod["spec"]
        everyone = (*(spec.get("initContainers") or ()), *(spec.get("containers") or ()))
        found = next((c for c in everyone if c["name"] == wanted), None)
        if found is None:
            raise ConfigError(f"resourceFieldRef: container {wanted} not found")
        container = found
    section, _, name = resource.partition(".")
    if section not in ("limits", "requests") or not name:
        raise ConfigError(f"resourceFieldRef {resource!r} is neither limits.NAME nor requests.NAME")
    values = (container.get("resources") or {}).get(section) or {}
    amount = values.get(name)
    if amount is None:
        amount = lookup.allocatable.get(name, "0") if section == "limits" else "0"
    divisor = quantity(reference.get("divisor") or "1") or 1
    return str(math.ceil(quantity(amount) / divisor - 1e-9))


def service_variables(services: Iterable[Obj], *, namespace: str, links: bool) -> dict[str, str]:
    """Return the variables that name Services: those of the pod's namespace if `links`, the API's always."""
    env: dict[str, str] = {}
    for service in services:
        metadata, spec = service["metadata"], service["spec"]
        is_api = metadata["name"] == "kubernetes" and metadata.get("namespace") == "default"
        if not (is_api or (links and metadata.get("namespace") == namespace)):
            continue
        address, ports = spec.get("clusterIP"), spec.get("ports") or ()
        if not address or address == "None" or not ports:
            continue
        prefix = metadata["name"].upper().replace("-", "_").replace(".", "_")
        env[f"{prefix}_SERVICE_HOST"] = address
        env[f"{prefix}_SERVICE_PORT"] = str(ports[0]["port"])
        for port in ports:
            if port.get("name"):
                env[f"{prefix}_SERVICE_PORT_{port['name'].upper().replace('-', '_')}"] = str(port["port"])
        for index, port in enumerate(ports):
            protocol, number = (port.get("protocol") or "TCP"), port["port"]
            url = f"{protocol.lower()}://{address}:{number}"
            if index == 0:
                env[f"{prefix}_PORT"] = url
            stem = f"{prefix}_PORT_{number}_{protocol.upper()}"
            env |= {
                stem: url,
                f"{stem}_PROTO": protocol.lower(),
                f"{stem}_PORT": str(number),
                f"{stem}_ADDR": address,
            }
    return env
