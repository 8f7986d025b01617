//! Why the proxy itself answered, refused or gave up: stable codes.
//!
//! A code never changes its meaning and never goes away. Linkerd's text is used where Linkerd has one, so that what
//! people search for is found. `docs/reference/reasons.md` is generated from this table.

use std::fmt;

/// One reason; [`Reason::code`] is what `tulle-reason`, metrics and logs carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// No route matches the request.
    RouteNotFound,
    /// The route could not be compiled.
    RouteInvalid,
    /// The route has no backend to send the request to.
    NoBackend,
    /// The backend of the route does not exist or may not be used.
    BackendInvalid,
    /// A failure injector of the route answered.
    FailureInjected,
    /// A fault of the route answered.
    FaultInjected,
    /// A redirect of the route answered.
    Redirected,
    /// A redirect of the route makes no sense for this request.
    RedirectInvalid,
    /// A rewrite of the route makes no sense for this request.
    RewriteInvalid,
    /// The route's CORS filter answered a preflight request.
    Preflight,
    /// Policy forbids this traffic altogether.
    Forbidden,
    /// No authorization lets this client in.
    Unauthorized,
    /// The client sent more requests than the rate limit lets in.
    RateLimited,
    /// As many requests as the Server lets in at once are being served.
    ConcurrencyLimited,
    /// The request carries no token, and the Server requires one.
    TokenMissing,
    /// The request carries a token that does not hold.
    TokenInvalid,
    /// The external authorization service refused the request.
    ExternallyDenied,
    /// The external authorization service gave no answer.
    ExternalUnavailable,
    /// A requirement of the Server cannot be carried out, so nobody can meet it.
    RequirementInvalid,
    /// The policy of this target or port is not known and none may be assumed.
    PolicyUnavailable,
    /// The target is not known.
    TargetUnknown,
    /// The service selects no endpoint.
    NoEndpoints,
    /// No endpoint became ready in time.
    FailFast,
    /// Too many requests wait already.
    LoadShed,
    /// Every endpoint has as many requests as it may.
    EndpointsFull,
    /// Discovery did not answer in time.
    DiscoveryTimeout,
    /// The endpoint refused the connection or could not be reached.
    ConnectFailed,
    /// The endpoint did not accept the connection in time.
    ConnectTimeout,
    /// The TLS handshake failed.
    TlsFailed,
    /// The peer's certificate does not carry the expected identity.
    IdentityMismatch,
    /// The request insists on an identity that the endpoint does not have.
    IdentityRequired,
    /// The proxy has no certificate of its own yet.
    NoCertificate,
    /// The connection ended before the response did.
    ConnectionClosed,
    /// The peer reset the stream.
    StreamReset,
    /// The request took too long as a whole.
    RequestTimeout,
    /// The response took too long.
    ResponseTimeout,
    /// One try took too long, and there was no other.
    TryTimeout,
    /// Nothing moved for too long.
    IdleTimeout,
    /// The caller took nothing of its answer for too long.
    ReceiverStalled,
    /// The server took nothing of the request for too long.
    ServerStalled,
    /// The client did not send the rest of its request in time.
    SenderStalled,
    /// The client did not send its request's head in time.
    HeadTimeout,
    /// The request is malformed.
    BadRequest,
    /// The request's head is larger than allowed.
    HeadTooLarge,
    /// The response is malformed.
    BadResponse,
    /// The request would come back to this proxy.
    Loop,
    /// A client outside of the pod came to the outbound port.
    Stranger,
    /// The connection was for an address that is not this workload's.
    UnexpectedAddress,
    /// A connection to the proxy's own port carried no valid transport header.
    TransportHeaderInvalid,
    /// A connection to a port that asks for the PROXY protocol did not begin with it.
    ProxyProtocolInvalid,
    /// The policy demands mutual TLS, and the peer is not of the mesh.
    MeshTlsRequired,
    /// The name is none that this gateway forwards to.
    GatewayDomain,
    /// The proxy is shutting down.
    ShuttingDown,
    /// The proxy failed; a bug.
    Internal,
}

/// What each reason is to the world.
struct Row {
    reason: Reason,
    code: &'static str,
    text: &'static str,
    http: u16,
    grpc: u8,
    hint: &'static str,
}

const fn row(
    reason: Reason,
    code: &'static str,
    http: u16,
    grpc: u8,
    text: &'static str,
    hint: &'static str,
) -> Row {
    Row {
        reason,
        code,
        text,
        http,
        grpc,
        hint,
    }
}

