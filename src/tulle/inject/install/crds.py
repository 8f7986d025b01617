"""The custom resource definitions of an installation, built from short descriptions.

Group, kinds, names and fields are Linkerd's (policy.linkerd.io) and the Gateway API's. Structural schemas, so that a
misspelt field is pruned or named by the API server and never reaches us.
"""

from typing import Any

__all__ = ["crds"]

Schema = dict[str, Any]

STRING: Schema = {"type": "string"}
INTEGER: Schema = {"type": "integer", "format": "int32"}
PORT: Schema = {"type": "integer", "format": "int32", "minimum": 1, "maximum": 65535}
PRESERVED: Schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def _enum(*values: str, default: str | None = None) -> Schema:
    return {"type": "string", "enum": list(values), **({"default": default} if default else {})}


def _object(required: str = "", /, **properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        **({"required": required.split()} if required else {}),
    }


def _list(items: Schema, **limits: int) -> Schema:
    return {"type": "array", "items": items, **limits}


def _reference(*kinds: str) -> Schema:
    return _object(
        "kind name", group=STRING, kind=_enum(*kinds) if kinds else STRING, name=STRING, namespace=STRING
    )


SELECTOR = _object(
    matchLabels={"type": "object", "additionalProperties": STRING},
    matchExpressions=_list(_object("key operator", key=STRING, operator=STRING, values=_list(STRING))),
)

HEADER_CHANGE = _object(
    set=_list(_object("name value", name=STRING, value=STRING)),
    add=_list(_object("name value", name=STRING, value=STRING)),
    remove=_list(STRING),
)

PATH_CHANGE = _object(
    "type",
    type=_enum("ReplaceFullPath", "ReplacePrefixMatch"),
    replaceFullPath=STRING,
    replacePrefixMatch=STRING,
)

BACKEND_OBJECT: dict[str, Schema] = {
    "group": {**STRING, "default": ""},
    "kind": {**STRING, "default": "Service"},
    "name": STRING,
    "namespace": STRING,
    "port": PORT,
}

FILTER = _object(
    "type",
    type=_enum(
        "RequestHeaderModifier",
        "ResponseHeaderModifier",
        "RequestMirror",
        "RequestRedirect",
        "URLRewrite",
        "ExtensionRef",
        "CORS",
    ),
    requestHeaderModifier=HEADER_CHANGE,
    responseHeaderModifier=HEADER_CHANGE,
    requestRedirect=_object(
        scheme=_enum("http", "https"), hostname=STRING, path=PATH_CHANGE, port=PORT, statusCode=INTEGER
    ),
    urlRewrite=_object(hostname=STRING, path=PATH_CHANGE),
    requestMirror=_object(
        "backendRef",
        backendRef=_object("name", **BACKEND_OBJECT),
        percent={**INTEGER, "minimum": 0, "maximum": 100},
        fraction=_object(
            "numerator",
            numerator={**INTEGER, "minimum": 0},
            denominator={**INTEGER, "minimum": 1, "default": 100},
        ),
    ),
    cors=_object(
        allowOrigins=_list(STRING, maxItems=64),
        allowCredentials={"type": "boolean"},
        allowMethods=_list(STRING, maxItems=9),
        allowHeaders=_list(STRING, maxItems=64),
        exposeHeaders=_list(STRING, maxItems=64),
        maxAge={**INTEGER, "minimum": 1, "default": 5},
    ),
    # Never carried out: let through here so that admission can say so by name.
    extensionRef=PRESERVED,
)

MATCH = _object(
    path={
        **_object(
            type=_enum("Exact", "PathPrefix", "RegularExpression", default="PathPrefix"),
            value={**STRING, "default": "/"},
        ),
        "default": {"type": "PathPrefix", "value": "/"},
    },
    headers=_list(
        _object(
            "name value", type=_enum("Exact", "RegularExpression", default="Exact"), name=STRING, value=STRING
        )
    ),
    queryParams=_list(
        _object(
            "name value", type=_enum("Exact", "RegularExpression", default="Exact"), name=STRING, value=STRING
        )
    ),
    method=_enum("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"),
)

PARENT = _object(
    "name",
    group={**STRING, "default": "gateway.networking.k8s.io"},
    kind={**STRING, "default": "Gateway"},
    namespace=STRING,
    name=STRING,
    sectionName=STRING,
    port=PORT,
)

BACKEND = _object(
    "name",
    **BACKEND_OBJECT,
    weight={**INTEGER, "default": 1, "minimum": 0, "maximum": 1000000},
    filters=_list(FILTER, maxItems=16),
)

