//! The smuggling vectors, by name, with what we do about each: refuse with this error, or carry on exactly these bytes.
//!
//! 77 named requests in the classes that real proxies got wrong, then further ones of our own and the response side.
//! "Refused" means: an error before the message is complete. "Normalised" shows the bytes that the next hop gets, and
//! the list of those is short on purpose. Each vector runs whole and octet by octet: how reads are cut must not matter.

#![allow(clippy::unwrap_used)]

use bytes::BytesMut;
use tulle_http::h1::{self, Asked, BodyKind, Decoder, Eof, Event, Persist};
use tulle_http::hop::{self, UpgradeField};
use tulle_http::{Error, Head, Limits};

#[derive(Debug)]
enum Fate {
    Refused(Error),
    /// The request as the next hop gets it.
    Normalised(&'static str),
}
use Fate::{Normalised, Refused};

struct Vector {
    name: &'static str,
    bytes: Vec<u8>,
    fate: Fate,
}

fn vector(name: &'static str, bytes: impl AsRef<[u8]>, fate: Fate) -> Vector {
    Vector {
        name,
        bytes: bytes.as_ref().to_vec(),
        fate,
    }
}

/// A POST with these field lines and a body that is a request of its own under one reading or another.
fn post(name: &'static str, fields: &str, error: Error) -> Vector {
    vector(
        name,
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
        ),
        Refused(error),
    )
}

/// A GET whose field lines are these alone.
fn get(name: &'static str, fields: &str, error: Error) -> Vector {
    vector(
        name,
        format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n"),
        Refused(error),
    )
}

fn line(name: &'static str, request_line: &[u8], error: Error) -> Vector {
    vector(
        name,
        [request_line, b"\r\nHost: a\r\n\r\n"].concat(),
        Refused(error),
    )
}

/// A chunked POST with this body.
fn chunks(name: &'static str, body: &[u8], error: Error) -> Vector {
    vector(
        name,
        [
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            body,
        ]
        .concat(),
        Refused(error),
    )
}

fn content_length() -> Vec<Vector> {
    vec![
        post(
            "CL twice, different",
            "Content-Length: 5\r\nContent-Length: 6",
            Error::ManyContentLengths,
        ),
        post(
            "CL list, different",
            "Content-Length: 5, 6",
            Error::ManyContentLengths,
        ),
        post("CL with plus", "Content-Length: +5", Error::ContentLength),
        post("CL with minus", "Content-Length: -5", Error::ContentLength),
        post(
            "CL hexadecimal",
            "Content-Length: 0x5",
            Error::ContentLength,
        ),
        post("CL octal", "Content-Length: 0o5", Error::ContentLength),
        post(
            "CL with underscore",
            "Content-Length: 1_0",
            Error::ContentLength,
        ),
        post(
            "CL with inner space",
            "Content-Length: 1 0",
            Error::ContentLength,
        ),
        post("CL empty", "Content-Length: ", Error::ContentLength),
        post(
            "CL beyond 2^64",
            "Content-Length: 18446744073709551621",
            Error::ContentLength,
        ),
        post("CL after VT", "Content-Length: \x0b5", Error::Value),
        post(
            "CL and TE",
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            Error::LengthAndTransferEncoding,
        ),
        post(
            "TE and CL",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            Error::LengthAndTransferEncoding,
        ),
    ]
}