const OK: u8 = 0;
const INVALID_ARGUMENT: u8 = 3;
const DEADLINE_EXCEEDED: u8 = 4;
const NOT_FOUND: u8 = 5;
const PERMISSION_DENIED: u8 = 7;
const RESOURCE_EXHAUSTED: u8 = 8;
const FAILED_PRECONDITION: u8 = 9;
const INTERNAL: u8 = 13;
const UNAVAILABLE: u8 = 14;
const UNAUTHENTICATED: u8 = 16;

#[allow(clippy::enum_glob_use, reason = "the table names every reason")]
use Reason::*;

/// In the order of the enum.
#[rustfmt::skip]
const ROWS: [Row; Reason::Internal as usize + 1] = [
    row(RouteNotFound, "route-not-found", 404, NOT_FOUND, "no route found for request",
        "`tulle explain` lists the routes of the target and why each did not match"),
    row(RouteInvalid, "route-invalid", 500, INTERNAL, "invalid route",
        "The route's status names the field; correct it and apply the route again"),
    row(NoBackend, "no-backend", 500, INTERNAL, "the route has no backend",
        "Give the rule a backendRef with a weight above 0"),
    row(BackendInvalid, "backend-invalid", 500, INTERNAL, "invalid backend",
        "The backendRef must name a Service and port that exist"),
    row(FailureInjected, "failure-injected", 500, INTERNAL, "the route is configured to fail",
        "The message after the code is the route's own"),
    row(FaultInjected, "fault-injected", 500, INTERNAL, "fault injected by the route",
        "Somebody tests how callers cope: the route that is named has a fault filter"),
    row(Redirected, "redirected", 301, OK, "request redirected",
        "The route's RequestRedirect filter answered"),
    row(RedirectInvalid, "redirect-invalid", 500, INTERNAL, "invalid redirect",
        "A redirect that replaces a path prefix needs a rule that matches by prefix"),
    row(RewriteInvalid, "rewrite-invalid", 500, INTERNAL, "invalid rewrite",
        "A rewrite that replaces a path prefix needs a rule that matches by prefix"),
    row(Preflight, "preflight", 204, OK, "preflight request answered",
        "The route's CORS filter answered; without `access-control-allow-origin` the origin is not allowed"),
    row(Forbidden, "forbidden", 403, PERMISSION_DENIED, "traffic forbidden by policy",
        "Find the policy with `tulle explain`"),
    row(Unauthorized, "unauthorized", 403, PERMISSION_DENIED, "client is not authorized",
        "`tulle explain` names each authorization and what it asks for"),
    row(RateLimited, "rate-limited", 429, RESOURCE_EXHAUSTED, "rate limit exceeded",
        "See the HTTPLocalRateLimitPolicy of the Server"),
    row(ConcurrencyLimited, "concurrency-limited", 503, UNAVAILABLE, "too many requests at once",
        "The limit is the Server's; give the workload more replicas, or its clients less to do at once"),
    row(TokenMissing, "token-missing", 401, UNAUTHENTICATED, "a token is required",
        "Send a token of the issuer that the answer names"),
    row(TokenInvalid, "token-invalid", 401, UNAUTHENTICATED, "the token does not hold",
        "The message after the code names what is wrong with it; get a fresh token from its issuer"),
    row(ExternallyDenied, "externally-denied", 403, PERMISSION_DENIED, "the external authorization service refused",
        "The service decides by itself: look into its log"),
    row(ExternalUnavailable, "external-unavailable", 503, UNAVAILABLE, "the external authorization service gave no answer",
        "Is the service up, and does it answer in time? `inbound_http_ext_authz_total` counts the outcomes"),
    row(RequirementInvalid, "requirement-invalid", 500, INTERNAL, "a requirement of the Server cannot be carried out",
        "The message after the code names the field; correct it and apply it again"),
    row(PolicyUnavailable, "policy-unavailable", 503, UNAVAILABLE, "policy is not available",
        "`tulle check` tells whether the control plane can be reached"),
    row(TargetUnknown, "target-unknown", 502, UNAVAILABLE, "the target is not known",
        "Check the name: is there a Service of that name in that namespace?"),
    row(NoEndpoints, "no-endpoints", 503, UNAVAILABLE, "the service has no endpoints",
        "Do the Service's selector and port fit a ready pod? `kubectl describe service` shows its endpoints"),
    row(FailFast, "failfast", 504, UNAVAILABLE, "in fail-fast: no endpoint became ready in time",
        "Are the endpoints up? `tulle stat` shows their connections"),
    row(LoadShed, "load-shed", 503, UNAVAILABLE, "service has been overloaded",
        "Give the service more replicas, or its clients less to do at once"),
    row(EndpointsFull, "endpoints-full", 503, UNAVAILABLE, "every endpoint has as many requests as it may",
        "The limit is the backend's requests at once per endpoint; more replicas take more"),
    row(DiscoveryTimeout, "discovery-timeout", 504, UNAVAILABLE, "discovery did not answer in time",
        "`tulle check` tells whether the control plane can be reached"),
    row(ConnectFailed, "connect-failed", 502, UNAVAILABLE, "connect failed",
        "Is the application listening on the port?"),
    row(ConnectTimeout, "connect-timeout", 504, UNAVAILABLE, "connect timed out",
        "Does a network policy or a dead node stand in between?"),
    row(TlsFailed, "tls-failed", 502, UNAVAILABLE, "TLS handshake failed",
        "`tulle check` compares the trust roots and certificates of both sides"),
    row(IdentityMismatch, "identity-mismatch", 502, UNAVAILABLE, "the peer has another identity",
        "Has the address been given to another pod? It heals when discovery follows"),
    row(IdentityRequired, "identity-required", 502, UNAVAILABLE, "required identity not available",
        "The endpoint has no sidecar or another identity than `l5d-require-id` asks for"),
    row(NoCertificate, "no-certificate", 503, UNAVAILABLE, "the proxy has no certificate yet",
        "`tulle check` tells whether the identity service can be reached"),
    row(ConnectionClosed, "connection-closed", 502, UNAVAILABLE, "connection closed before the response was complete",
        "Look into the server's log"),
    row(StreamReset, "stream-reset", 502, UNAVAILABLE, "stream reset by the peer",
        "Look into the server's log"),
    row(RequestTimeout, "request-timeout", 504, DEADLINE_EXCEEDED, "request timed out",
        "The limit is the route's `request` timeout"),
    row(ResponseTimeout, "response-timeout", 504, DEADLINE_EXCEEDED, "response timed out",
        "The limit is the route's `response` timeout"),
    row(TryTimeout, "try-timeout", 504, DEADLINE_EXCEEDED, "try timed out",
        "The limit is the `timeout` of the route's retries, and no further try was allowed"),
    row(IdleTimeout, "idle-timeout", 504, DEADLINE_EXCEEDED, "stream was idle for too long",
        "The limit is the route's `idle` timeout"),
    row(ReceiverStalled, "receiver-stalled", 504, DEADLINE_EXCEEDED, "the caller takes nothing of its answer",
        "The limit is TULLE_PROXY_HTTP_STALL_TIMEOUT of the sidecar, for gRPC TULLE_PROXY_GRPC_STALL_TIMEOUT"),
    row(ServerStalled, "server-stalled", 504, DEADLINE_EXCEEDED, "the server takes nothing of the request's body",
        "Look into the server: it does not read. The limit is TULLE_PROXY_HTTP_SERVER_STALL_TIMEOUT of the sidecar"),
    row(SenderStalled, "sender-stalled", 408, DEADLINE_EXCEEDED, "the rest of the request did not arrive in time",
        "A slow client. The limit is TULLE_PROXY_HTTP_BODY_TIMEOUT of the server's sidecar"),
    row(HeadTimeout, "head-timeout", 408, DEADLINE_EXCEEDED, "the request's head did not arrive in time",
        "A slow client; nothing reached the server"),
    row(BadRequest, "bad-request", 400, INVALID_ARGUMENT, "malformed request",
        "The message after the code names the rule of HTTP that is broken"),
    row(HeadTooLarge, "head-too-large", 431, RESOURCE_EXHAUSTED, "request head is too large",
        "Send fewer or shorter headers"),
    row(BadResponse, "bad-response", 502, INTERNAL, "malformed response",
        "The message after the code names the rule of HTTP that is broken"),
    row(Loop, "loop", 508, FAILED_PRECONDITION, "the request would come back to this proxy",
        "The client used the proxy's own address"),
    row(Stranger, "stranger", 403, PERMISSION_DENIED, "the outbound port serves its own pod only",
        "Go to the service itself; a proxy that relays for others runs in ingress mode"),
    row(UnexpectedAddress, "unexpected-address", 403, PERMISSION_DENIED, "the address is not this workload's",
        "Stale discovery, or a packet-filter rule that is not the mesh's"),
    row(TransportHeaderInvalid, "transport-header-invalid", 403, PERMISSION_DENIED, "no valid transport header",
        "Only other proxies may connect to the proxy's own port"),
    row(ProxyProtocolInvalid, "proxy-protocol-invalid", 400, INVALID_ARGUMENT, "no valid PROXY protocol header",
        "The port's policy asks for it: have the load balancer in front send it, or take the setting away"),
    row(MeshTlsRequired, "mesh-tls-required", 502, UNAVAILABLE, "the policy demands mutual TLS, and the peer is not meshed",
        "Give the peer a sidecar, or take `tulle.dev/require-mesh-tls` from its Service or namespace"),
    row(GatewayDomain, "gateway-domain-unknown", 404, NOT_FOUND, "the gateway does not forward to this name",
        "The names that it forwards to are in LINKERD2_PROXY_INBOUND_GATEWAY_SUFFIXES"),
    row(ShuttingDown, "shutting-down", 503, UNAVAILABLE, "the proxy is shutting down",
        "Retry: another endpoint serves"),
    row(Internal, "internal", 500, INTERNAL, "unexpected error",
        "A bug: please report it with the proxy's log"),
];

