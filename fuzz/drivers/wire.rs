//! What is read before a protocol is known, and what DNS servers say. Wherever the bytes end, the answer is the same as
//! with all of them, or "more".

use tulle_http::Head;
use tulle_http::trace_context::TraceContext;
use tulle_proxy::control::dns_message::{self, RecordType};
use tulle_proxy::detect;
use tulle_proxy::net::hello::{self, Hello};
use tulle_proxy::net::proxy_protocol;
use tulle_proxy::transport_header::TransportHeader;

/// Every beginning of the bytes; long ones in steps.
fn beginnings(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    (0..=bytes.len())
        .step_by(1 + bytes.len() / 64)
        .filter_map(|length| bytes.get(..length))
}

/// TLS's first message: the name it asks for.
pub fn client_hello(bytes: &[u8]) {
    let whole = hello::sniff(bytes);
    if let Hello::Complete {
        server_name: Some(name),
    } = &whole
    {
        assert!(!name.is_empty() && name.len() <= 255);
        assert!(!name.bytes().any(|byte| byte.is_ascii_uppercase()));
    }
    for part in beginnings(bytes) {
        let said = hello::sniff(part);
        assert!(
            said == Hello::Incomplete || said == whole,
            "{said:?}, then {whole:?}"
        );
    }
}

/// The PROXY protocol, both versions.
pub fn proxy_protocol(bytes: &[u8]) {
    let whole = proxy_protocol::parse(bytes);
    if let Ok(Some(header)) = whole {
        assert!(header.length <= bytes.len());
    }
    for part in beginnings(bytes) {
        let said = proxy_protocol::parse(part);
        assert!(
            said == Ok(None) || said == whole,
            "{said:?}, then {whole:?}"
        );
    }
}

/// The header of connections between proxies: what is read is written and read again.
pub fn transport_header(bytes: &[u8]) {
    let wire = [tulle_proxy::transport_header::PREFACE, bytes].concat();
    for bytes in [bytes, &wire] {
        let whole = TransportHeader::decode(bytes);
        for part in beginnings(bytes) {
            let said = TransportHeader::decode(part);
            assert!(
                said == Ok(None) || said == whole,
                "{said:?}, then {whole:?}"
            );
        }
        let Ok(Some((header, length))) = whole else {
            continue;
        };
        assert!(length <= bytes.len());
        let _ = header.authority();
        let mut written = Vec::new();
        header.encode(&mut written);
        let read = TransportHeader::decode(&written);
        assert_eq!(read, Ok(Some((header, written.len()))));
    }
}

/// The first bytes of a client, or of a server that speaks first.
pub fn detection(bytes: &[u8]) {
    let (client, server) = (detect::detect(bytes), detect::greeting(bytes));
    for part in beginnings(bytes) {
        let said = detect::detect(part);
        assert!(
            said.is_none() || said == client,
            "{said:?}, then {client:?}"
        );
        let said = detect::greeting(part);
        assert!(
            said.is_none() || said == server,
            "{said:?}, then {server:?}"
        );
    }
}

/// A DNS server's answer.
pub fn dns_answer(bytes: &[u8]) {
    for kind in [RecordType::A, RecordType::Aaaa, RecordType::Srv] {
        if let Some(answer) = dns_message::answer(bytes, kind) {
            // A record is at least a pointer and ten octets.
            assert!(answer.records.len() + answer.additional.len() <= bytes.len() / 11);
        }
    }
    if let Ok(name) = std::str::from_utf8(bytes) {
        if let Some(question) = dns_message::question(7, name, RecordType::A) {
            assert!(question.len() <= 12 + 255 + 4);
            assert_eq!(dns_message::answer(&question, RecordType::A), None);
        }
    }
}

/// Fields that carry a trace.
const TRACE_FIELDS: [&str; 8] = [
    "traceparent",
    "grpc-trace-bin",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-sampled",
    "x-b3-flags",
    "tracestate",
];

/// Headers that say to which trace a request belongs: a line each, its first octet chooses the field. What is read can be
/// handed on, and says the same then, with our span as the parent; what cannot be read stays as it is.
pub fn trace_context(bytes: &[u8]) {
    let mut head = Head::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Some((which, value)) = line.split_first() {
            let field = TRACE_FIELDS[usize::from(*which) % TRACE_FIELDS.len()];
            let _refused = head.push(field, value);
        }
    }
    let Some(context) = TraceContext::read(&head) else {
        return;
    };
    assert!(context.trace != [0; 16] && context.parent != [0; 8]);
    let span = [7; 8];
    let others = |head: &Head| -> Vec<Vec<u8>> {
        let states = head.get_all(b"tracestate");
        states.map(<[u8]>::to_vec).collect()
    };
    let before = others(&head);
    context
        .hand_on(&mut head, span)
        .expect("a small head has room");
    let next = TraceContext::read(&head).expect("what was written can be read");
    let mut wanted = context;
    wanted.parent = span;
    assert_eq!(next, wanted);
    assert_eq!(others(&head), before);
}
