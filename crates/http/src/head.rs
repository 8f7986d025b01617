//! A message head: one byte buffer plus offsets, shared by HTTP/1 and HTTP/2, reused from message to message.
//!
//! Cost: no allocation once the buffer and the table have grown to the usual size of a connection's heads
//! (`tests/allocations.rs` holds that at zero); 20 octets of table per field beside the bytes themselves.
//!
//! Invariant: whatever is in a `Head` passed `grammar`: no CR, LF, NUL or other control octet, names are lower-case
//! tokens, the authority is a `host[:port]` and there is only one of it. What is written from a `Head` therefore cannot
//! break a line or start a second message, whoever put it there.

use std::fmt;

use crate::error::Error;
use crate::grammar;
use crate::known::{Known, KnownSet};
use crate::limits::Limits;

mod fields;
mod wire;

pub(crate) use wire::write_field;

/// The protocol version that a message arrived with (and, for HTTP/1, leaves with).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// HTTP/1.0: no chunks, closes by default.
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
    /// HTTP/2; written as HTTP/1.1 by the HTTP/1 encoder.
    Http2,
}

/// How the target of an HTTP/1 request was, or is to be, written (RFC 9112 §3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TargetForm {
    /// `/path?query`.
    #[default]
    Origin,
    /// `http://authority/path?query`, as sent to explicit proxies.
    Absolute,
    /// `host:port`, only with CONNECT.
    Authority,
    /// `*`, only with OPTIONS.
    Asterisk,
}

/// The methods whose semantics change framing; everything else is `Other`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MethodKind {
    /// The response has no body.
    Head,
    /// A 2xx turns the connection into a tunnel.
    Connect,
    /// May have the target `*`.
    Options,
    /// Every other method.
    #[default]
    Other,
}

