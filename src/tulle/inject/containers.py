"""The two containers that injection adds and their volumes, rendered from config and annotation values.

Names, paths and variables are Linkerd's (source: its 2.20 chart partials), so that tooling which looks for them
finds them; what is only ours has the prefix TULLE_PROXY_.
"""

import json
import math
from collections.abc import Iterable
from typing import Any

from tulle.inject.annotations import Settings, parse_ports
from tulle.inject.config import InjectConfig

__all__ = ["inbound_ports", "init_container", "proxy_container", "volumes"]

Obj = dict[str, Any]

TOKEN_DIR = "/var/run/secrets/tokens"
TOKEN_FILE = "linkerd-identity-token"
KEY_DIR = "/var/run/linkerd/identity/end-entity"
DETECT_DISABLED = "365d"
"""How Linkerd's annotation says that detection never gives up."""


def _literal(name: str, value: object) -> Obj:
    return {"name": name, "value": str(value)}


def _field(name: str, path: str) -> Obj:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def inbound_ports(spec: Obj) -> list[int]:
    """Return the ports the pod's containers declare and the numeric ports of their HTTP probes, sorted."""
    ports = set()
    for container in [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]:
        for port in container.get("ports") or []:
            if port.get("protocol", "TCP") == "TCP":
                ports.add(int(port["containerPort"]))
        for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
            port = ((container.get(probe) or {}).get("httpGet") or {}).get("port")
            if isinstance(port, int):
                ports.add(port)
    return sorted(ports)


def _opaque_numbers(spec: Obj, ports: Iterable[str]) -> str:
    """Return the opaque ports as numbers and ranges: names are looked up in the pod's container ports."""
    named = {
        port["name"]: str(port["containerPort"])
        for container in spec.get("containers") or []
        for port in container.get("ports") or []
        if port.get("name")
    }
    numbers = (port if port.replace("-", "").isdigit() else named.get(port) for port in ports)
    return ",".join(number for number in numbers if number)


def _environment(spec: Obj, config: InjectConfig, values: Settings, *, ingress: bool) -> list[Obj]:
    """Return the proxy's variables; what refers to another by $(NAME) stands behind it."""
    return [
        *_pod_facts(config),
        *_control_plane(config, values),
        *_listeners(config, values),
        *_ports(spec, config, values),
        *_timeouts(values),
        *_identity(config),
        *_features(config, values, ingress=ingress),
        *(dict(item) for item in values.get("proxy-additional-env", ())),
    ]


def _pod_facts(config: InjectConfig) -> list[Obj]:
    return [
        _field("_pod_name", "metadata.name"),
        _field("_pod_ns", "metadata.namespace"),
        _field("_pod_uid", "metadata.uid"),
        _field("_pod_ip", "status.podIP"),
        _field("_pod_ips", "status.podIPs"),
        _field("_pod_nodeName", "spec.nodeName"),
        _field("_pod_sa", "spec.serviceAccountName"),
        _literal("_l5d_ns", config.control_plane_namespace),
        _literal("_l5d_trustdomain", config.trust_domain),
    ]


def _service(config: InjectConfig, service: str, port: int) -> str:
    """Return where a service of the control plane is, as seen by this pod's proxy."""
    if config.beside_controller:
        return f"localhost.:{port}"
    return f"{service}.{config.control_plane_namespace}.svc.{config.cluster_domain}.:{port}"


def _identity_suffix(config: InjectConfig) -> str:
    return f"serviceaccount.identity.{config.control_plane_namespace}.{config.trust_domain}"


def _controller_identity(config: InjectConfig) -> str:
    account, namespace = config.controller_service_account, config.control_plane_namespace
    return f"{account}.{namespace}.{_identity_suffix(config)}"


