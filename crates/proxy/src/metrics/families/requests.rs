//! HTTP and TCP. Requests and connections as they come and go: the families that dashboards for Linkerd read first.

use super::super::histogram::{DETECT_SECONDS, LATENCY_MS};
use super::Family;
use super::Kind::{Counter, Gauge, Histogram};

families! {
    HTTP_REQUESTS_TOTAL Counter, "http_requests_total",
        ["direction", "dst_pod", "dst_service", "src_pod", "src_namespace", "status_code"],
        "HTTP requests answered, by both ends and status code; inbound src_* come from the peer's certificate.";
    HTTP_REQUEST_DURATION_MS Histogram(&LATENCY_MS), "http_request_duration_ms",
        ["direction", "dst_pod", "dst_service", "src_pod", "src_namespace", "status_code"],
        "Milliseconds from the request's head to the end of its answer.";
    REQUEST_TOTAL Counter, "request_total",
        ["direction", "authority", "{target}", "{tls}", "{srv}", "{route}", "{authz}", "{dst}"],
        "HTTP requests that reached this proxy.";
    RESPONSE_TOTAL Counter, "response_total",
        ["direction", "authority", "{target}", "{tls}", "{srv}", "{route}", "{authz}", "{dst}", "status_code", "classification", "grpc_status", "error"],
        "HTTP answers that ended, by outcome.";
    RESPONSE_LATENCY_MS Histogram(&LATENCY_MS), "response_latency_ms",
        ["direction", "authority", "{target}", "{tls}", "{srv}", "{route}", "{authz}", "{dst}", "status_code"],
        "Milliseconds from the request's head to the first byte of the answer's body.";
    HTTP_STALLED_EXCHANGES Gauge, "http_stalled_exchanges", ["direction"],
        "HTTP exchanges that wait for a peer to take or to send more of a body, and are timed.";
    ROUTE_REQUEST_TOTAL Counter, "route_request_total", ["direction", "dst", "rt_*"],
        "HTTP requests that a ServiceProfile's route took, as their callers sent them; rt_* are the route's labels (rt_route); outbound without any for what no route took, which is not counted inbound.";
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
    TCP_OPEN_TOTAL Counter, "tcp_open_total", ["direction", "peer", "{target}", "{tls}", "{srv}", "{authz}", "{dst}"],
        "Connections opened.";
    TCP_CLOSE_TOTAL Counter, "tcp_close_total", ["direction", "peer", "{target}", "{tls}", "{srv}", "{authz}", "{dst}", "errno", "classification"],
        "Connections closed, by classification (success, failure); errno names the error that ended one, and is empty for an orderly end.";
    HTTP2_ERRORS_TOTAL Counter, "http2_errors_total", ["direction", "peer", "{target}", "{tls}", "{srv}", "{authz}", "{dst}", "code"],
        "HTTP/2 connections ended and streams refused because the peer broke a rule or went beyond a bound; code is what it was told: an error code's name, or 431.";
    TCP_OPEN_CONNECTIONS Gauge, "tcp_open_connections", ["direction", "peer", "{target}", "{tls}", "{srv}", "{authz}", "{dst}"],
        "Connections open now.";
    TCP_READ_BYTES_TOTAL Counter, "tcp_read_bytes_total", ["direction", "peer", "{target}", "{tls}", "{srv}", "{authz}", "{dst}"],
        "Bytes read from peers.";
    TCP_WRITE_BYTES_TOTAL Counter, "tcp_write_bytes_total", ["direction", "peer", "{target}", "{tls}", "{srv}", "{authz}", "{dst}"],
        "Bytes written to peers.";
    INBOUND_TCP_DETECT_HTTP_RESULTS_TOTAL Counter, "inbound_tcp_detect_http_results_total", ["result", "{srv}"],
        "Outcomes of inbound protocol detection: not_http, http/1, http/2, read_timeout, error.";
    INBOUND_TCP_DETECT_HTTP_DURATION_SECONDS Histogram(&DETECT_SECONDS), "inbound_tcp_detect_http_duration_seconds", ["{srv}"],
        "Seconds that inbound protocol detection took.";
    OUTBOUND_TCP_DETECT_HTTP_RESULTS_TOTAL Counter, "outbound_tcp_detect_http_results_total", ["{parent}", "result"],
        "Outcomes of outbound protocol detection: not_http, http/1, http/2, read_timeout, error.";
    OUTBOUND_TCP_DETECT_HTTP_DURATION_SECONDS Histogram(&DETECT_SECONDS), "outbound_tcp_detect_http_duration_seconds", ["{parent}"],
        "Seconds that outbound protocol detection took.";
    INBOUND_TCP_DETECT_SERVER_FIRST_TOTAL Counter, "inbound_tcp_detect_server_first_total", ["result"],
        "Silent inbound clients whose application was asked whether it speaks first; result: server, client, nobody, http, unreachable, limit.";
    OUTBOUND_TCP_DETECT_SERVER_FIRST_TOTAL Counter, "outbound_tcp_detect_server_first_total", ["result"],
        "Silent outbound clients whose server was asked whether it speaks first; result: server, client, nobody, http, unreachable, limit.";
    INBOUND_TCP_TRANSPORT_HEADER_CONNECTIONS_TOTAL Counter, "inbound_tcp_transport_header_connections_total",
        ["session_protocol", "target_port", "client_id"],
        "Connections that reached the inbound port with a transport header.";
    OUTBOUND_TCP_PROTOCOL_CONNECTIONS_TOTAL Counter, "outbound_tcp_protocol_connections_total", ["protocol", "{parent}"],
        "Outbound connections by what their policy says is spoken: http/1, http/2, grpc, detect, opaq, tls.";
    OUTBOUND_TCP_TRANSFER_COST_BYTES_TOTAL Counter, "outbound_tcp_transfer_cost_bytes_total", ["direction", "op", "zone_locality"],
        "Bytes to and from endpoints by whether those are in this zone; op: Send, Recv; zone_locality: Local, Remote, Unknown.";
}
