//! A message head: one byte buffer plus offsets, shared by HTTP/1 and HTTP/2, reused from message to message.
//!
//! Cost: no allocation once the buffer and the table have grown to the usual size of a connection's heads
//! (`tests/allocations.rs` holds that at zero); 12 octets of table per field beside the bytes themselves.
//!
//! Invariant: whatever is in a `Head` passed `grammar`: no CR, LF, NUL or other control octet, names are lower-case
//! tokens, the authority is a `host[:port]` and there is only one of it. What is written from a `Head` therefore cannot
//! break a line or start a second message, whoever put it there.

use std::fmt;

use crate::error::Error;
use crate::grammar;
use crate::known::{Known, KnownSet};
use crate::limits::Limits;

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
    status: u16,
    version: Version,
    form: TargetForm,
}

impl Head {
    /// An empty head; allocates on first use.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets everything but the capacity.
    pub fn clear(&mut self) {
        self.buf.clear();
        self.slots.clear();
        self.present = KnownSet::default();
        (self.method, self.scheme, self.path, self.authority) = Default::default();
        (self.status, self.version, self.form) = Default::default();
    }

    // --- start line and pseudo headers -------------------------------------------------------------------------------

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

    /// # Errors
    /// [`Error::Target`] unless it begins with `/` (or is `*`), is visible ASCII and has no fragment.
    pub fn set_path(&mut self, path: &[u8]) -> Result<(), Error> {
        check(path == b"*" || grammar::is_origin_form(path), Error::Target)?;
        self.path = self.append(path)?;
        if path == b"*" {
            self.form = TargetForm::Asterisk;
        }
        Ok(())
    }

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

    // --- fields --------------------------------------------------------------------------------------------------------

