//! The Huffman code of RFC 7541 appendix B. It is canonical: the length of each symbol's code is all there is to know,
//! so the tables below are computed from the lengths when this compiles.
//!
//! Decoding keeps up to 64 bits in a register and looks at the first eight: one table look-up per symbol for the 74
//! symbols of up to eight bits, which is nearly all that headers hold; the others find their length by comparison.

use super::Error;

/// Bits of the code of each octet, then of the end-of-string symbol.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];
const EOS: u16 = 256;
const MAX_BITS: u32 = 30;
const MIN_BITS: usize = 5;
/// Symbols of up to so many bits are found by one look-up.
const FAST_BITS: u32 = 8;

/// The canonical order of the code: symbols by length, then by value.
struct Canon {
    symbols: [u16; 257],
    /// For each length: the first code of a longer length, its bits left-aligned in 32.
    ends: [u64; MAX_BITS as usize + 1],
    /// For each length: its first code, right-aligned, and where its symbols begin.
    first: [(u32, u16); MAX_BITS as usize + 1],
    /// The code of each symbol, right-aligned.
    codes: [u32; 257],
}

const CANON: Canon = {
    let mut canon = Canon {
        symbols: [0; 257],
        ends: [0; MAX_BITS as usize + 1],
        first: [(0, 0); MAX_BITS as usize + 1],
        codes: [0; 257],
    };
    let (mut bits, mut code, mut at) = (1, 0u32, 0);
    while bits <= MAX_BITS as usize {
        code <<= 1;
        canon.first[bits] = (code, at as u16);
        let mut symbol = 0;
        while symbol < 257 {
            if LENGTHS[symbol] as usize == bits {
                canon.symbols[at] = symbol as u16;
                canon.codes[symbol] = code;
                at += 1;
                code += 1;
            }
            symbol += 1;
        }
        canon.ends[bits] = (code as u64) << (32 - bits);
        bits += 1;
    }
    // A complete code: every bit string begins with one symbol, so decoding can only fail at the end.
    assert!(at == 257 && canon.ends[MAX_BITS as usize] == 1 << 32);
    canon
};

/// For each first octet: the symbol and its bits, zero bits when the code is longer.
static FAST: [(u8, u8); 1 << FAST_BITS] = {
    let mut fast = [(0, 0); 1 << FAST_BITS];
    let mut symbol = 0;
    while symbol < 256 {
        let bits = LENGTHS[symbol] as u32;
        if bits <= FAST_BITS {
            let first = (CANON.codes[symbol] << (FAST_BITS - bits)) as usize;
            let mut i = 0;
            while i < 1 << (FAST_BITS - bits) {
                fast[first + i] = (symbol as u8, bits as u8);
                i += 1;
            }
        }
        symbol += 1;
    }
    fast
};
static SLOW: Canon = CANON;
/// The code and the bits of each octet, side by side for the encoder.
static CODES: [(u32, u8); 256] = {
    let mut codes = [(0, 0); 256];
    let mut symbol = 0;
    while symbol < 256 {
        codes[symbol] = (CANON.codes[symbol], LENGTHS[symbol]);
        symbol += 1;
    }
    codes
};

/// Appends the octets that `coded` stands for to `out`: at most 8/5 of its length.
/// # Errors
/// [`Error::HuffmanEos`], [`Error::HuffmanPadding`]; `out` then holds a part.
pub(super) fn decode(coded: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    let start = out.len();
    out.resize(start + coded.len() * 8 / MIN_BITS, 0);
    let mut written = start;
    // The next bits, left-aligned, and how many of them are from `coded`; the others are ones, as padding is.
    let (mut window, mut filled) = (u64::MAX, 0u32);
    let mut input = coded;
    loop {
        if let Some(word) = input.first_chunk::<8>() {
            let fresh = u64::from_be_bytes(*word);
            let octets = (64 - filled) / 8;
            // Of the octet after those only a part fits; it is read again, the same, next time.
            window = (window & !(u64::MAX >> filled)) | fresh >> filled;
            filled += octets * 8;
            input = &input[octets as usize..];
        } else {
            while filled <= 56 {
                let Some((&octet, rest)) = input.split_first() else {
                    break;
                };
                let shift = 56 - filled;
                window = (window & !(0xff << shift)) | u64::from(octet) << shift;
                filled += 8;
                input = rest;
            }
        }
        let last = input.is_empty();
        while filled >= MAX_BITS || last {
            let (symbol, bits) = match FAST[(window >> (64 - FAST_BITS)) as usize] {
                (_, 0) if filled <= FAST_BITS => return finish(window, filled, out, written),
                (_, 0) => match long(window, filled)? {
                    Some((symbol, bits)) => (symbol, u32::from(bits)),
                    None => return finish(window, filled, out, written),
                },
                (symbol, bits) if u32::from(bits) <= filled => (symbol, u32::from(bits)),
                _ => return finish(window, filled, out, written),
            };
            out[written] = symbol;
            written += 1;
            window = window << bits | ((1 << bits) - 1);
            filled -= bits;
        }
    }
}

