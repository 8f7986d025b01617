//! A complete head block (start line, field lines, empty line; every line already known to end in CRLF) to a [`Head`].
//!
//! Cost: one pass of httparse (SIMD), one copy of the block, one table entry per field. httparse is more lenient than
//! we are in places, and says less about what was wrong: `fault` looks again, only after a failure.

use std::mem::MaybeUninit;

use httparse::{EMPTY_HEADER, Header, ParserConfig, Status};

use super::fault;
use super::target::{self, Block};
use crate::error::Error;
use crate::grammar;
use crate::head::{Head, Version};
use crate::hop;
use crate::known::Known;
use crate::limits::Limits;

type Table<'b> = [MaybeUninit<Header<'b>>; Limits::MAX_FIELDS];

const fn table<'b>() -> Table<'b> {
    [const { MaybeUninit::uninit() }; Limits::MAX_FIELDS]
}

/// What a successful tokenisation left.
struct Lines<'p, 'b> {
    block: Block<'b>,
    fields: &'p [Header<'b>],
}

impl Lines<'_, '_> {
    /// Every line ends in CRLF and the block is within bounds. httparse also takes a bare LF and skips empty lines at
    /// the start; it takes a line end nowhere but before a name and at the end, so looking there suffices.
    fn are_strict(&self, start: &[u8], limits: &Limits) -> bool {
        let Block(block) = self.block;
        block.len() <= limits.head_bytes
            && self.fields.len() <= limits.fields
            && block.starts_with(start)
            && block.ends_with(b"\r\n\r\n")
            && self.fields.iter().all(|field| {
                let name = self.block.span(field.name.as_bytes()).start();
                name >= 2 && block[name - 2..name] == *b"\r\n"
            })
    }
}

/// A request head that lies in `bytes` whole, in the one pass that most heads take: the octets it has. `None` says
/// nothing about it: look at its lines one by one.
/// # Errors
/// What the lines say, which are in order.
pub(super) fn request_at_once(
    bytes: &[u8],
    head: &mut Head,
    limits: &Limits,
) -> Result<Option<usize>, Error> {
    let mut table = table();
    let mut parsed = httparse::Request::new(&mut []);
    let parse =
        ParserConfig::default().parse_request_with_uninit_headers(&mut parsed, bytes, &mut table);
    let Ok(Status::Complete(end)) = parse else {
        return Ok(None);
    };
    let lines = Lines {
        block: Block(&bytes[..end]),
        fields: parsed.headers,
    };
    if !lines.are_strict(parsed.method.unwrap_or("").as_bytes(), limits) {
        return Ok(None);
    }
    load_request(
        lines,
        (parsed.method, parsed.path, parsed.version),
        head,
        limits,
    )
    .map(|()| Some(end))
}

/// [`request_at_once`] for a response.
/// # Errors
/// As there.
pub(super) fn response_at_once(
    bytes: &[u8],
    head: &mut Head,
    limits: &Limits,
) -> Result<Option<usize>, Error> {
    let mut table = table();
    let mut parsed = httparse::Response::new(&mut []);
    let parse =
        ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, bytes, &mut table);
    let Ok(Status::Complete(end)) = parse else {
        return Ok(None);
    };
    let lines = Lines {
        block: Block(&bytes[..end]),
        fields: parsed.headers,
    };
    if !lines.are_strict(b"HTTP/", limits) {
        return Ok(None);
    }
    load_response(lines, parsed.code, parsed.version, head).map(|()| Some(end))
}

pub(super) fn request(block: &[u8], head: &mut Head, limits: &Limits) -> Result<(), Error> {
    let mut table = table();
    let mut parsed = httparse::Request::new(&mut []);
    match ParserConfig::default().parse_request_with_uninit_headers(&mut parsed, block, &mut table)
    {
        Ok(Status::Complete(end)) if end == block.len() => {}
        Ok(_) => return Err(Error::RequestLine),
        Err(error) => return Err(fault::of_head(block, error, Error::RequestLine)),
    }
    let lines = Lines {
        block: Block(block),
        fields: parsed.headers,
    };
    load_request(
        lines,
        (parsed.method, parsed.path, parsed.version),
        head,
        limits,
    )
}

