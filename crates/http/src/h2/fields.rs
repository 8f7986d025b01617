//! Header blocks to [`Head`]s and back (RFC 9113 §8.2, §8.3), on HPACK.
//!
//! A malformed message is read to its end all the same: the compression table is the connection's, not the message's.

use super::connection::{Connection, ConnectionError};
use super::frame::{self, HEADER, Kind, flag};
use super::stream::Key;
use super::{Code, frame::put_header};
use crate::hpack::{self, Field};
use crate::l5d;
use crate::translate::{self, CONNECTION_SPECIFIC};
use crate::{Error, Head, MethodKind, Version};

/// What a header block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Request,
    Response,
    Trailers,
}

impl Connection {
    /// Reads a whole block into `head`. The inner error is that of the message.
    pub(super) fn read_block(
        &mut self,
        block: &[u8],
        section: Section,
        head: &mut Head,
    ) -> Result<Result<(), Error>, ConnectionError> {
        head.clear();
        head.set_version(Version::Http2);
        let limits = hpack::Limits {
            list_size: self.settings.max_header_list as usize,
            fields: self.settings.max_fields,
        };
        let mut reader = Reader {
            head,
            section,
            seen: 0,
            fields_begun: false,
            other_host: false,
            protocol_offered: self.settings.connect_protocol,
            error: None,
        };
        let decoded = self
            .decoder
            .decode(block, &limits, |field| reader.take(field));
        let (mut error, other_host) = (reader.error, reader.other_host);
        if error.is_none() && other_host && !l5d::was_absolute_form(head) {
            error = Some(Error::HostConflict);
        }
        match decoded {
            Err(error) if error.is_connection_error() => {
                return Err(self.fail(Code::COMPRESSION_ERROR, error.reason()));
            }
            Err(hpack::Error::TooManyFields) => return Ok(Err(Error::TooManyFields)),
            Err(_) => return Ok(Err(Error::HeadTooLarge)),
            Ok(_) => {}
        }
        Ok(match (error, section) {
            (Some(error), _) => Err(error),
            (None, Section::Request) => translate::check_h2_request(head),
            (None, Section::Response) => translate::check_h2_response(head),
            (None, Section::Trailers) => translate::check_h2_fields(head),
        })
    }

    /// Appends a head, or trailers, as HEADERS and, if it is long, CONTINUATIONs.
    pub(super) fn write_block(&mut self, key: Key, section: Section, head: &Head, end: bool) {
        let start = self.out.len();
        let flags = flag::END_HEADERS | if end { flag::END_STREAM } else { 0 };
        put_header(Kind::Headers, flags, key.id, 0, &mut self.out);
        let (encoder, out) = (&mut self.encoder, &mut self.out);
        encoder.begin_block(out);
        match section {
            Section::Request => {
                encoder.encode_field(b":method", head.method(), out);
                if head.method_kind() != MethodKind::Connect || head.protocol().is_some() {
                    encoder.encode_field(b":scheme", head.scheme(), out);
                    encoder.encode_field(b":path", head.path(), out);
                }
                let authority = head.authority().filter(|a| !a.is_empty());
                if let Some(authority) = authority {
                    encoder.encode_field(b":authority", authority, out);
                }
                if let Some(protocol) = head.protocol() {
                    encoder.encode_field(b":protocol", protocol, out);
                }
                if let (Some(authority), true) = (authority, head.says_host()) {
                    encoder.encode_field(b"host", authority, out);
                }
            }
            Section::Response => encoder.encode_field(b":status", &digits(head.status()), out),
            Section::Trailers => {}
        }
        let specific = head.has_any(CONNECTION_SPECIFIC);
        for (name, value, known, sensitive) in head.each() {
            // Fields of another hop have no place here, whoever left them in.
            if specific && known.is_some_and(|known| CONNECTION_SPECIFIC.contains(known)) {
                continue;
            }
            if sensitive {
                encoder.encode_sensitive(name, value, out);
            } else {
                encoder.encode_field(name, value, out);
            }
        }
        let length = self.out.len() - start - HEADER;
        let whole = length <= self.peer.max_frame as usize;
        if whole {
            self.out[start..start + 3].copy_from_slice(&(length as u32).to_be_bytes()[1..]);
            self.last_frame = Some((key.id, start));
        } else {
            self.split_block(start, key.id, end);
        }
    }