/// A symbol of more than [`FAST_BITS`]; `None` when the string ends before it does.
#[cold]
fn long(window: u64, filled: u32) -> Result<Option<(u8, u8)>, Error> {
    let top = window >> 32;
    let mut bits = FAST_BITS as usize + 1;
    while top >= SLOW.ends[bits] {
        bits += 1;
    }
    if bits as u32 > filled {
        return Ok(None);
    }
    let (first, at) = SLOW.first[bits];
    let offset = (top >> (32 - bits)) as usize - first as usize;
    match SLOW.symbols[usize::from(at) + offset] {
        EOS => Err(Error::HuffmanEos),
        symbol => Ok(Some((symbol as u8, bits as u8))),
    }
}

/// Judges what is left: fewer than eight ones.
fn finish(window: u64, filled: u32, out: &mut Vec<u8>, written: usize) -> Result<(), Error> {
    out.truncate(written);
    // Below the bits that are left the window holds ones, so that it is all ones exactly when they are.
    if filled < 8 && window == u64::MAX {
        Ok(())
    } else {
        Err(Error::HuffmanPadding)
    }
}

/// Octets that [`encode`] writes.
#[inline]
pub(super) fn encoded_len(plain: &[u8]) -> usize {
    let bits: usize = plain
        .iter()
        .map(|&octet| usize::from(CODES[usize::from(octet)].1))
        .sum();
    bits.div_ceil(8)
}

/// Appends the code of `plain`, padded with ones.
pub(super) fn encode(plain: &[u8], out: &mut Vec<u8>) {
    // The low `held` bits are not written yet; at most 31 stay between octets, and a code has at most 30.
    let (mut pending, mut held) = (0u64, 0u32);
    for &octet in plain {
        let (code, bits) = CODES[usize::from(octet)];
        pending = pending << bits | u64::from(code);
        held += u32::from(bits);
        if held >= 32 {
            held -= 32;
            out.extend_from_slice(&((pending >> held) as u32).to_be_bytes());
        }
    }
    if held % 8 != 0 {
        let padding = 8 - held % 8;
        pending = pending << padding | ((1 << padding) - 1);
        held += padding;
    }
    while held > 0 {
        held -= 8;
        out.push((pending >> held) as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(coded: &[u8]) -> Result<Vec<u8>, Error> {
        let mut out = b"kept".to_vec();
        decode(coded, &mut out).map(|()| out.split_off(4))
    }

    #[test]
    fn every_octet_and_every_pair_of_octets_comes_back() {
        for a in 0..=255 {
            for b in 0..=255 {
                let mut out = Vec::new();
                encode(&[a, b, b'x'], &mut out);
                assert_eq!(out.len(), encoded_len(&[a, b, b'x']));
                assert_eq!(decoded(&out), Ok(vec![a, b, b'x']));
            }
        }
    }

    #[test]
    fn codes_of_the_standard_at_each_end_of_the_table() {
        // RFC 7541 appendix B: '0' is |00000, octet 22 is |11111111|11111111|11111111|111110.
        assert_eq!(CODES[usize::from(b'0')], (0, 5));
        assert_eq!(CODES[22], (0x3fff_fffe, 30));
        assert_eq!(CODES[usize::from(b'z')], (0x7b, 7));
        assert_eq!(CANON.codes[256], 0x3fff_ffff);
    }

    #[test]
    fn padding_is_fewer_than_eight_ones() {
        assert_eq!(decoded(b""), Ok(vec![]));
        // '0' and three ones; then with a zero among them, then with an octet too many.
        assert_eq!(decoded(&[0b0000_0111]), Ok(b"0".to_vec()));
        assert_eq!(decoded(&[0b0000_0011]), Err(Error::HuffmanPadding));
        assert_eq!(decoded(&[0b0000_0111, 0xff]), Err(Error::HuffmanPadding));
        assert_eq!(decoded(&[0xff]), Err(Error::HuffmanPadding));
        assert_eq!(decoded(&[0xff; 3]), Err(Error::HuffmanPadding));
    }

    #[test]
    fn the_end_of_string_symbol_is_refused_wherever_it_stands() {
        assert_eq!(decoded(&[0xff; 4]), Err(Error::HuffmanEos));
        assert_eq!(decoded(&[0xff; 40]), Err(Error::HuffmanEos));
        assert_eq!(
            decoded(&[0b0000_0111, 0xff, 0xff, 0xff, 0xff]),
            Err(Error::HuffmanEos)
        );
    }

    #[test]
    fn what_is_not_the_encoders_output_is_refused() {
        // Three octets exhaustively: what decodes must encode to the same three octets.
        for word in 0..1u32 << 24 {
            let coded = &word.to_be_bytes()[1..];
            let mut plain = Vec::new();
            if decode(coded, &mut plain).is_ok() {
                let mut again = Vec::new();
                encode(&plain, &mut again);
                assert_eq!(again, coded);
            }
        }
    }
}