HTTP_ROUTE = _object(
    parentRefs=_list(PARENT, maxItems=32),
    hostnames=_list(STRING, maxItems=16),
    rules={
        **_list(
            _object(
                name=STRING,
                matches={
                    **_list(MATCH, maxItems=64),
                    "default": [{"path": {"type": "PathPrefix", "value": "/"}}],
                },
                filters=_list(FILTER, maxItems=16),
                backendRefs=_list(BACKEND, maxItems=16),
                timeouts=_object(request=STRING, backendRequest=STRING),
                retry=_object(codes=_list(INTEGER, maxItems=200), attempts=INTEGER, backoff=STRING),
                sessionPersistence=PRESERVED,
            ),
            maxItems=16,
        ),
        "default": [{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}]}],
    },
)

SERVER = _object(
    "port",
    podSelector=SELECTOR,
    externalWorkloadSelector=SELECTOR,
    port={"x-kubernetes-int-or-string": True},
    proxyProtocol=_enum("unknown", "HTTP/1", "HTTP/2", "gRPC", "opaque", "TLS", default="unknown"),
    accessPolicy=_enum(
        "deny",
        "audit",
        "all-unauthenticated",
        "all-authenticated",
        "cluster-unauthenticated",
        "cluster-authenticated",
        default="deny",
    ),
)

AUTHORIZATION_POLICY = _object(
    "targetRef requiredAuthenticationRefs",
    targetRef=_reference(),
    requiredAuthenticationRefs=_list(_reference()),
)

MESH_TLS = {
    **_object(
        identities=_list({**STRING, "minLength": 1}, minItems=1),
        identityRefs=_list(
            _object("kind", group=STRING, kind=STRING, name=STRING, namespace=STRING), minItems=1
        ),
    ),
    "oneOf": [{"required": ["identities"]}, {"required": ["identityRefs"]}],
}

NETWORK = _object(
    "networks", networks=_list(_object("cidr", cidr=STRING, **{"except": _list(STRING)}), minItems=1)
)


def _version(name: str, spec: Schema, *, storage: bool, columns: tuple[tuple[str, str], ...]) -> Schema:
    return {
        "name": name,
        "served": True,
        "storage": storage,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [
            {"name": title, "type": "string", "jsonPath": path} for title, path in columns
        ],
        "schema": {
            "openAPIV3Schema": {
                "type": "object",
                "required": ["spec"],
                "properties": {
                    "apiVersion": STRING,
                    "kind": STRING,
                    "metadata": {"type": "object"},
                    "spec": spec,
                    "status": PRESERVED,
                },
            }
        },
    }


def _crd(
    group: str,
    plural: str,
    kind: str,
    short_names: str,
    versions: str,
    spec: Schema,
    columns: tuple[tuple[str, str], ...] = (),
    annotations: dict[str, str] | None = None,
) -> Schema:
    names = versions.split()
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}", "annotations": annotations or {}},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {
                "plural": plural,
                "singular": kind.lower(),
                "kind": kind,
                "listKind": f"{kind}List",
                "shortNames": short_names.split(),
            },
            "versions": [_version(name, spec, storage=name == names[0], columns=columns) for name in names],
        },
    }


def crds(*, gateway_api: bool) -> list[Schema]:
    """Return the CRDs; `gateway_api` adds the Gateway API's HTTPRoute for clusters that have none."""
    group = "policy.linkerd.io"
    hostnames = (("Hostnames", ".spec.hostnames"),)
    result = [
        _crd(
            group,
            "servers",
            "Server",
            "srv",
            "v1beta3 v1beta2",
            SERVER,
            (
                ("Port", ".spec.port"),
                ("Protocol", ".spec.proxyProtocol"),
                ("Access Policy", ".spec.accessPolicy"),
            ),
        ),
        _crd(
            group,
            "authorizationpolicies",
            "AuthorizationPolicy",
            "authzpolicy",
            "v1alpha1",
            AUTHORIZATION_POLICY,
        ),
        _crd(group, "meshtlsauthentications", "MeshTLSAuthentication", "meshtlsauthn", "v1alpha1", MESH_TLS),
        _crd(
            group,
            "networkauthentications",
            "NetworkAuthentication",
            "netauthn networkauthn",
            "v1alpha1",
            NETWORK,
        ),
        _crd(group, "httproutes", "HTTPRoute", "", "v1beta3 v1beta2", HTTP_ROUTE, hostnames),
    ]
    if gateway_api:
        # An API server asks for this approval on CRDs of the *.k8s.io groups.
        approval = {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api/pull/1538"}
        result.append(
            _crd(
                "gateway.networking.k8s.io",
                "httproutes",
                "HTTPRoute",
                "",
                "v1 v1beta1",
                HTTP_ROUTE,
                hostnames,
                approval,
            )
        )
    return result
