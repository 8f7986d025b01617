//! The response side: a server that lies about its framing, and bodies that follow the request.

use bytes::BytesMut;
use tulle_http::h1::{Asked, BodyKind, Decoder, Eof, Event};
use tulle_http::{Error, Head, Limits};

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

#[test]
fn a_connection_is_pooled_or_retried_only_at_the_right_moment() {
    let (mut decoder, mut head, mut input) = (
        Decoder::client(Limits::default()),
        Head::new(),
        BytesMut::new(),
    );
    assert!(decoder.is_idle() && !decoder.is_untouched(&input));
    decoder.expect(Asked::default());
    assert!(!decoder.is_idle() && decoder.is_untouched(&input));
    assert_eq!(decoder.eof(&input), Eof::Cut);
    input.extend_from_slice(b"HTTP/1.1 103 Early\r\n\r\n");
    assert!(!decoder.is_untouched(&input));
    assert!(matches!(
        decoder.next(&mut input, &mut head),
        Ok(Event::Head(_))
    ));
    assert!(
        !decoder.is_untouched(&input),
        "an interim response shows that the request arrived"
    );
    input.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    for _ in 0..2 {
        assert!(decoder.next(&mut input, &mut head).is_ok() && !decoder.is_idle());
    }
    assert!(!decoder.is_idle(), "End was not told yet");
    assert_eq!(decoder.next(&mut input, &mut head), Ok(Event::End));
    assert!(decoder.is_idle());
}
