//! Control plane and identity. The proxy as a client of its control plane.

use super::super::histogram::LATENCY_MS;
use super::Family;
use super::Kind::{Counter, Gauge, Histogram};

families! {
    CONTROL_REQUEST_TOTAL Counter, "control_request_total", ["addr", "server_id"],
        "Calls to the control plane.";
    CONTROL_RESPONSE_TOTAL Counter, "control_response_total", ["addr", "server_id", "classification", "grpc_status"],
        "Calls to the control plane that ended, by outcome.";
    CONTROL_RESPONSE_LATENCY_MS Histogram(&LATENCY_MS), "control_response_latency_ms", ["addr", "server_id", "status_code"],
        "Milliseconds from a call to the control plane to the head of its answer.";
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
    CONTROL_STREAM_LAST_UPDATE_TIMESTAMP_SECONDS Gauge, "control_stream_last_update_timestamp_seconds", ["method", "stream"],
        "Unix time of the control plane's last message on the streams of a method; stream: oldest (the one that has been quiet for longest) or newest. /config tells it of each stream.";
    CONTROL_WATCH_OLDEST_CONTACT_SECONDS Gauge, "control_watch_oldest_contact_seconds", ["method"],
        "Seconds since the watch of this kind that has waited longest was in contact with the control plane; 0 while all are connected.";
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
}
