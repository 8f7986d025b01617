//! Crossing between HTTP/2 and HTTP/1: what is refused, what is changed, and that nothing of an attack is written.
//! The tests fill a head as the h2 seam does: pseudo headers by setters, then fields by `push_h2`, then the judgement.

#![allow(clippy::unwrap_used)]

use tulle_http::h1::{BodyKind, Persist, encode_request};
use tulle_http::{Error, Head, TargetForm, Version, translate};

type Field<'a> = (&'a str, &'a str);

/// The head of an h2 request with these pseudo headers and fields, judged.
fn h2_request(pseudo: &[Field<'_>], fields: &[Field<'_>]) -> Result<Head, Error> {
    let mut head = Head::new();
    head.set_version(Version::Http2);
    for (name, value) in pseudo {
        let value = value.as_bytes();
        match *name {
            ":method" => head.set_method(value)?,
            ":scheme" => head.set_scheme(value)?,
            ":authority" => head.set_authority(value)?,
            ":path" => head.set_path(value)?,
            _ => return Err(Error::PseudoHeader),
        }
    }
    for (name, value) in fields {
        head.push_h2(name.as_bytes(), value.as_bytes())?;
    }
    translate::check_h2_request(&head)?;
    Ok(head)
}

const PSEUDO: [Field<'static>; 4] = [
    (":method", "POST"),
    (":scheme", "https"),
    (":authority", "a"),
    (":path", "/x?y"),
];

/// `PSEUDO` with one of them replaced, or left out.
fn with(name: &'static str, value: Option<&'static str>) -> Vec<Field<'static>> {
    PSEUDO
        .iter()
        .filter_map(|&(n, v)| {
            if n == name {
                value.map(|value| (n, value))
            } else {
                Some((n, v))
            }
        })
        .collect()
}

#[test]
fn pseudo_headers_that_could_break_a_request_line_are_refused() {
    for (name, value, error) in [
        (
            ":method",
            Some("GET /smuggled HTTP/1.1\r\nX:"),
            Error::Method,
        ),
        (":method", Some("GET\0"), Error::Method),
        (":method", Some("G ET"), Error::Method),
        (":method", Some("get"), Error::Method),
        (":method", Some(""), Error::Method),
        (":method", None, Error::PseudoHeader),
        (":scheme", Some("http\r\n"), Error::Scheme),
        (":scheme", Some("javascript"), Error::Scheme),
        (":scheme", Some("http://evil"), Error::Scheme),
        (":scheme", None, Error::PseudoHeader),
        (
            ":path",
            Some("/ HTTP/1.1\r\nHost: evil\r\n\r\n"),
            Error::Target,
        ),
        (":path", Some("/a b"), Error::Target),
        (":path", Some("/a\tb"), Error::Target),
        (":path", Some("/a\0"), Error::Target),
        (":path", Some("/a#b"), Error::Target),
        (":path", Some("/a\u{7f}"), Error::Target),
        (":path", Some("x"), Error::Target),
        (":path", Some(""), Error::Target),
        (":path", Some("http://evil/"), Error::Target),
        (":path", Some("@evil"), Error::Target),
        (":path", Some("*"), Error::PseudoHeader),
        (":path", None, Error::PseudoHeader),
        (":authority", Some("a\r\nX: y"), Error::Authority),
        (":authority", Some("a b"), Error::Authority),
        (":authority", Some("a\0"), Error::Authority),
        (":authority", Some("user@a"), Error::Authority),
        (":authority", Some("a/evil"), Error::Authority),
        (":authority", Some("a,b"), Error::Authority),
        (":authority", Some("a:port"), Error::Authority),
        (":authority", Some("a?x"), Error::Authority),
        (":authority", Some("a#x"), Error::Authority),
    ] {
        assert_eq!(
            h2_request(&with(name, value), &[]).err(),
            Some(error),
            "{name} {value:?}"
        );
    }
    assert!(
        h2_request(&with(":authority", None), &[]).is_ok(),
        "HTTP/2 may go without authority"
    );
    let raw = h2_request(&with(":path", Some("/caf\u{e9}?\u{1f369}")), &[]).unwrap();
    assert_eq!(raw.path(), "/caf\u{e9}?\u{1f369}".as_bytes());
    assert!(
        h2_request(&with(":scheme", Some("HTTPS")), &[])
            .is_ok_and(|head| head.scheme() == b"https")
    );
}

#[test]
fn fields_that_could_break_a_line_or_reframe_are_refused() {
    for (name, value, error) in [
        ("x", "a\r\nsmuggled: 1", Error::Value),
        ("x", "a\nb", Error::Value),
        ("x", "a\rb", Error::Value),
        ("x", "a\0b", Error::Value),
        ("x", " a", Error::Value),
        ("x", "a ", Error::Value),
        ("cookie", "a=1\r\n\r\nGET / HTTP/1.1", Error::Value),
        ("x\r\ny", "a", Error::Name),
        ("x: a\r\ny", "a", Error::Name),
        ("x y", "a", Error::Name),
        ("x:", "a", Error::Name),
        (":path", "/late", Error::Name),
        ("X-Upper", "a", Error::Name),
        ("", "a", Error::EmptyName),
        ("connection", "close", Error::ConnectionSpecific),
        ("keep-alive", "1", Error::ConnectionSpecific),
        ("proxy-connection", "close", Error::ConnectionSpecific),
        ("transfer-encoding", "chunked", Error::ConnectionSpecific),
        ("transfer-encoding", "identity", Error::ConnectionSpecific),
        ("upgrade", "websocket", Error::ConnectionSpecific),
        ("http2-settings", "AA", Error::ConnectionSpecific),
        ("te", "gzip", Error::ConnectionSpecific),
        ("te", "trailers, gzip", Error::ConnectionSpecific),
        ("host", "evil", Error::HostConflict),
        ("host", "a\r\nx: y", Error::Value),
        ("content-length", "", Error::ContentLength),
        ("content-length", "+1", Error::ContentLength),
        ("content-length", "1, 1", Error::ManyContentLengths),
        (
            "content-length",
            "18446744073709551616",
            Error::ContentLength,
        ),
    ] {
        assert_eq!(
            h2_request(&PSEUDO, &[(name, value)]).err(),
            Some(error),
            "{name}: {value:?}"
        );
    }
    let twice = h2_request(&PSEUDO, &[("content-length", "1"), ("content-length", "1")]);
    assert_eq!(twice.err(), Some(Error::ManyContentLengths));
    assert!(
        h2_request(
            &PSEUDO,
            &[("te", "trailers"), ("host", "A"), ("content-length", "1")]
        )
        .is_ok()
    );
    let no_authority = h2_request(&with(":authority", None), &[("host", "a"), ("host", "b")]);
    assert_eq!(
        no_authority.err(),
        Some(Error::HostConflict),
        "two Hosts without authority"
    );
}

