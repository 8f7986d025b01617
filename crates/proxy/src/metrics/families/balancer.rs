//! Balancers. The endpoints of backends, what waits for them, and the circuit breaker.

use super::super::histogram::QUEUE_SECONDS;
use super::Family;
use super::Kind::{Counter, Gauge, Histogram};

families! {
    OUTBOUND_HTTP_BALANCER_ENDPOINTS Gauge, "outbound_http_balancer_endpoints", ["{backend}", "endpoint_state"],
        "Endpoints of a backend: ready (in the draw) or pending (unreachable, ejected or full).";
    OUTBOUND_HTTP_BALANCER_P2C_ENDPOINTS Gauge, "outbound_http_balancer_p2c_endpoints", ["{backend}"],
        "Endpoints of a backend.";
    OUTBOUND_HTTP_BALANCER_P2C_UPDATES_TOTAL Counter, "outbound_http_balancer_p2c_updates_total", ["{backend}", "op"],
        "Changes of a backend's endpoints: Add, Remove, and Reset when the whole list was read.";
    OUTBOUND_HTTP_BALANCER_QUEUE_LENGTH Gauge, "outbound_http_balancer_queue_length", ["{backend}"],
        "Requests that wait for an endpoint to become ready.";
    OUTBOUND_HTTP_BALANCER_QUEUE_REQUESTS_TOTAL Counter, "outbound_http_balancer_queue_requests_total", ["{backend}"],
        "Requests that found no endpoint ready and waited.";
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
    OUTBOUND_TCP_BALANCER_ENDPOINTS Gauge, "outbound_tcp_balancer_endpoints", ["{backend}", "endpoint_state"],
        "Endpoints of a backend: ready (in the draw) or pending (unreachable, ejected or full).";
    OUTBOUND_TCP_BALANCER_P2C_ENDPOINTS Gauge, "outbound_tcp_balancer_p2c_endpoints", ["{backend}"],
        "Endpoints of a backend.";
    OUTBOUND_TCP_BALANCER_P2C_UPDATES_TOTAL Counter, "outbound_tcp_balancer_p2c_updates_total", ["{backend}", "op"],
        "Changes of a backend's endpoints: Add, Remove, and Reset when the whole list was read.";
    OUTBOUND_TCP_BALANCER_QUEUE_LENGTH Gauge, "outbound_tcp_balancer_queue_length", ["{backend}"],
        "Connections that wait for an endpoint to become ready.";
    OUTBOUND_TCP_BALANCER_QUEUE_REQUESTS_TOTAL Counter, "outbound_tcp_balancer_queue_requests_total", ["{backend}"],
        "Connections that found no endpoint ready and waited.";
    OUTBOUND_TCP_BALANCER_QUEUE_LATENCY_SECONDS Histogram(&QUEUE_SECONDS), "outbound_tcp_balancer_queue_latency_seconds", ["{backend}"],
        "Seconds that those waited, whether they got an endpoint or not.";
    OUTBOUND_TCP_BALANCER_QUEUE_GATE_OPEN_TOTAL Counter, "outbound_tcp_balancer_queue_gate_open_total", ["{backend}"],
        "Times that an endpoint became ready when none was.";
    OUTBOUND_TCP_BALANCER_QUEUE_GATE_SHUT_TOTAL Counter, "outbound_tcp_balancer_queue_gate_shut_total", ["{backend}"],
        "Times that the last ready endpoint became unready.";
    OUTBOUND_TCP_BALANCER_QUEUE_GATE_OPEN_TIME_SECONDS Gauge, "outbound_tcp_balancer_queue_gate_open_time_seconds", ["{backend}"],
        "Unix time of the last opening; 0 before the first.";
    OUTBOUND_TCP_BALANCER_QUEUE_GATE_SHUT_TIME_SECONDS Gauge, "outbound_tcp_balancer_queue_gate_shut_time_seconds", ["{backend}"],
        "Unix time of the last shutting; 0 before the first.";
    OUTBOUND_TCP_BALANCER_QUEUE_GATE_TIMEOUT_SECONDS Gauge, "outbound_tcp_balancer_queue_gate_timeout_seconds", ["{backend}"],
        "Seconds without a ready endpoint after which what waits fails.";
    OUTBOUND_TLS_BALANCER_ENDPOINTS Gauge, "outbound_tls_balancer_endpoints", ["{backend}", "endpoint_state"],
        "Endpoints of a backend: ready (in the draw) or pending (unreachable, ejected or full).";
    OUTBOUND_TLS_BALANCER_P2C_ENDPOINTS Gauge, "outbound_tls_balancer_p2c_endpoints", ["{backend}"],
        "Endpoints of a backend.";
    OUTBOUND_TLS_BALANCER_P2C_UPDATES_TOTAL Counter, "outbound_tls_balancer_p2c_updates_total", ["{backend}", "op"],
        "Changes of a backend's endpoints: Add, Remove, and Reset when the whole list was read.";
    OUTBOUND_TLS_BALANCER_QUEUE_LENGTH Gauge, "outbound_tls_balancer_queue_length", ["{backend}"],
        "TLS connections that wait for an endpoint to become ready.";
    OUTBOUND_TLS_BALANCER_QUEUE_REQUESTS_TOTAL Counter, "outbound_tls_balancer_queue_requests_total", ["{backend}"],
        "TLS connections that found no endpoint ready and waited.";
    OUTBOUND_TLS_BALANCER_QUEUE_LATENCY_SECONDS Histogram(&QUEUE_SECONDS), "outbound_tls_balancer_queue_latency_seconds", ["{backend}"],
        "Seconds that those waited, whether they got an endpoint or not.";
    OUTBOUND_TLS_BALANCER_QUEUE_GATE_OPEN_TOTAL Counter, "outbound_tls_balancer_queue_gate_open_total", ["{backend}"],
        "Times that an endpoint became ready when none was.";
    OUTBOUND_TLS_BALANCER_QUEUE_GATE_SHUT_TOTAL Counter, "outbound_tls_balancer_queue_gate_shut_total", ["{backend}"],
        "Times that the last ready endpoint became unready.";
    OUTBOUND_TLS_BALANCER_QUEUE_GATE_OPEN_TIME_SECONDS Gauge, "outbound_tls_balancer_queue_gate_open_time_seconds", ["{backend}"],
        "Unix time of the last opening; 0 before the first.";
    OUTBOUND_TLS_BALANCER_QUEUE_GATE_SHUT_TIME_SECONDS Gauge, "outbound_tls_balancer_queue_gate_shut_time_seconds", ["{backend}"],
        "Unix time of the last shutting; 0 before the first.";
    OUTBOUND_TLS_BALANCER_QUEUE_GATE_TIMEOUT_SECONDS Gauge, "outbound_tls_balancer_queue_gate_timeout_seconds", ["{backend}"],
        "Seconds without a ready endpoint after which what waits fails.";
    CONTROL_DESTINATION_BALANCER_ENDPOINTS Gauge, "control_destination_balancer_endpoints", ["addr", "endpoint_state"],
        "Addresses of the destination service: ready (there is a connection that takes calls) or pending.";
    CONTROL_DESTINATION_BALANCER_P2C_ENDPOINTS Gauge, "control_destination_balancer_p2c_endpoints", ["addr"],
        "Addresses of the destination service.";
    CONTROL_DESTINATION_BALANCER_P2C_UPDATES_TOTAL Counter, "control_destination_balancer_p2c_updates_total", ["addr", "op"],
        "Changes of those: Add, Remove, and Reset when they were first learnt.";
    CONTROL_DESTINATION_BALANCER_QUEUE_LENGTH Gauge, "control_destination_balancer_queue_length", ["addr"],
        "Calls that wait for a connection.";
    CONTROL_DESTINATION_BALANCER_QUEUE_REQUESTS_TOTAL Counter, "control_destination_balancer_queue_requests_total", ["addr"],
        "Calls that found no connection and waited.";
    CONTROL_DESTINATION_BALANCER_QUEUE_LATENCY_SECONDS Histogram(&QUEUE_SECONDS), "control_destination_balancer_queue_latency_seconds", ["addr"],
        "Seconds that those waited, whether they got one or not.";
    CONTROL_DESTINATION_BALANCER_QUEUE_GATE_OPEN_TOTAL Counter, "control_destination_balancer_queue_gate_open_total", ["addr"],
        "Times that there was a connection again when there had been none.";
    CONTROL_DESTINATION_BALANCER_QUEUE_GATE_SHUT_TOTAL Counter, "control_destination_balancer_queue_gate_shut_total", ["addr"],
        "Times that the last connection was lost.";
    CONTROL_DESTINATION_BALANCER_QUEUE_GATE_OPEN_TIME_SECONDS Gauge, "control_destination_balancer_queue_gate_open_time_seconds", ["addr"],
        "Unix time of the last opening; 0 before the first.";
    CONTROL_DESTINATION_BALANCER_QUEUE_GATE_SHUT_TIME_SECONDS Gauge, "control_destination_balancer_queue_gate_shut_time_seconds", ["addr"],
        "Unix time of the last shutting; 0 before the first.";
    CONTROL_DESTINATION_BALANCER_QUEUE_GATE_TIMEOUT_SECONDS Gauge, "control_destination_balancer_queue_gate_timeout_seconds", ["addr"],
        "Seconds without a connection after which what waits fails; 0, for it waits on: the last known state serves meanwhile.";
    CONTROL_POLICY_BALANCER_ENDPOINTS Gauge, "control_policy_balancer_endpoints", ["addr", "endpoint_state"],
        "Addresses of the policy service: ready (there is a connection that takes calls) or pending.";
    CONTROL_POLICY_BALANCER_P2C_ENDPOINTS Gauge, "control_policy_balancer_p2c_endpoints", ["addr"],
        "Addresses of the policy service.";
    CONTROL_POLICY_BALANCER_P2C_UPDATES_TOTAL Counter, "control_policy_balancer_p2c_updates_total", ["addr", "op"],
        "Changes of those: Add, Remove, and Reset when they were first learnt.";
    CONTROL_POLICY_BALANCER_QUEUE_LENGTH Gauge, "control_policy_balancer_queue_length", ["addr"],
        "Calls that wait for a connection.";
    CONTROL_POLICY_BALANCER_QUEUE_REQUESTS_TOTAL Counter, "control_policy_balancer_queue_requests_total", ["addr"],
        "Calls that found no connection and waited.";
    CONTROL_POLICY_BALANCER_QUEUE_LATENCY_SECONDS Histogram(&QUEUE_SECONDS), "control_policy_balancer_queue_latency_seconds", ["addr"],
        "Seconds that those waited, whether they got one or not.";
    CONTROL_POLICY_BALANCER_QUEUE_GATE_OPEN_TOTAL Counter, "control_policy_balancer_queue_gate_open_total", ["addr"],
        "Times that there was a connection again when there had been none.";
    CONTROL_POLICY_BALANCER_QUEUE_GATE_SHUT_TOTAL Counter, "control_policy_balancer_queue_gate_shut_total", ["addr"],
        "Times that the last connection was lost.";
    CONTROL_POLICY_BALANCER_QUEUE_GATE_OPEN_TIME_SECONDS Gauge, "control_policy_balancer_queue_gate_open_time_seconds", ["addr"],
        "Unix time of the last opening; 0 before the first.";
    CONTROL_POLICY_BALANCER_QUEUE_GATE_SHUT_TIME_SECONDS Gauge, "control_policy_balancer_queue_gate_shut_time_seconds", ["addr"],
        "Unix time of the last shutting; 0 before the first.";
    CONTROL_POLICY_BALANCER_QUEUE_GATE_TIMEOUT_SECONDS Gauge, "control_policy_balancer_queue_gate_timeout_seconds", ["addr"],
        "Seconds without a connection after which what waits fails; 0, for it waits on: the last known state serves meanwhile.";
    CONTROL_IDENTITY_BALANCER_ENDPOINTS Gauge, "control_identity_balancer_endpoints", ["addr", "endpoint_state"],
        "Addresses of the identity service: ready (there is a connection that takes calls) or pending.";
    CONTROL_IDENTITY_BALANCER_P2C_ENDPOINTS Gauge, "control_identity_balancer_p2c_endpoints", ["addr"],
        "Addresses of the identity service.";
    CONTROL_IDENTITY_BALANCER_P2C_UPDATES_TOTAL Counter, "control_identity_balancer_p2c_updates_total", ["addr", "op"],
        "Changes of those: Add, Remove, and Reset when they were first learnt.";
    CONTROL_IDENTITY_BALANCER_QUEUE_LENGTH Gauge, "control_identity_balancer_queue_length", ["addr"],
        "Calls that wait for a connection.";
    CONTROL_IDENTITY_BALANCER_QUEUE_REQUESTS_TOTAL Counter, "control_identity_balancer_queue_requests_total", ["addr"],
        "Calls that found no connection and waited.";
    CONTROL_IDENTITY_BALANCER_QUEUE_LATENCY_SECONDS Histogram(&QUEUE_SECONDS), "control_identity_balancer_queue_latency_seconds", ["addr"],
        "Seconds that those waited, whether they got one or not.";
    CONTROL_IDENTITY_BALANCER_QUEUE_GATE_OPEN_TOTAL Counter, "control_identity_balancer_queue_gate_open_total", ["addr"],
        "Times that there was a connection again when there had been none.";
    CONTROL_IDENTITY_BALANCER_QUEUE_GATE_SHUT_TOTAL Counter, "control_identity_balancer_queue_gate_shut_total", ["addr"],
        "Times that the last connection was lost.";
    CONTROL_IDENTITY_BALANCER_QUEUE_GATE_OPEN_TIME_SECONDS Gauge, "control_identity_balancer_queue_gate_open_time_seconds", ["addr"],
        "Unix time of the last opening; 0 before the first.";
    CONTROL_IDENTITY_BALANCER_QUEUE_GATE_SHUT_TIME_SECONDS Gauge, "control_identity_balancer_queue_gate_shut_time_seconds", ["addr"],
        "Unix time of the last shutting; 0 before the first.";
    CONTROL_IDENTITY_BALANCER_QUEUE_GATE_TIMEOUT_SECONDS Gauge, "control_identity_balancer_queue_gate_timeout_seconds", ["addr"],
        "Seconds without a connection after which what waits fails; 0, for it waits on: the last known state serves meanwhile.";
}
