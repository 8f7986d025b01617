//! `docs/reference/headers.md`: every header that the sidecar reads, sets or takes away, who is believed to say it, and
//! where it goes. A test holds the table against the names in the source.

use std::fmt::Write as _;

use Message::{Answer, Both, Request};

/// One header.
#[derive(Debug)]
pub struct Header {
    pub name: &'static str,
    /// Of which message.
    pub message: Message,
    /// What the outbound sidecar does with it.
    pub outbound: &'static str,
    /// What the inbound sidecar does with it.
    pub inbound: &'static str,
    /// Who is believed.
    pub trust: &'static str,
}

/// Which messages have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    Request,
    Answer,
    Both,
}

const fn row(
    message: Message,
    name: &'static str,
    outbound: &'static str,
    inbound: &'static str,
    trust: &'static str,
) -> Header {
    Header {
        name,
        message,
        outbound,
        inbound,
        trust,
    }
}

const WISH: &str = "the application, where its rule allows the request to ask";
const SELF: &str = "the application, of its own requests";
const PEER: &str = "a meshed peer";
const NOBODY: &str = "nobody: it is ours to set";
const HOP: &str = "the peer of this connection";
const ENDS: &str = "whoever sent the message; it passes as it is";

/// The headers by what they are about.
#[rustfmt::skip]
pub const GROUPS: &[(&str, &[Header])] = &[
    ("The mesh's own", &[
        row(Request, "l5d-dst-override", "ingress mode: the authority to route by; removed", "removed", SELF),
        row(Request, "l5d-require-id", "the peer must prove this identity; removed", "removed", SELF),
        row(Request, "l5d-timeout", "how long the request may take; set to what is left when the next hop is meshed, else removed", "what the caller's sidecar has left; removed", "the application where its rule allows it; inbound, a meshed peer"),
        row(Request, "l5d-request-timeout", "another name of `l5d-timeout`; removed", "removed", WISH),
        row(Request, "l5d-response-timeout", "how long the server may take to begin its answer; removed", "removed", WISH),
        row(Request, "l5d-retry-http", "statuses to retry; removed", "removed", WISH),
        row(Request, "l5d-retry-grpc", "gRPC statuses to retry; removed", "removed", WISH),
        row(Request, "l5d-retry-limit", "most retries; removed", "removed", WISH),
        row(Request, "l5d-retry-timeout", "the time of one try; removed", "removed", WISH),
        row(Request, "l5d-client-id", "removed", "set to the peer's verified identity; whatever was there is removed", NOBODY),
        row(Both, "l5d-dst-canonical", "removed; set for a meshed peer to the service whose ServiceProfile has routed the request", "read from a meshed peer, to count by the same profile, and passes; else removed", PEER),
        row(Both, "l5d-orig-proto", "set on an HTTP/1 message that travels to a meshed peer over HTTP/2; put back and removed from the answer", "put back and removed; set on the answer", PEER),
        row(Answer, "l5d-proxy-error", "set on an answer of the proxy's own, with a text; passes from a meshed peer, else removed", "set on an answer of the proxy's own; an application's is removed", PEER),
        row(Answer, "l5d-proxy-connection", "`close`: the application's connection is closed after the answer; removed", "set to `close` when the peer should make another connection; an application's is removed", PEER),
        row(Answer, "tulle-reason", "set on an answer of the proxy's own, with the reason's code; passes from a meshed peer, else removed", "set on an answer of the proxy's own; an application's is removed", PEER),
        row(Answer, "tulle-request-id", "set on a refusal: the request's id, to be looked up at `/explain`; passes from a meshed peer, else removed", "set on a refusal; an application's is removed", PEER),
    ]),
    ("Read", &[
        row(Both, "grpc-timeout", "how long the call may take; set to what is left", "the same; set to what is left", "the caller"),
        row(Both, "grpc-status", "the outcome of a call, in headers or trailers: metrics, retries, breakers; set on answers of the proxy's own to gRPC", "the outcome for metrics; set on answers of the proxy's own to gRPC", ENDS),
        row(Answer, "grpc-message", "set on answers of the proxy's own to gRPC", "set on answers of the proxy's own to gRPC", ENDS),
        row(Answer, "tulle-tap-events-lost", "set on the end of a tap: the events that its reader was too slow for", "the same", NOBODY),
        row(Answer, "grpc-retry-pushback-ms", "when, or that not, to retry", "passes", "the server, up to 10 s"),
        row(Answer, "retry-after", "when to retry, and how long an ejected endpoint is left alone", "set on 429 of a rate limit", "the server, up to 10 s for a retry"),
        row(Request, "x-request-id", "the id of a refused request", "the id of a refused request", "the application; inbound, a meshed peer"),
        row(Request, "content-type", "`application/grpc…` makes a request a gRPC call", "the same", ENDS),
        row(Request, "authorization", "passes", "the token of a JWT requirement (`Bearer`); removed when the requirement says so", "only after the signature has been verified"),
        row(Request, "cookie", "the key of consistent hashing, where it is by cookie; crumbs are joined between HTTP/2 and HTTP/1", "passes", ENDS),
        row(Answer, "set-cookie", "set where consistent hashing by cookie makes one", "passes", ENDS),
        row(Request, "traceparent", "of a sampled request, where spans are collected: names our span from here on; else passes", "the same; written to the access log", ENDS),
        row(Request, "tracestate", "passes; the spans of a sampled request carry it", "the same", ENDS),
        row(Request, "grpc-trace-bin", "as `traceparent`", "as `traceparent`", ENDS),
        row(Request, "b3", "as `traceparent`", "as `traceparent`", ENDS),
        row(Request, "x-b3-traceid", "read beside `x-b3-spanid`", "the same; written to the access log", ENDS),
        row(Request, "x-b3-spanid", "as `traceparent`", "as `traceparent`", ENDS),
        row(Request, "x-b3-parentspanid", "set to the span before ours where `x-b3-spanid` is", "the same", NOBODY),
        row(Request, "x-b3-sampled", "whether a trace of `x-b3-*` is recorded", "the same", ENDS),
        row(Request, "x-b3-flags", "`1`: such a trace is recorded", "the same", ENDS),
        row(Request, "x-forwarded-host", "the host that the spans of a sampled request name", "the same", ENDS),
        row(Request, "user-agent", "passes", "written to the access log", ENDS),
        row(Request, "referer", "passes", "written to the access log", ENDS),
        row(Request, "x-forwarded-for", "passes", "passes", ENDS),
        row(Request, "forwarded", "passes", "a gateway appends itself, and refuses a request that has passed it before", "counted, never believed"),
    ]),
    ("Set by policy", &[
        row(Request, "origin", "read by a CORS filter", "read by a CORS filter", ENDS),
        row(Request, "access-control-request-method", "read of a preflight", "read of a preflight", ENDS),
        row(Request, "access-control-request-headers", "read of a preflight", "read of a preflight", ENDS),
        row(Answer, "access-control-allow-origin", "set by a CORS filter", "set by a CORS filter", NOBODY),
        row(Answer, "access-control-allow-methods", "set by a CORS filter", "set by a CORS filter", NOBODY),
        row(Answer, "access-control-allow-headers", "set by a CORS filter", "set by a CORS filter", NOBODY),
        row(Answer, "access-control-allow-credentials", "set by a CORS filter", "set by a CORS filter", NOBODY),
        row(Answer, "access-control-expose-headers", "set by a CORS filter", "set by a CORS filter", NOBODY),
        row(Answer, "access-control-max-age", "set by a CORS filter", "set by a CORS filter", NOBODY),
        row(Answer, "vary", "`origin` is added by a CORS filter", "`origin` is added by a CORS filter", ENDS),
        row(Answer, "location", "set by a redirect filter", "set by a redirect filter", ENDS),
        row(Answer, "www-authenticate", "passes", "set on 401 of a JWT requirement", NOBODY),
        row(Request, "x-envoy-auth-partial-body", "passes", "set on the question to an external authorization service that is shown a part of the body", NOBODY),
    ]),
    ("Of one hop", &[
        row(Both, "connection", "removed with every header that it names, but `host` and `content-length`", "the same", HOP),
        row(Both, "keep-alive", "removed", "removed", HOP),
        row(Both, "proxy-connection", "removed", "removed", HOP),
        row(Both, "transfer-encoding", "frames the message; only `chunked` is taken, and never beside `content-length`", "the same", HOP),
        row(Both, "content-length", "frames the message; one value, written anew", "the same", HOP),
        row(Both, "te", "only `trailers` passes", "only `trailers` passes", HOP),
        row(Both, "upgrade", "passes to HTTP/1 (WebSocket becomes extended CONNECT over HTTP/2); `h2c` never", "the same", HOP),
        row(Request, "http2-settings", "removed", "removed", HOP),
        row(Request, "expect", "`100-continue` is handed on; a server that is silent for a second is answered for. Anything else in HTTP/1: 417", "the same", HOP),
        row(Request, "host", "the authority; one, and the same as `:authority`. Dropped beside the absolute URI of a target, also one that a proxy has carried in HTTP/2", "the same", HOP),
    ]),
];

/// The page `docs/reference/headers.md`.
pub fn markdown() -> String {
    let mut page = String::from(
        "# The sidecar's headers\n\n\
         <!-- Generated from crates/proxy/examples/reference/headers.rs by `cargo run --release -p tulle-proxy --example reference`. -->\n\n\
         What the sidecar reads, sets and takes away; anything else passes as it is. Any `l5d-` header that is not listed\n\
         is removed from whoever is not a meshed peer, from every application's answer, and from trailers. Route filters\n\
         may set, add and remove further headers, but none of the first and the last table.\n",
    );
    for (title, headers) in GROUPS {
        let _ = write!(
            page,
            "\n## {title}\n\n| header | of | outbound sidecar | inbound sidecar | who is believed |\n|---|---|---|---|---|\n"
        );
        for header in *headers {
            let message = match header.message {
                Message::Request => "requests",
                Message::Answer => "answers",
                Message::Both => "both",
            };
            let _ = writeln!(
                page,
                "| `{}` | {message} | {} | {} | {} |",
                header.name, header.outbound, header.inbound, header.trust
            );
        }
    }
    page
}