fn load_request(
    Lines { block, fields }: Lines<'_, '_>,
    (method, target, minor): (Option<&str>, Option<&str>, Option<u8>),
    head: &mut Head,
    limits: &Limits,
) -> Result<(), Error> {
    let (Some(method), Some(target), Some(minor)) = (method, target, minor) else {
        return Err(Error::RequestLine);
    };
    let (method, target) = (method.as_bytes(), target.as_bytes());
    let version = if minor == 0 {
        Version::Http10
    } else {
        Version::Http11
    };
    check_request_line(method, target, limits)?;
    if fields.len() > limits.fields {
        return Err(Error::TooManyFields);
    }
    head.load(block.0);
    head.load_request(block.span(method), version);
    target::load(&block, head, method, target)?;
    load_request_fields(&block, head, fields)
}

pub(super) fn response(block: &[u8], head: &mut Head, limits: &Limits) -> Result<(), Error> {
    let mut table = table();
    let mut parsed = httparse::Response::new(&mut []);
    match ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, block, &mut table)
    {
        Ok(Status::Complete(end)) if end == block.len() => {}
        Ok(_) => return Err(Error::StatusLine),
        Err(error) => return Err(fault::of_head(block, error, Error::StatusLine)),
    }
    if parsed.headers.len() > limits.fields {
        return Err(Error::TooManyFields);
    }
    let lines = Lines {
        block: Block(block),
        fields: parsed.headers,
    };
    load_response(lines, parsed.code, parsed.version, head)
}

fn load_response(
    Lines { block, fields }: Lines<'_, '_>,
    status: Option<u16>,
    minor: Option<u8>,
    head: &mut Head,
) -> Result<(), Error> {
    let (Some(status), Some(minor)) = (status, minor) else {
        return Err(Error::StatusLine);
    };
    head.load(block.0);
    head.set_status(status)?;
    head.set_version(if minor == 0 {
        Version::Http10
    } else {
        Version::Http11
    });
    for field in fields {
        // A Host in a response means nothing and is left out.
        load_field(&block, head, field)?;
    }
    Ok(())
}

/// The field lines of a trailer section, without those that may not stand there.
pub(super) fn trailers(block: &[u8], head: &mut Head) -> Result<(), Error> {
    let mut table = [EMPTY_HEADER; Limits::MAX_TRAILER_FIELDS];
    let fields = match httparse::parse_headers(block, &mut table) {
        Ok(Status::Complete((end, fields))) if end == block.len() => fields,
        Ok(_) => return Err(Error::Value),
        Err(error) => return Err(fault::of_trailers(block, error)),
    };
    let block = Block(block);
    head.load(block.0);
    for field in fields {
        load_field(&block, head, field)?;
    }
    hop::strip_trailers(head);
    Ok(())
}

/// A request line whose head is not complete yet, so that `GET /\r\n` is answered now and not at a timeout.
pub(super) fn request_line(line: &[u8], limits: &Limits) -> Result<(), Error> {
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse(line) {
        // No room for a field: the start line was fine.
        Ok(_) | Err(httparse::Error::TooManyHeaders) => {}
        Err(error) => return Err(fault::of_head(line, error, Error::RequestLine)),
    }
    check_request_line(
        parsed.method.unwrap_or("").as_bytes(),
        parsed.path.unwrap_or("").as_bytes(),
        limits,
    )
}

fn check_request_line(method: &[u8], target: &[u8], limits: &Limits) -> Result<(), Error> {
    if !grammar::is_method(method) {
        return Err(Error::Method);
    }
    if target.len() > limits.target_bytes {
        return Err(Error::TargetTooLong);
    }
    if grammar::is_target(target) {
        Ok(())
    } else {
        Err(Error::Target)
    }
}

fn load_request_fields(
    block: &Block<'_>,
    head: &mut Head,
    fields: &[Header<'_>],
) -> Result<(), Error> {
    let mut host: Option<&[u8]> = None;
    for field in fields {
        if load_field(block, head, field)? == Some(Known::Host) {
            if host.is_some() {
                return Err(Error::TwoHosts);
            }
            host = Some(grammar::trim(field.value));
        }
    }
    match host {
        None if head.version() == Version::Http10 => Ok(()),
        None => Err(Error::NoHost),
        Some(host) if !host.is_empty() && !grammar::is_authority(host) => Err(Error::Authority),
        // RFC 9112 §3.2.2: the authority of the target wins and Host is replaced by it, so policy and server see one.
        Some(host) => {
            if head.authority().is_none() {
                head.load_host(block.span(host));
            }
            Ok(())
        }
    }
}

fn load_field(
    block: &Block<'_>,
    head: &mut Head,
    field: &Header<'_>,
) -> Result<Option<Known>, Error> {
    let name = field.name.as_bytes();
    if name.is_empty() {
        return Err(Error::EmptyName);
    }
    Ok(head.load_field(block.span(name), block.span(grammar::trim(field.value))))
}
