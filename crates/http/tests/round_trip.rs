//! What the encoder writes, the decoder reads back: heads, bodies in any pieces, trailers; and what the encoder refuses.

#![allow(clippy::unwrap_used)]

mod transcript;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use transcript::{Ending, cut, requests, responses};
use tulle_http::h1::{
    Answering, Asked, BodyKind, EncodeError, Persist, encode_request, encode_response,
};
use tulle_http::{Error, Head, Known, MethodKind, TargetForm, Version};

type Fields = Vec<(String, Vec<u8>)>;

fn fields() -> impl Strategy<Value = Fields> {
    let value = vec(
        prop_oneof![9 => 0x21..0x7fu8, 1 => Just(b' '), 1 => Just(b'\t'), 1 => 0x80..=0xffu8],
        0..30,
    )
    .prop_map(|value| tulle_http::grammar::trim(&value).to_vec());
    vec(("x-[a-z0-9_!#$%&'*+.^`|~-]{1,20}", value), 0..12)
}

fn request() -> impl Strategy<Value = Head> {
    let method = prop::sample::select(vec!["GET", "POST", "HEAD", "PUT", "PROPFIND", "M-SEARCH"]);
    let authority =
        prop::sample::select(vec!["a", "voting.default:80", "[::1]:8080", "10.0.0.1", ""]);
    (
        method,
        authority,
        "/[!-\"$-~]{0,40}",
        any::<bool>(),
        fields(),
    )
        .prop_map(|(method, authority, path, absolute, fields)| {
            let mut head = Head::new();
            head.set_method(method.as_bytes()).unwrap();
            head.set_authority(authority.as_bytes()).unwrap();
            if absolute && !authority.is_empty() {
                head.set_scheme(b"http").unwrap();
                head.set_target_form(TargetForm::Absolute);
            }
            head.set_path(path.as_bytes()).unwrap();
            fields
                .iter()
                .for_each(|(name, value)| head.push(name, value).unwrap());
            head
        })
}

fn fill(head: &mut Head, fields: &Fields) {
    fields
        .iter()
        .for_each(|(name, value)| head.push(name, value).unwrap());
}

