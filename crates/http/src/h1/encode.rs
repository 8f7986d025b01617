//! The HTTP/1 encoder: a [`Head`] and body octets into an output buffer.
//!
//! Framing is said once, by the argument and not by the head: `content-length`, `transfer-encoding`, `connection`,
//! `keep-alive`, `proxy-connection` and `host` of the head's fields are never copied, so a head cannot contradict the
//! body that follows. `date`, `server` and the like are never invented. The bytes of a head are safe by its invariant.
//! Cost: no allocation once `out` has grown to the usual size.

use std::fmt;

use super::framing::BodyKind;
use super::phrase::reason_phrase;
use crate::head::{Head, MethodKind, TargetForm, Version, write_field};
use crate::hop;
use crate::known::Known;

/// What to say about the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persist {
    /// Another message may follow.
    KeepAlive,
    /// This is the last one.
    Close,
    /// `connection: upgrade` with the head's `upgrade` field: an upgrade request, or the 101 that agrees.
    Upgrade,
}

/// The request that a response answers, as far as writing the response depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answering {
    /// HEAD and CONNECT change what may follow the head.
    pub method: MethodKind,
    /// An HTTP/1.0 client is answered in HTTP/1.0: no chunks, no interim responses.
    pub version: Version,
}

/// A message that cannot be written as asked: a bug of the caller or a peer that broke its word about a length.
/// Whatever was written of it, the connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// The head has no method, no status or no target where one is needed.
    Incomplete,
    /// More body octets than the Content-Length.
    TooLong,
    /// The body ended before its Content-Length.
    TooShort,
    /// Body octets after a head that has no body.
    NoBody,
    /// A request body without length for an HTTP/1.0 server.
    NoFraming,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Incomplete => "message head incomplete",
            Self::TooLong => "body longer than its content-length",
            Self::TooShort => "body shorter than its content-length",
            Self::NoBody => "body octets after a bodyless head",
            Self::NoFraming => "request body needs a length in HTTP/1.0",
        })
    }
}

impl std::error::Error for EncodeError {}

/// Writes the body that the head announced, and holds it to that. Eight octets of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the body must be finished, or the connection closed"]
pub struct BodyWriter {
    body: BodyKind,
    /// What the written head said: the connection takes another message after this one.
    pub keep_alive: bool,
}

/// Writes a request head. HTTP/2 heads are written as HTTP/1.1; 1.0 stays 1.0.
/// # Errors
/// [`EncodeError::Incomplete`], [`EncodeError::NoFraming`]; nothing was written then.
pub fn encode_request(
    head: &Head,
    body: BodyKind,
    persist: Persist,
    out: &mut Vec<u8>,
) -> Result<BodyWriter, EncodeError> {
    let http10 = head.version() == Version::Http10;
    let connect = head.method_kind() == MethodKind::Connect;
    let target_missing = if connect {
        head.authority().is_none_or(<[u8]>::is_empty)
    } else {
        head.path().is_empty()
    };
    if !head.is_request() || target_missing {
        return Err(EncodeError::Incomplete);
    }
    let body = match body {
        BodyKind::UntilClose => return Err(EncodeError::NoFraming),
        BodyKind::Chunked if http10 => return Err(EncodeError::NoFraming),
        body => body,
    };
    out.extend_from_slice(head.method());
    out.push(b' ');
    write_target(head, connect, out);
    out.extend_from_slice(if http10 {
        b" HTTP/1.0\r\n"
    } else {
        b" HTTP/1.1\r\n"
    });
    match head.authority() {
        Some(authority) => write_field(b"host", authority, out),
        None if http10 => {}
        // RFC 9112 §3.2: a request without authority still says so.
        None => out.extend_from_slice(b"host: \r\n"),
    }
    head.write_fields(is_end_to_end, out);
    write_framing(body, out);
    let te = head.lists(Known::Te, b"trailers") && persist != Persist::Upgrade;
    write_connection(head, persist, http10, te, out);
    out.extend_from_slice(b"\r\n");
    Ok(BodyWriter {
        body,
        keep_alive: persist == Persist::KeepAlive,
    })
}

