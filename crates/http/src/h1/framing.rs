//! What a head says about its body and its connection: pure functions from a [`Head`] to a [`Framing`].
//! RFC 9112 §6.3 with every "MAY try to recover" answered by no: two proxies that recover differently are a smuggling
//! channel (CVE-2023-25725, CVE-2023-40225, CVE-2026-2835).

use super::decode::Asked;
use crate::error::Error;
use crate::grammar;
use crate::head::{Head, MethodKind, Version};
use crate::hop;
use crate::known::Known;
use crate::limits::Limits;
use crate::translate::declared_length;

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    /// There is no body, and nothing says so on the wire.
    None,
    /// Exactly this many octets; 0 was said, or is to be said, as `content-length: 0`.
    Length(u64),
    /// Chunks, then perhaps trailers.
    Chunked,
    /// Everything until the connection ends (responses only).
    UntilClose,
}

/// What follows from a decoded head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framing {
    /// The body that follows.
    pub body: BodyKind,
    /// The sender will take another message on this connection.
    pub keep_alive: bool,
    /// Request: asks to leave HTTP/1 (Upgrade, CONNECT): what comes after this message is held back until the answer.
    /// Response: the connection is a tunnel from here on (101 to an upgrade, 2xx to CONNECT).
    pub upgrade: bool,
    /// Request: the client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
    /// Response: an interim one (100, 102, 103): the final one is still to come, no `End` follows.
    pub interim: bool,
}

pub(super) fn request(head: &Head) -> Result<Framing, Error> {
    let chunked = chunked(head)?;
    let length = declared_length(head)?;
    let body = match (chunked, length) {
        (true, Some(_)) => return Err(Error::LengthAndTransferEncoding),
        (true, None) => BodyKind::Chunked,
        (false, Some(n)) => BodyKind::Length(n),
        (false, None) => BodyKind::None,
    };
    let connect = head.method_kind() == MethodKind::Connect;
    if connect && !matches!(body, BodyKind::None | BodyKind::Length(0)) {
        return Err(Error::Connect);
    }
    Ok(Framing {
        body: if connect { BodyKind::None } else { body },
        keep_alive: keep_alive(head)? && !connect,
        upgrade: connect || hop::asks_upgrade(head),
        expect_continue: expects_continue(head)?
            && body != BodyKind::None
            && body != BodyKind::Length(0),
        interim: false,
    })
}

pub(super) fn response(head: &Head, asked: Asked) -> Result<Framing, Error> {
    let status = head.status();
    let mut framing = Framing {
        body: BodyKind::None,
        keep_alive: keep_alive(head)?,
        upgrade: false,
        expect_continue: false,
        interim: false,
    };
    if status < 200 {
        no_transfer_encoding(head)?;
        framing.upgrade = status == 101;
        framing.interim = status != 101;
        // A 101 must name a protocol, or the tunnel is somebody's mistake (CVE-2024-23326).
        let agreed =
            asked.upgrade && head.has(Known::Upgrade) && head.lists(Known::Connection, b"upgrade");
        return if framing.upgrade && !agreed {
            Err(Error::UnexpectedUpgrade)
        } else {
            Ok(framing)
        };
    }
    if asked.method == MethodKind::Connect && status < 300 {
        // RFC 9110 §9.3.6: Content-Length and Transfer-Encoding of this answer are ignored.
        framing.upgrade = true;
        framing.keep_alive = false;
        return Ok(framing);
    }
    // Judge the framing headers even where the body is known to be absent: the next hop may read them otherwise.
    let chunked = if status == 204 {
        no_transfer_encoding(head).map(|()| false)?
    } else {
        chunked(head)?
    };
    let length = declared_length(head)?;
    if chunked && length.is_some() {
        return Err(Error::LengthAndTransferEncoding);
    }
    if asked.method != MethodKind::Head && status != 204 && status != 304 {
        framing.body = match (chunked, length) {
            (true, _) => BodyKind::Chunked,
            (false, Some(n)) => BodyKind::Length(n),
            (false, None) => BodyKind::UntilClose,
        };
        framing.keep_alive &= framing.body != BodyKind::UntilClose;
    }
    Ok(framing)
}

/// True for exactly `transfer-encoding: chunked`, false without one.
fn chunked(head: &Head) -> Result<bool, Error> {
    let mut values = head.known_all(Known::TransferEncoding);
    let Some(value) = values.next() else {
        return Ok(false);
    };
    if head.version() == Version::Http10 {
        return Err(Error::TransferEncodingNotAllowed);
    }
    if values.next().is_some() {
        return Err(Error::ManyTransferEncodings);
    }
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(true);
    }
    let coding = |c: &[u8]| {
        [
            &b"gzip"[..],
            b"x-gzip",
            b"deflate",
            b"compress",
            b"x-compress",
        ]
        .iter()
        .any(|k| c.eq_ignore_ascii_case(k))
    };
    let (mut codings, mut last) = (0, &b""[..]);
    let known = grammar::list(value).all(|c| {
        codings += usize::from(coding(c));
        let first_chunked = !last.eq_ignore_ascii_case(b"chunked");
        last = c;
        first_chunked && (coding(c) || c.eq_ignore_ascii_case(b"chunked"))
    });
    let well_formed = known && codings > 0 && last.eq_ignore_ascii_case(b"chunked");
    Err(if well_formed {
        Error::TransferCoding
    } else {
        Error::TransferEncoding
    })
}

fn no_transfer_encoding(head: &Head) -> Result<(), Error> {
    if head.has(Known::TransferEncoding) {
        Err(Error::TransferEncodingNotAllowed)
    } else {
        Ok(())
    }
}

/// What Connection says about persistence; refuses an absurd number of options, which would each be looked up later.
fn keep_alive(head: &Head) -> Result<bool, Error> {
    let http10 = head.version() == Version::Http10;
    let (mut close, mut keep, mut options) = (false, false, 0);
    for option in head.known_all(Known::Connection).flat_map(grammar::list) {
        options += 1;
        close |= option.eq_ignore_ascii_case(b"close");
        keep |= option.eq_ignore_ascii_case(b"keep-alive");
    }
    if options > Limits::MAX_CONNECTION_OPTIONS {
        return Err(Error::ConnectionOptions);
    }
    Ok(!close && (keep || !http10))
}

fn expects_continue(head: &Head) -> Result<bool, Error> {
    let mut values = head.known_all(Known::Expect);
    match (values.next(), values.next()) {
        (None, _) => Ok(false),
        // RFC 9110 §10.1.1: from an HTTP/1.0 client it is ignored.
        (Some(_), _) if head.version() == Version::Http10 => Ok(false),
        (Some(value), None) if value.eq_ignore_ascii_case(b"100-continue") => Ok(true),
        _ => Err(Error::Expectation),
    }
}