fn transfer_encoding() -> Vec<Vector> {
    vec![
        post(
            "TE xchunked",
            "Transfer-Encoding: xchunked",
            Error::TransferEncoding,
        ),
        post(
            "TE with space before colon",
            "Transfer-Encoding : chunked",
            Error::SpaceBeforeColon,
        ),
        post(
            "TE folded onto the previous line",
            "X: a\r\n Transfer-Encoding: chunked",
            Error::Fold,
        ),
        post(
            "TE chunked not final",
            "Transfer-Encoding: chunked, gzip",
            Error::TransferEncoding,
        ),
        post(
            "TE identity",
            "Transfer-Encoding: identity",
            Error::TransferEncoding,
        ),
        post(
            "TE chunked twice",
            "Transfer-Encoding: chunked, chunked",
            Error::TransferEncoding,
        ),
        post(
            "TE in two fields",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            Error::ManyTransferEncodings,
        ),
        vector(
            "TE on HTTP/1.0",
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            Refused(Error::TransferEncodingNotAllowed),
        ),
        post(
            "TE after VT",
            "Transfer-Encoding: \x0bchunked",
            Error::Value,
        ),
        post("TE with NUL", "Transfer-Encoding: chunked\0", Error::Value),
        post("TE empty", "Transfer-Encoding: ", Error::TransferEncoding),
        post(
            "TE with obs-fold",
            "Transfer-Encoding:\r\n chunked",
            Error::Fold,
        ),
        post(
            "TE quoted",
            "Transfer-Encoding: \"chunked\"",
            Error::TransferEncoding,
        ),
        post(
            "TE with ;q=1",
            "Transfer-Encoding: chunked;q=1",
            Error::TransferEncoding,
        ),
        post(
            "TE gzip and chunked",
            "Transfer-Encoding: gzip, chunked",
            Error::TransferCoding,
        ),
        vector(
            "TE with underscore",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\n\r\n",
            Normalised("GET / HTTP/1.1\r\nhost: a\r\ntransfer_encoding: chunked\r\n\r\n"),
        ),
    ]
}

fn chunked_bodies() -> Vec<Vector> {
    let long = [
        b"5;".to_vec(),
        vec![b'a'; 64 * 1024],
        b"\r\nhello\r\n0\r\n\r\n".to_vec(),
    ]
    .concat();
    vec![
        chunks(
            "chunk size ends in bare LF",
            b"5\nhello\r\n0\r\n\r\n",
            Error::BareLf,
        ),
        chunks(
            "chunk data ends in bare LF",
            b"5\r\nhello\n0\r\n\r\n",
            Error::ChunkEnd,
        ),
        chunks(
            "chunk extension ends in bare LF",
            b"5;a\nhello\r\n0\r\n\r\n",
            Error::BareLf,
        ),
        chunks(
            "chunk size 0x5",
            b"0x5\r\nhello\r\n0\r\n\r\n",
            Error::ChunkSize,
        ),
        chunks(
            "chunk size -5",
            b"-5\r\nhello\r\n0\r\n\r\n",
            Error::ChunkSize,
        ),
        chunks(
            "chunk size with underscore",
            b"0_5\r\nhello\r\n0\r\n\r\n",
            Error::ChunkSize,
        ),
        chunks(
            "chunk size after space",
            b" 5\r\nhello\r\n0\r\n\r\n",
            Error::ChunkSize,
        ),
        chunks(
            "chunk size overflow",
            b"10000000000000005\r\nhello\r\n0\r\n\r\n",
            Error::ChunkTooLarge,
        ),
        chunks(
            "chunk data spills over",
            b"3\r\nhello\r\n0\r\n\r\n",
            Error::ChunkEnd,
        ),
        chunks(
            "chunk data without CRLF",
            b"5\r\nhello0\r\n\r\n",
            Error::ChunkEnd,
        ),
        chunks(
            "CR in chunk extension",
            b"5;a\rb\r\nhello\r\n0\r\n\r\n",
            Error::ChunkExtension,
        ),
        chunks(
            "NUL in chunk extension",
            b"5;a\0b\r\nhello\r\n0\r\n\r\n",
            Error::ChunkExtension,
        ),
        chunks("64 KiB chunk extension", &long, Error::ChunkExtension),
    ]
}

fn lines_and_names() -> Vec<Vector> {
    vec![
        get("bare LF in fields", "Host: a\nX: b", Error::BareLf),
        get("bare CR in a value", "Host: a\r\nX: b\rc", Error::BareCr),
        line(
            "bare CR in the start line",
            b"GET /\r HTTP/1.1",
            Error::BareCr,
        ),
        get("NUL in a value", "Host: a\r\nX: b\0c", Error::Value),
        get("NUL in a name", "Host: a\r\nX\0Y: b", Error::Name),
        get("obs-fold", "Host: a\r\nX: b\r\n\tc", Error::Fold),
        get("empty name", "Host: a\r\n: b", Error::EmptyName),
        get("no colon", "Host: a\r\nX", Error::NoColon),
        get(
            "space before colon",
            "Host: a\r\nX : b",
            Error::SpaceBeforeColon,
        ),
        get("name with brackets", "Host: a\r\nX[0]: b", Error::Name),
    ]
}

