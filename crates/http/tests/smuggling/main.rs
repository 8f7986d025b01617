//! The smuggling vectors, by name, with what we do about each: refuse with this error, or carry on exactly these bytes.
//!
//! 77 named requests in the classes that real proxies got wrong, then further ones of our own and the response side.
//! "Refused" means: an error before the message is complete. "Normalised" shows the bytes that the next hop gets, and
//! the list of those is short on purpose. Each vector runs whole and octet by octet: how reads are cut must not matter.

#![allow(clippy::unwrap_used)]

mod further;
mod listed;
mod responses;
mod vector;

use bytes::BytesMut;
use further::further;
use listed::listed;
use tulle_http::h1::{self, Decoder, Eof, Event, Persist};
use tulle_http::hop::{self, UpgradeField};
use tulle_http::{Error, Head, Limits};
use vector::Fate::{Normalised, Refused};
use vector::Vector;

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
                hop::strip(&mut head, UpgradeField::of(framing.upgrade));
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
