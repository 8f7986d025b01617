//! HPACK: the examples of RFC 7541, what a decoder must refuse, the encoder's choices, and round trips by the thousand.

#![allow(clippy::unwrap_used)]

mod choices;
mod examples;
mod random;
mod refusals;

use tulle_http::hpack::{Decoder, Encoder, Error, Limits};

type Pair = (Vec<u8>, Vec<u8>);

fn pair(name: &str, value: &str) -> Pair {
    (name.into(), value.into())
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<Pair>, Error> {
    let mut pairs = Vec::new();
    decoder
        .decode(block, &Limits::default(), |field| {
            pairs.push((field.name.to_vec(), field.value.to_vec()));
        })
        .map(|()| pairs)
}

fn encode(encoder: &mut Encoder, pairs: &[Pair]) -> Vec<u8> {
    let mut out = Vec::new();
    encoder.begin_block(&mut out);
    for (name, value) in pairs {
        encoder.encode_field(name, value, &mut out);
    }
    out
}

/// Octets of a block written as hexadecimal digits, white space ignored.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(|digit| !digit.is_ascii_whitespace())
        .map(|digit| (digit as char).to_digit(16).unwrap() as u8)
        .collect();
    digits.chunks(2).map(|two| two[0] << 4 | two[1]).collect()
}