fn hosts() -> Vec<Vector> {
    vec![
        get("two Hosts", "Host: a\r\nHost: b", Error::TwoHosts),
        get("no Host", "X: b", Error::NoHost),
        get("Host with userinfo", "Host: user@a", Error::Authority),
        get("Host with path", "Host: a/b", Error::Authority),
        get("Host with comma", "Host: a,b", Error::Authority),
        vector(
            // RFC 9112 §3.2.2: the target's authority replaces Host; policy, routing and server see only this one.
            "Host differs from the absolute target",
            "GET http://a/x HTTP/1.1\r\nHost: b\r\n\r\n",
            Normalised("GET http://a/x HTTP/1.1\r\nhost: a\r\n\r\n"),
        ),
    ]
}

fn start_lines() -> Vec<Vector> {
    vec![
        line("space in the target", b"GET /a b HTTP/1.1", Error::Version),
        line(
            "tabs in the start line",
            b"GET\t/\tHTTP/1.1",
            Error::RequestLine,
        ),
        line("HTTP/1.2", b"GET / HTTP/1.2", Error::Version),
        line("HTTP/2.0", b"GET / HTTP/2.0", Error::Version),
        line("lower-case method", b"get / HTTP/1.1", Error::Method),
        vector("HTTP/0.9", "GET /\r\n", Refused(Error::RequestLine)),
        line("method is no token", b"G@T / HTTP/1.1", Error::RequestLine),
        line(
            "fragment in the target",
            b"GET /a#b HTTP/1.1",
            Error::Target,
        ),
        line("NUL in the target", b"GET /\0 HTTP/1.1", Error::RequestLine),
        line(
            "0xff in the target",
            b"GET /\xff HTTP/1.1",
            Error::RequestLine,
        ),
    ]
}

fn semantics() -> Vec<Vector> {
    vec![
        vector(
            // What follows is held until 101: see `bytes_after_an_upgrade_are_held`.
            "early bytes after Upgrade",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
            Normalised(
                "GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
            ),
        ),
        vector(
            "h2c upgrade",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
            Normalised("GET / HTTP/1.1\r\nhost: a\r\n\r\n"),
        ),
        vector(
            "header named by Connection",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Secret\r\nX-Secret: 1\r\nX-Kept: 2\r\n\r\n",
            Normalised("GET / HTTP/1.1\r\nhost: a\r\nx-kept: 2\r\n\r\n"),
        ),
        vector(
            "Connection names Transfer-Encoding",
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
            Normalised(
                "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
            ),
        ),
        get(
            "unknown Expect",
            "Host: a\r\nExpect: 200-ok",
            Error::Expectation,
        ),
        vector(
            "CL in a trailer",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nContent-Length: 9\r\nX-Sum: 1\r\n\r\n",
            Normalised(
                "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nx-sum: 1\r\n\r\n",
            ),
        ),
    ]
}

fn sizes() -> Vec<Vector> {
    vec![
        get(
            "100 KB header",
            &format!("Host: a\r\nX: {}", "b".repeat(100_000)),
            Error::HeadTooLarge,
        ),
        get(
            "2,000 headers",
            &format!("Host: a{}", "\r\nX: b".repeat(2_000)),
            Error::TooManyFields,
        ),
        line(
            "100 KB target",
            format!("GET /{} HTTP/1.1", "a".repeat(100_000)).as_bytes(),
            Error::TargetTooLong,
        ),
    ]
}

/// The seventy-seven.
fn listed() -> Vec<Vector> {
    let classes = [
        content_length(),
        transfer_encoding(),
        chunked_bodies(),
        lines_and_names(),
        hosts(),
        start_lines(),
        semantics(),
        sizes(),
    ];
    classes.into_iter().flatten().collect()
}

