//! However the network cuts the bytes, the decoder says the same; and whatever the bytes are, it neither panics nor
//! keeps more than its bounds.

#![allow(clippy::unwrap_used)]

mod traffic;
mod transcript;

use proptest::collection::vec;
use proptest::prelude::*;
use traffic::{spicy, valid};
use transcript::{Ending, Transcript, cut, requests, responses};
use tulle_http::h1::Asked;
use tulle_http::{Limits, MethodKind};

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
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

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