impl Reason {
    /// Every reason, in the order of the enum.
    pub fn all() -> impl Iterator<Item = Self> {
        ROWS.iter().map(|row| row.reason)
    }

    fn row(self) -> &'static Row {
        let [.., last] = &ROWS;
        // A test compares the table's order with the enum's.
        ROWS.get(self as usize).unwrap_or(last)
    }

    /// The stable code, in lower case with hyphens.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.row().code
    }

    /// A sentence without its capital and full stop.
    #[must_use]
    pub fn text(self) -> &'static str {
        self.row().text
    }

    /// What a person may do about it.
    #[must_use]
    pub fn hint(self) -> &'static str {
        self.row().hint
    }

    /// Whether the answer is what the route is there for, and no failure.
    #[must_use]
    pub fn is_ordinary(self) -> bool {
        matches!(self, Self::Redirected | Self::Preflight)
    }

    /// The status of the answer to an HTTP request.
    #[must_use]
    pub fn http_status(self) -> u16 {
        self.row().http
    }

    /// The `grpc-status` of the answer to a gRPC call.
    #[must_use]
    pub fn grpc_status(self) -> u8 {
        self.row().grpc
    }

    /// The reason with this code.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        ROWS.iter()
            .find(|row| row.code == code)
            .map(|row| row.reason)
    }

    /// The page `docs/reference/reasons.md`.
    #[must_use]
    pub fn reference_page() -> String {
        let mut page = String::from(
            "# Reasons\n\n\
             Every answer that a proxy makes itself carries its code in `tulle-reason` and the text, often with a detail,\n\
             in `l5d-proxy-error`; gRPC callers get the status in `grpc-status`. Codes never change. This page is\n\
             generated from `crates/engine/src/reason.rs`\n\
             (`cargo run --release -p tulle-proxy --example reference`).\n\n\
             | code | HTTP | gRPC | meaning | what to do |\n|---|---|---|---|---|\n",
        );
        for row in &ROWS {
            page.push_str(&format!(
                "| `{}` | {} | {} | {} | {} |\n",
                row.code, row.http, row.grpc, row.text, row.hint
            ));
        }
        page
    }
}

/// `code: text`.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code(), self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum() {
        for (index, row) in ROWS.iter().enumerate() {
            assert_eq!(row.reason as usize, index, "{}", row.code);
            assert_eq!(row.reason.code(), row.code);
        }
        assert_eq!(Reason::Internal as usize + 1, ROWS.len());
    }

    #[test]
    fn codes_are_unique_and_found_again() {
        for reason in Reason::all() {
            assert_eq!(Reason::from_code(reason.code()), Some(reason));
        }
        assert_eq!(Reason::from_code("no-such"), None);
    }

    #[test]
    fn the_reference_page_is_current() {
        let committed = include_str!("../../../docs/reference/reasons.md");

        assert_eq!(
            committed,
            Reason::reference_page(),
            "run: cargo run --release -p tulle-proxy --example reference"
        );
    }
}
