//! `grpc-trace-bin`: the binary context of OpenCensus, in base64. A version, then numbered parts of fixed length.

use super::{RANDOM, Read, SAMPLED, SpanId, TraceId};

pub(super) const FIELD: &str = "grpc-trace-bin";
/// Version, and three parts with their numbers.
const OCTETS: usize = 1 + (1 + 16) + (1 + 8) + (1 + 1);
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// With padding: gRPC takes values with and without, Linkerd's proxy only with.
const LENGTH: usize = OCTETS.div_ceil(3) * 4;

pub(super) fn read(value: &[u8]) -> Option<Read> {
    let octets = decode(value)?;
    let (version, mut rest) = octets.split_first()?;
    if *version != 0 {
        return None;
    }
    let mut read = Read {
        trace: [0; 16],
        parent: [0; 8],
        flags: 0,
    };
    while let Some((number, part)) = rest.split_first() {
        rest = match number {
            0 => take(part, &mut read.trace)?,
            1 => take(part, &mut read.parent)?,
            2 => {
                let mut flags = [0];
                let rest = take(part, &mut flags)?;
                read.flags = flags[0] & (SAMPLED | RANDOM);
                rest
            }
            // A part that is not known has an unknown length: nothing after it can be read.
            _ => break,
        };
    }
    Some(read)
}

fn take<'p, const N: usize>(part: &'p [u8], into: &mut [u8; N]) -> Option<&'p [u8]> {
    let (octets, rest) = part.split_at_checked(N)?;
    into.copy_from_slice(octets);
    Some(rest)
}

/// The octets of a value of exactly our length; no other one is a context of version 0.
fn decode(value: &[u8]) -> Option<[u8; OCTETS]> {
    let value = value.strip_suffix(b"=").unwrap_or(value);
    if value.len() != LENGTH - 1 {
        return None;
    }
    let mut octets = [0; OCTETS];
    for (place, four) in octets.chunks_mut(3).zip(value.chunks(4)) {
        let mut bits = 0;
        for at in 0..4 {
            let digit = four.get(at).map_or(Some(0), |byte| digit(*byte))?;
            bits = bits << 6 | digit;
        }
        let [_, high, middle, low] = u32::to_be_bytes(bits);
        for (place, octet) in place.iter_mut().zip([high, middle, low]) {
            *place = octet;
        }
    }
    Some(octets)
}

fn digit(byte: u8) -> Option<u32> {
    let value = match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

pub(super) fn write(trace: &TraceId, span: &SpanId, flags: u8) -> [u8; LENGTH] {
    let mut octets = [0; OCTETS];
    octets[2..18].copy_from_slice(trace);
    octets[18] = 1;
    octets[19..27].copy_from_slice(span);
    octets[27] = 2;
    octets[28] = flags;
    let mut value = [b'='; LENGTH];
    for (three, place) in octets.chunks(3).zip(value.chunks_mut(4)) {
        let at = |index: usize| u32::from(three.get(index).copied().unwrap_or_default());
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        // So many octets take one digit more; the rest of the four is padding.
        for (index, digit) in place.iter_mut().take(three.len() + 1).enumerate() {
            *digit = DIGITS[(bits >> (18 - 6 * index)) as usize & 63];
        }
    }
    value
}