def _control_plane(config: InjectConfig, values: Settings) -> list[Obj]:
    controller = _controller_identity(config)
    return [
        _literal("LINKERD2_PROXY_LOG", _log_level(config, values)),
        _literal("LINKERD2_PROXY_LOG_FORMAT", values.get("proxy-log-format", config.log_format)),
        _literal("LINKERD2_PROXY_DESTINATION_SVC_ADDR", _service(config, "linkerd-dst-headless", 8086)),
        _literal("LINKERD2_PROXY_DESTINATION_SVC_NAME", controller),
        _literal("LINKERD2_PROXY_DESTINATION_PROFILE_NETWORKS", config.cluster_networks),
        _literal("LINKERD2_PROXY_DESTINATION_PROFILE_SUFFIXES", f"svc.{config.cluster_domain}."),
        _literal(
            "LINKERD2_PROXY_DESTINATION_CONTEXT",
            json.dumps({"ns": "$(_pod_ns)", "nodeName": "$(_pod_nodeName)", "pod": "$(_pod_name)"}),
        ),
        _literal("LINKERD2_PROXY_POLICY_SVC_ADDR", _service(config, "linkerd-policy", 8090)),
        _literal("LINKERD2_PROXY_POLICY_SVC_NAME", controller),
        _literal("LINKERD2_PROXY_POLICY_WORKLOAD", json.dumps({"ns": "$(_pod_ns)", "pod": "$(_pod_name)"})),
        _literal("LINKERD2_PROXY_POLICY_CLUSTER_NETWORKS", config.cluster_networks),
        _literal(
            "LINKERD2_PROXY_INBOUND_DEFAULT_POLICY",
            values.get("default-inbound-policy", config.default_inbound_policy),
        ),
        _literal("LINKERD2_PROXY_CONTROL_STREAM_INITIAL_TIMEOUT", "3s"),
        _literal("LINKERD2_PROXY_CONTROL_STREAM_IDLE_TIMEOUT", "5m"),
        _literal("LINKERD2_PROXY_CONTROL_STREAM_LIFETIME", "1h"),
    ]


def _listeners(config: InjectConfig, values: Settings) -> list[Obj]:
    explicit = config.capture == "explicit"
    # Captured traffic arrives on loopback; explicit clients dial the pod's address.
    outbound = "$(_pod_ip)" if explicit else "127.0.0.1"
    anywhere = "$(_pod_ip)" if explicit else "0.0.0.0"

    def listener(name: str, ip: str, annotation: str, default: int) -> Obj:
        return _literal(f"LINKERD2_PROXY_{name}_LISTEN_ADDR", f"{ip}:{values.get(annotation, default)}")

    return [
        listener("CONTROL", anywhere, "control-port", config.control_port),
        listener("ADMIN", anywhere, "admin-port", config.admin_port),
        listener("OUTBOUND", outbound, "outbound-port", config.outbound_port),
        listener("INBOUND", anywhere, "inbound-port", config.inbound_port),
    ]


def _ports(spec: Obj, config: InjectConfig, values: Settings) -> list[Obj]:
    opaque = values.get("opaque-ports", parse_ports(config.opaque_ports))
    return [
        _literal("LINKERD2_PROXY_INBOUND_IPS", "$(_pod_ips)"),
        _literal("LINKERD2_PROXY_INBOUND_PORTS", ",".join(map(str, inbound_ports(spec)))),
        _literal("LINKERD2_PROXY_INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION", _opaque_numbers(spec, opaque)),
    ]


def _timeouts(values: Settings) -> list[Obj]:
    return [
        _literal(
            "LINKERD2_PROXY_OUTBOUND_CONNECT_TIMEOUT", values.get("proxy-outbound-connect-timeout", "1000ms")
        ),
        _literal(
            "LINKERD2_PROXY_INBOUND_CONNECT_TIMEOUT", values.get("proxy-inbound-connect-timeout", "100ms")
        ),
        _literal(
            "LINKERD2_PROXY_OUTBOUND_DISCOVERY_IDLE_TIMEOUT",
            values.get("proxy-outbound-discovery-cache-unused-timeout", "5s"),
        ),
        _literal(
            "LINKERD2_PROXY_INBOUND_DISCOVERY_IDLE_TIMEOUT",
            values.get("proxy-inbound-discovery-cache-unused-timeout", "90s"),
        ),
        _literal("LINKERD2_PROXY_INBOUND_ACCEPT_KEEPALIVE", "10000ms"),
        _literal("LINKERD2_PROXY_OUTBOUND_CONNECT_KEEPALIVE", "10000ms"),
    ]


def _identity(config: InjectConfig) -> list[Obj]:
    return [
        _literal("LINKERD2_PROXY_IDENTITY_DIR", KEY_DIR),
        _literal("LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS", config.trust_anchors),
        _literal("LINKERD2_PROXY_IDENTITY_TOKEN_FILE", f"{TOKEN_DIR}/{TOKEN_FILE}"),
        _literal("LINKERD2_PROXY_IDENTITY_SVC_ADDR", _service(config, "linkerd-identity-headless", 8080)),
        _literal("LINKERD2_PROXY_IDENTITY_SVC_NAME", _controller_identity(config)),
        _literal("LINKERD2_PROXY_IDENTITY_LOCAL_NAME", f"$(_pod_sa).$(_pod_ns).{_identity_suffix(config)}"),
    ]


