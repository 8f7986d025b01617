//! W3C Trace Context: `00-<trace, 32 digits>-<parent, 16 digits>-<flags, 2 digits>`.

use super::{RANDOM, Read, SAMPLED, SpanId, TraceId, hex};

pub(super) const FIELD: &str = "traceparent";
const LENGTH: usize = 55;

/// Reads version 00, and the part of later versions that is as in 00 (§4 "Versioning of traceparent").
pub(super) fn read(value: &[u8]) -> Option<Read> {
    let (known, more) = (value.get(..LENGTH)?, value.get(LENGTH..)?);
    let [version] = hex::read::<1>(known.get(..2)?, false)?;
    let ends = match version {
        0 => more.is_empty(),
        0xff => false,
        _ => more.is_empty() || more.first() == Some(&b'-'),
    };
    let dashes = [2, 35, 52].iter().all(|at| known.get(*at) == Some(&b'-'));
    if !ends || !dashes {
        return None;
    }
    let [flags] = hex::read::<1>(known.get(53..)?, false)?;
    Some(Read {
        trace: hex::read(known.get(3..35)?, false)?,
        parent: hex::read(known.get(36..52)?, false)?,
        // Bits without a meaning are not handed on.
        flags: flags & (SAMPLED | RANDOM),
    })
}

pub(super) fn write(trace: &TraceId, span: &SpanId, flags: u8) -> [u8; LENGTH] {
    let mut value = *b"00-................................-................-..";
    hex::write(trace, &mut value[3..35]);
    hex::write(span, &mut value[36..52]);
    hex::write(&[flags], &mut value[53..]);
    value
}
