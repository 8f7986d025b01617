//! Routes. Requests and connections by the route that took them, and what its backends did with them.

use super::super::histogram::{COARSE_SECONDS, FINE_SECONDS, FRAME_BYTES};
use super::Family;
use super::Kind::{Counter, Gauge, Histogram};

families! {
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
    OUTBOUND_TCP_ROUTE_OPEN_TOTAL Counter, "outbound_tcp_route_open_total", ["{parent_route}"],
        "Connections that are not looked into, by the route that took them.";
    OUTBOUND_TCP_ROUTE_CLOSE_TOTAL Counter, "outbound_tcp_route_close_total", ["{parent_route}", "error"],
        "Those that ended; error: empty, forbidden, invalid_backend, invalid_policy, unexpected.";
    OUTBOUND_TLS_ROUTE_OPEN_TOTAL Counter, "outbound_tls_route_open_total", ["{parent_route}"],
        "Connections of the application's own TLS, by the route that took them for their server name.";
    OUTBOUND_TLS_ROUTE_CLOSE_TOTAL Counter, "outbound_tls_route_close_total", ["{parent_route}", "error"],
        "Those that ended; error: empty, forbidden, invalid_backend, invalid_policy, unexpected.";
}