/// Beyond the list: neighbours of the above that a change could let in.
fn further() -> Vec<Vector> {
    vec![
        post(
            "CL twice, equal",
            "Content-Length: 5\r\nContent-Length: 5",
            Error::ManyContentLengths,
        ),
        post(
            "CL with leading zero",
            "Content-Length: 010",
            Error::ContentLength,
        ),
        post(
            "CL is i64 overflow",
            "Content-Length: 9223372036854775808",
            Error::ContentLength,
        ),
        post(
            "CL with comma only",
            "Content-Length: ,",
            Error::ManyContentLengths,
        ),
        post(
            "TE comma before chunked",
            "Transfer-Encoding: , chunked",
            Error::TransferEncoding,
        ),
        post(
            "TE with space before colon (tab)",
            "Transfer-Encoding\t: chunked",
            Error::SpaceBeforeColon,
        ),
        chunks(
            "chunk size missing",
            b"\r\nhello\r\n0\r\n\r\n",
            Error::ChunkSize,
        ),
        chunks(
            "chunk size missing before extension",
            b";a\r\nhello\r\n0\r\n\r\n",
            Error::ChunkSize,
        ),
        chunks(
            "chunk size before space",
            b"5 \r\nhello\r\n0\r\n\r\n",
            Error::ChunkSize,
        ),
        chunks(
            "chunk size of seventeen zeros",
            b"00000000000000005\r\nhello\r\n0\r\n\r\n",
            Error::ChunkTooLarge,
        ),
        chunks(
            "chunk size i64 overflow",
            b"8000000000000000\r\nhello",
            Error::ChunkTooLarge,
        ),
        chunks(
            "chunk data ends in bare CR",
            b"5\r\nhello\r0\r\n\r\n",
            Error::ChunkEnd,
        ),
        chunks("last chunk ends in bare LF", b"0\n\r\n", Error::BareLf),
        chunks("trailer section ends in bare LF", b"0\r\n\n", Error::BareLf),
        chunks(
            "trailer line ends in bare LF",
            b"0\r\nX: a\n\r\n",
            Error::BareLf,
        ),
        chunks("folded trailer", b"0\r\nX: a\r\n b\r\n\r\n", Error::Fold),
        chunks(
            "trailer with space before colon",
            b"0\r\nX : a\r\n\r\n",
            Error::SpaceBeforeColon,
        ),
        get("first line folded", " Host: a", Error::Fold),
        get("DEL in a value", "Host: a\r\nX: \x7f", Error::Value),
        get("Host with space", "Host: a b", Error::Authority),
        get("Host with port and junk", "Host: a:80:90", Error::Authority),
        get("two equal Hosts", "Host: a\r\nHost: a", Error::TwoHosts),
        get(
            "two Expects",
            "Host: a\r\nExpect: 100-continue\r\nExpect: 100-continue",
            Error::Expectation,
        ),
        line(
            "two spaces in the start line",
            b"GET  / HTTP/1.1",
            Error::RequestLine,
        ),
        line(
            "leading space in the start line",
            b" GET / HTTP/1.1",
            Error::RequestLine,
        ),
        line("lower-case protocol", b"GET / http/1.1", Error::Version),
        line(
            "space after the version",
            b"GET / HTTP/1.1 ",
            Error::RequestLine,
        ),
        line(
            "target without slash",
            b"GET test HTTP/1.1",
            Error::TargetForm,
        ),
        line("asterisk with GET", b"GET * HTTP/1.1", Error::TargetForm),
        line(
            "authority form with GET",
            b"GET a:80 HTTP/1.1",
            Error::TargetForm,
        ),
        line("unknown scheme", b"GET ftp://a/ HTTP/1.1", Error::Scheme),
        line(
            "userinfo in the target",
            b"GET http://u@a/ HTTP/1.1",
            Error::Authority,
        ),
        line(
            "empty authority in the target",
            b"GET http:///x HTTP/1.1",
            Error::Authority,
        ),
        line("CONNECT with path", b"CONNECT /x HTTP/1.1", Error::Connect),
        line("CONNECT with slash", b"CONNECT / HTTP/1.1", Error::Connect),
        line(
            "CONNECT with URI and path",
            b"CONNECT http://test/bar HTTP/1.1",
            Error::Connect,
        ),
        line(
            "CONNECT with URI",
            b"CONNECT http://test HTTP/1.1",
            Error::Connect,
        ),
        line(
            "CONNECT with asterisk",
            b"CONNECT * HTTP/1.1",
            Error::Connect,
        ),
        line(
            "CONNECT without port",
            b"CONNECT test HTTP/1.1",
            Error::Connect,
        ),
        line(
            "CONNECT in HTTP/1.0",
            b"CONNECT a:80 HTTP/1.0",
            Error::Connect,
        ),
        vector(
            "CONNECT with a body",
            "CONNECT a:80 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
            Refused(Error::Connect),
        ),
        vector(
            "five empty lines first",
            "\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            Refused(Error::EmptyLines),
        ),
        vector(
            "bare LF first",
            "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            Refused(Error::BareLf),
        ),
        vector(
            "TLS ClientHello",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\r\n",
            Refused(Error::BareLf),
        ),
        vector(
            "HTTP/2 preface",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            Refused(Error::Version),
        ),
        vector(
            "one empty line first",
            "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            Normalised("GET / HTTP/1.1\r\nhost: a\r\n\r\n"),
        ),
        vector(
            "chunk extension",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n1;a=\"b\"\r\nx\r\n0;c\r\n\r\n",
            Normalised(
                "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
            ),
        ),
        vector(
            "percent-encoded oddities stay as they are",
            "GET /%2e%2e//a/./..;/%00%0d%0a?x=%2f HTTP/1.1\r\nHost: a\r\n\r\n",
            Normalised("GET /%2e%2e//a/./..;/%00%0d%0a?x=%2f HTTP/1.1\r\nhost: a\r\n\r\n"),
        ),
        vector(
            "Connection names Host and Content-Length",
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: Host, Content-Length\r\nContent-Length: 1\r\n\r\nx",
            Normalised("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx"),
        ),
        vector(
            "absolute target without path",
            "GET HTTP://a?b HTTP/1.1\r\nHost: a\r\n\r\n",
            Normalised("GET http://a/?b HTTP/1.1\r\nhost: a\r\n\r\n"),
        ),
    ]
}

