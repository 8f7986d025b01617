//! Every metric family of the proxy: its name, kind, help text and labels. `docs/reference/metrics.md` is generated
//! from this file by `cargo run --example metrics_reference`, and a test says when the page is stale.
//!
//! A new metric is one row here. Names and labels are Linkerd's wherever Linkerd has one; `http_requests_total` and
//! `http_request_duration_ms` are those that readers of service-mesh articles look for first.

use super::histogram::{
    Bounds, COARSE_SECONDS, DETECT_SECONDS, FINE_SECONDS, FRAME_BYTES, LATENCY_MS, QUEUE_SECONDS,
};

/// What kind of numbers a family holds.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts per bound, with sum and count.
    Histogram(&'static Bounds),
}

/// One metric family.
#[derive(Debug)]
pub struct Family {
    /// The name as exposed, `_total` included.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// One sentence for `# HELP` and the reference page.
    pub help: &'static str,
    /// Names of the labels, for the reference page. Label groups stand for what `LABEL_GROUPS` lists.
    pub labels: &'static [&'static str],
}

/// Label groups that many families share: the name used in a family's `labels`, and what it stands for.
pub const LABEL_GROUPS: &[(&str, &str)] = &[
    ("{target}", "target_addr, target_ip, target_port"),
    (
        "{tls}",
        "tls (true, disabled, no_identity, opaque), no_tls_reason, client_id (inbound), server_id (outbound)",
    ),
    ("{srv}", "srv_group, srv_kind, srv_name, srv_port (inbound)"),
    ("{route}", "route_group, route_kind, route_name (inbound)"),
    ("{authz}", "authz_group, authz_kind, authz_name (inbound)"),
    (
        "{parent_route}",
        "parent_group, parent_kind, parent_namespace, parent_name, parent_port, parent_section_name, route_group, route_kind, route_namespace, route_name (outbound)",
    ),
    (
        "{backend}",
        "backend_group, backend_kind, backend_namespace, backend_name, backend_port, backend_section_name",
    ),
    (
        "{ratelimit}",
        "ratelimit_group, ratelimit_kind, ratelimit_name (inbound)",
    ),
    ("{jwt}", "jwt_group, jwt_kind, jwt_name (inbound)"),
    (
        "{ext_authz}",
        "ext_authz_group, ext_authz_kind, ext_authz_name (inbound)",
    ),
    (
        "{dst}",
        "dst_namespace, dst_deployment and its kin, dst_service, dst_serviceaccount, dst_pod, dst_pod_template_hash, dst_control_plane_ns, dst_zone (outbound, as the control plane labels endpoints)",
    ),
];

macro_rules! families {
    ($($name:ident $kind:expr, $text:literal, [$($label:literal),*], $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $name: Family = Family { name: $text, kind: $kind, help: $help, labels: &[$($label),*] };
        )*
        /// All families, in the order of this file.
        pub static ALL: &[&Family] = &[$(&$name),*];
    };
}

use Kind::{Counter, Gauge, Histogram};