    /// All fields in order, names in lower case. A request's Host is not among them, it is [`Head::authority`].
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        self.slots
            .iter()
            .map(|slot| (self.at(slot.name), self.at(slot.value)))
    }

    /// All fields with their tag, so that an encoder can skip without comparing names.
    pub(crate) fn iter_known(&self) -> impl Iterator<Item = (&[u8], &[u8], Option<Known>)> {
        self.slots
            .iter()
            .map(|slot| (self.at(slot.name), self.at(slot.value), slot.known))
    }

    /// Number of fields.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// True without fields.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The first value of a field; `name` in lower case. `host` of a request gives its authority.
    #[must_use]
    pub fn get(&self, name: impl AsRef<[u8]>) -> Option<&[u8]> {
        let name = name.as_ref();
        if name == b"host" && !self.is_response() {
            return self.authority();
        }
        self.slots
            .iter()
            .find(|slot| self.at(slot.name) == name)
            .map(|slot| self.at(slot.value))
    }

    /// Every value of a field, in order; `name` in lower case.
    pub fn get_all<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.slots
            .iter()
            .filter(move |slot| self.at(slot.name) == name)
            .map(|slot| self.at(slot.value))
    }

    /// True if a field of this name is there: one bit test.
    #[must_use]
    pub fn has(&self, known: Known) -> bool {
        self.present.contains(known)
    }

    /// The first value of a well-known field; one bit test when it is absent.
    #[must_use]
    pub fn known(&self, known: Known) -> Option<&[u8]> {
        self.known_all(known).next()
    }

    /// Every value of a well-known field.
    pub fn known_all(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        let slots: &[Slot] = if self.present.contains(known) {
            &self.slots
        } else {
            &[]
        };
        slots
            .iter()
            .filter(move |slot| slot.known == Some(known))
            .map(|slot| self.at(slot.value))
    }

    /// True if one of these names is present: one test for the lot.
    pub(crate) fn has_any(&self, set: KnownSet) -> bool {
        self.present.intersects(set)
    }

    /// True if a list field (Connection, Te, Upgrade, …) has this element, in any case.
    #[must_use]
    pub fn lists(&self, known: Known, element: &[u8]) -> bool {
        self.known_all(known)
            .flat_map(grammar::list)
            .any(|e| e.eq_ignore_ascii_case(element))
    }

    /// Appends a field; the name is kept in lower case. `host` in a request becomes the authority if there is none yet.
    /// # Errors
    /// [`Error::EmptyName`], [`Error::Name`], [`Error::Value`]; [`Error::BufferFull`] beyond
    /// [`Limits::MAX_HEAD_BUFFER`]; for `host` [`Error::Authority`], or [`Error::HostConflict`] when it contradicts
    /// the authority.
    pub fn push(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<(), Error> {
        self.push_bytes(name.as_ref(), value.as_ref())
    }

    /// [`Head::push`] for a field off an HTTP/2 connection, where an upper-case name makes the message malformed
    /// (RFC 9113 §8.2.1).
    /// # Errors
    /// Those of `push`, and [`Error::Name`] for an upper-case name.
    pub fn push_h2(&mut self, name: &[u8], value: &[u8]) -> Result<(), Error> {
        check(!name.iter().any(u8::is_ascii_uppercase), Error::Name)?;
        self.push_bytes(name, value)
    }

    /// Replaces every field of this name by one, appended at the end. `host` in a request sets the authority.
    /// # Errors
    /// Those of [`Head::push`]; the head is unchanged then.
    pub fn set(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<(), Error> {
        let (name, value) = (name.as_ref(), value.as_ref());
        if name.eq_ignore_ascii_case(b"host") && !self.is_response() {
            return self.set_authority(value);
        }
        let before = self.slots.len();
        self.push_bytes(name, value)?;
        let added = self.slots[before];
        let mut at = 0;
        let (buf, slots) = (&self.buf, &mut self.slots);
        slots.retain(|slot| {
            at += 1;
            at > before || slice(buf, slot.name) != slice(buf, added.name)
        });
        Ok(())
    }

    /// Removes every field of this name (lower case); tells whether there was one. The authority is not a field.
    pub fn remove(&mut self, name: impl AsRef<[u8]>) -> bool {
        let name = name.as_ref();
        if let Some(known) = Known::of(name) {
            return self.remove_known(known);
        }
        let before = self.slots.len();
        let buf = &self.buf;
        self.slots.retain(|slot| slice(buf, slot.name) != name);
        self.slots.len() != before
    }

    /// Removes every field of a well-known name; one bit test when it is absent.
    pub fn remove_known(&mut self, known: Known) -> bool {
        let there = self.present.contains(known);
        if there {
            self.slots.retain(|slot| slot.known != Some(known));
            self.present.remove(known);
        }
        there
    }

    /// Keeps the fields for which `keep(name, value)` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) {
        self.retain_known(|name, value, _| keep(name, value));
    }

    pub(crate) fn retain_known(
        &mut self,
        mut keep: impl FnMut(&[u8], &[u8], Option<Known>) -> bool,
    ) {
        let buf = &self.buf;
        let mut present = KnownSet::default();
        self.slots.retain(|slot| {
            let kept = keep(slice(buf, slot.name), slice(buf, slot.value), slot.known);
            if let (true, Some(known)) = (kept, slot.known) {
                present.insert(known);
            }
            kept
        });
        self.present = present;
    }

    // --- for the decoders of this crate: what they hand in was checked by them -------------------------------------------

    /// Copies a whole wire block; later spans point into it.
    pub(crate) fn load(&mut self, block: &[u8]) {
        self.clear();
        self.buf.extend_from_slice(block);
    }

    /// Registers a field inside the loaded block, lower-casing its name in place. `Host` is the caller's.
    pub(crate) fn load_field(&mut self, name: Span, value: Span) -> Option<Known> {
        let range = name.start as usize..(name.start + name.len) as usize;
        self.buf[range.clone()].make_ascii_lowercase();
        let known = Known::of(&self.buf[range]);
        if let Some(known) = known {
            if known == Known::Host {
                return Some(known);
            }
            self.present.insert(known);
        }
        self.slots.push(Slot { name, value, known });
        known
    }

    pub(crate) fn load_request(&mut self, method: Span, version: Version) {
        self.method = method;
        self.version = version;
    }

    pub(crate) fn load_target(
        &mut self,
        form: TargetForm,
        scheme: Span,
        authority: Option<Span>,
        path: Span,
    ) {
        (self.form, self.scheme, self.authority, self.path) = (form, scheme, authority, path);
        let scheme = scheme.start as usize..(scheme.start + scheme.len) as usize;
        self.buf[scheme].make_ascii_lowercase();
    }

    pub(crate) fn load_host(&mut self, host: Span) {
        self.authority = Some(host);
    }

    // --- private -------------------------------------------------------------------------------------------------------

    fn push_bytes(&mut self, name: &[u8], value: &[u8]) -> Result<(), Error> {
        check(!name.is_empty(), Error::EmptyName)?;
        check(grammar::is_token(name), Error::Name)?;
        check(grammar::is_field_value(value), Error::Value)?;
        if name.eq_ignore_ascii_case(b"host") && !self.is_response() {
            return self.push_host(value);
        }
        let name = self.append(name)?;
        let range = name.start as usize..(name.start + name.len) as usize;
        self.buf[range.clone()].make_ascii_lowercase();
        let known = Known::of(&self.buf[range]);
        let value = self.append(value)?;
        if let Some(known) = known {
            self.present.insert(known);
        }
        self.slots.push(Slot { name, value, known });
        Ok(())
    }

    fn push_host(&mut self, value: &[u8]) -> Result<(), Error> {
        match self.authority() {
            None => self.set_authority(value),
            Some(authority) => check(authority.eq_ignore_ascii_case(value), Error::HostConflict),
        }
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
}

fn slice(buf: &[u8], span: Span) -> &[u8] {
    &buf[span.start as usize..(span.start + span.len) as usize]
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