/// Decodes one request, read in pieces of `piece` octets, and writes it as the next hop would get it.
fn carry(bytes: &[u8], piece: usize) -> Result<Option<Vec<u8>>, Error> {
    let (mut decoder, mut head, mut input) = (
        Decoder::server(Limits::default()),
        Head::new(),
        BytesMut::new(),
    );
    let (mut out, mut body, mut trailers) = (Vec::new(), None, None);
    let mut pieces = bytes.chunks(piece);
    loop {
        match decoder.next(&mut input, &mut head)? {
            Event::NeedMore => match pieces.next() {
                Some(piece) => input.extend_from_slice(piece),
                None => {
                    assert_eq!(decoder.eof(&input), Eof::Cut);
                    return Ok(None);
                }
            },
            Event::Head(framing) => {
                let upgrade = if framing.upgrade {
                    UpgradeField::Keep
                } else {
                    UpgradeField::Drop
                };
                hop::strip(&mut head, upgrade);
                let persist = if framing.upgrade {
                    Persist::Upgrade
                } else {
                    Persist::KeepAlive
                };
                body = Some(h1::encode_request(&head, framing.body, persist, &mut out).unwrap());
            }
            Event::Data(data) => body.as_mut().unwrap().data(&data, &mut out).unwrap(),
            Event::Trailers => trailers = Some(head.clone()),
            Event::End => {
                body.unwrap().finish(trailers.as_ref(), &mut out).unwrap();
                return Ok(Some(out));
            }
            Event::Held | Event::Closed => unreachable!("before the end of a message"),
        }
    }
}

fn verify(vector: &Vector, piece: usize) -> Result<(), String> {
    let carried = carry(&vector.bytes, piece);
    let right = match (&vector.fate, &carried) {
        (Refused(error), Err(got)) => error == got,
        (Normalised(wanted), Ok(Some(out))) => wanted.as_bytes() == out,
        _ => false,
    };
    let shown = carried.map(|out| out.map(|out| out.escape_ascii().to_string()));
    if right {
        Ok(())
    } else {
        Err(format!(
            "{} ({piece} at a time): wanted {:?}, got {shown:?}",
            vector.name, vector.fate
        ))
    }
}

