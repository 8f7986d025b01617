"""Linkerd's injection annotations: which there are, what each accepts, and the value in force for one pod.

A value on the pod beats the same one on its namespace; a few are honoured on the pod only, as in Linkerd.
A bad value raises BadAnnotation, which names the annotation, the value and the accepted form: it is refused, never
ignored. An unknown annotation of the prefix is reported as a warning, for a misspelt name would otherwise be silent.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from tulle.kube.words import DEFAULT_POLICIES

__all__ = [
    "CONFIG_PREFIX",
    "DISABLE_TAP",
    "INJECT",
    "SPECS",
    "TAP_ENABLED",
    "BadAnnotation",
    "Settings",
    "parse_ports",
    "settings",
    "unknown",
]

INJECT = "linkerd.io/inject"
CONFIG_PREFIX = "config.linkerd.io/"
# "true" on a pod or its namespace: no tap there. The other is what the injector writes where it serves tap.
DISABLE_TAP = "viz.linkerd.io/disable-tap"
TAP_ENABLED = "viz.linkerd.io/tap-enabled"

# Read by the control plane, not by the injector: known names, so not warned about.
_READ_ELSEWHERE = ("admission-webhooks",)


class BadAnnotation(ValueError):
    """An annotation's value cannot be read; says which, on what, and what is accepted."""

    def __init__(self, name: str, value: str, accepted: str) -> None:
        super().__init__(f"annotation {name}: {value!r} is not valid; accepted: {accepted}")
        self.name, self.value, self.accepted = name, value, accepted


@dataclass(frozen=True)
class Spec:
    """One annotation: how its text is read (ValueError when it cannot be) and the accepted form in words."""

    accepted: str
    parse: Callable[[str], object]
    inherited: bool = True


def parse_ports(text: str) -> tuple[str, ...]:
    """Read a comma list of ports and ranges ('80,8000-8010'); a name of a container port is kept as it is.

    Raises ValueError when a number is outside 1..65535, a range runs backwards, or a name is not a port name.
    """
    items = []
    for item in (part.strip() for part in text.split(",") if part.strip()):
        first, dash, last = item.partition("-")
        if first.isdigit() and (not dash or last.isdigit()):
            low, high = int(first), int(last or first)
            if not 1 <= low <= high <= 65535:
                raise ValueError(item)
        elif not re.fullmatch(r"(?=.*[a-z])[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?", item):
            raise ValueError(item)
        items.append(item)
    return tuple(items)


def _numeric_ports(text: str) -> tuple[str, ...]:
    ports = parse_ports(text)
    if any(not port.replace("-", "").isdigit() for port in ports):
        raise ValueError(text)
    return ports


