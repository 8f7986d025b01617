//! However the network cuts the bytes, the decoder says the same; and whatever the bytes are, it neither panics nor
//! keeps more than its bounds.

mod transcript;

use proptest::collection::vec;
use proptest::prelude::*;
use transcript::{Ending, Transcript, cut, requests, responses};
use tulle_http::h1::Asked;
use tulle_http::{Limits, MethodKind};

/// Octets that mean something to a parser, more often than their share.
fn spicy() -> impl Strategy<Value = Vec<u8>> {
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
fn valid() -> impl Strategy<Value = Vec<u8>> {
    let message = (
        vec(("[a-z]{1,8}", "[ -~]{0,12}"), 0..4),
        vec(vec(any::<u8>(), 1..50), 0..4),
        0..3u8,
        vec("[ -~]{0,9}", 0..2),
    )
        .prop_map(|(fields, chunks, kind, trailers)| {
            let mut out = b"POST /p?q HTTP/1.1\r\nHost: a\r\n".to_vec();
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

/// The same up to which of its faults a refused message is refused for: a cut head may show the first one earlier.
/// Body octets ahead of a refusal are the same either way, since they are handed out before it is found.
fn same(whole: &Transcript, pieces: &Transcript) -> Result<(), TestCaseError> {
    prop_assert_eq!(&whole.messages, &pieces.messages);
    match (whole.ending, pieces.ending) {
        (Ending::Refused(_), Ending::Refused(_)) => {}
        (whole, pieces) => prop_assert_eq!(whole, pieces),
    }
    Ok(())
}

fn bounded(transcript: &Transcript, piece: usize) -> Result<(), TestCaseError> {
    prop_assert!(transcript.most_waiting <= Limits::default().head_bytes + piece);
    Ok(())
}

fn asked() -> impl Strategy<Value = Asked> {
    let method = prop::sample::select(vec![
        MethodKind::Other,
        MethodKind::Head,
        MethodKind::Connect,
    ]);
    (method, any::<bool>()).prop_map(|(method, upgrade)| Asked { method, upgrade })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn any_cut_of_valid_requests_reads_the_same(bytes in valid(), cuts in vec(any::<usize>(), 0..12)) {
        let whole = requests([&bytes[..]]);
        prop_assert!(!matches!(whole.ending, Ending::Refused(_)), "{:?}", whole.ending);
        same(&whole, &requests(cut(&bytes, &cuts)))?;
        same(&whole, &requests(bytes.chunks(1)))?;
    }

    #[test]
    fn any_cut_of_anything_reads_the_same(bytes in spicy(), cuts in vec(any::<usize>(), 0..12), asked in asked()) {
        let whole = requests([&bytes[..]]);
        same(&whole, &requests(cut(&bytes, &cuts)))?;
        same(&whole, &requests(bytes.chunks(1)))?;
        let whole = responses(asked, [&bytes[..]]);
        same(&whole, &responses(asked, cut(&bytes, &cuts)))?;
        same(&whole, &responses(asked, bytes.chunks(1)))?;
    }

    #[test]
    fn random_octets_never_panic(bytes in vec(any::<u8>(), 0..600), asked in asked()) {
        bounded(&requests(bytes.chunks(7)), 7)?;
        bounded(&responses(asked, bytes.chunks(7)), 7)?;
    }

    #[test]
    fn a_flipped_octet_never_panics(bytes in valid(), at in any::<usize>(), by in any::<u8>()) {
        let mut bytes = bytes;
        let at = at % bytes.len();
        bytes[at] ^= by;
        bounded(&requests([&bytes[..]]), bytes.len())?;
    }
}

#[test]
fn endless_input_is_refused_within_the_bounds() {
    let endless: [(&[u8], &[u8]); 6] = [
        (b"", b"A"),
        (b"GET /", b"a"),
        (b"GET / HTTP/1.1\r\nX: ", b"a"),
        (b"GET / HTTP/1.1\r\n", b"X: a\r\n"),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0;",
            b"a",
        ),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ",
            b"a",
        ),
    ];
    for (start, then) in endless {
        let piece = then.repeat(1024);
        let pieces = std::iter::once(start).chain(std::iter::repeat_n(&piece[..], 200));
        let read = requests(pieces);
        assert!(
            matches!(read.ending, Ending::Refused(_)),
            "{:?}",
            read.ending
        );
        assert!(read.most_waiting <= Limits::default().head_bytes);
    }
}

#[test]
fn many_small_chunk_extensions_are_refused_in_the_end() {
    let start = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = [b"1;".to_vec(), vec![b'e'; 200], b"\r\nx\r\n".to_vec()].concat();
    let read = requests(std::iter::once(&start[..]).chain(std::iter::repeat_n(&chunk[..], 100)));
    assert_eq!(
        read.ending,
        Ending::Refused(tulle_http::Error::ChunkExtension)
    );
    assert!(read.messages[0].body.len() < 100);
}