#[test]
fn every_vector_meets_its_fate_however_it_is_cut() {
    let all: Vec<Vector> = listed().into_iter().chain(further()).collect();
    let faults: Vec<String> = all
        .iter()
        .flat_map(|vector| [usize::MAX, 1, 2, 7, 1000].map(|piece| verify(vector, piece)))
        .filter_map(Result::err)
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_list_is_complete_and_its_names_are_distinct() {
    let mut names: Vec<&str> = listed().iter().map(|vector| vector.name).collect();
    assert_eq!(names.len(), 77);
    let refused = listed()
        .iter()
        .filter(|vector| matches!(vector.fate, Refused(_)))
        .count();
    assert_eq!(
        refused, 70,
        "the normalised ones are a short list on purpose"
    );
    names.extend(further().iter().map(|vector| vector.name));
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
}

#[test]
fn every_refusal_has_a_status_and_a_reason() {
    for error in Error::ALL {
        assert!(
            (400..=505).contains(&error.status()) && !error.reason().is_empty(),
            "{error:?}"
        );
    }
    let reasons: std::collections::BTreeSet<_> =
        Error::ALL.iter().map(|error| error.reason()).collect();
    assert_eq!(reasons.len(), Error::ALL.len(), "one reason per error");
}

const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

fn held(bytes: &[u8]) -> (Decoder, Head, BytesMut) {
    let (mut decoder, mut head, mut input) = (
        Decoder::server(Limits::default()),
        Head::new(),
        BytesMut::from(bytes),
    );
    assert!(
        matches!(decoder.next(&mut input, &mut head), Ok(Event::Head(framing)) if framing.upgrade)
    );
    assert_eq!(decoder.next(&mut input, &mut head), Ok(Event::End));
    for _ in 0..3 {
        assert_eq!(decoder.next(&mut input, &mut head), Ok(Event::Held));
    }
    (decoder, head, input)
}

#[test]
fn bytes_after_an_upgrade_are_held() {
    let (mut decoder, mut head, mut input) = held(UPGRADE);
    decoder.tunnel();
    let Ok(Event::Data(data)) = decoder.next(&mut input, &mut head) else {
        panic!("a tunnel carries data")
    };
    assert!(data.starts_with(b"GET /smuggled"));
    assert_eq!(
        (decoder.next(&mut input, &mut head), decoder.eof(&input)),
        (Ok(Event::NeedMore), Eof::EndOfMessage)
    );

    let (mut decoder, mut head, mut input) = held(UPGRADE);
    decoder.resume();
    assert!(matches!(
        decoder.next(&mut input, &mut head),
        Ok(Event::Head(_))
    ));
    assert_eq!(head.path(), b"/smuggled");
}

#[test]
fn bytes_after_a_refused_connect_are_never_read() {
    let (mut decoder, mut head, mut input) =
        held(b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(head.authority(), Some(&b"a:80"[..]));
    decoder.resume();
    assert_eq!(decoder.next(&mut input, &mut head), Ok(Event::Closed));
}

#[test]
fn nothing_is_read_after_a_last_message() {
    for last in [
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
    ] {
        let bytes = format!("{last}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        let (mut decoder, mut head, mut input) = (
            Decoder::server(Limits::default()),
            Head::new(),
            BytesMut::from(bytes.as_bytes()),
        );
        assert!(
            matches!(decoder.next(&mut input, &mut head), Ok(Event::Head(framing)) if !framing.keep_alive)
        );
        assert_eq!(decoder.next(&mut input, &mut head), Ok(Event::End));
        assert_eq!(decoder.next(&mut input, &mut head), Ok(Event::Closed));
    }
}

/// Decodes one response to `asked`; the body, and whether the connection may be used again.
fn answer(bytes: &str, asked: Asked) -> Result<(Vec<u8>, BodyKind, bool), Error> {
    let (mut decoder, mut head, mut input) = (
        Decoder::client(Limits::default()),
        Head::new(),
        BytesMut::from(bytes.as_bytes()),
    );
    decoder.expect(asked);
    let (mut body, mut kind, mut keep_alive) = (Vec::new(), BodyKind::None, false);
    loop {
        match decoder.next(&mut input, &mut head)? {
            Event::Head(framing) if framing.interim => {}
            Event::Head(framing) => (kind, keep_alive) = (framing.body, framing.keep_alive),
            Event::Data(data) => body.extend_from_slice(&data),
            Event::NeedMore if decoder.eof(&input) == Eof::EndOfMessage => {
                return Ok((body, kind, keep_alive));
            }
            Event::NeedMore => panic!("cut: {bytes:?}"),
            Event::End => {
                let after = decoder.next(&mut input, &mut head)?;
                assert!(
                    matches!(after, Event::NeedMore | Event::Closed),
                    "{after:?}"
                );
                return Ok((body, kind, keep_alive));
            }
            Event::Trailers => {}
            event => panic!("{event:?}"),
        }
    }
}

#[test]
fn responses_are_held_to_the_same_rules() {
    let get = Asked::default();
    for (bytes, error) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            Error::LengthAndTransferEncoding,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            Error::ManyContentLengths,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
            Error::ContentLength,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
            Error::TransferEncoding,
        ),
        (
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            Error::TransferEncodingNotAllowed,
        ),
        (
            "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
            Error::TransferEncodingNotAllowed,
        ),
        (
            "HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n\r\n",
            Error::TransferEncodingNotAllowed,
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
            Error::UnexpectedUpgrade,
        ),
        ("HTTP/1.1 200 OK\nX: a\r\n\r\n", Error::BareLf),
        ("HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", Error::Fold),
        ("HTTP/1.1 200 OK\r\nX : a\r\n\r\n", Error::SpaceBeforeColon),
        ("HTTP/1.1 200 O\rK\r\n\r\n", Error::BareCr),
        ("HTTP/1.1 2000 OK\r\n\r\n", Error::StatusLine),
        ("HTTP/1.1 099 Odd\r\n\r\n", Error::StatusLine),
        ("HTTP/2.0 200 OK\r\n\r\n", Error::Version),
        ("\r\nHTTP/1.1 200 OK\r\n\r\n", Error::StatusLine),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
            Error::Unsolicited,
        ),
        (
            "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            Error::Unsolicited,
        ),
    ] {
        assert_eq!(answer(bytes, get).map(|_| ()), Err(error), "{bytes:?}");
    }
    let flood = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(17) + "HTTP/1.1 200 OK\r\n\r\n";
    assert_eq!(answer(&flood, get), Err(Error::TooManyInterim));
}