#[test]
fn connect_is_an_authority_and_nothing_else() {
    let connect = |pseudo: &[Field<'_>]| h2_request(pseudo, &[]).map(|_| ());
    assert_eq!(
        connect(&[(":method", "CONNECT"), (":authority", "a:443")]),
        Ok(())
    );
    assert_eq!(
        connect(&[(":method", "CONNECT"), (":authority", "a")]),
        Err(Error::PseudoHeader)
    );
    assert_eq!(connect(&[(":method", "CONNECT")]), Err(Error::PseudoHeader));
    assert_eq!(
        connect(&[
            (":method", "CONNECT"),
            (":authority", "a:443"),
            (":path", "/")
        ]),
        Err(Error::PseudoHeader)
    );
    assert_eq!(
        connect(&[
            (":method", "CONNECT"),
            (":authority", "a:443"),
            (":scheme", "http")
        ]),
        Err(Error::PseudoHeader)
    );
    assert_eq!(
        connect(&[(":method", "GET"), (":protocol", "websocket")]),
        Err(Error::PseudoHeader)
    );
}

#[test]
fn a_request_crosses_to_http1_with_its_cookies_joined() {
    let fields = [
        ("cookie", "a=1"),
        ("x", "1"),
        ("cookie", "b=2"),
        ("te", "trailers"),
        ("content-length", "7"),
    ];
    let mut head = h2_request(&PSEUDO, &fields).unwrap();
    translate::request_to_h1(&mut head).unwrap();
    let mut out = Vec::new();
    let _ = encode_request(&head, BodyKind::Length(7), Persist::KeepAlive, &mut out).unwrap();
    let wanted = "POST /x?y HTTP/1.1\r\nhost: a\r\nx: 1\r\nte: trailers\r\ncookie: a=1; b=2\r\ncontent-length: 7\r\nconnection: te\r\n\r\n";
    assert_eq!(String::from_utf8(out).unwrap(), wanted);

    let mut options = h2_request(
        &[
            (":method", "OPTIONS"),
            (":scheme", "http"),
            (":authority", "a"),
            (":path", "*"),
        ],
        &[],
    )
    .unwrap();
    translate::request_to_h1(&mut options).unwrap();
    assert_eq!(options.target_form(), TargetForm::Asterisk);
}

#[test]
fn a_request_crosses_to_http2_without_its_old_hop() {
    let mut head = Head::new();
    head.set_method(b"GET").unwrap();
    head.set_path(b"/").unwrap();
    for (name, value) in [
        ("connection", "x-hop, upgrade"),
        ("x-hop", "1"),
        ("upgrade", "websocket"),
        ("te", "gzip, trailers"),
        ("x", "1"),
    ] {
        head.push(name, value).unwrap();
    }
    translate::request_to_h2(&mut head, b"http").unwrap();
    assert_eq!(
        head.iter().collect::<Vec<_>>(),
        [(&b"x"[..], &b"1"[..]), (b"te", b"trailers")]
    );
    assert_eq!(
        (head.scheme(), translate::check_h2_request(&head)),
        (&b"http"[..], Ok(()))
    );
    assert_eq!(
        translate::request_to_h2(&mut Head::new(), b"http"),
        Err(Error::PseudoHeader)
    );
}

#[test]
fn responses_cross_both_ways() {
    let response = |status, fields: &[Field<'_>]| {
        let mut head = Head::new();
        head.set_status(status).unwrap();
        fields
            .iter()
            .for_each(|(name, value)| head.push(name, value).unwrap());
        head
    };
    for (status, fields, verdict) in [
        (200, &[("content-length", "1")][..], Ok(())),
        (101, &[], Err(Error::PseudoHeader)),
        (
            200,
            &[("transfer-encoding", "chunked")],
            Err(Error::ConnectionSpecific),
        ),
        (
            200,
            &[("content-length", "1"), ("content-length", "2")],
            Err(Error::ManyContentLengths),
        ),
    ] {
        assert_eq!(
            translate::check_h2_response(&response(status, fields)),
            verdict,
            "{status} {fields:?}"
        );
    }
    assert_eq!(
        translate::check_h2_response(&Head::new()),
        Err(Error::PseudoHeader)
    );
    let mut head = response(
        204,
        &[
            ("content-length", "0"),
            ("connection", "close"),
            ("keep-alive", "x"),
            ("x", "1"),
        ],
    );
    translate::response_to_h2(&mut head);
    assert_eq!(head.iter().collect::<Vec<_>>(), [(&b"x"[..], &b"1"[..])]);
}
