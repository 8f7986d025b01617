//! Generated HTTP/1 traffic: right, nearly right, and spiced with what parsers trip over.

// Each test binary uses its part of it.
#![allow(dead_code)]

use proptest::collection::vec;
use proptest::prelude::*;

/// Octets that mean something to a parser, more often than their share.
pub fn spicy() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        4 => prop::sample::select(vec![
            &b"\r\n"[..], b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b",", b"0", b"5", b"a", b"/", b"*", b"\xff", b"0\r\n\r\n", b"\r\n\r\n",
        ]).prop_map(<[u8]>::to_vec),
        6 => prop::sample::select(vec![
            &b"GET / HTTP/1.1\r\n"[..], b"POST /x HTTP/1.1\r\n", b"HEAD http://a/b HTTP/1.0\r\n", b"CONNECT a:80 HTTP/1.1\r\n", b"OPTIONS * HTTP/1.1\r\n",
            b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 101 S\r\n", b"HTTP/1.0 304 Not Modified\r\n",
            b"Host: a\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Connection: upgrade\r\n",
            b"Upgrade: websocket\r\n", b"Expect: 100-continue\r\n", b"X-Other: value\r\n", b"hello", b"5\r\nhello\r\n", b"5;e=x\r\nhello\r\n",
            b"0\r\nX-Sum: 1\r\n\r\n",
        ]).prop_map(<[u8]>::to_vec),
        1 => vec(any::<u8>(), 0..20),
    ];
    vec(word, 0..24).prop_map(|words| words.concat())
}

/// Whole conversations that are right, so that the bodies are reached.
pub fn valid() -> impl Strategy<Value = Vec<u8>> {
    let message = (
        // Targets may have UTF-8 in them that nobody has percent-encoded.
        "/[a-z/%\u{80}-\u{2ff}\u{1f369}]{0,6}\\?[a-z=\u{e9}]{0,4}",
        vec(("[a-z]{1,8}", "[ -~]{0,12}"), 0..4),
        vec(vec(any::<u8>(), 1..50), 0..4),
        0..3u8,
        vec("[ -~]{0,9}", 0..2),
    )
        .prop_map(|(target, fields, chunks, kind, trailers)| {
            let mut out = format!("POST {target} HTTP/1.1\r\nHost: a\r\n").into_bytes();
            for (name, value) in fields {
                out.extend(format!("x-{name}:{value}\r\n").bytes());
            }
            match kind {
                0 => out.extend(b"\r\n"),
                1 => {
                    let body = chunks.concat();
                    out.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
                    out.extend(body);
                }
                _ => {
                    out.extend(b"Transfer-Encoding: chunked\r\n\r\n");
                    for chunk in chunks {
                        out.extend(format!("{:x};e=1\r\n", chunk.len()).bytes());
                        out.extend(chunk);
                        out.extend(b"\r\n");
                    }
                    out.extend(b"0\r\n");
                    for value in trailers {
                        out.extend(format!("x-trailer: {value}\r\n").bytes());
                    }
                    out.extend(b"\r\n");
                }
            }
            out
        });
    vec(message, 1..4).prop_map(|messages| messages.concat())
}

/// Right responses, framed in every way; the last may run until close.
pub fn valid_responses() -> impl Strategy<Value = Vec<u8>> {
    let status = prop::sample::select(vec![200, 204, 304, 404, 500, 599]);
    let fields = vec(("[a-z]{1,8}", "[ -~]{0,12}"), 0..4);
    let body = vec(vec(any::<u8>(), 1..50), 0..4);
    (status, fields, body, 0..3u8, any::<bool>()).prop_map(
        |(status, fields, chunks, kind, interim)| {
            let mut out = Vec::new();
            if interim {
                out.extend(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n");
            }
            out.extend(format!("HTTP/1.1 {status} Some Reason\r\n").bytes());
            for (name, value) in fields {
                out.extend(format!("x-{name}: {value}\r\n").bytes());
            }
            let bodyless = status == 204 || status == 304;
            match kind {
                _ if bodyless => out.extend(b"\r\n"),
                0 => out.extend([b"\r\n".to_vec(), chunks.concat()].concat()),
                1 => out.extend(
                    [
                        format!("Content-Length: {}\r\n\r\n", chunks.concat().len()).into_bytes(),
                        chunks.concat(),
                    ]
                    .concat(),
                ),
                _ => {
                    out.extend(b"Transfer-Encoding: chunked\r\n\r\n");
                    for chunk in chunks {
                        out.extend(
                            [
                                format!("{:X}\r\n", chunk.len()).into_bytes(),
                                chunk,
                                b"\r\n".to_vec(),
                            ]
                            .concat(),
                        );
                    }
                    out.extend(b"0\r\n\r\n");
                }
            }
            out
        },
    )
}

/// One small wrong: a piece of `spicy` put in, over, or instead of something.
pub type Wrong = (usize, u8, Vec<u8>);

/// A few small wrongs.
pub fn wrongs() -> impl Strategy<Value = Vec<Wrong>> {
    let piece = prop_oneof![
        3 => prop::sample::select(vec![
            &b"\r\n"[..], b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b",", b"0", b"5", b"f", b"+", b"-", b"x", b"_", b"\x0b", b"\x7f", b"\xff", b"\xc3\xa9", b"",
            b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n", b"Connection: close\r\n",
            b"Host: b\r\n", b"Expect: 100-continue\r\n", b"HTTP/1.0", b"HTTP/1.2", b"0\r\n\r\n", b";ext=\"a\"",
        ]).prop_map(<[u8]>::to_vec),
        1 => vec(any::<u8>(), 0..3),
    ];
    vec((any::<usize>(), 0..3u8, piece), 1..4)
}

/// `bytes` with the wrongs done to it. Insertions go preferably to where a line begins.
pub fn spoil(bytes: &[u8], wrongs: &[Wrong]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (at, how, piece) in wrongs {
        let line_starts: Vec<usize> = (0..bytes.len())
            .filter(|&i| i == 0 || bytes[i - 1] == b'\n')
            .collect();
        let anywhere = at % (bytes.len() + 1);
        let (from, until) = match how {
            0 => (anywhere, anywhere),
            1 => (anywhere, (anywhere + piece.len().max(1)).min(bytes.len())),
            _ => line_starts
                .get(at % line_starts.len().max(1))
                .map_or((0, 0), |&start| (start, start)),
        };
        bytes.splice(from..until, piece.iter().copied());
    }
    bytes
}