    /// Cuts a block that is too long for one frame into CONTINUATIONs.
    #[cold]
    fn split_block(&mut self, start: usize, id: u32, end: bool) {
        self.last_frame = None;
        let block = self.out.split_off(start + HEADER);
        self.out.truncate(start);
        let mut pieces = block.chunks(self.peer.max_frame as usize).peekable();
        let mut kind = Kind::Headers;
        let mut flags = if end { flag::END_STREAM } else { 0 };
        while let Some(piece) = pieces.next() {
            if pieces.peek().is_none() {
                flags |= flag::END_HEADERS;
            }
            frame::put(kind, flags, id, piece, &mut self.out);
            (kind, flags) = (Kind::Continuation, 0);
        }
    }
}

fn digits(status: u16) -> [u8; 3] {
    [status / 100, status / 10 % 10, status % 10].map(|digit| b'0' + digit as u8)
}

/// Takes a block's fields into a head. After the first error the rest is not looked at.
struct Reader<'h> {
    head: &'h mut Head,
    section: Section,
    /// Pseudo fields so far, a bit each.
    seen: u8,
    fields_begun: bool,
    /// A Host field says something else than `:authority`.
    other_host: bool,
    protocol_offered: bool,
    error: Option<Error>,
}

impl Reader<'_> {
    fn take(&mut self, field: Field<'_>) {
        if self.error.is_none() {
            self.error = self.field(field).err();
        }
    }

    fn field(&mut self, field: Field<'_>) -> Result<(), Error> {
        if field.name.first() == Some(&b':') {
            return self.pseudo(field.name, field.value);
        }
        self.fields_begun = true;
        match self.head.push_h2(field.name, field.value) {
            // Of an absolute URI and a Host that differ the URI counts, as in HTTP/1 itself (RFC 9112 §3.2.2), so the
            // field is dropped. What says so may still come.
            Err(Error::HostConflict) if !self.other_host => {
                self.other_host = true;
                return Ok(());
            }
            pushed => pushed?,
        }
        if field.sensitive {
            self.head.mark_sensitive();
        }
        Ok(())
    }

    fn pseudo(&mut self, name: &[u8], value: &[u8]) -> Result<(), Error> {
        if self.fields_begun {
            return Err(Error::PseudoHeader);
        }
        let bit = match (self.section, name) {
            (Section::Request, b":method") => {
                self.head.set_method(value)?;
                1
            }
            (Section::Request, b":scheme") => {
                self.head.set_scheme(value)?;
                2
            }
            (Section::Request, b":path") => {
                self.head.set_path(value)?;
                4
            }
            (Section::Request, b":authority") => {
                if !value.is_empty() {
                    self.head.set_authority(value)?;
                }
                8
            }
            (Section::Request, b":protocol") if self.protocol_offered => {
                self.head.set_protocol(value)?;
                16
            }
            (Section::Response, b":status") => {
                let [a, b, c] = *value else {
                    return Err(Error::StatusLine);
                };
                if ![a, b, c].iter().all(u8::is_ascii_digit) {
                    return Err(Error::StatusLine);
                }
                let digit = |digit: u8| u16::from(digit - b'0');
                self.head
                    .set_status(digit(a) * 100 + digit(b) * 10 + digit(c))?;
                32
            }
            _ => return Err(Error::PseudoHeader),
        };
        if self.seen & bit != 0 {
            return Err(Error::PseudoHeader);
        }
        self.seen |= bit;
        Ok(())
    }
}