/// Writes a response head. `body` is what the caller has; what is written also depends on the question: no body goes to
/// HEAD or with 1xx, 204, 304 and a 2xx to CONNECT; chunks become a body until close for an HTTP/1.0 client; a body of
/// none where one is expected is said as length 0. The returned writer tells whether the connection persists.
/// An interim response to an HTTP/1.0 client is not written at all (RFC 9110 §15.2).
/// # Errors
/// [`EncodeError::Incomplete`]; nothing was written then.
pub fn encode_response(
    head: &Head,
    to: Answering,
    body: BodyKind,
    persist: Persist,
    out: &mut Vec<u8>,
) -> Result<BodyWriter, EncodeError> {
    let status = head.status();
    if !head.is_response() {
        return Err(EncodeError::Incomplete);
    }
    let http10 = to.version == Version::Http10;
    let interim = status < 200 && status != 101;
    if interim && http10 {
        return Ok(BodyWriter {
            body: BodyKind::None,
            keep_alive: true,
        });
    }
    let tunnel = status == 101 || (to.method == MethodKind::Connect && status < 300);
    let never_length = interim || tunnel || status == 204;
    let bodyless = never_length || to.method == MethodKind::Head || status == 304;
    let body = match body {
        BodyKind::Chunked if http10 && !bodyless => BodyKind::UntilClose,
        BodyKind::None if !bodyless => BodyKind::Length(0),
        body => body,
    };
    let persist = if body == BodyKind::UntilClose && !bodyless {
        Persist::Close
    } else {
        persist
    };

    write_status_line(status, http10, out);
    head.write_fields(is_end_to_end, out);
    if bodyless {
        // The length that a GET would have had is worth passing on; no other framing header is.
        if !never_length {
            match (body, head.known(Known::ContentLength)) {
                (BodyKind::Length(n), _) if n > 0 => write_length(n, out),
                (_, Some(length)) => write_field(b"content-length", length, out),
                _ => {}
            }
        }
    } else {
        write_framing(body, out);
    }
    let says_nothing = interim || (tunnel && status != 101);
    if !says_nothing {
        write_connection(head, persist, http10, false, out);
    }
    out.extend_from_slice(b"\r\n");
    let keep_alive = interim || persist == Persist::KeepAlive;
    Ok(match (tunnel, bodyless) {
        (true, _) => BodyWriter {
            body: BodyKind::UntilClose,
            keep_alive: false,
        },
        (false, true) => BodyWriter {
            body: BodyKind::None,
            keep_alive,
        },
        (false, false) => BodyWriter { body, keep_alive },
    })
}

impl BodyWriter {
    /// How the body is framed on the wire.
    #[must_use]
    pub fn body(&self) -> BodyKind {
        self.body
    }

    /// Appends body octets, framed. Empty data writes nothing (an empty chunk would end the body).
    /// # Errors
    /// [`EncodeError::TooLong`], [`EncodeError::NoBody`]; nothing was written then.
    pub fn data(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.begin(data.len(), out)?;
        out.extend_from_slice(data);
        self.end_piece(data.len(), out);
        Ok(())
    }

    /// For callers that write large data from where it lies: the octets that go before `len` octets of data. Follow the
    /// data with [`BodyWriter::end_piece`] of the same `len`.
    /// # Errors
    /// As for [`BodyWriter::data`].
    pub fn begin(&mut self, len: usize, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match &mut self.body {
            _ if len == 0 => {}
            BodyKind::None => return Err(EncodeError::NoBody),
            BodyKind::Length(left) => {
                *left = left.checked_sub(len as u64).ok_or(EncodeError::TooLong)?
            }
            BodyKind::Chunked => write_chunk_size(len, out),
            BodyKind::UntilClose => {}
        }
        Ok(())
    }

