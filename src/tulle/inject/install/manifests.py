"""The objects of an installation, in the order they are to be applied.

One Deployment `tulle-controller` serves all roles behind Linkerd's Service names, with the same sidecar that the
webhook gives to everyone, added here by the same function. Pure: keys and certificates are handed in.
"""

import base64
from typing import Any

from tulle.inject.config import InjectConfig
from tulle.inject.install.certificates import Pair
from tulle.inject.install.crds import crds
from tulle.inject.install.values import InstallValues, inject_config, write_values
from tulle.inject.pod import Injected, inject

__all__ = ["CONFIG_DIR", "CONTROLLER", "ISSUER_DIR", "TLS_DIR", "TRUST_ROOTS_DIR", "manifests"]

Obj = dict[str, Any]

CONTROLLER = "tulle-controller"
CONFIG_DIR = "/var/run/linkerd/config"
TRUST_ROOTS_DIR = "/var/run/linkerd/identity/trust-roots"
ISSUER_DIR = "/var/run/linkerd/identity/issuer"
TLS_DIR = "/var/run/linkerd/tls"
MOUNTED = {"config": CONFIG_DIR, "trust-roots": TRUST_ROOTS_DIR, "issuer": ISSUER_DIR, "tls": TLS_DIR}
"""Volumes of the controller's pod, by where its container reads them."""

GRPC_IDENTITY, GRPC_DESTINATION, GRPC_POLICY, WEBHOOK, ADMIN = 8080, 8086, 8090, 8443, 9990

# Everything the control plane reads, by API group.
READS = {
    "": ["pods", "services", "endpoints", "namespaces", "nodes", "serviceaccounts"],
    "apps": ["deployments", "replicasets", "statefulsets", "daemonsets"],
    "batch": ["jobs", "cronjobs"],
    "discovery.k8s.io": ["endpointslices"],
    "gateway.networking.k8s.io": ["httproutes"],
    "policy.linkerd.io": [
        "servers",
        "authorizationpolicies",
        "meshtlsauthentications",
        "networkauthentications",
        "httproutes",
    ],
}


def manifests(
    values: InstallValues, anchor: Pair, issuer: Pair, webhook_ca: Pair, webhook: Pair
) -> list[Obj]:
    """Return all objects of the installation; the anchor's key is not among them."""
    roots = anchor.certificate_pem
    return [
        _namespace(values),
        *crds(gateway_api=values.gateway_api_crds),
        *_rbac(values),
        _config_map(values, "linkerd-config", {"values": write_values(values)}),
        _config_map(values, "linkerd-identity-trust-roots", {"ca-bundle.crt": roots}),
        _secret(
            values,
            "linkerd-identity-issuer",
            "linkerd.io/tls",
            {"crt.pem": issuer.certificate_pem, "key.pem": issuer.key_pem},
        ),
        _secret(
            values,
            "linkerd-proxy-injector-k8s-tls",
            "kubernetes.io/tls",
            {"tls.crt": webhook.certificate_pem, "tls.key": webhook.key_pem},
        ),
        *_services(values),
        _deployment(values, inject_config(values, roots, beside_controller=True)),
        *_webhooks(values, webhook_ca.certificate_pem),
    ]


def _labels(values: InstallValues) -> dict[str, str]:
    return {
        "linkerd.io/control-plane-component": "controller",
        "linkerd.io/control-plane-ns": values.namespace,
        "app.kubernetes.io/name": "tulle",
        "app.kubernetes.io/part-of": "tulle",
    }


def _meta(values: InstallValues, name: str, *, namespaced: bool = True) -> Obj:
    return {
        "name": name,
        **({"namespace": values.namespace} if namespaced else {}),
        "labels": _labels(values),
    }


def _namespace(values: InstallValues) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": values.namespace,
            "annotations": {"linkerd.io/inject": "disabled"},
            "labels": {
                "linkerd.io/is-control-plane": "true",
                "linkerd.io/control-plane-ns": values.namespace,
                "config.linkerd.io/admission-webhooks": "disabled",
                "pod-security.kubernetes.io/enforce": "privileged",
            },
        },
    }


def _config_map(values: InstallValues, name: str, data: dict[str, str]) -> Obj:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _meta(values, name), "data": data}