/// The fields without those that the encoder wrote for the framing.
fn essence(head: &Head) -> Vec<(Vec<u8>, Vec<u8>)> {
    let own = ["content-length", "transfer-encoding", "connection"];
    head.iter()
        .filter(|(name, _)| !own.iter().any(|o| o.as_bytes() == *name))
        .map(|(n, v)| (n.to_vec(), v.to_vec()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn requests_come_back(
        head in request(),
        pieces in vec(vec(any::<u8>(), 0..60), 0..5),
        kind in 0..3u8,
        trailers in option::of(fields()),
        cuts in vec(any::<usize>(), 0..8),
    ) {
        let body = pieces.concat();
        let framing = match kind {
            0 => BodyKind::None,
            1 => BodyKind::Length(body.len() as u64),
            _ => BodyKind::Chunked,
        };
        let mut section = Head::new();
        fill(&mut section, trailers.as_ref().unwrap_or(&Vec::new()));
        let mut out = Vec::new();
        let mut writer = encode_request(&head, framing, Persist::KeepAlive, &mut out).unwrap();
        if kind > 0 {
            pieces.iter().for_each(|piece| writer.data(piece, &mut out).unwrap());
        }
        writer.finish(trailers.is_some().then_some(&section), &mut out).unwrap();
        // A second, empty request on the same connection shows that nothing of the first is left over.
        let end = out.len();
        let _ = encode_request(&head, BodyKind::None, Persist::KeepAlive, &mut out).unwrap();
        prop_assert!(out.len() > end);

        let read = requests(cut(&out, &cuts));
        prop_assert_eq!(read.ending, Ending::Eof(tulle_http::h1::Eof::Clean));
        prop_assert_eq!(read.messages.len(), 2);
        let got = &read.messages[0];
        prop_assert_eq!(got.framing.body, framing);
        prop_assert!(got.complete && got.framing.keep_alive);
        prop_assert_eq!(&got.body, if kind > 0 { &body } else { &got.body });
        prop_assert_eq!(got.head.method(), head.method());
        prop_assert_eq!(got.head.path(), head.path());
        prop_assert_eq!(got.head.authority(), head.authority());
        prop_assert_eq!(got.head.target_form(), head.target_form());
        prop_assert_eq!(essence(&got.head), essence(&head));
        let trailers = if kind == 2 && !section.is_empty() { Some(essence(&section)) } else { None };
        prop_assert_eq!(got.trailers.as_ref().map(essence), trailers);
        prop_assert_eq!(read.messages[1].framing.body, BodyKind::None);
    }

    #[test]
    fn responses_come_back(
        status in 200..1000u16,
        fields in fields(),
        pieces in vec(vec(any::<u8>(), 0..60), 0..5),
        kind in 0..4u8,
        method in prop::sample::select(vec![MethodKind::Other, MethodKind::Head]),
        version in prop::sample::select(vec![Version::Http10, Version::Http11, Version::Http2]),
        cuts in vec(any::<usize>(), 0..8),
    ) {
        let mut head = Head::new();
        head.set_status(status).unwrap();
        fill(&mut head, &fields);
        let body = pieces.concat();
        let kind = match kind {
            0 => BodyKind::None,
            1 => BodyKind::Length(body.len() as u64),
            2 => BodyKind::Chunked,
            _ => BodyKind::UntilClose,
        };
        let mut out = Vec::new();
        let mut writer = encode_response(&head, Answering { method, version }, kind, Persist::KeepAlive, &mut out).unwrap();
        let has_body = !matches!(writer.body(), BodyKind::None | BodyKind::Length(0));
        if has_body {
            pieces.iter().for_each(|piece| writer.data(piece, &mut out).unwrap());
        }
        let keep_alive = writer.keep_alive;
        writer.finish(None, &mut out).unwrap();

        let read = responses(Asked { method, upgrade: false }, cut(&out, &cuts));
        prop_assert_eq!(read.messages.len(), 1, "{:?}", out.escape_ascii().to_string());
        let got = &read.messages[0];
        prop_assert!(got.complete);
        prop_assert_eq!(got.framing.keep_alive, keep_alive);
        prop_assert_eq!(&got.body, if has_body { &body } else { &got.body });
        prop_assert_eq!(got.head.status(), status);
        prop_assert_eq!(essence(&got.head), essence(&head));
        let bodyless = method == MethodKind::Head || status == 204 || status == 304;
        prop_assert_eq!(has_body, !bodyless && !matches!(kind, BodyKind::None | BodyKind::Length(0)));
    }

    #[test]
    fn nothing_pushed_into_a_head_breaks_a_line(name in vec(any::<u8>(), 0..6), value in vec(any::<u8>(), 0..8)) {
        let mut head = Head::new();
        head.set_method(b"GET").unwrap();
        head.set_path(b"/").unwrap();
        let before = head.clone();
        if head.push(&name, &value).is_err() {
            prop_assert_eq!(&head, &before);
        }
        let mut out = Vec::new();
        let _ = encode_request(&head, BodyKind::None, Persist::KeepAlive, &mut out).unwrap();
        let lines = out.windows(2).filter(|pair| pair == b"\r\n").count();
        prop_assert_eq!(lines, 3 + head.len());
        prop_assert!(!out.iter().enumerate().any(|(at, &b)| b == 0 || (b == b'\n' && out[at - 1] != b'\r')));
    }
}

fn simple(method: &str, version: Version) -> Head {
    let mut head = Head::new();
    head.set_method(method.as_bytes()).unwrap();
    head.set_path(b"/").unwrap();
    head.set_version(version);
    head
}

fn answer(
    status: u16,
    fields: &[(&str, &str)],
    to: Answering,
    body: BodyKind,
    persist: Persist,
) -> (String, BodyKind, bool) {
    let mut head = Head::new();
    head.set_status(status).unwrap();
    fields
        .iter()
        .for_each(|(name, value)| head.push(name, value).unwrap());
    let mut out = Vec::new();
    let writer = encode_response(&head, to, body, persist, &mut out).unwrap();
    (
        String::from_utf8(out).unwrap(),
        writer.body(),
        writer.keep_alive,
    )
}

const GET: Answering = Answering {
    method: MethodKind::Other,
    version: Version::Http11,
};
const OLD: Answering = Answering {
    method: MethodKind::Other,
    version: Version::Http10,
};
const HEAD: Answering = Answering {
    method: MethodKind::Head,
    version: Version::Http11,
};
const CONNECT: Answering = Answering {
    method: MethodKind::Connect,
    version: Version::Http11,
};

#[test]
fn what_a_response_says_follows_the_question() {
    let lie = &[
        ("content-length", "99"),
        ("transfer-encoding", "chunked"),
        ("connection", "x"),
        ("keep-alive", "1"),
    ];
    let keep = Persist::KeepAlive;
    for (status, to, body, persist, wanted, wire, alive) in [
        (
            200,
            GET,
            BodyKind::Length(2),
            keep,
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n",
            BodyKind::Length(2),
            true,
        ),
        (
            200,
            GET,
            BodyKind::None,
            keep,
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            BodyKind::Length(0),
            true,
        ),
        (
            200,
            GET,
            BodyKind::Chunked,
            keep,
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            BodyKind::Chunked,
            true,
        ),
        (
            200,
            GET,
            BodyKind::UntilClose,
            keep,
            "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n",
            BodyKind::UntilClose,
            false,
        ),
        (
            200,
            GET,
            BodyKind::Length(2),
            Persist::Close,
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n",
            BodyKind::Length(2),
            false,
        ),
        (
            200,
            OLD,
            BodyKind::Chunked,
            keep,
            "HTTP/1.0 200 OK\r\nconnection: close\r\n\r\n",
            BodyKind::UntilClose,
            false,
        ),
        (
            200,
            OLD,
            BodyKind::Length(2),
            keep,
            "HTTP/1.0 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\n",
            BodyKind::Length(2),
            true,
        ),
        (
            200,
            HEAD,
            BodyKind::None,
            keep,
            "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n",
            BodyKind::None,
            true,
        ),
        (
            304,
            GET,
            BodyKind::None,
            keep,
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 99\r\n\r\n",
            BodyKind::None,
            true,
        ),
        (
            204,
            GET,
            BodyKind::None,
            keep,
            "HTTP/1.1 204 No Content\r\n\r\n",
            BodyKind::None,
            true,
        ),
        (
            200,
            CONNECT,
            BodyKind::None,
            keep,
            "HTTP/1.1 200 OK\r\n\r\n",
            BodyKind::UntilClose,
            false,
        ),
        (
            502,
            CONNECT,
            BodyKind::Length(1),
            Persist::Close,
            "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 1\r\nconnection: close\r\n\r\n",
            BodyKind::Length(1),
            false,
        ),
        (
            103,
            GET,
            BodyKind::None,
            keep,
            "HTTP/1.1 103 Early Hints\r\n\r\n",
            BodyKind::None,
            true,
        ),
        (103, OLD, BodyKind::None, keep, "", BodyKind::None, true),
        (
            599,
            GET,
            BodyKind::None,
            keep,
            "HTTP/1.1 599 \r\ncontent-length: 0\r\n\r\n",
            BodyKind::Length(0),
            true,
        ),
    ] {
        assert_eq!(
            answer(status, lie, to, body, persist),
            (wanted.to_owned(), wire, alive),
            "{status} {to:?} {body:?}"
        );
    }
    let (text, body, _) = answer(
        101,
        &[("upgrade", "websocket"), ("sec-x", "1")],
        GET,
        BodyKind::None,
        Persist::Upgrade,
    );
    assert_eq!(
        text,
        "HTTP/1.1 101 Switching Protocols\r\nsec-x: 1\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"
    );
    assert_eq!(body, BodyKind::UntilClose);
}

#[test]
fn what_a_request_says() {
    let write = |head: &Head, body, persist| {
        let mut out = Vec::new();
        encode_request(head, body, persist, &mut out).map(|_| String::from_utf8(out).unwrap())
    };
    let keep = Persist::KeepAlive;
    // HTTP/1.0 stays 1.0, a missing Host is not invented; 1.1 without authority says so.
    assert_eq!(
        write(&simple("GET", Version::Http10), BodyKind::None, keep).unwrap(),
        "GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"
    );
    assert_eq!(
        write(&simple("GET", Version::Http2), BodyKind::None, keep).unwrap(),
        "GET / HTTP/1.1\r\nhost: \r\n\r\n"
    );
    assert_eq!(
        write(&simple("POST", Version::Http11), BodyKind::Length(0), keep).unwrap(),
        "POST / HTTP/1.1\r\nhost: \r\ncontent-length: 0\r\n\r\n"
    );
    assert_eq!(
        write(&simple("POST", Version::Http10), BodyKind::Chunked, keep),
        Err(EncodeError::NoFraming)
    );
    assert_eq!(
        write(&simple("POST", Version::Http11), BodyKind::UntilClose, keep),
        Err(EncodeError::NoFraming)
    );
    assert_eq!(
        write(&Head::new(), BodyKind::None, keep),
        Err(EncodeError::Incomplete)
    );
    let mut head = simple("GET", Version::Http2);
    head.push("te", "trailers").unwrap();
    assert_eq!(
        write(&head, BodyKind::None, Persist::Close).unwrap(),
        "GET / HTTP/1.1\r\nhost: \r\nte: trailers\r\nconnection: close, te\r\n\r\n"
    );
    let mut head = Head::new();
    head.set_method(b"CONNECT").unwrap();
    assert_eq!(
        write(&head, BodyKind::None, keep),
        Err(EncodeError::Incomplete)
    );
    head.set_authority(b"a:80").unwrap();
    assert_eq!(
        write(&head, BodyKind::None, keep).unwrap(),
        "CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n"
    );
    let mut head = simple("OPTIONS", Version::Http11);
    head.set_path(b"*").unwrap();
    head.set_authority(b"a").unwrap();
    assert_eq!(
        write(&head, BodyKind::None, keep).unwrap(),
        "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n"
    );
}

#[test]
fn a_body_is_held_to_its_length() {
    let mut out = Vec::new();
    let writer = || {
        encode_request(
            &simple("POST", Version::Http11),
            BodyKind::Length(3),
            Persist::KeepAlive,
            &mut Vec::new(),
        )
        .unwrap()
    };
    let mut long = writer();
    long.data(b"ab", &mut out).unwrap();
    assert_eq!(long.data(b"cd", &mut out), Err(EncodeError::TooLong));
    assert_eq!(out, b"ab");
    let mut short = writer();
    short.data(b"ab", &mut out).unwrap();
    assert_eq!(short.finish(None, &mut out), Err(EncodeError::TooShort));
    let mut none = encode_request(
        &simple("GET", Version::Http11),
        BodyKind::None,
        Persist::KeepAlive,
        &mut out,
    )
    .unwrap();
    assert_eq!(none.data(b"x", &mut out), Err(EncodeError::NoBody));
    assert_eq!(none.data(b"", &mut out), Ok(()));
}

#[test]
fn a_head_has_one_authority_and_its_fields_can_be_edited() {
    let mut head = simple("GET", Version::Http2);
    head.set_authority(b"a").unwrap();
    assert_eq!(head.push("host", "b"), Err(Error::HostConflict));
    head.push("Host", "A").unwrap();
    assert_eq!((head.get("host"), head.len()), (Some(&b"a"[..]), 0));
    head.set("host", "b").unwrap();
    assert_eq!(head.authority(), Some(&b"b"[..]));
    for value in ["1", "2"] {
        head.push("X-Many", value).unwrap();
    }
    head.push("te", "trailers").unwrap();
    assert_eq!(head.get_all(b"x-many").collect::<Vec<_>>(), [b"1", b"2"]);
    assert!(head.has(Known::Te) && head.remove("te") && !head.has(Known::Te) && !head.remove("te"));
    head.set("X-Many", "3").unwrap();
    assert_eq!(head.get_all(b"x-many").collect::<Vec<_>>(), [b"3"]);
    assert_eq!(head.set("x-many", "a\r\nb"), Err(Error::Value));
    assert_eq!(head.get("x-many"), Some(&b"3"[..]));
    head.retain(|name, _| name != b"x-many");
    assert!(head.is_empty());
    assert_eq!(head.push_h2(b"X-Upper", b"1"), Err(Error::Name));
    for bad in [&b"ftp"[..], b"", b"http "] {
        assert_eq!(head.set_scheme(bad), Err(Error::Scheme));
    }
    let no_text = [&b"/caf\xe9"[..], b"/\xff", b"/\xc0\xaf", b"/\xed\xa0\x80"];
    let broken = [&b""[..], b"x", b"/a b", b"/#", b"/\r\nX: y", b"/\x7f"];
    for bad in no_text.into_iter().chain(broken) {
        assert_eq!(head.set_path(bad), Err(Error::Target));
    }
    let big = vec![b'a'; tulle_http::Limits::MAX_HEAD_BUFFER];
    assert_eq!(head.push("x", &big), Err(Error::BufferFull));
}
