//! B3, Zipkin's form: in one header (`b3: <trace>-<span>[-<sampling>[-<parent>]]`), or in several (`x-b3-*`).
//!
//! A trace's number has 16 or 32 digits and is handed on as it came; `d` (debug) is sampled, and stays `d`.

use super::{Read, SAMPLED, SpanId, TraceId, hex, only};
use crate::{Error, Head};

pub(super) const FIELD: &str = "b3";
const TRACE: &str = "x-b3-traceid";
const SPAN: &str = "x-b3-spanid";
const PARENT: &str = "x-b3-parentspanid";
const SAMPLING: &str = "x-b3-sampled";
const FLAGS: &str = "x-b3-flags";
/// Trace, span, one letter and parent, with dashes between them.
const ROOM: usize = 32 + 1 + 16 + 1 + 1 + 1 + 16;

/// 64 bits are the lower half of a trace's number.
fn trace(text: &[u8]) -> Option<TraceId> {
    if text.len() == 32 {
        return hex::read(text, true);
    }
    let lower: [u8; 8] = hex::read(text, true)?;
    Some((u128::from(u64::from_be_bytes(lower))).to_be_bytes())
}

fn flags(sampled: bool) -> u8 {
    if sampled { SAMPLED } else { 0 }
}

/// A lone `0`, `1` or `d` is a decision without a trace, and therefore nothing to take part in.
pub(super) fn read(value: &[u8]) -> Option<Read> {
    let mut parts = value.split(|byte| *byte == b'-');
    let (trace_text, span) = (parts.next()?, parts.next()?);
    let sampled = match parts.next() {
        // The decision is left open; we make none.
        None | Some(b"0") => false,
        Some(b"1" | b"d") => true,
        Some(_) => return None,
    };
    if let Some(parent) = parts.next() {
        hex::read::<8>(parent, true)?;
    }
    if parts.next().is_some() {
        return None;
    }
    Some(Read {
        trace: trace(trace_text)?,
        parent: hex::read(span, true)?,
        flags: flags(sampled),
    })
}

pub(super) fn read_several(head: &Head) -> Option<Read> {
    let sampled = match only(head, SAMPLING) {
        Some(b"1" | b"true") => true,
        // Zipkin's debug flag means sampled.
        _ => only(head, FLAGS) == Some(b"1"),
    };
    Some(Read {
        trace: trace(only(head, TRACE)?)?,
        parent: hex::read(only(head, SPAN)?, true)?,
        flags: flags(sampled),
    })
}

/// `head` has been read: its value is well-formed.
pub(super) fn hand_on(head: &mut Head, span: &SpanId) -> Result<(), Error> {
    let mut room = [b'-'; ROOM];
    let mut parts = head
        .get(FIELD)
        .unwrap_or_default()
        .split(|byte| *byte == b'-');
    let (trace, parent, sampling) = (parts.next(), parts.next(), parts.next());
    let mut digits = [0; 16];
    hex::write(span, &mut digits);
    let mut length = 0;
    for part in [trace, Some(&digits[..]), sampling.or(Some(b"0")), parent] {
        let part = part.unwrap_or_default();
        let begin = if length == 0 { 0 } else { length + 1 };
        let Some(place) = room.get_mut(begin..begin + part.len()) else {
            return Ok(());
        };
        place.copy_from_slice(part);
        length = begin + part.len();
    }
    head.set(FIELD, &room[..length])
}

/// The parent's number goes with the span's: without one, Zipkin takes a span for the root of its trace.
pub(super) fn hand_on_several(head: &mut Head, span: &SpanId) -> Result<(), Error> {
    let mut digits = [0; 16];
    let parent: Option<[u8; 8]> = head.get(SPAN).and_then(|text| hex::read(text, true));
    if let Some(parent) = parent {
        hex::write(&parent, &mut digits);
        head.set(PARENT, digits)?;
    }
    hex::write(span, &mut digits);
    head.set(SPAN, digits)
}