impl MethodKind {
    /// The kind of a method's exact bytes.
    #[must_use]
    pub fn of(method: &[u8]) -> Self {
        match method {
            b"HEAD" => Self::Head,
            b"CONNECT" => Self::Connect,
            b"OPTIONS" => Self::Options,
            _ => Self::Other,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    len: u32,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    name: Span,
    value: Span,
    known: Option<Known>,
    /// `name: value CRLF` lies in the buffer exactly so.
    raw: bool,
    /// No hop may put it into a compression table (RFC 7541 §6.2.3).
    sensitive: bool,
}

/// A request head, a response head or a trailer section. See the module's text for cost and invariant.
#[derive(Clone, Default)]
pub struct Head {
    buf: Vec<u8>,
    slots: Vec<Slot>,
    present: KnownSet,
    method: Span,
    scheme: Span,
    path: Span,
    authority: Option<Span>,
    protocol: Option<Span>,
    status: u16,
    version: Version,
    form: TargetForm,
    /// The authority stood, or is to stand, in a Host field too: see [`Head::says_host`].
    host_field: bool,
}

impl Head {
    /// An empty head; allocates on first use.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets everything but the usual capacity (at most [`Limits::KEPT_HEAD_BUFFER`]).
    pub fn clear(&mut self) {
        self.buf.clear();
        self.slots.clear();
        if self.buf.capacity() > Limits::KEPT_HEAD_BUFFER {
            self.buf.shrink_to(Limits::KEPT_HEAD_BUFFER);
        }
        if self.slots.capacity() > Limits::KEPT_FIELDS {
            self.slots.shrink_to(Limits::KEPT_FIELDS);
        }
        self.present = KnownSet::default();
        (self.method, self.scheme, self.path, self.authority) = Default::default();
        (self.status, self.version, self.form) = Default::default();
        (self.protocol, self.host_field) = (None, false);
    }

    /// The method; empty in a response or trailer section.
    #[must_use]
    pub fn method(&self) -> &[u8] {
        self.at(self.method)
    }

    /// The kind of the method, as far as framing cares.
    #[must_use]
    pub fn method_kind(&self) -> MethodKind {
        MethodKind::of(self.method())
    }

    /// `http` or `https`; empty when the message did not say (HTTP/1 origin form).
    #[must_use]
    pub fn scheme(&self) -> &[u8] {
        self.at(self.scheme)
    }

    /// `host[:port]` from `:authority`, the target or the Host field: the one place where a request says where it goes.
    /// `None` when it did not say (HTTP/1.0); `Some(b"")` for an empty Host field.
    #[must_use]
    pub fn authority(&self) -> Option<&[u8]> {
        self.authority.map(|span| self.at(span))
    }

    /// Path and query as received, byte for byte; `*` for the asterisk form; empty for CONNECT, responses and trailers.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        self.at(self.path)
    }

    /// `:protocol` of an extended CONNECT (RFC 8441): what the tunnel is to speak.
    #[must_use]
    pub fn protocol(&self) -> Option<&[u8]> {
        self.protocol.map(|span| self.at(span))
    }

    /// The status of a response, 100 to 999; 0 in a request or trailer section.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The version the message came with.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// How the HTTP/1 target was written.
    #[must_use]
    pub fn target_form(&self) -> TargetForm {
        self.form
    }

    /// True once a method was set.
    #[must_use]
    pub fn is_request(&self) -> bool {
        self.method.len != 0
    }

    /// True once a status was set.
    #[must_use]
    pub fn is_response(&self) -> bool {
        self.status != 0
    }

    /// Sets the method, and makes this a request head.
    /// # Errors
    /// [`Error::Method`] unless it is an upper-case token of at most 32 octets.
    pub fn set_method(&mut self, method: &[u8]) -> Result<(), Error> {
        check(grammar::is_method(method), Error::Method)?;
        self.method = self.append(method)?;
        Ok(())
    }

    /// Takes `http` or `https` in any case, keeps it in lower case.
    /// # Errors
    /// [`Error::Scheme`] for every other one.
    pub fn set_scheme(&mut self, scheme: &[u8]) -> Result<(), Error> {
        let scheme: &[u8] = match () {
            () if scheme.eq_ignore_ascii_case(b"http") => b"http",
            () if scheme.eq_ignore_ascii_case(b"https") => b"https",
            () => return Err(Error::Scheme),
        };
        self.scheme = self.append(scheme)?;
        Ok(())
    }

    /// Sets where the request goes, over what was known before.
    /// # Errors
    /// [`Error::Authority`] unless it is `host[:port]` or empty.
    pub fn set_authority(&mut self, authority: &[u8]) -> Result<(), Error> {
        check(
            authority.is_empty() || grammar::is_authority(authority),
            Error::Authority,
        )?;
        self.authority = Some(self.append(authority)?);
        Ok(())
    }

    /// Whether an HTTP/2 request has a Host field beside `:authority`. Proxies that carry HTTP/1 in HTTP/2 do that: the
    /// field is the one that HTTP/1 had, and without it the application gets none.
    #[must_use]
    pub fn says_host(&self) -> bool {
        self.host_field
    }

    /// Has the HTTP/2 encoder write the authority as a Host field, too, or not.
    pub fn say_host(&mut self, say: bool) {
        self.host_field = say;
    }

    /// Forgets where the request goes: HTTP/1.0 need not say.
    pub fn clear_authority(&mut self) {
        self.authority = None;
    }

    /// Sets path and query; `*` also sets the asterisk form.
    /// # Errors
    /// [`Error::Target`] unless it begins with `/` (or is `*`), is visible ASCII or UTF-8 and has no fragment.
    pub fn set_path(&mut self, path: &[u8]) -> Result<(), Error> {
        check(path == b"*" || grammar::is_origin_form(path), Error::Target)?;
        self.path = self.append(path)?;
        if path == b"*" {
            self.form = TargetForm::Asterisk;
        }
        Ok(())
    }

    /// Makes a CONNECT an extended one, which has a scheme and a path.
    /// # Errors
    /// [`Error::PseudoHeader`] unless it is a token.
    pub fn set_protocol(&mut self, protocol: &[u8]) -> Result<(), Error> {
        check(grammar::is_token(protocol), Error::PseudoHeader)?;
        self.protocol = Some(self.append(protocol)?);
        Ok(())
    }

    /// Sets the status, and makes this a response head.
    /// # Errors
    /// [`Error::StatusLine`] below 100 or above 999.
    pub fn set_status(&mut self, status: u16) -> Result<(), Error> {
        check((100..=999).contains(&status), Error::StatusLine)?;
        self.status = status;
        Ok(())
    }

    /// Sets the version.
    pub fn set_version(&mut self, version: Version) {
        self.version = version;
    }

    /// Sets how the HTTP/1 encoder writes the target. It falls back to the origin form when the head does not fit it.
    pub fn set_target_form(&mut self, form: TargetForm) {
        self.form = form;
    }

    fn append(&mut self, bytes: &[u8]) -> Result<Span, Error> {
        check(
            self.buf.len() + bytes.len() <= Limits::MAX_HEAD_BUFFER,
            Error::BufferFull,
        )?;
        let span = Span::new(self.buf.len(), bytes.len());
        self.buf.extend_from_slice(bytes);
        Ok(span)
    }

    fn at(&self, span: Span) -> &[u8] {
        slice(&self.buf, span)
    }
}

impl Span {
    /// Heads are at most [`Limits::MAX_HEAD_BUFFER`] long, so offsets fit.
    pub(crate) fn new(start: usize, len: usize) -> Self {
        Self {
            start: start as u32,
            len: len as u32,
        }
    }

    pub(crate) fn start(self) -> usize {
        self.start as usize
    }

    fn end(self) -> usize {
        (self.start + self.len) as usize
    }
}

fn slice(buf: &[u8], span: Span) -> &[u8] {
    &buf[span.start as usize..span.end()]
}

fn check(holds: bool, otherwise: Error) -> Result<(), Error> {
    if holds { Ok(()) } else { Err(otherwise) }
}

/// Equal when a peer could not tell the two apart: same start line, same fields in the same order.
impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        let start = |head: &Self| (head.status, head.version, head.form);
        start(self) == start(other)
            && self.method() == other.method()
            && self.scheme() == other.scheme()
            && self.authority() == other.authority()
            && self.path() == other.path()
            && self.protocol() == other.protocol()
            && self.iter().eq(other.iter())
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        if self.is_response() {
            write!(f, "{} {:?}", self.status, self.version)?;
        } else {
            write!(
                f,
                "{} {} {:?}",
                text(self.method()),
                text(self.path()),
                self.version
            )?;
            write!(
                f,
                " scheme={} authority={:?}",
                text(self.scheme()),
                self.authority().map(text)
            )?;
        }
        self.iter()
            .try_for_each(|(name, value)| write!(f, "; {}: {}", text(name), text(value)))
    }
}
