//! A complete head block (start line, field lines, empty line; every line already known to end in CRLF) to a [`Head`].
//!
//! Cost: one pass of httparse (SIMD), one copy of the block, one table entry per field. httparse is more lenient than
//! we are in places, and says less about what was wrong: `diagnose` looks again, only after a failure.

use std::mem::MaybeUninit;

use httparse::{EMPTY_HEADER, Header, ParserConfig, Status};

use crate::error::Error;
use crate::grammar;
use crate::head::{Head, MethodKind, Span, TargetForm, Version};
use crate::known::Known;
use crate::limits::Limits;

type Table<'b> = [MaybeUninit<Header<'b>>; Limits::MAX_FIELDS];

const fn table<'b>() -> Table<'b> {
    [const { MaybeUninit::uninit() }; Limits::MAX_FIELDS]
}

/// Offsets into the block that a slice was cut from: `Head` holds a copy of that block.
struct Block<'b>(&'b [u8]);

impl Block<'_> {
    fn span(&self, part: &[u8]) -> Span {
        // An empty slice may come from anywhere.
        let start = if part.is_empty() {
            0
        } else {
            part.as_ptr() as usize - self.0.as_ptr() as usize
        };
        Span::new(start, part.len())
    }
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
        Err(error) => return Err(diagnose(block, error, Error::RequestLine)),
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
    load_target(&block, head, method, target)?;
    load_request_fields(&block, head, fields)
}

pub(super) fn response(block: &[u8], head: &mut Head, limits: &Limits) -> Result<(), Error> {
    let mut table = table();
    let mut parsed = httparse::Response::new(&mut []);
    match ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, block, &mut table)
    {
        Ok(Status::Complete(end)) if end == block.len() => {}
        Ok(_) => return Err(Error::StatusLine),
        Err(error) => return Err(diagnose(block, error, Error::StatusLine)),
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

/// The field lines of a trailer section. Those that would change framing, routing, authentication or the meaning of
/// the body are dropped (RFC 9110 §6.5.1), and so is everything of a proxy's own (`l5d-*`).
pub(super) fn trailers(block: &[u8], head: &mut Head, limits: &Limits) -> Result<(), Error> {
    let mut table = [EMPTY_HEADER; TRAILER_TABLE];
    let fields = match httparse::parse_headers(block, &mut table) {
        Ok(Status::Complete((end, fields))) if end == block.len() => fields,
        Ok(_) => return Err(Error::Value),
        Err(error) => return Err(diagnose(block, error, Error::Value)),
    };
    if fields.len() > limits.fields {
        return Err(Error::TooManyFields);
    }
    let block = Block(block);
    head.load(block.0);
    for field in fields {
        load_field(&block, head, field)?;
    }
    head.retain(|name, _| !forbidden_in_trailers(name));
    Ok(())
}

/// Field lines of a trailer section that we hold at once.
pub(super) const TRAILER_TABLE: usize = 64;

fn forbidden_in_trailers(name: &[u8]) -> bool {
    const FORBIDDEN: [&str; 24] = [
        "age",
        "authorization",
        "cache-control",
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "cookie",
        "expect",
        "host",
        "keep-alive",
        "max-forwards",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "range",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "vary",
        "www-authenticate",
    ];
    name.starts_with(b"l5d-")
        || FORBIDDEN
            .iter()
            .any(|forbidden| forbidden.as_bytes() == name)
}

/// A request line whose head is not complete yet, so that `GET /\r\n` is answered now and not at a timeout.
pub(super) fn request_line(line: &[u8], limits: &Limits) -> Result<(), Error> {
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse(line) {
        // No room for a field: the start line was fine.
        Ok(_) | Err(httparse::Error::TooManyHeaders) => {}
        Err(error) => return Err(diagnose(line, error, Error::RequestLine)),
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

/// RFC 9112 §3.2: which form, and what it says.
fn load_target(
    block: &Block<'_>,
    head: &mut Head,
    method: &[u8],
    target: &[u8],
) -> Result<(), Error> {
    let none = Span::default();
    let kind = MethodKind::of(method);
    if kind == MethodKind::Connect {
        if head.version() == Version::Http10 || !grammar::is_authority_with_port(target) {
            return Err(Error::Connect);
        }
        head.load_target(TargetForm::Authority, none, Some(block.span(target)), none);
        return Ok(());
    }
    if target[0] == b'/' {
        head.load_target(TargetForm::Origin, none, None, block.span(target));
        return Ok(());
    }
    if target == b"*" {
        let allowed = kind == MethodKind::Options;
        head.load_target(TargetForm::Asterisk, none, None, block.span(target));
        return if allowed {
            Ok(())
        } else {
            Err(Error::TargetForm)
        };
    }
    let Some(colon) = target.windows(3).position(|w| w == b"://") else {
        return Err(Error::TargetForm);
    };
    let (scheme, rest) = (&target[..colon], &target[colon + 3..]);
    if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
        return Err(Error::Scheme);
    }
    let end = rest
        .iter()
        .position(|b| matches!(b, b'/' | b'?'))
        .unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if !grammar::is_authority(authority) {
        return Err(Error::Authority);
    }
    head.load_target(
        TargetForm::Absolute,
        block.span(scheme),
        Some(block.span(authority)),
        block.span(path),
    );
    match path.first() {
        Some(b'/') => Ok(()),
        None if kind == MethodKind::Options => head
            .set_path(b"*")
            .map(|()| head.set_target_form(TargetForm::Absolute)),
        None => head.set_path(b"/"),
        Some(_) => {
            let path = [b"/", path].concat();
            head.set_path(&path)
        }
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

/// The precise reason of a failure that httparse reports in general terms. Cold.
#[cold]
fn diagnose(block: &[u8], error: httparse::Error, start_line: Error) -> Error {
    use httparse::Error as E;
    let mut lines = block
        .split(|&b| b == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    // A trailer section has no start line; its parser never reports one.
    let has_start_line = start_line != Error::Value;
    if has_start_line && lines.next().is_some_and(|first| first.contains(&b'\r')) {
        return Error::BareCr;
    }
    let general = match error {
        E::TooManyHeaders => return Error::TooManyFields,
        E::Version => return Error::Version,
        E::Status => return Error::StatusLine,
        E::Token | E::NewLine if has_start_line => return start_line,
        E::HeaderName => Error::Name,
        E::Token | E::NewLine | E::HeaderValue => Error::Value,
    };
    lines
        .take_while(|line| !line.is_empty())
        .find_map(field_fault)
        .unwrap_or(general)
}

fn field_fault(line: &[u8]) -> Option<Error> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Some(Error::Fold);
    }
    let Some(colon) = line.iter().position(|&b| b == b':') else {
        return Some(Error::NoColon);
    };
    let (name, value) = (&line[..colon], grammar::trim(&line[colon + 1..]));
    match name {
        [] => Some(Error::EmptyName),
        [.., b' ' | b'\t'] => Some(Error::SpaceBeforeColon),
        _ if !grammar::is_token(name) => Some(Error::Name),
        _ if value.contains(&b'\r') => Some(Error::BareCr),
        _ if !grammar::is_field_value(value) => Some(Error::Value),
        _ => None,
    }
}