def _port(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        raise ValueError(text)
    return int(text)


def _whole(text: str) -> int:
    if not re.fullmatch(r"\d{1,10}", text):
        raise ValueError(text)
    return int(text)


def _bool(text: str) -> bool:
    return {"true": True, "false": False}[text]


def _switch(text: str) -> bool:
    return {"enabled": True, "disabled": False}[text]


def _duration(text: str) -> str:
    if not re.fullmatch(r"\d+(ms|s|m|h|d)", text):
        raise ValueError(text)
    return text


def _quantity(text: str) -> str:
    if not re.fullmatch(r"\d+(\.\d+)?([eE][+-]?\d+|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?", text):
        raise ValueError(text)
    return text


def _ratio(text: str) -> float:
    if not 0 < float(text) <= 1:
        raise ValueError(text)
    return float(text)


def _one_of(*values: str) -> Callable[[str], object]:
    def parse(text: str) -> str:
        if text not in values:
            raise ValueError(text)
        return text

    return parse


def _networks(text: str) -> tuple[str, ...]:
    return tuple(str(ip_network(item.strip(), strict=False)) for item in text.split(",") if item.strip())


_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"


def _name_and_port(text: str) -> str:
    name, _, port = text.rpartition(":")
    if not re.fullmatch(rf"{_LABEL}(\.{_LABEL})*\.?", name):
        raise ValueError(text)
    _port(port)
    return text


def _service_account(text: str) -> str:
    if not re.fullmatch(rf"{_LABEL}(\.{_LABEL})?", text):
        raise ValueError(text)
    return text


def _text(text: str) -> str:
    if not text or any(ord(char) < 32 for char in text):
        raise ValueError(text)
    return text


def _environment(text: str) -> tuple[Mapping[str, Any], ...]:
    items = json.loads(text)
    if not isinstance(items, list) or not all(
        isinstance(i, dict) and isinstance(i.get("name"), str) for i in items
    ):
        raise ValueError(text)
    return tuple(items)


_PORT = Spec("a port number, 1-65535", _port)
_PORTS = Spec("a comma list of ports and ranges, such as 80,8000-8010", _numeric_ports)
_DURATION = Spec("a whole number with ms, s, m, h or d, such as 500ms", _duration)
_QUANTITY = Spec("a Kubernetes quantity, such as 100m or 64Mi", _quantity)
_BOOL = Spec("true or false", _bool)
_TEXT = Spec("text", _text)

SPECS: Mapping[str, Spec] = {
    "proxy-image": _TEXT,
    "proxy-version": _TEXT,
    "image-pull-policy": Spec("Always, IfNotPresent or Never", _one_of("Always", "IfNotPresent", "Never")),
    "control-port": _PORT,
    "inbound-port": _PORT,
    "outbound-port": _PORT,
    "admin-port": _PORT,
    "skip-inbound-ports": _PORTS,
    "skip-outbound-ports": _PORTS,
    "skip-subnets": Spec("a comma list of CIDRs, such as 10.0.0.0/8", _networks),
    "opaque-ports": Spec(
        "a comma list of ports, ranges and container port names, such as 3306,db", parse_ports
    ),
    "pod-inbound-ports": _PORTS,
    "close-wait-timeout": _DURATION,
    "proxy-uid": Spec("a user id, a whole number", _whole),
    "proxy-gid": Spec("a group id, a whole number", _whole),
    "proxy-cpu-request": _QUANTITY,
    "proxy-cpu-limit": _QUANTITY,
    "proxy-cpu-ratio-limit": Spec("a ratio above 0, at most 1", _ratio, inherited=False),
    "proxy-memory-request": _QUANTITY,
    "proxy-memory-limit": _QUANTITY,
    "proxy-ephemeral-storage-request": _QUANTITY,
    "proxy-ephemeral-storage-limit": _QUANTITY,
    "proxy-await": Spec("enabled or disabled", _switch),
    "proxy-enable-native-sidecar": _BOOL,
    "proxy-wait-before-exit-seconds": Spec("a whole number of seconds", _whole),
    "shutdown-grace-period": _DURATION,
    "proxy-admin-shutdown": Spec("enabled or disabled", _switch),
    "proxy-log-level": _TEXT,
    "proxy-log-format": Spec("plain or json", _one_of("plain", "json")),
    "proxy-log-http-headers": Spec("off or insecure", _one_of("off", "insecure")),
    "trace-collector": Spec("a name with a port, such as collector.tracing:4317", _name_and_port),
    "trace-collector-service-account": Spec(
        "a ServiceAccount, with its namespace where that is not the collector's, such as collector.tracing",
        _service_account,
    ),
    "access-log": Spec("apache or json", _one_of("apache", "json")),
    "proxy-outbound-connect-timeout": _DURATION,
    "proxy-inbound-connect-timeout": _DURATION,
    "proxy-outbound-discovery-cache-unused-timeout": _DURATION,
    "proxy-inbound-discovery-cache-unused-timeout": _DURATION,
    "proxy-disable-outbound-protocol-detect-timeout": _BOOL,
    "proxy-disable-inbound-protocol-detect-timeout": _BOOL,
    "enable-external-profiles": _BOOL,
    "enable-gateway": Spec("true or false", _bool, inherited=False),
    "proxy-require-identity-inbound-ports": _PORTS,
    "default-inbound-policy": Spec(", ".join(DEFAULT_POLICIES), _one_of(*DEFAULT_POLICIES)),
    "proxy-metrics-hostname-labels": _BOOL,
    "proxy-additional-env": Spec(
        'a JSON list of variables, such as [{"name":"A","value":"b"}]', _environment
    ),
}

# Spellings that Linkerd still reads.
_ALIASES = {
    "config.alpha.linkerd.io/proxy-wait-before-exit-seconds": "proxy-wait-before-exit-seconds",
    "config.alpha.linkerd.io/proxy-enable-native-sidecar": "proxy-enable-native-sidecar",
    "config.beta.linkerd.io/proxy-enable-native-sidecar": "proxy-enable-native-sidecar",
    "config.alpha.linkerd.io/trace-collector-service-account": "trace-collector-service-account",
}

Settings = Mapping[str, Any]


def _collect(annotations: Mapping[str, str], *, of_namespace: bool) -> dict[str, Any]:
    values = {}
    for full_name, text in annotations.items():
        name = _ALIASES.get(full_name) or (
            full_name.removeprefix(CONFIG_PREFIX) if full_name.startswith(CONFIG_PREFIX) else ""
        )
        spec = SPECS.get(name)
        if spec is None or (of_namespace and not spec.inherited):
            continue
        try:
            values[name] = spec.parse(text)
        except (ValueError, KeyError) as error:
            raise BadAnnotation(full_name, text, spec.accepted) from error
    return values


def settings(pod: Mapping[str, str], namespace: Mapping[str, str]) -> Settings:
    """Return the parsed values in force, by short name; raises BadAnnotation."""
    merged = _collect(namespace, of_namespace=True)
    extra = merged.get("proxy-additional-env", ())
    own = _collect(pod, of_namespace=False)
    merged.update(own)
    if extra and "proxy-additional-env" in own:
        named = {item["name"] for item in own["proxy-additional-env"]}
        merged["proxy-additional-env"] = (
            *own["proxy-additional-env"],
            *(item for item in extra if item["name"] not in named),
        )
    return merged


def unknown(annotations: Mapping[str, str]) -> list[str]:
    """Return the annotations with Linkerd's configuration prefix that nothing here reads, sorted."""
    return sorted(
        name
        for name in annotations
        if name.startswith(CONFIG_PREFIX)
        and name.removeprefix(CONFIG_PREFIX) not in SPECS
        and name.removeprefix(CONFIG_PREFIX) not in _READ_ELSEWHERE
    )