families! {
    // The two that the article names.
    HTTP_REQUESTS_TOTAL Counter, "http_requests_total",
        ["direction", "dst_pod", "dst_service", "src_pod", "src_namespace", "status_code"],
        "HTTP requests answered, by both ends and status code; inbound src_* come from the peer's certificate.";
    HTTP_REQUEST_DURATION_MS Histogram(&LATENCY_MS), "http_request_duration_ms",
        ["direction", "dst_pod", "dst_service", "src_pod", "src_namespace", "status_code"],
        "Milliseconds from the request's head to the end of its answer.";

    // Linkerd's HTTP families.
    REQUEST_TOTAL Counter, "request_total",
        ["direction", "authority", "{target}", "{tls}", "{srv}", "{route}", "{authz}", "{dst}"],
        "HTTP requests that reached this proxy.";
    RESPONSE_TOTAL Counter, "response_total",
        ["direction", "authority", "{target}", "{tls}", "{srv}", "{route}", "{authz}", "{dst}", "status_code", "classification", "grpc_status", "error"],
        "HTTP answers that ended, by outcome.";
    RESPONSE_LATENCY_MS Histogram(&LATENCY_MS), "response_latency_ms",
        ["direction", "authority", "{target}", "{tls}", "{srv}", "{route}", "{authz}", "{dst}", "status_code"],
        "Milliseconds from the request's head to the first byte of the answer's body.";

    // ServiceProfiles.
    ROUTE_REQUEST_TOTAL Counter, "route_request_total", ["direction", "dst", "rt_*"],
        "HTTP requests that a ServiceProfile's route took, as their callers sent them; rt_* are the route's labels (rt_route), none for what no route took.";
    ROUTE_RESPONSE_TOTAL Counter, "route_response_total", ["direction", "dst", "rt_*", "status_code", "classification", "grpc_status", "error"],
        "Answers that those callers got; the classification is by the route's response classes.";
    ROUTE_RESPONSE_LATENCY_MS Histogram(&LATENCY_MS), "route_response_latency_ms", ["direction", "dst", "rt_*", "status_code"],
        "Milliseconds from such a request's head to the first byte of its answer's body, retries included.";
    ROUTE_ACTUAL_REQUEST_TOTAL Counter, "route_actual_request_total", ["direction", "dst", "rt_*"],
        "Tries of such requests, retries included (outbound).";
    ROUTE_ACTUAL_RESPONSE_TOTAL Counter, "route_actual_response_total", ["direction", "dst", "rt_*", "status_code", "classification", "grpc_status", "error"],
        "Answers to those tries (outbound).";
    ROUTE_RETRYABLE_TOTAL Counter, "route_retryable_total", ["direction", "dst", "rt_*", "skipped"],
        "Tries whose outcome the profile asks to try again; with skipped (no_budget) those that were not for want of budget (outbound).";

    // TCP.
    TCP_OPEN_TOTAL Counter, "tcp_open_total", ["direction", "peer", "{target}", "{tls}", "{srv}", "{authz}", "{dst}"],
        "Connections opened.";
    TCP_CLOSE_TOTAL Counter, "tcp_close_total", ["direction", "peer", "{target}", "{tls}", "{srv}", "{authz}", "{dst}", "errno", "classification"],
        "Connections closed, by classification (success, failure); errno names the error that ended one, and is empty for an orderly end.";
    TCP_OPEN_CONNECTIONS Gauge, "tcp_open_connections", ["direction", "peer", "{target}", "{tls}", "{srv}", "{authz}", "{dst}"],
        "Connections open now.";
    TCP_READ_BYTES_TOTAL Counter, "tcp_read_bytes_total", ["direction", "peer", "{target}", "{tls}", "{srv}", "{authz}", "{dst}"],
        "Bytes read from peers.";
    TCP_WRITE_BYTES_TOTAL Counter, "tcp_write_bytes_total", ["direction", "peer", "{target}", "{tls}", "{srv}", "{authz}", "{dst}"],
        "Bytes written to peers.";

    // Policy and errors.
    INBOUND_HTTP_AUTHZ_ALLOW_TOTAL Counter, "inbound_http_authz_allow_total", ["{target}", "{tls}", "{srv}", "{route}", "{authz}"],
        "Inbound HTTP requests that policy allowed.";
    INBOUND_HTTP_AUTHZ_DENY_TOTAL Counter, "inbound_http_authz_deny_total", ["{target}", "{tls}", "{srv}", "{route}"],
        "Inbound HTTP requests that policy refused.";
    INBOUND_HTTP_ROUTE_NOT_FOUND_TOTAL Counter, "inbound_http_route_not_found_total", ["{target}", "{tls}", "{srv}"],
        "Inbound HTTP requests that no route of their Server matched.";
    INBOUND_TCP_AUTHZ_ALLOW_TOTAL Counter, "inbound_tcp_authz_allow_total", ["{target}", "{tls}", "{srv}", "{authz}"],
        "Inbound connections that policy allowed.";
    INBOUND_TCP_AUTHZ_DENY_TOTAL Counter, "inbound_tcp_authz_deny_total", ["{target}", "{tls}", "{srv}"],
        "Inbound connections that policy refused.";
    INBOUND_TCP_AUTHZ_TERMINATE_TOTAL Counter, "inbound_tcp_authz_terminate_total", ["{target}", "{tls}", "{srv}"],
        "Inbound connections ended because a policy change no longer allows them.";
    INBOUND_HTTP_LOCAL_RATELIMIT_TOTAL Counter, "inbound_http_local_ratelimit_total", ["{target}", "{tls}", "{srv}", "{ratelimit}", "scope"],
        "Inbound HTTP requests beyond a local rate limit; scope: total, or identity (also of an override).";
    INBOUND_HTTP_LOCAL_RATELIMIT_BUCKETS Gauge, "inbound_http_local_ratelimit_buckets", ["{srv}"],
        "Client identities that a local rate limit tells apart now; at most 10,000 per port, further ones share a bucket.";
    INBOUND_HTTP_CONCURRENCY_LIMITED_TOTAL Counter, "inbound_http_concurrency_limited_total", ["{srv}"],
        "Inbound HTTP requests beyond the number that the Server lets in at once.";
    INBOUND_HTTP_JWT_TOTAL Counter, "inbound_http_jwt_total", ["{srv}", "{jwt}", "result"],
        "Tokens that inbound HTTP requests had to carry; result: valid, remembered (verified before), missing, invalid_requirement, or what was wrong: several, too_long, malformed, header, critical, algorithm, unknown_key, signature, payload, issuer, audience, endless, expired, not_yet.";
    INBOUND_HTTP_JWT_REMEMBERED Gauge, "inbound_http_jwt_remembered", ["{srv}"],
        "Verified tokens that are remembered; at most 1,024 per requirement and worker.";
    INBOUND_HTTP_EXT_AUTHZ_TOTAL Counter, "inbound_http_ext_authz_total", ["{srv}", "{ext_authz}", "result", "error"],
        "Inbound HTTP requests that an external service was to be asked about; result: allow, deny, failed_open, failed_closed; error, of the last two: timeout, unreachable, identity, status, bad_answer, overflow, invalid_requirement.";
    INBOUND_HTTP_EXT_AUTHZ_DURATION_MS Histogram(&LATENCY_MS), "inbound_http_ext_authz_duration_ms", ["{srv}", "{ext_authz}"],
        "Milliseconds that requests waited for an external service's word.";
    INBOUND_HTTP_EXT_AUTHZ_IN_FLIGHT Gauge, "inbound_http_ext_authz_in_flight", ["{srv}", "{ext_authz}"],
        "Questions that an external service has not answered yet; at most 1,000 per port and worker.";
    INBOUND_HTTP_ERRORS_TOTAL Counter, "inbound_http_errors_total", ["error", "{target}"],
        "Inbound HTTP requests that the proxy answered itself, by reason.";
    INBOUND_TCP_ERRORS_TOTAL Counter, "inbound_tcp_errors_total", ["error", "{target}"],
        "Inbound connections that failed in the proxy, by reason.";
    OUTBOUND_HTTP_ERRORS_TOTAL Counter, "outbound_http_errors_total", ["error"],
        "Outbound HTTP requests that the proxy answered itself, by reason.";
    OUTBOUND_HTTP_MIRRORED_TOTAL Counter, "outbound_http_mirrored_total", ["backend_group", "backend_kind", "backend_namespace", "backend_name", "backend_port", "result"],
        "Copies of requests for a mirror, by what became of them: answered, failed, skipped_full (128 at once), skipped_body (over 64 KiB), skipped_cut (the request did not end).";
    HTTP_FAULTS_TOTAL Counter, "http_faults_total", ["direction", "route_group", "route_kind", "route_namespace", "route_name", "fault"],
        "Requests that a route's fault filter delayed or aborted; fault: delay, abort.";
    HTTP_PREFLIGHTS_TOTAL Counter, "http_preflights_total", ["direction", "allowed"],
        "Preflight requests that a route's CORS filter answered, by whether the origin is allowed.";
    OUTBOUND_TCP_ERRORS_TOTAL Counter, "outbound_tcp_errors_total", ["error"],
        "Outbound connections that failed in the proxy, by reason.";
    WORKER_ACCEPTED_CONNECTIONS_TOTAL Counter, "worker_accepted_connections_total", ["worker", "direction"],
        "Connections accepted, by the worker thread that serves them.";
    TLS_HANDSHAKES_TOTAL Counter, "tls_handshakes_total", ["direction", "kind"],
        "TLS handshakes that succeeded; kind: full, resumed (with a ticket of an earlier connection between the same certificates).";
    TLS_HANDSHAKE_FAILURES_TOTAL Counter, "tls_handshake_failures_total", ["direction", "reason"],
        "TLS handshakes that failed; reason: expired, not_yet_valid, unknown_issuer, wrong_identity, no_certificate, bad_certificate, alert, no_alpn, not_tls13, closed, timeout, other.";

    TLS_DISTRUSTED_CONNECTIONS_TOTAL Counter, "tls_distrusted_connections_total", ["direction", "action"],
        "Connections whose peer no trust anchor vouches for any more since one was dropped; action: drain (nothing new is begun), cut (they had not ended within the grace).";

    // Requests by the route that took them, and what its backends did with them.
    OUTBOUND_HTTP_ROUTE_REQUEST_DURATION_SECONDS Histogram(&COARSE_SECONDS), "outbound_http_route_request_duration_seconds",
        ["{parent_route}", "hostname"],
        "Seconds from the head of HTTP requests to the end of their answers, retries included.";
    OUTBOUND_HTTP_ROUTE_REQUEST_STATUSES_TOTAL Counter, "outbound_http_route_request_statuses_total",
        ["{parent_route}", "hostname", "http_status", "error"],
        "HTTP requests of a route that ended, by outcome as their callers saw it; the status is empty where the proxy answered itself because of the error.";
    OUTBOUND_HTTP_ROUTE_REQUEST_FRAME_SIZE_BYTES Histogram(&FRAME_BYTES), "outbound_http_route_request_frame_size_bytes",
        ["{parent_route}", "hostname"],
        "Bytes of each piece of the bodies of HTTP requests.";
    OUTBOUND_HTTP_ROUTE_BACKEND_REQUESTS_TOTAL Counter, "outbound_http_route_backend_requests_total",
        ["{parent_route}", "{backend}", "hostname"],
        "HTTP requests dispatched to a backend, retries included.";
    OUTBOUND_HTTP_ROUTE_BACKEND_RESPONSE_DURATION_SECONDS Histogram(&FINE_SECONDS), "outbound_http_route_backend_response_duration_seconds",
        ["{parent_route}", "{backend}", "hostname"],
        "Seconds from the end of HTTP requests to the end of the backend's answers.";
    OUTBOUND_HTTP_ROUTE_BACKEND_RESPONSE_STATUSES_TOTAL Counter, "outbound_http_route_backend_response_statuses_total",
        ["{parent_route}", "{backend}", "hostname", "http_status", "error"],
        "Answers of a backend to HTTP requests, by outcome.";
    OUTBOUND_HTTP_ROUTE_BACKEND_RESPONSE_FRAME_SIZE_BYTES Histogram(&FRAME_BYTES), "outbound_http_route_backend_response_frame_size_bytes",
        ["{parent_route}", "{backend}", "hostname"],
        "Bytes of each piece of the bodies of a backend's answers to HTTP requests.";
    OUTBOUND_GRPC_ROUTE_REQUEST_DURATION_SECONDS Histogram(&COARSE_SECONDS), "outbound_grpc_route_request_duration_seconds",
        ["{parent_route}", "hostname"],
        "Seconds from the head of gRPC calls to the end of their answers, retries included.";
    OUTBOUND_GRPC_ROUTE_REQUEST_STATUSES_TOTAL Counter, "outbound_grpc_route_request_statuses_total",
        ["{parent_route}", "hostname", "grpc_status", "error"],
        "gRPC calls of a route that ended, by outcome as their callers saw it; the status is empty where the proxy answered itself because of the error.";
    OUTBOUND_GRPC_ROUTE_REQUEST_FRAME_SIZE_BYTES Histogram(&FRAME_BYTES), "outbound_grpc_route_request_frame_size_bytes",
        ["{parent_route}", "hostname"],
        "Bytes of each piece of the bodies of gRPC calls.";
    OUTBOUND_GRPC_ROUTE_BACKEND_REQUESTS_TOTAL Counter, "outbound_grpc_route_backend_requests_total",
        ["{parent_route}", "{backend}", "hostname"],
        "gRPC calls dispatched to a backend, retries included.";
    OUTBOUND_GRPC_ROUTE_BACKEND_RESPONSE_DURATION_SECONDS Histogram(&FINE_SECONDS), "outbound_grpc_route_backend_response_duration_seconds",
        ["{parent_route}", "{backend}", "hostname"],
        "Seconds from the end of gRPC calls to the end of the backend's answers.";
    OUTBOUND_GRPC_ROUTE_BACKEND_RESPONSE_STATUSES_TOTAL Counter, "outbound_grpc_route_backend_response_statuses_total",
        ["{parent_route}", "{backend}", "hostname", "grpc_status", "error"],
        "Answers of a backend to gRPC calls, by outcome.";
    OUTBOUND_GRPC_ROUTE_BACKEND_RESPONSE_FRAME_SIZE_BYTES Histogram(&FRAME_BYTES), "outbound_grpc_route_backend_response_frame_size_bytes",
        ["{parent_route}", "{backend}", "hostname"],
        "Bytes of each piece of the bodies of a backend's answers to gRPC calls.";
    // The same at the server's proxy.
    INBOUND_HTTP_REQUESTS_TOTAL Counter, "inbound_http_requests_total",
        ["{srv}", "{route}"],
        "HTTP requests that reached a route.";
    INBOUND_HTTP_STATUSES_TOTAL Counter, "inbound_http_statuses_total",
        ["{srv}", "{route}", "http_status", "error"],
        "HTTP requests of a route that ended, by outcome; the status is empty where the proxy answered itself because of the error.";
    INBOUND_HTTP_REQUEST_DURATION_SECONDS Histogram(&FINE_SECONDS), "inbound_http_request_duration_seconds",
        ["{srv}", "{route}"],
        "Seconds from the head of HTTP requests to the end of their answers.";
    INBOUND_HTTP_RESPONSE_DURATION_SECONDS Histogram(&COARSE_SECONDS), "inbound_http_response_duration_seconds",
        ["{srv}", "{route}"],
        "Seconds from the end of HTTP requests to the end of their answers.";
    INBOUND_HTTP_REQUEST_FRAME_SIZE_BYTES Histogram(&FRAME_BYTES), "inbound_http_request_frame_size_bytes",
        ["{srv}", "{route}"],
        "Bytes of each piece of the bodies of HTTP requests.";
    INBOUND_HTTP_RESPONSE_FRAME_SIZE_BYTES Histogram(&FRAME_BYTES), "inbound_http_response_frame_size_bytes",
        ["{srv}", "{route}"],
        "Bytes of each piece of the bodies of answers to HTTP requests.";
    INBOUND_GRPC_REQUESTS_TOTAL Counter, "inbound_grpc_requests_total",
        ["{srv}", "{route}"],
        "gRPC calls that reached a route.";
    INBOUND_GRPC_STATUSES_TOTAL Counter, "inbound_grpc_statuses_total",
        ["{srv}", "{route}", "grpc_status", "error"],
        "gRPC calls of a route that ended, by outcome; the status is empty where the proxy answered itself because of the error.";
    INBOUND_GRPC_REQUEST_DURATION_SECONDS Histogram(&FINE_SECONDS), "inbound_grpc_request_duration_seconds",
        ["{srv}", "{route}"],
        "Seconds from the head of gRPC calls to the end of their answers.";
    INBOUND_GRPC_RESPONSE_DURATION_SECONDS Histogram(&COARSE_SECONDS), "inbound_grpc_response_duration_seconds",
        ["{srv}", "{route}"],
        "Seconds from the end of gRPC calls to the end of their answers.";
    INBOUND_GRPC_REQUEST_FRAME_SIZE_BYTES Histogram(&FRAME_BYTES), "inbound_grpc_request_frame_size_bytes",
        ["{srv}", "{route}"],
        "Bytes of each piece of the bodies of gRPC calls.";
    INBOUND_GRPC_RESPONSE_FRAME_SIZE_BYTES Histogram(&FRAME_BYTES), "inbound_grpc_response_frame_size_bytes",
        ["{srv}", "{route}"],
        "Bytes of each piece of the bodies of answers to gRPC calls.";

    // Retries and hedges of a route's rules: Linkerd's four, then ours.
    OUTBOUND_HTTP_ROUTE_RETRY_REQUESTS_TOTAL Counter, "outbound_http_route_retry_requests_total", ["{parent_route}"],
        "Retries sent, of HTTP requests.";
    OUTBOUND_GRPC_ROUTE_RETRY_REQUESTS_TOTAL Counter, "outbound_grpc_route_retry_requests_total", ["{parent_route}"],
        "Retries sent, of gRPC calls.";
    OUTBOUND_HTTP_ROUTE_RETRY_SUCCESSES_TOTAL Counter, "outbound_http_route_retry_successes_total", ["{parent_route}"],
        "HTTP requests that a retry saved.";
    OUTBOUND_GRPC_ROUTE_RETRY_SUCCESSES_TOTAL Counter, "outbound_grpc_route_retry_successes_total", ["{parent_route}"],
        "gRPC calls that a retry saved.";
    OUTBOUND_HTTP_ROUTE_RETRY_LIMIT_EXCEEDED_TOTAL Counter, "outbound_http_route_retry_limit_exceeded_total", ["{parent_route}"],
        "HTTP requests that failed after their last retry.";
    OUTBOUND_GRPC_ROUTE_RETRY_LIMIT_EXCEEDED_TOTAL Counter, "outbound_grpc_route_retry_limit_exceeded_total", ["{parent_route}"],
        "gRPC calls that failed after their last retry.";
    OUTBOUND_HTTP_ROUTE_RETRY_OVERFLOW_TOTAL Counter, "outbound_http_route_retry_overflow_total", ["{parent_route}"],
        "HTTP requests that were not retried because the budget was spent.";
    OUTBOUND_GRPC_ROUTE_RETRY_OVERFLOW_TOTAL Counter, "outbound_grpc_route_retry_overflow_total", ["{parent_route}"],
        "gRPC calls that were not retried because the budget was spent.";
    OUTBOUND_HTTP_ROUTE_RETRY_SKIPPED_TOTAL Counter, "outbound_http_route_retry_skipped_total", ["{parent_route}", "reason"],
        "HTTP requests whose retry something spoke against: limit, headers_sent, not_idempotent, body_too_large, no_room, server_says_no, deadline, no_budget.";
    OUTBOUND_GRPC_ROUTE_RETRY_SKIPPED_TOTAL Counter, "outbound_grpc_route_retry_skipped_total", ["{parent_route}", "reason"],
        "gRPC calls whose retry something spoke against: limit, headers_sent, not_idempotent, body_too_large, no_room, server_says_no, deadline, no_budget.";
    OUTBOUND_HTTP_ROUTE_HEDGE_REQUESTS_TOTAL Counter, "outbound_http_route_hedge_requests_total", ["{parent_route}"],
        "Second tries sent beside a slow first one, of HTTP requests.";
    OUTBOUND_GRPC_ROUTE_HEDGE_REQUESTS_TOTAL Counter, "outbound_grpc_route_hedge_requests_total", ["{parent_route}"],
        "Second tries sent beside a slow first one, of gRPC calls.";
    OUTBOUND_HTTP_ROUTE_HEDGE_WINS_TOTAL Counter, "outbound_http_route_hedge_wins_total", ["{parent_route}"],
        "HTTP requests that such a second try answered.";
    OUTBOUND_GRPC_ROUTE_HEDGE_WINS_TOTAL Counter, "outbound_grpc_route_hedge_wins_total", ["{parent_route}"],
        "gRPC calls that such a second try answered.";
    OUTBOUND_HTTP_ROUTE_HEDGE_SKIPPED_TOTAL Counter, "outbound_http_route_hedge_skipped_total", ["{parent_route}", "reason"],
        "Slow HTTP requests that got no second try: no_budget, no_endpoint, body.";
    OUTBOUND_GRPC_ROUTE_HEDGE_SKIPPED_TOTAL Counter, "outbound_grpc_route_hedge_skipped_total", ["{parent_route}", "reason"],
        "Slow gRPC calls that got no second try: no_budget, no_endpoint, body.";
    OUTBOUND_HTTP_RETRY_BUFFER_BYTES Gauge, "outbound_http_retry_buffer_bytes", [],
        "Bytes of request bodies held for another try; at most 16 MiB per worker.";

    // Detection.
    INBOUND_TCP_DETECT_HTTP_RESULTS_TOTAL Counter, "inbound_tcp_detect_http_results_total", ["result", "{srv}"],
        "Outcomes of inbound protocol detection: not_http, http/1, http/2, read_timeout, error.";
    INBOUND_TCP_DETECT_HTTP_DURATION_SECONDS Histogram(&DETECT_SECONDS), "inbound_tcp_detect_http_duration_seconds", ["{srv}"],
        "Seconds that inbound protocol detection took.";
    OUTBOUND_TCP_DETECT_HTTP_RESULTS_TOTAL Counter, "outbound_tcp_detect_http_results_total", ["result"],
        "Outcomes of outbound protocol detection: not_http, http/1, http/2, read_timeout, error.";
    OUTBOUND_TCP_DETECT_HTTP_DURATION_SECONDS Histogram(&DETECT_SECONDS), "outbound_tcp_detect_http_duration_seconds", [],
        "Seconds that outbound protocol detection took.";
    INBOUND_TCP_DETECT_SERVER_FIRST_TOTAL Counter, "inbound_tcp_detect_server_first_total", ["result"],
        "Silent inbound clients whose application was asked whether it speaks first; result: server, client, nobody, http, unreachable, limit.";
    OUTBOUND_TCP_DETECT_SERVER_FIRST_TOTAL Counter, "outbound_tcp_detect_server_first_total", ["result"],
        "Silent outbound clients whose server was asked whether it speaks first; result: server, client, nobody, http, unreachable, limit.";
    INBOUND_TCP_TRANSPORT_HEADER_CONNECTIONS_TOTAL Counter, "inbound_tcp_transport_header_connections_total",
        ["session_protocol", "target_port", "client_id"],
        "Connections that reached the inbound port with a transport header.";

    // Balancers.
    OUTBOUND_HTTP_BALANCER_ENDPOINTS Gauge, "outbound_http_balancer_endpoints", ["{backend}", "endpoint_state"],
        "Endpoints of a backend: ready (in the draw) or pending (unreachable, ejected or full).";
    OUTBOUND_HTTP_BALANCER_P2C_ENDPOINTS Gauge, "outbound_http_balancer_p2c_endpoints", ["{backend}"],
        "Endpoints of a backend.";
    OUTBOUND_HTTP_BALANCER_P2C_UPDATES_TOTAL Counter, "outbound_http_balancer_p2c_updates_total", ["{backend}", "op"],
        "Changes of a backend's endpoints: Add, Remove, and Reset when the whole list was read.";
    OUTBOUND_HTTP_BALANCER_QUEUE_LENGTH Gauge, "outbound_http_balancer_queue_length", ["{backend}"],
        "Requests and connections that wait for an endpoint to become ready.";
    OUTBOUND_HTTP_BALANCER_QUEUE_REQUESTS_TOTAL Counter, "outbound_http_balancer_queue_requests_total", ["{backend}"],
        "Requests and connections that found no endpoint ready and waited.";
    OUTBOUND_HTTP_BALANCER_QUEUE_LATENCY_SECONDS Histogram(&QUEUE_SECONDS), "outbound_http_balancer_queue_latency_seconds", ["{backend}"],
        "Seconds that those waited, whether they got an endpoint or not.";
    OUTBOUND_HTTP_BALANCER_QUEUE_GATE_OPEN_TOTAL Counter, "outbound_http_balancer_queue_gate_open_total", ["{backend}"],
        "Times that an endpoint became ready when none was.";
    OUTBOUND_HTTP_BALANCER_QUEUE_GATE_SHUT_TOTAL Counter, "outbound_http_balancer_queue_gate_shut_total", ["{backend}"],
        "Times that the last ready endpoint became unready.";
    OUTBOUND_HTTP_BALANCER_QUEUE_GATE_OPEN_TIME_SECONDS Gauge, "outbound_http_balancer_queue_gate_open_time_seconds", ["{backend}"],
        "Unix time of the last opening; 0 before the first.";
    OUTBOUND_HTTP_BALANCER_QUEUE_GATE_SHUT_TIME_SECONDS Gauge, "outbound_http_balancer_queue_gate_shut_time_seconds", ["{backend}"],
        "Unix time of the last shutting; 0 before the first.";
    OUTBOUND_HTTP_BALANCER_QUEUE_GATE_TIMEOUT_SECONDS Gauge, "outbound_http_balancer_queue_gate_timeout_seconds", ["{backend}"],
        "Seconds without a ready endpoint after which what waits fails.";
    OUTBOUND_HTTP_BALANCER_EJECTED_ENDPOINTS Gauge, "outbound_http_balancer_ejected_endpoints", ["{backend}"],
        "Endpoints that the circuit breaker has taken out now.";
    OUTBOUND_HTTP_BALANCER_EJECTIONS_TOTAL Counter, "outbound_http_balancer_ejections_total", ["{backend}", "reason"],
        "Endpoints taken out by the circuit breaker: consecutive, success_rate, or probe (a probe failed).";
    OUTBOUND_HTTP_BALANCER_EJECTIONS_REFUSED_TOTAL Counter, "outbound_http_balancer_ejections_refused_total", ["{backend}"],
        "Failures that would have ejected an endpoint, had not too many been out already.";
    OUTBOUND_HTTP_BALANCER_PROBES_TOTAL Counter, "outbound_http_balancer_probes_total", ["{backend}"],
        "Requests sent to an ejected endpoint to see whether it works again.";
    OUTBOUND_HTTP_BALANCER_READMISSIONS_TOTAL Counter, "outbound_http_balancer_readmissions_total", ["{backend}", "reason"],
        "Ejected endpoints taken back: probe (it passed) or bound (too many were out).";

    // The proxy as a client of its control plane.
    CONTROL_REQUEST_TOTAL Counter, "control_request_total", ["addr", "server_id"],
        "Calls to the control plane.";
    CONTROL_RESPONSE_TOTAL Counter, "control_response_total", ["addr", "server_id", "classification", "grpc_status"],
        "Calls to the control plane that ended, by outcome.";
    CONTROL_CONNECT_FAILURES_TOTAL Counter, "control_connect_failures_total", ["addr", "server_id", "reason"],
        "Connections to the control plane that could not be made.";
    CONTROL_DNS_RESOLUTIONS_TOTAL Counter, "control_dns_resolutions_total", ["client", "record_type", "result"],
        "DNS look-ups of control-plane addresses.";
    CONTROL_WATCH_UPDATES_TOTAL Counter, "control_watch_updates_total", ["method"],
        "Messages received on discovery streams.";
    CONTROL_WATCH_FAILURES_TOTAL Counter, "control_watch_failures_total", ["method", "grpc_status"],
        "Discovery streams that ended in an error; the last known state stays in force.";
    CONTROL_WATCH_INVALID_TOTAL Counter, "control_watch_invalid_total", ["method"],
        "Discovery messages that could not be compiled and were refused.";
    CONTROL_WATCHES Gauge, "control_watches", ["method"],
        "Discovery targets watched now.";
    CONTROL_WATCHES_REFUSED_TOTAL Counter, "control_watches_refused_total", ["method"],
        "Discovery targets not watched because the cache was full.";
    CONTROL_WATCH_OLDEST_CONTACT_SECONDS Gauge, "control_watch_oldest_contact_seconds", ["method"],
        "Seconds since the watch of this kind that has waited longest was in contact with the control plane; 0 while all are connected.";

    // Tap.
    TAP_ACTIVE Gauge, "tap_active", [],
        "Taps in force (at most 8).";
    TAP_REQUESTS_TOTAL Counter, "tap_requests_total", [],
        "Requests that a tap was told of.";
    TAP_REQUESTS_PASSED_OVER_TOTAL Counter, "tap_requests_passed_over_total", [],
        "Requests that a tap wanted and was not told of, because it had 1,000 in that second.";
    TAP_EVENTS_TOTAL Counter, "tap_events_total", [],
        "Events handed to readers of taps.";
    TAP_EVENTS_LOST_TOTAL Counter, "tap_events_lost_total", [],
        "Events lost because their reader had 400, or 1 MiB of them, waiting.";
    TAP_REFUSED_TOTAL Counter, "tap_refused_total", ["reason"],
        "Connections and calls refused: no_tls, no_identity, other_identity, handshake, connections, taps, question, method.";

    // Identity.
    IDENTITY_CERT_EXPIRATION_TIMESTAMP_SECONDS Gauge, "identity_cert_expiration_timestamp_seconds", [],
        "Unix time at which the proxy's certificate expires.";
    IDENTITY_TRUST_ANCHORS Gauge, "identity_trust_anchors", [],
        "Trust anchors that peers are judged by.";
    IDENTITY_CERT_REFRESH_COUNT Counter, "identity_cert_refresh_count", [],
        "Certificates obtained since the start.";
    CONTROL_IDENTITY_CERT_EXPIRATION_TIMESTAMP_SECONDS Gauge, "control_identity_cert_expiration_timestamp_seconds", [],
        "Unix time at which the proxy's certificate expires.";
    CONTROL_IDENTITY_CERT_REFRESH_TIMESTAMP_SECONDS Gauge, "control_identity_cert_refresh_timestamp_seconds", [],
        "Unix time at which the proxy's certificate was last renewed.";
    CONTROL_IDENTITY_CERT_REFRESHES_TOTAL Counter, "control_identity_cert_refreshes_total", ["result"],
        "Attempts to obtain a certificate: ok or error.";

    // The process. Computed at scrape time by `process.rs`.
    PROXY_BUILD_INFO Gauge, "proxy_build_info", ["version", "git_branch", "git_version", "profile", "vendor"],
        "The build that is running; always 1.";
    PROCESS_START_TIME_SECONDS Gauge, "process_start_time_seconds", [],
        "Unix time at which the process started.";
    PROCESS_UPTIME_SECONDS_TOTAL Counter, "process_uptime_seconds_total", [],
        "Seconds since the process started.";
    PROCESS_CPU_SECONDS_TOTAL Counter, "process_cpu_seconds_total", [],
        "User and system CPU seconds used.";
    PROCESS_RESIDENT_MEMORY_BYTES Gauge, "process_resident_memory_bytes", [],
        "Resident memory.";
    PROCESS_VIRTUAL_MEMORY_BYTES Gauge, "process_virtual_memory_bytes", [],
        "Virtual memory.";
    PROCESS_OPEN_FDS Gauge, "process_open_fds", [],
        "Open file descriptors.";
    PROCESS_MAX_FDS Gauge, "process_max_fds", [],
        "Most file descriptors the process may open.";
    PROCESS_THREADS Gauge, "process_threads", [],
        "Threads of the process.";

    PROXY_WORKER_LAG_SECONDS Gauge, "proxy_worker_lag_seconds", [],
        "How far the slowest worker thread is behind its heartbeat.";

    PROXY_LOG_LINES_DROPPED_TOTAL Counter, "proxy_log_lines_dropped_total", ["log"],
        "Lines left out of a log (refusals: more than 10 a second on a worker; access: the writer is behind).";

    PROXY_PANICS_TOTAL Counter, "proxy_panics_total", [],
        "Panics caught: each is a bug and has ended one task.";

    // The registry itself.
    PROXY_METRICS_SERIES Gauge, "proxy_metrics_series", [],
        "Series held in the registry.";
    PROXY_METRICS_SERIES_REFUSED_TOTAL Counter, "proxy_metrics_series_refused_total", [],
        "Series that found no room (20,000 in all, 5,000 of a family) and are counted in their family's overflow.";
    PROXY_METRICS_SERIES_EVICTED_TOTAL Counter, "proxy_metrics_series_evicted_total", [],
        "Idle series forgotten.";
}

