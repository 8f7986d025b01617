"""Views of the mesh's own kinds: Gateway API routes and Linkerd's policy kinds.

Here a view also names the fields that the mesh does not carry out, as opaque values: whoever compiles a route must be
able to say "this filter is not supported" rather than never see it.
"""

from typing import Any

import msgspec

from tulle.kube.objects import IntOrString, LabelSelector, Struct, View

__all__ = [
    "AuthorizationPolicy",
    "BackendObject",
    "BackendRef",
    "Cors",
    "Filter",
    "HTTPRoute",
    "MeshTLSAuthentication",
    "MirrorTo",
    "NetworkAuthentication",
    "ParentRef",
    "Rewrite",
    "Rule",
    "Server",
    "TargetRef",
]


class ParentRef(Struct, frozen=True):
    """What a route attaches to: a Service (outbound) or a Server (inbound). A missing `group` is the Gateway API's."""

    name: str
    group: str | None = None
    kind: str | None = None
    namespace: str | None = None
    section_name: str | None = None
    port: int | None = None


class PathMatch(Struct, frozen=True):
    """A path match: Exact, PathPrefix or RegularExpression."""

    type: str | None = None
    value: str | None = None


class ValueMatch(Struct, frozen=True):
    """A header or query parameter match: Exact or RegularExpression."""

    name: str
    value: str
    type: str | None = None


class Match(Struct, frozen=True):
    """Conditions of a rule that must all hold."""

    path: PathMatch | None = None
    headers: tuple[ValueMatch, ...] | None = None
    query_params: tuple[ValueMatch, ...] | None = None
    method: str | None = None


class HeaderValue(Struct, frozen=True):
    """A header to set or add."""

    name: str
    value: str


class HeaderModifier(Struct, frozen=True):
    """Headers to set, add and remove."""

    set: tuple[HeaderValue, ...] | None = None
    add: tuple[HeaderValue, ...] | None = None
    remove: tuple[str, ...] | None = None


class PathModifier(Struct, frozen=True):
    """How a redirect or a rewrite changes the path: ReplaceFullPath or ReplacePrefixMatch."""

    type: str
    replace_full_path: str | None = None
    replace_prefix_match: str | None = None


class Redirect(Struct, frozen=True):
    """A redirect answer in place of a backend's."""

    scheme: str | None = None
    hostname: str | None = None
    path: PathModifier | None = None
    port: int | None = None
    status_code: int | None = None


class Rewrite(Struct, frozen=True):
    """Another host and path for the backend to see."""

    hostname: str | None = None
    path: PathModifier | None = None


class BackendObject(Struct, frozen=True):
    """A backend by name; a missing `kind` is Service."""

    name: str
    group: str | None = None
    kind: str | None = None
    namespace: str | None = None
    port: int | None = None


class Fraction(Struct, frozen=True):
    """A share of the requests; a missing denominator is 100."""

    numerator: int
    denominator: int | None = None


class MirrorTo(Struct, frozen=True):
    """Where copies of requests go, and of how many: `percent` or `fraction`, without either of all."""

    backend_ref: BackendObject
    percent: int | None = None
    fraction: Fraction | None = None


class Cors(Struct, frozen=True):
    """Which other sites' pages may use the answers; `max_age` in seconds."""

    allow_origins: tuple[str, ...] | None = None
    allow_credentials: bool | None = None
    allow_methods: tuple[str, ...] | None = None
    allow_headers: tuple[str, ...] | None = None
    expose_headers: tuple[str, ...] | None = None
    max_age: int | None = None


class Filter(Struct, frozen=True):
    """A change to the request or the response; `type` names the one field that is set."""

    type: str
    request_header_modifier: HeaderModifier | None = None
    response_header_modifier: HeaderModifier | None = None
    request_redirect: Redirect | None = None
    url_rewrite: Rewrite | None = None
    request_mirror: MirrorTo | None = None
    cors: Cors | None = None


