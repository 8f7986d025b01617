//! Integers with a prefix (RFC 7541 §5.1): what does not fit the low bits of the first octet follows, seven bits each.

use super::Error;

/// Octets after the prefix: five hold 35 bits, more than any length we take. A sixth could only be padding.
const MAX_CONTINUATION: usize = 5;

/// Reads an integer whose prefix is the low `bits` of the first octet; returns it with what follows.
#[inline]
pub(super) fn decode(input: &[u8], bits: u32) -> Result<(usize, &[u8]), Error> {
    let (&first, rest) = input.split_first().ok_or(Error::Truncated)?;
    let mask = (1u8 << bits) - 1;
    let prefix = first & mask;
    if prefix < mask {
        return Ok((prefix.into(), rest));
    }
    continued(mask, rest)
}

#[cold]
fn continued(prefix: u8, rest: &[u8]) -> Result<(usize, &[u8]), Error> {
    let mut value = u64::from(prefix);
    for (i, &octet) in rest.iter().take(MAX_CONTINUATION).enumerate() {
        value += u64::from(octet & 0x7f) << (7 * i);
        if octet & 0x80 == 0 {
            let value = u32::try_from(value).map_err(|_| Error::Integer)?;
            return Ok((value as usize, &rest[i + 1..]));
        }
    }
    Err(if rest.len() < MAX_CONTINUATION {
        Error::Truncated
    } else {
        Error::Integer
    })
}

/// Writes `value` with a prefix of `bits`; `flags` are the bits above it.
#[inline]
pub(super) fn encode(value: usize, bits: u32, flags: u8, out: &mut Vec<u8>) {
    let mask = (1usize << bits) - 1;
    if value < mask {
        out.push(flags | value as u8);
        return;
    }
    out.push(flags | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_standard() {
        // RFC 7541 appendix C.1.
        for (value, bits, coded) in [
            (10, 5, &[0x0a][..]),
            (1337, 5, &[0x1f, 0x9a, 0x0a]),
            (42, 8, &[0x2a]),
        ] {
            if bits < 8 {
                let mut out = Vec::new();
                encode(value, bits, 0, &mut out);
                assert_eq!(out, coded);
                assert_eq!(decode(coded, bits), Ok((value, &[][..])));
            }
        }
    }

    #[test]
    fn every_prefix_carries_every_size() {
        for bits in 4..=7 {
            for value in (0..40_000).chain([u32::MAX as usize - 1, u32::MAX as usize]) {
                let mut out = Vec::new();
                encode(value, bits, 0, &mut out);
                out.push(0xaa);
                assert_eq!(decode(&out, bits), Ok((value, &[0xaa][..])));
            }
        }
    }

    #[test]
    fn overflow_and_endless_padding_are_refused() {
        assert_eq!(decode(&[], 7), Err(Error::Truncated));
        assert_eq!(decode(&[0x7f, 0x80], 7), Err(Error::Truncated));
        assert_eq!(
            decode(&[0x7f, 0xff, 0xff, 0xff, 0xff, 0x0f], 7),
            Err(Error::Integer)
        );
        assert_eq!(
            decode(&[0x7f, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00], 7),
            Err(Error::Integer)
        );
        assert_eq!(
            decode(&[0x7f, 0x80, 0x80, 0x80, 0x80, 0x00], 7),
            Ok((127, &[][..]))
        );
    }
}
