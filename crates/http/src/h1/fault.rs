//! What exactly was wrong with a head that httparse refused in general terms. Only ever runs after a failure.

use crate::error::Error;
use crate::grammar;

/// The fault of a head; `start_line` is the reason for one in its first line.
#[cold]
pub(super) fn of_head(block: &[u8], error: httparse::Error, start_line: Error) -> Error {
    use httparse::Error as E;
    let mut lines = lines(block);
    if lines.next().is_some_and(|first| first.contains(&b'\r')) {
        return Error::BareCr;
    }
    match error {
        E::Version => Error::Version,
        E::Token | E::NewLine | E::Status => start_line,
        E::TooManyHeaders | E::HeaderName | E::HeaderValue => of_fields(lines, error),
    }
}

/// The fault of a trailer section.
#[cold]
pub(super) fn of_trailers(block: &[u8], error: httparse::Error) -> Error {
    of_fields(lines(block), error)
}

fn lines(block: &[u8]) -> impl Iterator<Item = &[u8]> {
    block
        .split(|&b| b == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

fn of_fields<'b>(lines: impl Iterator<Item = &'b [u8]>, error: httparse::Error) -> Error {
    let general = match error {
        httparse::Error::TooManyHeaders => return Error::TooManyFields,
        httparse::Error::HeaderName => Error::Name,
        _ => Error::Value,
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
