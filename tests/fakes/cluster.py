"""Builders of Kubernetes objects as plain data, with the few fields that a test is about."""

from typing import Any

Obj = dict[str, Any]
GATEWAY = "gateway.networking.k8s.io"
POLICY = "policy.linkerd.io"


def obj(
    kind: str,
    name: str,
    api: str = "v1",
    ns: str = "default",
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    created: str = "2026-01-01T00:00:00Z",
    owner: tuple[str, str] | None = None,
    **rest: Any,
) -> Obj:
    metadata: Obj = {
        "name": name,
        "namespace": ns,
        "uid": f"{kind}-{ns}-{name}",
        "labels": labels or {},
        "annotations": annotations or {},
        "creationTimestamp": created,
    }
    if owner is not None:
        metadata["ownerReferences"] = [{"kind": owner[0], "name": owner[1], "uid": "u", "controller": True}]
    if not ns:
        del metadata["namespace"]
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **rest}


def namespace(name: str, annotations: dict[str, str] | None = None) -> Obj:
    return obj("Namespace", name, ns="", annotations=annotations)


def node(name: str, zone: str = "") -> Obj:
    return obj("Node", name, ns="", labels={"topology.kubernetes.io/zone": zone} if zone else {})


def service(name: str, ip: str = "10.96.0.5", ns: str = "default", ports: Any = None, **spec: Any) -> Obj:
    annotations = spec.pop("annotations", None)
    created = spec.pop("created", "2026-01-01T00:00:00Z")
    return obj(
        "Service",
        name,
        ns=ns,
        annotations=annotations,
        created=created,
        spec={
            "clusterIP": ip,
            "selector": {"app": name},
            "ports": ports or [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
            **spec,
        },
    )


def pod(
    name: str,
    ip: str,
    ns: str = "default",
    app: str = "voting",
    meshed: bool = True,
    ports: Any = None,
    containers: Any = None,
    annotations: dict[str, str] | None = None,
    owner: tuple[str, str] | None = None,
    **spec: Any,
) -> Obj:
    labels = {"app": app, "pod-template-hash": "abc"}
    if meshed:
        labels["linkerd.io/control-plane-ns"] = "linkerd"
    return obj(
        "Pod",
        name,
        ns=ns,
        labels=labels,
        annotations=annotations,
        owner=owner,
        spec={
            "nodeName": "n1",
            "serviceAccountName": app,
            "containers": containers
            or [{"name": app, "ports": ports or [{"name": "web", "containerPort": 8080, "protocol": "TCP"}]}],
            **spec,
        },
        status={"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]},
    )


def endpoint(pod_name: str, ip: str, ns: str = "default", ready: bool = True, **rest: Any) -> Obj:
    return {
        "addresses": [ip],
        "conditions": {"ready": ready},
        "nodeName": "n1",
        "targetRef": {"kind": "Pod", "name": pod_name, "namespace": ns},
        **rest,
    }


def slice_of(
    service_name: str, endpoints: list[Obj], ns: str = "default", port: int = 8080, **rest: Any
) -> Obj:
    suffix = rest.pop("suffix", "x")
    return obj(
        "EndpointSlice",
        f"{service_name}-{suffix}",
        api="discovery.k8s.io/v1",
        ns=ns,
        labels={"kubernetes.io/service-name": service_name},
        addressType=rest.pop("addressType", "IPv4"),
        endpoints=endpoints,
        ports=rest.pop("ports", [{"name": "http", "port": port, "protocol": "TCP"}]),
        **rest,
    )


def route(
    name: str,
    rules: list[Obj],
    parent: Obj | None = None,
    ns: str = "default",
    group: str = GATEWAY,
    created: str = "2026-01-01T00:00:00Z",
    annotations: dict[str, str] | None = None,
    **spec: Any,
) -> Obj:
    return obj(
        "HTTPRoute",
        name,
        api=f"{group}/v1" if group == GATEWAY else f"{group}/v1beta3",
        ns=ns,
        created=created,
        annotations=annotations,
        spec={
            "parentRefs": [parent or {"group": "", "kind": "Service", "name": "voting", "port": 80}],
            "rules": rules,
            **spec,
        },
    )


def server(name: str, port: int | str, ns: str = "default", app: str = "voting", **spec: Any) -> Obj:
    created = spec.pop("created", "2026-01-01T00:00:00Z")
    return obj(
        "Server",
        name,
        api=f"{POLICY}/v1beta3",
        ns=ns,
        created=created,
        spec={"podSelector": {"matchLabels": {"app": app}}, "port": port, **spec},
    )


def policy(name: str, target: tuple[str, str], required: list[Obj], ns: str = "default") -> Obj:
    kind, target_name = target
    group = {"Server": POLICY, "Namespace": "", "HTTPRoute": GATEWAY}[kind]
    return obj(
        "AuthorizationPolicy",
        name,
        api=f"{POLICY}/v1alpha1",
        ns=ns,
        spec={
            "targetRef": {"group": group, "kind": kind, "name": target_name},
            "requiredAuthenticationRefs": required,
        },
    )


def mesh_tls(name: str, ns: str = "default", **spec: Any) -> Obj:
    return obj("MeshTLSAuthentication", name, api=f"{POLICY}/v1alpha1", ns=ns, spec=spec)


def networks(name: str, *cidrs: str, ns: str = "default", except_: list[str] | None = None) -> Obj:
    listed: list[Obj] = [{"cidr": cidr} for cidr in cidrs]
    if except_:
        listed[0]["except"] = except_
    return obj("NetworkAuthentication", name, api=f"{POLICY}/v1alpha1", ns=ns, spec={"networks": listed})


def voting(*more: Obj) -> list[Obj]:
    """The voting Service with one meshed pod of a Deployment, and whatever a test adds."""
    return [
        namespace("default"),
        node("n1", "zone-a"),
        obj("ReplicaSet", "voting-abc", api="apps/v1", owner=("Deployment", "voting-v1")),
        service("voting"),
        pod("voting-1", "10.42.0.3", owner=("ReplicaSet", "voting-abc")),
        slice_of("voting", [endpoint("voting-1", "10.42.0.3", zone="zone-a")]),
        *more,
    ]