def _features(config: InjectConfig, values: Settings, *, ingress: bool) -> list[Obj]:
    """Return what is set only where an annotation or the installation asks for it."""
    services = f"svc.{config.cluster_domain}."
    asked: list[Obj] = []
    if values.get("proxy-disable-outbound-protocol-detect-timeout"):
        asked.append(_literal("LINKERD2_PROXY_OUTBOUND_DETECT_TIMEOUT", DETECT_DISABLED))
    if values.get("proxy-disable-inbound-protocol-detect-timeout"):
        asked.append(_literal("LINKERD2_PROXY_INBOUND_DETECT_TIMEOUT", DETECT_DISABLED))
    if "shutdown-grace-period" in values:
        asked.append(_literal("LINKERD2_PROXY_SHUTDOWN_GRACE_PERIOD", values["shutdown-grace-period"]))
    if values.get("proxy-admin-shutdown"):
        asked.append(_literal("LINKERD2_PROXY_SHUTDOWN_ENDPOINT_ENABLED", "true"))
    if "access-log" in values:
        asked.append(_literal("LINKERD2_PROXY_ACCESS_LOG", values["access-log"]))
    if "proxy-require-identity-inbound-ports" in values:
        required = ",".join(values["proxy-require-identity-inbound-ports"])
        asked.append(_literal("LINKERD2_PROXY_INBOUND_PORTS_REQUIRE_IDENTITY", required))
    if config.tap_identity:
        asked.append(_literal("LINKERD2_PROXY_TAP_SVC_NAME", config.tap_identity))
    if values.get("enable-gateway"):
        asked.append(_literal("LINKERD2_PROXY_INBOUND_GATEWAY_SUFFIXES", services))
    if values.get("proxy-metrics-hostname-labels"):
        asked.append(_literal("LINKERD2_PROXY_OUTBOUND_METRICS_HOSTNAME_LABELS", "true"))
    if ingress:
        asked.append(_literal("LINKERD2_PROXY_INGRESS_MODE", "true"))
    cores = _cores(values)
    if cores:
        asked.append(_literal("LINKERD2_PROXY_CORES", cores))
    if "proxy-cpu-ratio-limit" in values:
        asked.append(_literal("LINKERD2_PROXY_CORES_MAX_RATIO", values["proxy-cpu-ratio-limit"]))
    if config.proxy_mark:
        asked.append(_literal("TULLE_PROXY_MARK", config.proxy_mark))
    return asked


def _log_level(config: InjectConfig, values: Settings) -> str:
    level = str(values.get("proxy-log-level", config.log_level))
    if values.get("proxy-log-http-headers", "off") == "off":
        level += ",[{headers}]=off,[{request}]=off"
    return level


def _cores(values: Settings) -> int:
    """Return the worker threads that the CPU limit (else the request) asks for, rounded up; 0 when neither is set."""
    text = values.get("proxy-cpu-limit") or values.get("proxy-cpu-request")
    if not text:
        return 0
    return max(1, math.ceil(float(text[:-1]) / 1000 if text.endswith("m") else float(text)))


def _seconds(duration: str) -> int:
    """Return a checked duration such as "90s" in whole seconds, rounded up."""
    number, unit = int(duration.rstrip("mshd")), duration.lstrip("0123456789")
    return math.ceil(number * {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}[unit])


def _resources(values: Settings) -> Obj:
    resources: Obj = {}
    for kind in ("request", "limit"):
        named = {
            resource: values[f"proxy-{resource}-{kind}"]
            for resource in ("cpu", "memory", "ephemeral-storage")
            if f"proxy-{resource}-{kind}" in values
        }
        if named:
            resources[f"{kind}s"] = named
    return resources


def _http_probe(path: str, port: int, **timing: int) -> Obj:
    return {"httpGet": {"path": path, "port": port}, "timeoutSeconds": 1, **timing}


def _image(config: InjectConfig, values: Settings) -> str:
    name, _, tag = (
        config.proxy_image.rpartition(":") if ":" in config.proxy_image else (config.proxy_image, "", "")
    )
    image = str(values.get("proxy-image", name or config.proxy_image))
    return f"{image}:{values.get('proxy-version', tag or config.proxy_version)}"