def _secret(values: InstallValues, name: str, kind: str, data: dict[str, str]) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": kind,
        "metadata": _meta(values, name),
        "stringData": data,
    }


def _rbac(values: InstallValues) -> list[Obj]:
    subject = {"kind": "ServiceAccount", "name": CONTROLLER, "namespace": values.namespace}
    group = "rbac.authorization.k8s.io"
    rules: list[Obj] = [
        {"apiGroups": [api], "resources": resources, "verbs": ["get", "list", "watch"]}
        for api, resources in READS.items()
    ]
    rules += [
        {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
        {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
        {
            "apiGroups": ["gateway.networking.k8s.io", "policy.linkerd.io"],
            "resources": ["httproutes/status", "servers/status"],
            "verbs": ["patch", "update"],
        },
    ]
    own = [
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "verbs": ["get", "create", "update", "patch"],
        },
        {
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": ["linkerd-identity-issuer"],
            "verbs": ["get", "list", "watch"],
        },
        {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "resourceNames": ["linkerd-config", "linkerd-identity-trust-roots"],
            "verbs": ["get", "list", "watch"],
        },
    ]
    cluster_name = f"linkerd-{values.namespace}-{CONTROLLER}"
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _meta(values, CONTROLLER)},
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRole",
            "metadata": _meta(values, cluster_name, namespaced=False),
            "rules": rules,
        },
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": _meta(values, cluster_name, namespaced=False),
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": cluster_name},
            "subjects": [subject],
        },
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": _meta(values, CONTROLLER), "rules": own},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": _meta(values, CONTROLLER),
            "roleRef": {"apiGroup": group, "kind": "Role", "name": CONTROLLER},
            "subjects": [subject],
        },
    ]


def _services(values: InstallValues) -> list[Obj]:
    def service(name: str, port_name: str, port: int, target: int, *, headless: bool = False) -> Obj:
        spec: Obj = {
            "selector": {"linkerd.io/control-plane-component": "controller"},
            "ports": [{"name": port_name, "port": port, "targetPort": target, "protocol": "TCP"}],
        }
        if headless:
            spec["clusterIP"] = "None"
        return {"apiVersion": "v1", "kind": "Service", "metadata": _meta(values, name), "spec": spec}

    return [
        service("linkerd-identity", "ident-grpc", GRPC_IDENTITY, GRPC_IDENTITY),
        service("linkerd-identity-headless", "ident-grpc", GRPC_IDENTITY, GRPC_IDENTITY, headless=True),
        service("linkerd-dst", "dest-grpc", GRPC_DESTINATION, GRPC_DESTINATION),
        service("linkerd-dst-headless", "dest-grpc", GRPC_DESTINATION, GRPC_DESTINATION, headless=True),
        service("linkerd-policy", "policy-grpc", GRPC_POLICY, GRPC_POLICY, headless=True),
        service("linkerd-proxy-injector", "https", 443, WEBHOOK),
        service("tulle-viz", "admin-http", ADMIN, ADMIN),
    ]


def _controller(values: InstallValues) -> Obj:
    roles = "identity,destination,policy,inject"
    return {
        "name": "controller",
        "image": values.controller_image,
        "imagePullPolicy": values.image_pull_policy,
        "args": ["controller", "--roles", roles, "--namespace", values.namespace],
        "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
        + [
            {"name": f"TULLE_{name.upper().replace('-', '_')}_DIR", "value": path}
            for name, path in MOUNTED.items()
        ],
        "ports": [
            {"name": "ident-grpc", "containerPort": GRPC_IDENTITY},
            {"name": "dest-grpc", "containerPort": GRPC_DESTINATION},
            {"name": "policy-grpc", "containerPort": GRPC_POLICY},
            {"name": "webhook", "containerPort": WEBHOOK},
            {"name": "admin-http", "containerPort": ADMIN},
        ],
        "livenessProbe": {"httpGet": {"path": "/live", "port": ADMIN}, "initialDelaySeconds": 10},
        "readinessProbe": {
            "httpGet": {"path": "/ready", "port": ADMIN},
            "periodSeconds": 1,
            "failureThreshold": 7,
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": 2103,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            {"name": name, "mountPath": path, "readOnly": True} for name, path in MOUNTED.items()
        ],
    }


