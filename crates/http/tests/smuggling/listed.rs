//! The seventy-seven, class by class.

use tulle_http::Error;

use crate::vector::Fate::{Normalised, Refused};
use crate::vector::{Vector, chunks, get, line, post, vector};

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
pub fn listed() -> Vec<Vector> {
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
