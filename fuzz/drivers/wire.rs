//! What is read before a protocol is known, and what DNS servers say. Wherever the bytes end, the answer is the same as
//! with all of them, or "more".

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
