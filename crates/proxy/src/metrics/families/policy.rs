//! Policy and errors. What policy let in or refused, and what the proxy could not carry.

use super::super::histogram::LATENCY_MS;
use super::Family;
use super::Kind::{Counter, Gauge, Histogram};

families! {
    INBOUND_HTTP_AUTHZ_ALLOW_TOTAL Counter, "inbound_http_authz_allow_total", ["direction", "authority", "{target}", "{tls}", "{srv}", "{route}", "{authz}"],
        "Inbound HTTP requests that policy allowed.";
    INBOUND_HTTP_AUTHZ_DENY_TOTAL Counter, "inbound_http_authz_deny_total", ["direction", "{target}", "{tls}", "{srv}", "{route}"],
        "Inbound HTTP requests that policy refused.";
    INBOUND_HTTP_ROUTE_NOT_FOUND_TOTAL Counter, "inbound_http_route_not_found_total", ["direction", "{target}", "{tls}", "{srv}"],
        "Inbound HTTP requests that no route of their Server matched.";
    INBOUND_TCP_AUTHZ_ALLOW_TOTAL Counter, "inbound_tcp_authz_allow_total", ["direction", "{target}", "{tls}", "{srv}", "{authz}"],
        "Inbound connections that policy allowed.";
    INBOUND_TCP_AUTHZ_DENY_TOTAL Counter, "inbound_tcp_authz_deny_total", ["direction", "{target}", "{tls}", "{srv}"],
        "Inbound connections that policy refused.";
    INBOUND_TCP_AUTHZ_TERMINATE_TOTAL Counter, "inbound_tcp_authz_terminate_total", ["direction", "{target}", "{tls}", "{srv}"],
        "Inbound connections ended because a policy change no longer allows them.";
    INBOUND_HTTP_LOCAL_RATELIMIT_TOTAL Counter, "inbound_http_local_ratelimit_total", ["direction", "{target}", "{tls}", "{srv}", "{ratelimit}", "scope"],
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
        "Inbound HTTP requests that an external service was to be asked about; result: allow, deny, failed_open, failed_closed; error, of the last two: timeout, unreachable, identity, status, bad_answer, overflow, slow_body, invalid_requirement.";
    INBOUND_HTTP_EXT_AUTHZ_DURATION_MS Histogram(&LATENCY_MS), "inbound_http_ext_authz_duration_ms", ["{srv}", "{ext_authz}"],
        "Milliseconds that requests waited for an external service's word.";
    INBOUND_HTTP_EXT_AUTHZ_IN_FLIGHT Gauge, "inbound_http_ext_authz_in_flight", ["{srv}", "{ext_authz}"],
        "Questions that an external service has not answered yet; at most 1,000 per port and worker.";
    INBOUND_HTTP_EXT_AUTHZ_BUFFER_BYTES Gauge, "inbound_http_ext_authz_buffer_bytes", ["{srv}", "{ext_authz}"],
        "Bytes of request bodies that are kept because an external service is shown them; at most 16 MiB per service and worker.";
    INBOUND_HTTP_ERRORS_TOTAL Counter, "inbound_http_errors_total", ["error", "reason", "{target}", "{srv}"],
        "Inbound HTTP requests that the proxy could not carry and answered itself; error, Linkerd's word: failfast, loadshed, i/o, gateway loop, gateway domain invalid, unexpected; reason, ours. What policy refuses has its own families.";
    INBOUND_TCP_ERRORS_TOTAL Counter, "inbound_tcp_errors_total", ["error", "reason", "{target}"],
        "Inbound connections that failed in the proxy; error, Linkerd's word: failfast, i/o, tls detection timeout, gateway loop, gateway domain invalid, unexpected; reason, ours.";
    OUTBOUND_HTTP_ERRORS_TOTAL Counter, "outbound_http_errors_total", ["error", "reason"],
        "Outbound HTTP requests that the proxy could not carry and answered itself; error, Linkerd's word: failfast, loadshed, i/o, identity required, response timeout, unexpected; reason, ours.";
    OUTBOUND_HTTP_MIRRORED_TOTAL Counter, "outbound_http_mirrored_total", ["backend_group", "backend_kind", "backend_namespace", "backend_name", "backend_port", "result"],
        "Copies of requests for a mirror, by what became of them: answered, failed, skipped_full (128 at once), skipped_body (over 64 KiB), skipped_cut (the request did not end).";
    HTTP_FAULTS_TOTAL Counter, "http_faults_total", ["direction", "route_group", "route_kind", "route_namespace", "route_name", "fault"],
        "Requests that a route's fault filter delayed or aborted; fault: delay, abort.";
    HTTP_PREFLIGHTS_TOTAL Counter, "http_preflights_total", ["direction", "allowed"],
        "Preflight requests that a route's CORS filter answered, by whether the origin is allowed.";
    OUTBOUND_TCP_ERRORS_TOTAL Counter, "outbound_tcp_errors_total", ["error", "reason", "{target}"],
        "Outbound connections that failed in the proxy; error, Linkerd's word: failfast, loadshed, i/o, identity required, unexpected; reason, ours.";
    TLS_HANDSHAKES_TOTAL Counter, "tls_handshakes_total", ["direction", "kind"],
        "TLS handshakes that succeeded; kind: full, resumed (with a ticket of an earlier connection between the same certificates).";
    TLS_HANDSHAKE_FAILURES_TOTAL Counter, "tls_handshake_failures_total", ["direction", "reason"],
        "TLS handshakes that failed; reason: expired, not_yet_valid, unknown_issuer, wrong_identity, no_certificate, bad_certificate, alert, no_alpn, not_tls13, closed, timeout, other.";
    TLS_DISTRUSTED_CONNECTIONS_TOTAL Counter, "tls_distrusted_connections_total", ["direction", "action"],
        "Connections whose peer no trust anchor vouches for any more since one was dropped; action: drain (nothing new is begun), cut (they had not ended within the grace; those to the control plane at once).";
}