#[test]
fn bodies_of_responses_follow_the_request() {
    use tulle_http::MethodKind;
    let get = Asked::default();
    let head = Asked {
        method: MethodKind::Head,
        upgrade: false,
    };
    let connect = Asked {
        method: MethodKind::Connect,
        upgrade: false,
    };
    let upgrade = Asked {
        method: MethodKind::Other,
        upgrade: true,
    };
    for (bytes, asked, body, kind, keep_alive) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
            get,
            "hi",
            BodyKind::Length(2),
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 55\r\n\r\n",
            head,
            "",
            BodyKind::None,
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            head,
            "",
            BodyKind::None,
            true,
        ),
        (
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 55\r\n\r\n",
            get,
            "",
            BodyKind::None,
            true,
        ),
        (
            "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
            get,
            "",
            BodyKind::None,
            true,
        ),
        (
            "HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
            get,
            "x",
            BodyKind::Length(1),
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\n\r\nuntil close",
            get,
            "until close",
            BodyKind::UntilClose,
            false,
        ),
        (
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx",
            get,
            "x",
            BodyKind::Length(1),
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            get,
            "hi",
            BodyKind::Chunked,
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 55\r\n\r\nraw",
            connect,
            "raw",
            BodyKind::None,
            false,
        ),
        (
            "HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nraw",
            upgrade,
            "raw",
            BodyKind::None,
            true,
        ),
    ] {
        assert_eq!(
            answer(bytes, asked),
            Ok((body.as_bytes().to_vec(), kind, keep_alive)),
            "{bytes:?}"
        );
    }
}