    /// The octets that go after a piece of `len` octets begun with [`BodyWriter::begin`].
    pub fn end_piece(&self, len: usize, out: &mut Vec<u8>) {
        if len > 0 && self.body == BodyKind::Chunked {
            out.extend_from_slice(b"\r\n");
        }
    }

    /// Ends the body, with trailers if the framing can carry them (otherwise they are dropped, RFC 9110 §6.5.1).
    /// # Errors
    /// [`EncodeError::TooShort`]: close the connection, so that the peer sees a cut message and not a short one.
    pub fn finish(self, trailers: Option<&Head>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self.body {
            BodyKind::None | BodyKind::UntilClose | BodyKind::Length(0) => Ok(()),
            BodyKind::Length(_) => Err(EncodeError::TooShort),
            BodyKind::Chunked => {
                out.extend_from_slice(b"0\r\n");
                let fields = trailers.into_iter().flat_map(Head::iter);
                for (name, value) in fields.filter(|(name, _)| hop::may_trail(name)) {
                    write_field(name, value, out);
                }
                out.extend_from_slice(b"\r\n");
                Ok(())
            }
        }
    }
}

fn write_target(head: &Head, connect: bool, out: &mut Vec<u8>) {
    let authority = head.authority().unwrap_or(b"");
    if connect {
        return out.extend_from_slice(authority);
    }
    let absolute = head.target_form() == TargetForm::Absolute && !authority.is_empty();
    if absolute {
        out.extend_from_slice(if head.scheme().is_empty() {
            b"http"
        } else {
            head.scheme()
        });
        out.extend_from_slice(b"://");
        out.extend_from_slice(authority);
    }
    if !(absolute && head.path() == b"*") {
        out.extend_from_slice(head.path());
    }
}

/// The rest is written from the arguments, or was of the old hop only.
fn is_end_to_end(known: Option<Known>) -> bool {
    matches!(
        known,
        None | Some(Known::Expect | Known::Te | Known::Cookie)
    )
}

fn write_framing(body: BodyKind, out: &mut Vec<u8>) {
    match body {
        BodyKind::None | BodyKind::UntilClose => {}
        BodyKind::Length(n) => write_length(n, out),
        BodyKind::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
}

fn write_connection(head: &Head, persist: Persist, http10: bool, te: bool, out: &mut Vec<u8>) {
    let line: &[u8] = match (persist, http10, te) {
        (Persist::KeepAlive, false, false) => b"",
        (Persist::KeepAlive, false, true) => b"connection: te\r\n",
        (Persist::KeepAlive, true, _) => b"connection: keep-alive\r\n",
        (Persist::Close, false, true) => b"connection: close, te\r\n",
        (Persist::Close, ..) => b"connection: close\r\n",
        (Persist::Upgrade, ..) => {
            head.known_all(Known::Upgrade)
                .for_each(|protocols| write_field(b"upgrade", protocols, out));
            b"connection: upgrade\r\n"
        }
    };
    out.extend_from_slice(line);
}

fn write_length(n: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"content-length: ");
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = n;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

fn write_chunk_size(len: usize, out: &mut Vec<u8>) {
    let nibbles = (usize::BITS - len.leading_zeros()).div_ceil(4).max(1);
    for shift in (0..nibbles).rev() {
        out.push(b"0123456789abcdef"[(len >> (shift * 4)) & 15]);
    }
    out.extend_from_slice(b"\r\n");
}

fn write_status_line(status: u16, http10: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(if http10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    let digit = |n: u16| b'0' + (n % 10) as u8;
    out.extend_from_slice(&[digit(status / 100), digit(status / 10), digit(status), b' ']);
    out.extend_from_slice(reason_phrase(status).as_bytes());
    out.extend_from_slice(b"\r\n");
}
