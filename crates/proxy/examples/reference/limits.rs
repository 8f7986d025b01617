//! `docs/reference/limits.md`: every bound of the sidecar. Its value and its meaning are read where it is declared; this
//! table adds what happens when it is reached, and what counts that.

use std::fmt::Write as _;

use tulle_proxy::config::table;

use super::source::{self, Worth};
use Home::{Constant, Default, Variable};
use Shown::{Log, Metric, Uncounted};
use Unit::{Bytes, Count, Time};

/// One bound.
#[derive(Debug)]
pub struct Limit {
    pub home: Home,
    pub unit: Unit,
    /// What happens when it is reached.
    pub then: &'static str,
    pub shown: Shown,
}

/// Where it is seen that a bound was reached.
#[derive(Clone, Copy, Debug)]
pub enum Shown {
    /// These metrics.
    Metric(&'static str),
    /// A line of the log that says so.
    Log,
    /// Nowhere, with the reason. Never where a request, a connection or what somebody else sent is refused or lost.
    Uncounted(&'static str),
}

/// Where a bound is declared.
#[derive(Clone, Copy, Debug)]
pub enum Home {
    /// A constant of a file under `crates/`.
    Constant(&'static str, &'static str),
    /// A field of a default value, with what it bounds.
    Default(&'static str, fn() -> u64, &'static str),
    /// An environment variable, whose row of the environment says what it bounds.
    Variable(&'static str),
}

/// In what it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    Count,
    Time,
}

const fn row(home: Home, unit: Unit, then: &'static str, shown: Shown) -> Limit {
    Limit {
        home,
        unit,
        then,
        shown,
    }
}

fn h1(read: fn(tulle_http::Limits) -> u64) -> u64 {
    read(tulle_http::Limits::default())
}

const ERRORS: Shown = Metric("`{inbound,outbound}_http_errors_total`");
const TCP_ERRORS: Shown = Metric("`{inbound,outbound}_tcp_errors_total`");
const INVALID: Shown = Metric("`control_watch_invalid_total`");
const SKIPPED: Shown = Metric("`outbound_http_route_retry_skipped_total`");
const CLOSED: Shown = Metric("`tcp_close_total`");
const HTTP2: Shown = Metric("`http2_errors_total`");
const LIMIT: Shown = Metric("`limit_reached_total`");

const WAITS: Shown = Uncounted("nothing is refused: who sends waits");
const ANEW: Shown = Uncounted("nothing is lost: it is made anew");
const KEPT: Shown = Uncounted("nothing is refused: it is memory that is kept");
const CUT: Shown = Uncounted("nothing is lost but the end of a text");
const MEASURE: Shown = Uncounted("a measure, and no bound of what anybody holds");
const SETTING: Shown = Uncounted("a bound of settings, beyond which none goes");
const COARSER: Shown = Uncounted("nothing is refused: the spread is coarser");
const OWN: Shown = Uncounted("of the pod's own configuration");
const ENDS: Shown = Uncounted("the process ends with it");

/// The bounds by what they guard.
#[rustfmt::skip]
pub const GROUPS: &[(&str, &[Limit])] = &[
    ("Connections and listeners", &[
        row(Variable("LINKERD2_PROXY_INBOUND_TCP_LISTEN_BACKLOG"), Count, "the kernel drops the handshake, the client tries again", Uncounted("the kernel counts it: `ListenOverflows`")),
        row(Variable("LINKERD2_PROXY_OUTBOUND_TCP_LISTEN_BACKLOG"), Count, "the kernel drops the handshake, the client tries again", Uncounted("the kernel counts it: `ListenOverflows`")),
        row(Variable("LINKERD2_PROXY_MAX_IDLE_CONNS_PER_ENDPOINT"), Count, "the connection is closed instead of kept", CLOSED),
        row(Variable("LINKERD2_PROXY_OUTBOUND_MAX_IDLE_CONNS_PER_ENDPOINT"), Count, "the connection is closed instead of kept", CLOSED),
        row(Constant("proxy/src/admin.rs", "MAX_CONNECTIONS"), Count, "further clients wait in the kernel's queue", LIMIT),
        row(Constant("proxy/src/identity/resumption.rs", "TICKETS"), Count, "the oldest goes; a connection without one makes a full handshake", Metric("`tls_handshakes_total{kind=\"full\"}`")),
        row(Constant("proxy/src/identity/resumption.rs", "GROUPS"), Count, "the oldest is forgotten; its handshake takes one round trip more", ANEW),
        row(Constant("proxy/src/inbound/port.rs", "MAX_PORTS"), Count, "ports without connections are forgotten", LIMIT),
        row(Constant("proxy/src/net/server_first.rs", "MAX_ASKED"), Count, "the client waits for the detection timeout", Metric("`{inbound,outbound}_tcp_detect_server_first_total{result=\"limit\"}`")),
        row(Constant("proxy/src/outbound/tcp.rs", "MAX_TRIES"), Count, "the client's connection is closed", TCP_ERRORS),
    ]),
    ("Detection and handshakes", &[
        row(Variable("LINKERD2_PROXY_INBOUND_DETECT_TIMEOUT"), Time, "the connection is treated as opaque", Metric("`inbound_tcp_detect_http_results_total{result=\"read_timeout\"}`")),
        row(Variable("LINKERD2_PROXY_OUTBOUND_DETECT_TIMEOUT"), Time, "the connection is treated as opaque", Metric("`outbound_tcp_detect_http_results_total{result=\"read_timeout\"}`")),
        row(Constant("proxy/src/net/server_first.rs", "GRACE"), Time, "the server is connected to, to hear whether it speaks first", Metric("`{inbound,outbound}_tcp_detect_server_first_total`")),
        row(Constant("proxy/src/net/hello.rs", "MAX_HELLO"), Bytes, "the bytes are taken for something else than TLS", Metric("`{inbound,outbound}_tcp_detect_http_results_total{result=\"not_http\"}`")),
        row(Constant("proxy/src/net/tls/records.rs", "MAX_MESSAGE"), Bytes, "the peer is told, the connection is closed", CLOSED),
        row(Constant("proxy/src/net/tls/records.rs", "MAX_IDLE"), Count, "the peer is told, the connection is closed", CLOSED),
        row(Constant("proxy/src/detect.rs", "MAX_LINE"), Bytes, "the bytes are taken for something else than HTTP", Metric("`{inbound,outbound}_tcp_detect_http_results_total{result=\"not_http\"}`")),
        row(Constant("proxy/src/detect.rs", "MAX_METHOD"), Bytes, "the bytes are taken for something else than HTTP", Metric("`{inbound,outbound}_tcp_detect_http_results_total{result=\"not_http\"}`")),
        row(Constant("proxy/src/net/proxy_protocol.rs", "MAX_V1"), Bytes, "the connection is closed", TCP_ERRORS),
        row(Constant("proxy/src/net/proxy_protocol.rs", "MAX_V2"), Bytes, "the connection is closed", TCP_ERRORS),
        row(Constant("proxy/src/transport_header.rs", "MAX_HEADER"), Bytes, "the connection is closed", TCP_ERRORS),
        row(Constant("proxy/src/inbound/direct.rs", "HEADER_TIMEOUT"), Time, "the connection is closed", TCP_ERRORS),
        row(Constant("proxy/src/net/reach.rs", "TLS_TIMEOUT"), Time, "the connect has failed; another endpoint is tried", Metric("`tls_handshake_failures_total{reason=\"timeout\"}`")),
        row(Variable("LINKERD2_PROXY_INBOUND_CONNECT_TIMEOUT"), Time, "the connect has failed", Metric("`inbound_http_errors_total`, `inbound_tcp_errors_total`")),
        row(Variable("LINKERD2_PROXY_OUTBOUND_CONNECT_TIMEOUT"), Time, "the connect has failed; another endpoint is tried", Metric("`outbound_http_errors_total`, `outbound_tcp_errors_total`")),
        row(Constant("proxy/src/identity/peer.rs", "MAX_NAMES"), Count, "the certificate is refused", Metric("`tls_handshake_failures_total`")),
        row(Constant("proxy/src/identity/spiffe.rs", "LONGEST"), Bytes, "the certificate is refused", Metric("`tls_handshake_failures_total`")),
        row(Constant("proxy/src/identity/spiffe.rs", "LONGEST_DOMAIN"), Bytes, "the certificate is refused", Metric("`tls_handshake_failures_total`")),
        row(Constant("proxy/src/identity/svid.rs", "MAX_CHAIN"), Count, "the document is refused, the last good one serves", Metric("`control_identity_cert_refreshes_total{result=\"error\"}`")),
        row(Constant("proxy/src/identity/peer.rs", "MAX_NAME_BYTES"), Bytes, "the certificate is refused", Metric("`tls_handshake_failures_total`")),
    ]),
    ("HTTP/1 messages", &[
        row(Default("Limits::head_bytes", || h1(|l| l.head_bytes as u64), "Octets of a message head, its start line included."), Bytes, "431 (414 while still in the request line); an answer: 502", ERRORS),
        row(Default("Limits::fields", || h1(|l| l.fields as u64), "Field lines of a head or of a trailer section."), Count, "431; an answer: 502", ERRORS),
        row(Constant("http/src/limits.rs", "MAX_FIELDS"), Count, "no setting can ask for more", SETTING),
        row(Constant("http/src/limits.rs", "MAX_TRAILER_FIELDS"), Count, "431; an answer is cut", ERRORS),
        row(Default("Limits::target_bytes", || h1(|l| l.target_bytes as u64), "Octets of a request target."), Bytes, "414", ERRORS),
        row(Constant("http/src/limits.rs", "MAX_METHOD"), Bytes, "400", ERRORS),
        row(Constant("http/src/limits.rs", "MAX_CONNECTION_OPTIONS"), Count, "400; an answer: 502", ERRORS),
        row(Default("Limits::trailer_bytes", || h1(|l| l.trailer_bytes as u64), "Octets of a trailer section."), Bytes, "431; an answer is cut", ERRORS),
        row(Default("Limits::chunk_extension_bytes", || h1(|l| l.chunk_extension_bytes as u64), "Octets of chunk extensions in one chunk line."), Bytes, "400; an answer is cut", ERRORS),
        row(Default("Limits::chunk_extensions_total", || h1(|l| l.chunk_extensions_total as u64), "Octets of chunk extensions in one message."), Bytes, "400; an answer is cut", ERRORS),
        row(Default("Limits::interim_responses", || h1(|l| l.interim_responses.into()), "Interim (1xx) answers before the final one."), Count, "502", ERRORS),
        row(Default("Limits::leading_empty_lines", || h1(|l| l.leading_empty_lines.into()), "Empty lines before a request line (RFC 9112 §2.2)."), Count, "400", ERRORS),
        row(Constant("http/src/limits.rs", "MAX_HEAD_BUFFER"), Bytes, "431; an answer: 502", ERRORS),
        row(Variable("TULLE_PROXY_HTTP1_HEAD_TIMEOUT"), Time, "408, and the connection is closed", ERRORS),
        row(Variable("TULLE_PROXY_HTTP1_IDLE_TIMEOUT"), Time, "the connection is closed", CLOSED),
        row(Constant("proxy/src/http/origin.rs", "MAX_H2"), Count, "requests wait for a stream to end", Metric("`tcp_open_connections`")),
        row(Constant("proxy/src/http/h1.rs", "READ_AHEAD"), Bytes, "the next message is read when the current one has been answered", WAITS),
        row(Constant("proxy/src/http/h1.rs", "HIGH_WATER"), Bytes, "no more is read from the other side until some is written", WAITS),
        row(Constant("proxy/src/http/h1.rs", "LAST_REQUEST"), Time, "the connection is closed", CLOSED),
    ]),
    ("HTTP/2 connections", &[
        row(Variable("LINKERD2_PROXY_INBOUND_SERVER_HTTP2_MAX_CONCURRENT_STREAMS"), Count, "the stream is refused: REFUSED_STREAM", Metric("`http2_errors_total{code=\"REFUSED_STREAM\"}`")),
        row(Variable("LINKERD2_PROXY_OUTBOUND_SERVER_HTTP2_MAX_CONCURRENT_STREAMS"), Count, "the stream is refused: REFUSED_STREAM", Metric("`http2_errors_total{code=\"REFUSED_STREAM\"}`")),
        row(Constant("http/src/h2/settings.rs", "UNTOLD_STREAMS"), Count, "a request waits until the peer has told its own bound", WAITS),
        row(Variable("LINKERD2_PROXY_INBOUND_SERVER_HTTP2_MAX_HEADER_LIST_SIZE"), Bytes, "431; a block that is larger as it stands ends the connection: ENHANCE_YOUR_CALM", HTTP2),
        row(Variable("LINKERD2_PROXY_OUTBOUND_SERVER_HTTP2_MAX_HEADER_LIST_SIZE"), Bytes, "431; a block that is larger as it stands ends the connection: ENHANCE_YOUR_CALM", HTTP2),
        row(Constant("http/src/h2/receive/heads.rs", "MAX_CONTINUATIONS"), Count, "the connection ends: ENHANCE_YOUR_CALM", HTTP2),
        row(Variable("LINKERD2_PROXY_INBOUND_SERVER_HTTP2_MAX_FRAME_SIZE"), Bytes, "the connection ends: FRAME_SIZE_ERROR", HTTP2),
        row(Variable("LINKERD2_PROXY_OUTBOUND_SERVER_HTTP2_MAX_FRAME_SIZE"), Bytes, "the connection ends: FRAME_SIZE_ERROR", HTTP2),
        row(Variable("LINKERD2_PROXY_INBOUND_SERVER_HTTP2_MAX_PENDING_ACCEPT_RESET_STREAMS"), Count, "the connection ends: ENHANCE_YOUR_CALM", HTTP2),
        row(Variable("LINKERD2_PROXY_OUTBOUND_SERVER_HTTP2_MAX_PENDING_ACCEPT_RESET_STREAMS"), Count, "the connection ends: ENHANCE_YOUR_CALM", HTTP2),
        row(Constant("http/src/h2/patience.rs", "MOST"), Count, "the connection ends: ENHANCE_YOUR_CALM", HTTP2),
        row(Constant("http/src/h2/patience.rs", "PER_SECOND"), Count, "the connection ends when the credit is spent", HTTP2),
        row(Constant("http/src/h2/receive/control.rs", "YOUNG"), Count, "such a reset costs credit; a later one costs none", MEASURE),
        row(Constant("http/src/h2/receive/bodies.rs", "USEFUL_DATA"), Bytes, "a smaller piece costs credit", MEASURE),
        row(Constant("http/src/h2/connection.rs", "MAX_CONTROL"), Bytes, "the connection ends: ENHANCE_YOUR_CALM", HTTP2),
        row(Constant("http/src/h2/stream.rs", "REMEMBERED"), Count, "frames of all older streams are ignored", Uncounted("such frames mean nothing any more")),
        row(Variable("LINKERD2_PROXY_INBOUND_SERVER_HTTP2_INITIAL_STREAM_WINDOW_SIZE"), Bytes, "the peer waits; more than it may send ends the stream: FLOW_CONTROL_ERROR", HTTP2),
        row(Variable("LINKERD2_PROXY_OUTBOUND_SERVER_HTTP2_INITIAL_STREAM_WINDOW_SIZE"), Bytes, "the peer waits; more than it may send ends the stream: FLOW_CONTROL_ERROR", HTTP2),
        row(Variable("LINKERD2_PROXY_INBOUND_SERVER_HTTP2_INITIAL_CONNECTION_WINDOW_SIZE"), Bytes, "the peer waits; more than it may send ends the connection: FLOW_CONTROL_ERROR", HTTP2),
        row(Variable("LINKERD2_PROXY_OUTBOUND_SERVER_HTTP2_INITIAL_CONNECTION_WINDOW_SIZE"), Bytes, "the peer waits; more than it may send ends the connection: FLOW_CONTROL_ERROR", HTTP2),
        row(Variable("LINKERD2_PROXY_INBOUND_SERVER_HTTP2_MAX_SEND_BUF_SIZE"), Bytes, "no more is read from the other side until some is written", WAITS),
        row(Variable("LINKERD2_PROXY_OUTBOUND_SERVER_HTTP2_MAX_SEND_BUF_SIZE"), Bytes, "no more is read from the other side until some is written", WAITS),
        row(Constant("proxy/src/http/h2/mod.rs", "MAX_OUTPUT"), Bytes, "streams add no DATA until some is written; four times as much, and no request is read", WAITS),
        row(Variable("LINKERD2_PROXY_INBOUND_SERVER_HTTP2_KEEP_ALIVE_TIMEOUT"), Time, "the connection is closed", CLOSED),
        row(Variable("LINKERD2_PROXY_OUTBOUND_SERVER_HTTP2_KEEP_ALIVE_TIMEOUT"), Time, "the connection is closed", CLOSED),
        row(Constant("http/src/hpack/mod.rs", "DEFAULT_TABLE_SIZE"), Bytes, "the oldest entries go", ANEW),
        row(Constant("http/src/hpack/mod.rs", "MAX_TABLE_SIZE"), Bytes, "no setting can ask for more", SETTING),
        row(Constant("proxy/src/http/h2/driver.rs", "PATIENCE"), Time, "the connection is closed", CLOSED),
        row(Constant("proxy/src/http/h2/driver.rs", "DISCARDED"), Bytes, "the connection is closed", CLOSED),
    ]),
    ("Requests", &[
        row(Variable("LINKERD2_PROXY_INBOUND_MAX_IN_FLIGHT"), Count, "503 `load-shed`", Metric("`inbound_http_errors_total`")),
        row(Variable("LINKERD2_PROXY_OUTBOUND_MAX_IN_FLIGHT"), Count, "503 `load-shed`", Metric("`outbound_http_errors_total`")),
        row(Variable("LINKERD2_PROXY_OUTBOUND_HTTP_QUEUE_CAPACITY"), Count, "503 `load-shed`; a connection is closed", Metric("`outbound_http_balancer_queue_length`, `outbound_http_errors_total`")),
        row(Constant("proxy/src/http/serve.rs", "MAX_REQUEST_FUTURE"), Bytes, "the sidecar does not compile", Uncounted("the compiler holds it")),
        row(Constant("proxy/src/http/serve.rs", "DISCARD"), Bytes, "the connection is closed after the answer", CLOSED),
        row(Constant("proxy/src/http/serve.rs", "PATIENCE"), Time, "the connection is closed after the answer", CLOSED),
        row(Constant("proxy/src/http/exchange.rs", "DISCARD"), Bytes, "the server's connection is closed", CLOSED),
        row(Variable("TULLE_PROXY_HTTP_BODY_IDLE_TIMEOUT"), Time, "the exchange is cut", ERRORS),
        row(Variable("TULLE_PROXY_HTTP_STALL_TIMEOUT"), Time, "the exchange is cut: `receiver-stalled`", ERRORS),
        row(Variable("TULLE_PROXY_GRPC_STALL_TIMEOUT"), Time, "the exchange is cut: `receiver-stalled`", ERRORS),
        row(Variable("TULLE_PROXY_HTTP_SERVER_STALL_TIMEOUT"), Time, "504 `server-stalled`", ERRORS),
        row(Variable("TULLE_PROXY_HTTP_BODY_TIMEOUT"), Time, "408 `sender-stalled`", ERRORS),
        row(Constant("proxy/src/http/expectation.rs", "PATIENCE"), Time, "the caller is told `100 Continue` in the server's place, from then on at once until the server says it again", Uncounted("nothing is refused: the caller's body comes sooner")),
        row(Constant("proxy/src/http/stall.rs", "MAX_PAUSED"), Count, "further ones have the time of a plain receiver", Metric("`limit_reached_total`, `http_stalled_exchanges`")),
        row(Constant("proxy/src/http/stall.rs", "ENOUGH_TAKEN"), Bytes, "less is no progress", Metric("`http_stalled_exchanges`")),
        row(Constant("proxy/src/http/stall.rs", "ENOUGH_SENT"), Bytes, "less is no progress", Metric("`http_stalled_exchanges`")),
        row(Constant("proxy/src/net/relay.rs", "SHARED"), Bytes, "no more is read from the sender until some is written", WAITS),
        row(Constant("proxy/src/net/io.rs", "SHARED"), Bytes, "the rest is read in the next turn", WAITS),
        row(Variable("LINKERD2_PROXY_SHUTDOWN_GRACE_PERIOD"), Time, "what still runs is cut and the process ends", Log),
    ]),
    ("Retries, hedging, mirrors, faults", &[
        row(Constant("engine/src/outbound/resilience.rs", "MAX_REQUEST_BYTES"), Bytes, "the request is not tried again", SKIPPED),
        row(Constant("proxy/src/http/replay.rs", "MAX_HELD"), Bytes, "the request is not tried again; one whose body an external service is to see is refused", Metric("`outbound_http_retry_buffer_bytes`, `outbound_http_route_retry_skipped_total`, `inbound_http_ext_authz_buffer_bytes`")),
        row(Constant("proxy/src/http/replay.rs", "UNASKED"), Bytes, "the request is not tried again", SKIPPED),
        row(Constant("proxy/src/http/replay.rs", "UNASKED_HELD"), Bytes, "the request is not tried again", SKIPPED),
        row(Constant("engine/src/retry/mod.rs", "MAX_UNSEEN"), Count, "the failure goes to the caller", Metric("`outbound_http_route_retry_limit_exceeded_total`")),
        row(Constant("engine/src/retry/mod.rs", "MAX_HINT"), Time, "the server's answer goes to the caller", SKIPPED),
        row(Constant("engine/src/outbound/profile.rs", "MAX_PROFILE_RETRIES"), Count, "the failure goes to the caller", Metric("`outbound_http_route_retry_limit_exceeded_total`")),
        row(Constant("engine/src/budget.rs", "MAX_TTL"), Count, "the policy is refused", INVALID),
        row(Constant("engine/src/budget.rs", "MAX_RATIO"), Count, "the policy is refused", INVALID),
        row(Constant("engine/src/hedge.rs", "MAX_HEDGES"), Count, "the policy is refused", INVALID),
        row(Constant("engine/src/hedge.rs", "MIN_SAMPLES"), Count, "nothing is hedged before", MEASURE),
        row(Constant("proxy/src/outbound/mirror.rs", "MAX_MIRRORED"), Count, "the request is not copied", Metric("`outbound_http_mirrored_total{result=\"skipped_full\"}`")),
        row(Constant("proxy/src/outbound/mirror.rs", "MAX_BODY"), Bytes, "the request is not copied", Metric("`outbound_http_mirrored_total{result=\"skipped_body\"}`")),
        row(Constant("proxy/src/outbound/mirror.rs", "PATIENCE"), Time, "the copy is given up", Metric("`outbound_http_mirrored_total{result=\"failed\"}`")),
        row(Constant("engine/src/route/filter/failure.rs", "MAX_DELAY"), Time, "the policy is refused", INVALID),
    ]),
    ("Admission", &[
        row(Constant("engine/src/inbound/rate.rs", "MAX_BUCKETS"), Count, "further identities share a bucket", Metric("`inbound_http_local_ratelimit_buckets`")),
        row(Constant("engine/src/inbound/jwt/mod.rs", "MAX_TOKEN"), Bytes, "401 `token-invalid`", Metric("`inbound_http_jwt_total{result=\"too_long\"}`")),
        row(Constant("engine/src/inbound/jwt/mod.rs", "MAX_TRIED_KEYS"), Count, "401 `token-invalid`", Metric("`inbound_http_jwt_total{result=\"signature\"}`")),
        row(Constant("engine/src/inbound/jwt/mod.rs", "MAX_REQUIREMENTS"), Count, "requests are refused: 500 `requirement-invalid`", ERRORS),
        row(Constant("engine/src/inbound/jwt/mod.rs", "MAX_CLAIM_HEADERS"), Count, "requests are refused: 500 `requirement-invalid`", Metric("`inbound_http_jwt_total{result=\"invalid_requirement\"}`")),
        row(Constant("engine/src/inbound/jwt/mod.rs", "MAX_CLAIM"), Bytes, "the header is left out", LIMIT),
        row(Constant("engine/src/inbound/jwt/keys.rs", "MAX_JWKS"), Bytes, "requests are refused: 500 `requirement-invalid`", Metric("`inbound_http_jwt_total{result=\"invalid_requirement\"}`")),
        row(Constant("engine/src/inbound/jwt/keys.rs", "MAX_KEYS"), Count, "requests are refused: 500 `requirement-invalid`", Metric("`inbound_http_jwt_total{result=\"invalid_requirement\"}`")),
        row(Constant("engine/src/inbound/jwt/json.rs", "MAX_DEPTH"), Count, "401 `token-invalid`", Metric("`inbound_http_jwt_total{result=\"malformed\"}`")),
        row(Constant("engine/src/inbound/jwt/verified.rs", "GENERATION"), Count, "the older generation is forgotten; its tokens are verified anew", Metric("`inbound_http_jwt_remembered`")),
        row(Constant("engine/src/inbound/external.rs", "MAX_SHOWN_BODY"), Bytes, "a requirement that asks for more is invalid: 500 `requirement-invalid`", ERRORS),
        row(Constant("engine/src/inbound/external.rs", "MAX_TIMEOUT"), Time, "a requirement that asks for more is invalid: 500 `requirement-invalid`", ERRORS),
        row(Constant("proxy/src/inbound/admission/external/body.rs", "PATIENCE"), Time, "408", Metric("`inbound_http_ext_authz_total`")),
        row(Constant("proxy/src/inbound/admission/external/mod.rs", "MAX_IN_FLIGHT"), Count, "as when the service does not answer", Metric("`inbound_http_ext_authz_in_flight`")),
        row(Constant("proxy/src/inbound/admission/external/call.rs", "MAX_ANSWER"), Bytes, "as when the service does not answer", Metric("`inbound_http_ext_authz_total`")),
        row(Constant("proxy/src/inbound/admission/external/endpoints.rs", "MAX_ENDPOINTS"), Count, "the others are not asked", Uncounted("one is enough; another choice is made when these change")),
        row(Constant("proxy/src/inbound/admission/external/call.rs", "TRIES"), Count, "as when the service does not answer", Metric("`inbound_http_ext_authz_total`")),
    ]),
    ("Policies and discovery", &[
        row(Constant("engine/src/invalid.rs", "MAX_ROUTES"), Count, "the policy is refused, the last one holds", INVALID),
        row(Constant("engine/src/invalid.rs", "MAX_RULES"), Count, "the policy is refused, the last one holds", INVALID),
        row(Constant("engine/src/invalid.rs", "MAX_AUTHORIZATIONS"), Count, "the policy is refused, the last one holds", INVALID),
        row(Constant("engine/src/invalid.rs", "MAX_REGEX"), Bytes, "the match is refused", INVALID),
        row(Constant("engine/src/invalid.rs", "MAX_REGEX_PROGRAM"), Bytes, "the match is refused", INVALID),
        row(Constant("engine/src/outbound/profile.rs", "MAX_CONDITIONS"), Count, "the profile is refused, the last one holds", INVALID),
        row(Constant("engine/src/route/filter/cors.rs", "MAX_LIST"), Count, "the filter is refused", INVALID),
        row(Constant("engine/src/destination.rs", "MAX_ENDPOINTS"), Count, "further endpoints are left out", INVALID),
        row(Constant("engine/src/destination/log.rs", "MAX_LOGGED_CHANGES"), Count, "the reader reads the whole list", Metric("`outbound_http_balancer_p2c_updates_total{op=\"Reset\"}`")),
        row(Constant("engine/src/balance/ring.rs", "MAX_POINTS"), Count, "a heavier endpoint has no more", COARSER),
        row(Constant("engine/src/balance/pick.rs", "MAX_STEPS"), Count, "any endpoint is taken", COARSER),
        row(Constant("engine/src/breaker/outcome.rs", "MAX_RETRY_AFTER"), Time, "a server that asks for more is believed so long", Uncounted("a wish, granted in part; nothing is refused")),
        row(Constant("proxy/src/discovery.rs", "MAX_TARGETS"), Count, "the target is not watched: 503 `policy-unavailable`, a connection is closed", Metric("`control_watches_refused_total`")),
        row(Constant("proxy/src/discovery.rs", "MAX_PROFILES"), Count, "requests for further names are counted without their ServiceProfile", Metric("`control_watches_refused_total`")),
        row(Variable("LINKERD2_PROXY_INBOUND_DISCOVERY_IDLE_TIMEOUT"), Time, "the port, or the name's profile, is no longer watched", Metric("`control_watches`")),
        row(Variable("LINKERD2_PROXY_OUTBOUND_DISCOVERY_IDLE_TIMEOUT"), Time, "the target is no longer watched", Metric("`control_watches`")),
        row(Constant("proxy/src/outbound/mod.rs", "DISCOVERY_TIMEOUT"), Time, "504 `discovery-timeout`; a connection is closed", Metric("`outbound_http_errors_total`, `outbound_tcp_errors_total`")),
        row(Constant("proxy/src/config/values.rs", "MAX_DECLARED_PORTS"), Count, "the environment is refused (exit code 64)", Log),
    ]),
    ("Control plane", &[
        row(Constant("proxy/src/control/channel.rs", "STREAMS_PER_CONNECTION"), Count, "another connection is opened", Uncounted("nothing is refused: another connection carries them")),
        row(Constant("proxy/src/control/channel.rs", "MAX_MESSAGE_BYTES"), Bytes, "the stream ends and is opened anew; the last state holds", Metric("`control_watch_failures_total`")),
        row(Constant("proxy/src/control/channel/dial.rs", "CONNECT_TIMEOUT"), Time, "the next address is tried", Metric("`control_connect_failures_total`")),
        row(Constant("proxy/src/control/channel/dial.rs", "HANDSHAKE_TIMEOUT"), Time, "the next address is tried", Metric("`control_connect_failures_total`")),
        row(Constant("proxy/src/control/channel/dial.rs", "KEEP_ALIVE_TIMEOUT"), Time, "the connection is closed and made anew", Metric("`control_watch_failures_total`")),
        row(Variable("LINKERD2_PROXY_CONTROL_STREAM_INITIAL_TIMEOUT"), Time, "the stream is opened anew", Metric("`control_watch_failures_total`")),
        row(Variable("LINKERD2_PROXY_CONTROL_STREAM_IDLE_TIMEOUT"), Time, "the stream is opened anew", Metric("`control_watch_failures_total`")),
        row(Variable("LINKERD2_PROXY_CONTROL_STREAM_LIFETIME"), Time, "the stream is opened anew", Uncounted("nothing is lost: what is known holds meanwhile")),
        row(Constant("proxy/src/control/backoff.rs", "MAX"), Time, "an attempt is made at least so often", Metric("`control_connect_failures_total`")),
        row(Constant("proxy/src/control/watch.rs", "ASK_AGAIN"), Time, "the question is asked again", Metric("`control_watch_failures_total`")),
        row(Constant("proxy/src/control/watch.rs", "MAX_ERROR"), Bytes, "the text is cut", CUT),
        row(Constant("proxy/src/control/identity.rs", "ATTEMPT"), Time, "the attempt has failed", Metric("`control_identity_cert_refreshes_total{result=\"error\"}`")),
        row(Constant("proxy/src/control/identity.rs", "MAX_TOKEN_BYTES"), Bytes, "the attempt has failed", Metric("`control_identity_cert_refreshes_total{result=\"error\"}`")),
        row(Constant("proxy/src/identity/verify.rs", "MAX_ANCHORS"), Count, "the list is refused, the last one holds", INVALID),
        row(Constant("proxy/src/control/dns.rs", "ATTEMPT"), Time, "the next server is asked", Metric("`control_dns_resolutions_total`")),
        row(Constant("proxy/src/control/dns.rs", "ROUNDS"), Count, "the look-up has failed", Metric("`control_dns_resolutions_total`")),
        row(Constant("proxy/src/control/dns.rs", "UDP_BYTES"), Bytes, "the answer is cut, and asked for over TCP", Uncounted("nothing is lost: it is asked for again")),
        row(Constant("proxy/src/control/dns.rs", "MAX_SUFFIXES"), Count, "the rest of the search list is not tried", OWN),
        row(Constant("proxy/src/control/dns.rs", "MAX_ADDRESSES"), Count, "the rest is not used", LIMIT),
        row(Constant("proxy/src/control/dns.rs", "MAX_NAMES"), Count, "names whose time is over go, then all", LIMIT),
        row(Constant("proxy/src/control/dns_message.rs", "MAX_RECORDS"), Count, "the answer is malformed", Metric("`control_dns_resolutions_total`")),
        row(Constant("proxy/src/admin.rs", "HEADER_TIMEOUT"), Time, "the client's connection is closed", LIMIT),
    ]),
    ("What is observed", &[
        row(Constant("proxy/src/metrics/registry.rs", "MAX_SERIES"), Count, "counted in the family's series `overflow=\"true\"`", Metric("`proxy_metrics_series_refused_total`")),
        row(Constant("proxy/src/metrics/registry.rs", "MAX_FAMILY"), Count, "counted in the family's series `overflow=\"true\"`", Metric("`proxy_metrics_series_refused_total`")),
        row(Constant("proxy/src/metrics/exemplar.rs", "MAX_HISTOGRAMS"), Count, "further ones have no exemplars", Uncounted("exemplars are a sample")),
        row(Constant("proxy/src/metrics/exemplar.rs", "LONGEST"), Bytes, "the request is no exemplar", Uncounted("exemplars are a sample")),
        row(Constant("proxy/src/metrics/http.rs", "MAX_OUTCOMES"), Count, "counted under the status class", Metric("`response_total{status_code=\"…xx\"}`")),
        row(Constant("proxy/src/metrics/route.rs", "MAX_STATUSES"), Count, "counted under `UNKNOWN`", Metric("`inbound_http_statuses_total`, `outbound_http_route_request_statuses_total`")),
        row(Constant("proxy/src/metrics/labels.rs", "MAX_VALUE_BYTES"), Bytes, "the value is cut", CUT),
        row(Constant("proxy/src/outbound/rules.rs", "MAX_HOSTNAMES"), Count, "counted without the hostname", Metric("`outbound_http_route_request_statuses_total{hostname=\"\"}`")),
        row(Constant("proxy/src/inbound/port.rs", "MAX_SERIES"), Count, "all are looked up in the registry anew", ANEW),
        row(Constant("proxy/src/inbound/port.rs", "MAX_PROFILED"), Count, "they are resolved anew", LIMIT),
        row(Constant("proxy/src/observe/refused.rs", "KEPT"), Count, "the oldest explanation goes", Uncounted("a ring: it holds the last ones")),
        row(Constant("proxy/src/observe/refused.rs", "LONGEST_METHOD"), Bytes, "the text is cut", CUT),
        row(Constant("proxy/src/observe/refused.rs", "LONGEST_PATH"), Bytes, "the text is cut", CUT),
        row(Constant("proxy/src/observe/refused.rs", "LONGEST"), Bytes, "the text is cut", CUT),
        row(Constant("proxy/src/observe/derivation.rs", "MOST"), Count, "the rest is counted, not kept", CUT),
        row(Constant("proxy/src/observe/derivation.rs", "LONGEST"), Bytes, "the text is cut", CUT),
        row(Constant("engine/src/route/seen.rs", "MOST"), Count, "the rest is counted, not shown", CUT),
        row(Constant("engine/src/route/seen.rs", "LONGEST"), Bytes, "the text is cut", CUT),
        row(Constant("proxy/src/observe/request_id.rs", "LONGEST"), Bytes, "the request gets an id of the proxy's", Uncounted("the answer carries the id that counts")),
        row(Constant("proxy/src/observe/mod.rs", "LINES_AT_ONCE"), Count, "the line is left out", Metric("`proxy_log_lines_dropped_total`")),
        row(Constant("proxy/src/observe/mod.rs", "LINES_PER_SECOND"), Count, "the line is left out", Metric("`proxy_log_lines_dropped_total`")),
        row(Constant("proxy/src/observe/access.rs", "WAITING"), Count, "the line is left out", Metric("`proxy_log_lines_dropped_total`")),
        row(Constant("proxy/src/observe/access.rs", "LONGEST_URI"), Bytes, "the text is cut", CUT),
        row(Constant("proxy/src/observe/access.rs", "LONGEST"), Bytes, "the text is cut", CUT),
        row(Constant("proxy/src/trace/queue.rs", "RECORDS"), Count, "the span is lost", Metric("`trace_spans_dropped_total`")),
        row(Constant("proxy/src/trace/queue.rs", "BATCH"), Count, "they are sent at once", Metric("`opentelemetry_span_export_requests`")),
        row(Constant("proxy/src/control/traces.rs", "ANSWER_TIMEOUT"), Time, "the message is sent again", Metric("`control_response_total`")),
        row(Constant("proxy/src/control/traces.rs", "TRIES"), Count, "the message's spans are lost", Metric("`trace_spans_dropped_total`")),
        row(Constant("proxy/src/control/traces.rs", "MAX_ANSWER"), Bytes, "the message's spans are lost", Metric("`trace_spans_dropped_total`")),
        row(Constant("proxy/src/control/traces.rs", "LAST_WORDS"), Time, "the last spans are lost", ENDS),
        row(Constant("proxy/src/control/traces.rs", "MAX_LABELS_FILE"), Bytes, "the rest is not read", OWN),
        row(Constant("proxy/src/config/values.rs", "MAX_ATTRIBUTES"), Count, "the rest is left out", OWN),
        row(Constant("proxy/src/config/values.rs", "LONGEST_ATTRIBUTE"), Bytes, "the attribute is left out", OWN),
        row(Constant("proxy/src/inbound/audit.rs", "LINES"), Count, "the line is left out; the next one says how many were", Log),
        row(Constant("proxy/src/log.rs", "MAX_LEVELS"), Bytes, "400, and the levels stay as they were", Uncounted("whoever asks is told")),
        row(Variable("LINKERD2_PROXY_METRICS_RETAIN_IDLE"), Time, "the series is forgotten", Metric("`proxy_metrics_series_evicted_total`")),
    ]),
    ("Tap", &[
        row(Constant("proxy/src/tap/mod.rs", "MAX_TAPS"), Count, "`RESOURCE_EXHAUSTED`", Metric("`tap_refused_total{reason=\"taps\"}`")),
        row(Constant("proxy/src/tap/mod.rs", "QUEUE_EVENTS"), Count, "the event is lost; no request waits", Metric("`tap_events_lost_total`")),
        row(Constant("proxy/src/tap/mod.rs", "QUEUE_BYTES"), Bytes, "the event is lost; no request waits", Metric("`tap_events_lost_total`")),
        row(Constant("proxy/src/tap/mod.rs", "MAX_PER_SECOND"), Count, "the request is passed over", Metric("`tap_requests_passed_over_total`")),
        row(Constant("proxy/src/tap/mod.rs", "MAX_QUESTION"), Bytes, "`RESOURCE_EXHAUSTED`", Metric("`tap_refused_total{reason=\"question\"}`")),
        row(Constant("proxy/src/tap/mod.rs", "MAX_CONNECTIONS"), Count, "the connection is closed", Metric("`tap_refused_total{reason=\"connections\"}`")),
        row(Constant("proxy/src/tap/serve.rs", "MAX_STREAMS"), Count, "the stream is refused", Uncounted("the caller, who has tap's identity, is told")),
        row(Constant("proxy/src/tap/serve.rs", "HELLO_TIMEOUT"), Time, "the connection is closed", Metric("`tap_refused_total`")),
        row(Constant("proxy/src/tap/serve.rs", "REFUSED_FOR"), Time, "the connection is closed", Metric("`tap_refused_total`")),
        row(Constant("proxy/src/tap/serve.rs", "PATIENCE"), Time, "the connection is cut", ENDS),
        row(Constant("proxy/src/tap/call.rs", "QUESTION_TIMEOUT"), Time, "`INVALID_ARGUMENT`", Metric("`tap_refused_total{reason=\"question\"}`")),
        row(Constant("engine/src/tap/mod.rs", "MAX_CONDITIONS"), Count, "`INVALID_ARGUMENT`", Metric("`tap_refused_total{reason=\"question\"}`")),
        row(Constant("engine/src/tap/mod.rs", "MAX_LIMIT"), Count, "a higher limit is this one", Uncounted("the caller gets so many, and may ask again")),
        row(Constant("engine/src/tap/mod.rs", "MAX_METHOD"), Bytes, "`INVALID_ARGUMENT`", Metric("`tap_refused_total{reason=\"question\"}`")),
    ]),
    ("Memory kept between bursts", &[
        row(Constant("http/src/limits.rs", "KEPT_HEAD_BUFFER"), Bytes, "the rest is given back", KEPT),
        row(Constant("http/src/limits.rs", "KEPT_FIELDS"), Count, "the rest is given back", KEPT),
        row(Constant("http/src/h2/connection.rs", "KEPT"), Bytes, "the rest is given back", KEPT),
        row(Constant("http/src/hpack/decode.rs", "KEPT_SCRATCH"), Bytes, "the rest is given back", KEPT),
        row(Constant("proxy/src/http/h1.rs", "KEPT"), Bytes, "the rest is given back", KEPT),
        row(Constant("proxy/src/http/buffers.rs", "KEPT"), Count, "the rest is given back", KEPT),
        row(Constant("proxy/src/http/buffers.rs", "LARGEST"), Bytes, "the rest is given back", KEPT),
        row(Constant("proxy/src/http/h2/link.rs", "KEPT_INBOXES"), Count, "the rest is given back", KEPT),
        row(Constant("proxy/src/http/serve.rs", "SPARE_HEADS_KEPT"), Count, "the rest is given back", KEPT),
        row(Constant("proxy/src/http/replay.rs", "SPARE"), Count, "the rest is given back", KEPT),
        row(Constant("proxy/src/http/replay.rs", "SPARE_BYTES"), Bytes, "the rest is given back", KEPT),
    ]),
];

/// The page `docs/reference/limits.md`.
pub fn markdown() -> String {
    let mut page = String::from(
        "# The sidecar's limits\n\n\
         <!-- Generated from the source by `cargo run --release -p tulle-proxy --example reference`. -->\n\n\
         Everything that a peer, a policy or a burst could make the sidecar hold has a bound. What is counted per worker\n\
         or per connection says so. A bound with an environment variable is set by it; the value is the default.\n",
    );
    for (title, limits) in GROUPS {
        let _ = write!(
            page,
            "\n## {title}\n\n| limit | value | what it bounds | when it is reached | seen in |\n|---|---|---|---|---|\n"
        );
        for limit in *limits {
            let (name, meaning) = described(&limit.home);
            let _ = writeln!(
                page,
                "| {name} | {} | {meaning} | {} | {} |",
                value(limit),
                limit.then,
                seen(&limit.shown)
            );
        }
    }
    page
}

fn seen(shown: &Shown) -> String {
    match *shown {
        Metric(names) => names.to_owned(),
        Log => "log".to_owned(),
        Uncounted(why) => format!("not counted: {why}"),
    }
}

fn constant(file: &str, name: &str) -> source::Constant {
    source::constants(file)
        .into_iter()
        .find(|constant| constant.name == name)
        .unwrap_or_else(|| panic!("crates/{file} has no constant {name}"))
}

fn variable(name: &str) -> &'static table::Variable {
    table::all()
        .find(|variable| variable.name == name)
        .unwrap_or_else(|| panic!("there is no variable {name}"))
}

fn described(home: &Home) -> (String, String) {
    match *home {
        Constant(file, name) => {
            let comment = constant(file, name).comment;
            assert!(
                !comment.is_empty(),
                "crates/{file}: {name} says nothing of itself"
            );
            let place = file
                .replace("/src", "")
                .replace("/mod.rs", "")
                .replace(".rs", "");
            (
                format!("`{}::{name}`", place.replace('/', "::")),
                plain(&comment),
            )
        }
        Default(name, _, meaning) => (format!("`{name}`"), meaning.to_owned()),
        Variable(name) => (format!("`{name}`"), variable(name).meaning.to_owned()),
    }
}

/// Without what only the source's own documentation can resolve.
fn plain(comment: &str) -> String {
    let comment = comment.trim_start_matches("… ");
    comment
        .replace("[`", "`")
        .replace("`]", "`")
        .replace("(crate::Head)", "")
        .replace('|', "\\|")
}

fn value(limit: &Limit) -> String {
    let worth = match limit.home {
        Constant(file, name) => {
            let expression = constant(file, name).expression;
            source::evaluate(&expression)
                .unwrap_or_else(|| panic!("crates/{file}: {name} = {expression} cannot be read"))
        }
        Default(_, value, _) => Worth::Number(value()),
        Variable(name) => match variable(name).default {
            text if limit.unit == Time => {
                return if text == "0s" {
                    "none".to_owned()
                } else {
                    text.to_owned()
                };
            }
            text => source::evaluate(text).expect("a number"),
        },
    };
    match (worth, limit.unit) {
        (Worth::Time(time), _) if time.subsec_millis() == 0 => format!("{}s", time.as_secs()),
        (Worth::Time(time), _) => format!("{}ms", time.as_millis()),
        (Worth::Number(number), Bytes) if number >= 1 << 20 && number % (1 << 20) == 0 => {
            format!("{} MiB", number >> 20)
        }
        (Worth::Number(number), Bytes) if number >= 1 << 12 && number % (1 << 10) == 0 => {
            format!("{} KiB", number >> 10)
        }
        (Worth::Number(number), Bytes) => format!("{} bytes", grouped(number)),
        (Worth::Number(number), _) => grouped(number),
    }
}

/// With commas between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