class BackendRef(BackendObject, frozen=True):
    """A share of the traffic; a missing `weight` is 1."""

    weight: int | None = None
    filters: tuple[Filter, ...] | None = None


class Timeouts(Struct, frozen=True):
    """Gateway API durations of a rule."""

    request: str | None = None
    backend_request: str | None = None


class RuleRetry(Struct, frozen=True):
    """Which answers are asked for again, how often, and the first pause as a Gateway API duration."""

    codes: tuple[int, ...] | None = None
    attempts: int | None = None
    backoff: str | None = None


class Rule(Struct, frozen=True):
    """Matches, filters and backends; `session_persistence` is seen only to be named as unsupported."""

    name: str | None = None
    matches: tuple[Match, ...] | None = None
    filters: tuple[Filter, ...] | None = None
    backend_refs: tuple[BackendRef, ...] | None = None
    timeouts: Timeouts | None = None
    retry: RuleRetry | None = None
    session_persistence: Any = None


class HTTPRouteSpec(Struct, frozen=True):
    """An HTTPRoute's intent."""

    parent_refs: tuple[ParentRef, ...] | None = None
    hostnames: tuple[str, ...] | None = None
    rules: tuple[Rule, ...] | None = None


class HTTPRoute(View, frozen=True):
    """An HTTPRoute of gateway.networking.k8s.io or policy.linkerd.io; `api_version` tells which."""

    api_version: str = ""
    spec: HTTPRouteSpec = HTTPRouteSpec()
    status: Any = None

    @property
    def group(self) -> str:
        """The API group that the route was written in."""
        return self.api_version.partition("/")[0]


class ServerSpec(Struct, frozen=True):
    """Which Pods and port a Server describes; `access_policy` applies to those whom no policy authorizes."""

    port: IntOrString
    pod_selector: LabelSelector | None = None
    external_workload_selector: LabelSelector | None = None
    proxy_protocol: str | None = None
    access_policy: str | None = None


class Server(View, frozen=True):
    """A policy.linkerd.io Server."""

    spec: ServerSpec = msgspec.field(default_factory=lambda: ServerSpec(port=0))


class TargetRef(Struct, frozen=True):
    """A reference to another object of a policy."""

    kind: str
    name: str
    group: str | None = None
    namespace: str | None = None


class AuthorizationPolicySpec(Struct, frozen=True):
    """The target and the authentications that must all hold; an empty list authorizes everybody."""

    target_ref: TargetRef
    required_authentication_refs: tuple[TargetRef, ...] | None = None


class AuthorizationPolicy(View, frozen=True, kw_only=True):
    """A policy.linkerd.io AuthorizationPolicy."""

    spec: AuthorizationPolicySpec


class IdentityRef(Struct, frozen=True):
    """A ServiceAccount, or with kind Namespace all of its ServiceAccounts."""

    kind: str
    name: str | None = None
    group: str | None = None
    namespace: str | None = None


class MeshTLSAuthenticationSpec(Struct, frozen=True):
    """Identities, by name or by reference, any of which is accepted."""

    identities: tuple[str, ...] | None = None
    identity_refs: tuple[IdentityRef, ...] | None = None


class MeshTLSAuthentication(View, frozen=True):
    """A policy.linkerd.io MeshTLSAuthentication."""

    spec: MeshTLSAuthenticationSpec = MeshTLSAuthenticationSpec()


class Network(Struct, frozen=True):
    """A network in CIDR notation, without the networks in `except`."""

    cidr: str
    except_: tuple[str, ...] | None = msgspec.field(name="except", default=None)


class NetworkAuthenticationSpec(Struct, frozen=True):
    """Networks, any of which is accepted."""

    networks: tuple[Network, ...] | None = None


class NetworkAuthentication(View, frozen=True):
    """A policy.linkerd.io NetworkAuthentication."""

    spec: NetworkAuthenticationSpec = NetworkAuthenticationSpec()
