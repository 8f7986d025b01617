//! Beyond the list: neighbours of it that a change could let in.

use tulle_http::Error;

use crate::vector::Fate::{Normalised, Refused};
use crate::vector::{Vector, chunks, get, line, post, vector};

pub fn further() -> Vec<Vector> {
    vec![
        line(
            "DEL in the target",
            b"GET /\x7f HTTP/1.1",
            Error::RequestLine,
        ),
        line(
            "a slash in too many octets",
            b"GET /a\xc0\xaf HTTP/1.1",
            Error::RequestLine,
        ),
        vector(
            "raw UTF-8 in the target",
            "GET /caf\u{e9}?\u{1f369}=1 HTTP/1.1\r\nHost: a\r\n\r\n",
            Normalised("GET /caf\u{e9}?\u{1f369}=1 HTTP/1.1\r\nhost: a\r\n\r\n"),
        ),
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
        get(
            "thirty-three Connection options",
            &format!("Host: a\r\nConnection: {}", "x,".repeat(33)),
            Error::ConnectionOptions,
        ),
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
            "odd white space around values",
            "GET / HTTP/1.1\r\nHost:\ta \r\nX-A:b\r\nX-B: \t c \t\r\nX-C:\td\r\nX-D:\r\nX-E: \r\nX-F: e \t\r\nX-G: g\r\n\r\n",
            Normalised(
                "GET / HTTP/1.1\r\nhost: a\r\nx-a: b\r\nx-b: c\r\nx-c: d\r\nx-d: \r\nx-e: \r\nx-f: e\r\nx-g: g\r\n\r\n",
            ),
        ),
        vector(
            "assertions and credentials in trailers",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nL5d-Client-Id: x\r\nAuthorization: y\r\nX: z\r\n\r\n",
            Normalised(
                "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: z\r\n\r\n",
            ),
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
