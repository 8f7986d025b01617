//! Spans as OpenTelemetry's messages have them, with the names that Linkerd's proxy gives them. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use tulle_api::opentelemetry::proto::collector::trace::v1::ExportTraceServiceRequest;
use tulle_api::opentelemetry::proto::common::v1::any_value::Value;
use tulle_api::opentelemetry::proto::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use tulle_api::opentelemetry::proto::resource::v1::Resource;
use tulle_api::opentelemetry::proto::trace::v1::status::StatusCode;
use tulle_api::opentelemetry::proto::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span};

use super::record::{Kind, Record, Text};

/// The lowest octet is W3C's.
const SAMPLED: u32 = 1;
/// Whether the parent is elsewhere is known …
const KNOWS_REMOTE: u32 = 0x100;
/// … and it is.
const IS_REMOTE: u32 = 0x200;

/// Who sends the spans: the process, and what its environment says of it.
pub fn resource(host: &str, started: Duration, attributes: &BTreeMap<String, String>) -> Resource {
    let mut all = vec![
        number("process.pid", i64::from(std::process::id())),
        number("process.start_timestamp", seconds(started)),
        text("host.name", host),
    ];
    all.extend(attributes.iter().map(|(name, value)| text(name, value)));
    Resource { attributes: all }
}

/// One message.
pub fn request(resource: Resource, spans: Vec<Span>) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: env!("CARGO_PKG_NAME").to_owned(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                }),
                spans,
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        }],
    }
}

/// One span.
pub fn span(record: &Record) -> Span {
    let target = lossy(record.text(Text::Target));
    let path = target.split('?').next().unwrap_or_default();
    let remote = match record.kind {
        Kind::Server => IS_REMOTE,
        Kind::Client => 0,
    };
    Span {
        trace_id: record.context.trace.to_vec(),
        span_id: record.span.to_vec(),
        trace_state: lossy(record.text(Text::TraceState)),
        parent_span_id: record.context.parent.to_vec(),
        name: path.to_owned(),
        kind: match record.kind {
            Kind::Server => span::SpanKind::Server,
            Kind::Client => span::SpanKind::Client,
        } as i32,
        start_time_unix_nano: nanos(record.began),
        end_time_unix_nano: nanos(record.began + record.took),
        attributes: attributes(record, &target),
        status: Some(status(record)),
        flags: SAMPLED | KNOWS_REMOTE | remote,
    }
}

fn attributes(record: &Record, target: &str) -> Vec<KeyValue> {
    let scheme = match record.text(Text::Scheme) {
        b"" => "http".to_owned(),
        scheme => lossy(scheme),
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let host = lossy(record.text(Text::Host));
    let (name, port) = host_and_port(&host);
    let mut all = vec![
        text("direction", record.direction.as_str()),
        text("http.request.method", &lossy(record.text(Text::Method))),
        text("url.scheme", &scheme),
        text("url.path", path),
        text("url.full", &format!("{scheme}://{host}{target}")),
        text("network.transport", "tcp"),
    ];
    let mut add = |key: &str, value: &str| {
        if !value.is_empty() {
            all.push(text(key, value));
        }
    };
    add("url.query", query);
    add("server.address", name);
    add("server.port", port);
    for (key, field) in [
        ("user_agent.original", Text::UserAgent),
        ("http.request.header.content-length", Text::ContentLength),
        ("http.request.header.content-type", Text::ContentType),
        ("http.request.header.l5d-orig-proto", Text::OrigProto),
    ] {
        add(key, &lossy(record.text(field)));
    }
    if record.status != 0 {
        add("http.response.status_code", &record.status.to_string());
    }
    add("error.type", record.error);
    if let Some(grpc) = record.grpc {
        all.push(number("rpc.grpc.status_code", i64::from(grpc)));
    }
    all
}

/// A proxy's own error is one; so is what its server calls one, and for a client also what blames the request.
fn status(record: &Record) -> Status {
    let least = match record.kind {
        Kind::Server => 500,
        Kind::Client => 400,
    };
    let failed = !record.error.is_empty()
        || record.status >= least
        || record.grpc.is_some_and(|status| status != 0);
    let code = if failed {
        StatusCode::Error
    } else {
        StatusCode::Unset
    };
    Status {
        message: record.error.to_owned(),
        code: code as i32,
    }
}

fn host_and_port(host: &str) -> (&str, &str) {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (name, port),
        _ => (host, ""),
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    pair(key, Value::StringValue(value.to_owned()))
}

fn number(key: &str, value: i64) -> KeyValue {
    pair(key, Value::IntValue(value))
}

fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
    }
}

/// A string of protobuf is UTF-8, whatever a header was.
fn lossy(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}