def proxy_container(spec: Obj, config: InjectConfig, values: Settings, *, native: bool, ingress: bool) -> Obj:
    """Return the container `linkerd-proxy` for a pod of this spec."""
    admin = int(values.get("admin-port", config.admin_port))
    security: Obj = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "runAsUser": int(values.get("proxy-uid", config.proxy_uid)),
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    if "proxy-gid" in values:
        security["runAsGroup"] = values["proxy-gid"]
    container: Obj = {
        "name": "linkerd-proxy",
        "image": _image(config, values),
        "imagePullPolicy": values.get("image-pull-policy", config.image_pull_policy),
        "env": _environment(spec, config, values, ingress=ingress),
        "ports": [
            {"name": "linkerd-proxy", "containerPort": int(values.get("inbound-port", config.inbound_port))},
            {"name": "linkerd-out", "containerPort": int(values.get("outbound-port", config.outbound_port))},
            {"name": "linkerd-admin", "containerPort": admin},
        ],
        "livenessProbe": _http_probe("/live", admin, initialDelaySeconds=10),
        "readinessProbe": _http_probe("/ready", admin, initialDelaySeconds=0 if native else 2),
        "resources": _resources(values),
        "securityContext": security,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"mountPath": KEY_DIR, "name": "linkerd-identity-end-entity"},
            {"mountPath": TOKEN_DIR, "name": "linkerd-identity-token"},
        ],
    }
    if native:
        container["restartPolicy"] = "Always"
        container["startupProbe"] = _http_probe("/ready", admin, periodSeconds=1, failureThreshold=120)
    elif values.get("proxy-wait-before-exit-seconds"):
        container["lifecycle"] = {"preStop": {"sleep": {"seconds": values["proxy-wait-before-exit-seconds"]}}}
    return container


def init_container(config: InjectConfig, values: Settings) -> Obj:
    """Return the container `linkerd-init`, which writes the pod's packet-filter rules and ends."""
    admin, control = (
        values.get("admin-port", config.admin_port),
        values.get("control-port", config.control_port),
    )
    skip_inbound = values.get("skip-inbound-ports", parse_ports(config.skip_inbound_ports))
    skip_outbound = values.get("skip-outbound-ports", parse_ports(config.skip_outbound_ports))
    args = [
        "init",
        "--incoming-proxy-port",
        str(values.get("inbound-port", config.inbound_port)),
        "--outgoing-proxy-port",
        str(values.get("outbound-port", config.outbound_port)),
        "--proxy-uid",
        str(values.get("proxy-uid", config.proxy_uid)),
        "--inbound-ports-to-ignore",
        ",".join([str(control), str(admin), *skip_inbound]),
        "--outbound-ports-to-ignore",
        ",".join(skip_outbound),
    ]
    if "proxy-gid" in values:
        args += ["--proxy-gid", str(values["proxy-gid"])]
    if values.get("skip-subnets"):
        args += ["--subnets-to-ignore", ",".join(values["skip-subnets"])]
    if values.get("close-wait-timeout"):
        args += ["--timeout-close-wait-secs", str(_seconds(values["close-wait-timeout"]))]
    if config.proxy_mark:
        args += ["--proxy-mark", config.proxy_mark]
    # Its arguments are Tulle's, so another sidecar's image cannot stand for it.
    image = _image(config, {} if "proxy-image" in values else values)
    return {
        "name": "linkerd-init",
        "image": image,
        "imagePullPolicy": values.get("image-pull-policy", config.image_pull_policy),
        "args": args,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"add": ["NET_ADMIN", "NET_RAW"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "runAsUser": 0,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"mountPath": "/run", "name": "linkerd-proxy-init-xtables-lock"}],
    }


def volumes(config: InjectConfig) -> list[Obj]:
    """Return the volumes of the two containers."""
    token: Obj = {
        "name": "linkerd-identity-token",
        "projected": {
            "sources": [
                {
                    "serviceAccountToken": {
                        "audience": config.token_audience,
                        "expirationSeconds": config.token_expiry_seconds,
                        "path": TOKEN_FILE,
                    }
                }
            ]
        },
    }
    keys: Obj = {"name": "linkerd-identity-end-entity", "emptyDir": {"medium": "Memory"}}
    lock: Obj = {"name": "linkerd-proxy-init-xtables-lock", "emptyDir": {}}
    return [*([lock] if config.capture == "init" else []), keys, token]