def _pod_template(values: InstallValues) -> Obj:
    return {
        "metadata": {
            "labels": _labels(values),
            "annotations": {
                "linkerd.io/inject": "enabled",
                # The API server is dialled by address, before there is an identity; its TLS is its own.
                "config.linkerd.io/skip-outbound-ports": "443,6443",
                "config.linkerd.io/opaque-ports": str(WEBHOOK),
                "config.linkerd.io/default-inbound-policy": "all-unauthenticated",
            },
        },
        "spec": {
            "serviceAccountName": CONTROLLER,
            "containers": [_controller(values)],
            "volumes": [
                {"name": "config", "configMap": {"name": "linkerd-config"}},
                {"name": "trust-roots", "configMap": {"name": "linkerd-identity-trust-roots"}},
                {"name": "issuer", "secret": {"secretName": "linkerd-identity-issuer"}},
                {"name": "tls", "secret": {"secretName": "linkerd-proxy-injector-k8s-tls"}},
            ],
        },
    }


def _deployment(values: InstallValues, config: InjectConfig) -> Obj:
    outcome = inject(_pod_template(values), {"metadata": {"name": values.namespace}}, config)
    assert isinstance(outcome, Injected)
    # The proxy is certified by the container beside it, so it must not hold that container back: no startup gate.
    for container in outcome.pod["spec"].get("initContainers", []):
        container.pop("startupProbe", None)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _meta(values, CONTROLLER),
        "spec": {
            "replicas": values.replicas,
            "revisionHistoryLimit": 10,
            "selector": {"matchLabels": {"linkerd.io/control-plane-component": "controller"}},
            "template": outcome.pod,
        },
    }


def _hook(values: InstallValues, ca_bundle: str, name: str, path: str, rules: list[Obj]) -> Obj:
    return {
        "name": name,
        "clientConfig": {
            "service": {"name": "linkerd-proxy-injector", "namespace": values.namespace, "path": path},
            "caBundle": base64.b64encode(ca_bundle.encode()).decode(),
        },
        "rules": rules,
        "failurePolicy": values.webhook_failure_policy,
        "namespaceSelector": {
            "matchExpressions": [
                {
                    "key": "config.linkerd.io/admission-webhooks",
                    "operator": "NotIn",
                    "values": ["disabled"],
                },
                {
                    "key": "kubernetes.io/metadata.name",
                    "operator": "NotIn",
                    "values": list(InjectConfig.never_inject),
                },
            ]
        },
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 10,
    }


def _rule(group: str, versions: list[str], resources: list[str], operations: list[str]) -> Obj:
    return {
        "apiGroups": [group],
        "apiVersions": versions,
        "resources": resources,
        "operations": operations,
        "scope": "Namespaced",
    }


def _webhooks(values: InstallValues, ca_bundle: str) -> list[Obj]:
    group, changes = "admissionregistration.k8s.io/v1", ["CREATE", "UPDATE"]
    injector = _hook(
        values,
        ca_bundle,
        "linkerd-proxy-injector.linkerd.io",
        "/mutate",
        [_rule("", ["v1"], ["pods", "services"], ["CREATE"])],
    )
    injector["objectSelector"] = {
        "matchExpressions": [
            {"key": "linkerd.io/control-plane-component", "operator": "DoesNotExist"},
            {"key": "linkerd.io/cni-resource", "operator": "DoesNotExist"},
        ]
    }
    validator = _hook(
        values,
        ca_bundle,
        "linkerd-policy-validator.linkerd.io",
        "/validate",
        [
            _rule("policy.linkerd.io", ["*"], READS["policy.linkerd.io"], changes),
            _rule("gateway.networking.k8s.io", ["*"], ["httproutes"], changes),
        ],
    )
    return [
        {
            "apiVersion": group,
            "kind": "MutatingWebhookConfiguration",
            "metadata": _meta(values, "linkerd-proxy-injector-webhook-config", namespaced=False),
            "webhooks": [injector],
        },
        {
            "apiVersion": group,
            "kind": "ValidatingWebhookConfiguration",
            "metadata": _meta(values, "linkerd-policy-validator-webhook-config", namespaced=False),
            "webhooks": [validator],
        },
    ]