/// The page `docs/reference/metrics.md`.
pub fn markdown() -> String {
    use std::fmt::Write as _;
    let mut page = String::from(
        "# The sidecar's metrics\n\n\
         <!-- Generated from crates/proxy/src/metrics/families.rs by `cargo run -p tulle-proxy --example reference`. -->\n\n\
         Served at `:4191/metrics` as Prometheus text; as OpenMetrics, with exemplars, to a scraper whose `Accept`\n\
         prefers it; compressed to one whose `Accept-Encoding` has gzip.\n\n\
         At most 20,000 series are kept, and 5,000 of one family. What comes beyond is counted in the family's series\n\
         `{overflow=\"true\"}`, and in `proxy_metrics_series_refused_total`. A series that nothing uses and that has not\n\
         changed for `LINKERD2_PROXY_METRICS_RETAIN_IDLE` (10 minutes) is forgotten.\n\n\
         | metric | type | labels | meaning |\n|---|---|---|---|\n",
    );
    for family in ALL {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let labels = family.labels.join(", ");
        let _ = writeln!(
            page,
            "| `{}` | {kind} | {labels} | {} |",
            family.name, family.help
        );
    }
    page.push_str("\n## Label groups\n\n| group | labels |\n|---|---|\n");
    for (group, labels) in LABEL_GROUPS {
        let _ = writeln!(page, "| {group} | {labels} |");
    }
    let buckets: Vec<&str> = LATENCY_MS.le.to_vec();
    let _ = writeln!(
        page,
        "\n## Buckets\n\nHistograms in milliseconds: {}, +Inf.",
        buckets.join(", ")
    );
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_helps_are_sentences() {
        let names: BTreeSet<_> = ALL.iter().map(|family| family.name).collect();
        assert_eq!(names.len(), ALL.len());
        for family in ALL {
            assert!(family.help.ends_with('.'), "{}", family.name);
            assert!(!family.help.contains('\n'), "{}", family.name);
        }
    }
}
