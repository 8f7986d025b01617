//! The budget: no allocation per header block in steady state, and next to none held before the first. Counted.

#![allow(clippy::unwrap_used)]

use allocation_counter::measure;
use tulle_http::hpack::{Decoder, Encoder, Limits};

const REQUEST: &[(&str, &str)] = &[
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/emojivoto.v1.EmojiService/ListAll"),
    (":authority", "emoji-svc.emojivoto:8080"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
    ("grpc-timeout", "1S"),
    ("cookie", "session=9f8e7d6c5b4a"),
];

fn carry(encoder: &mut Encoder, decoder: &mut Decoder, out: &mut Vec<u8>, unique: u32) {
    out.clear();
    encoder.begin_block(out);
    for (name, value) in REQUEST {
        encoder.encode_field(name.as_bytes(), value.as_bytes(), out);
    }
    // Values that never come again, of many lengths, some too long for the table; they also fill and turn it over.
    let digits = [b'0' + (unique % 10) as u8; 1500];
    let length = unique as usize * 37 % 1500;
    encoder.encode_field(b"x-request-id", &digits[..length % 60], out);
    encoder.encode_field(b"user-agent", &digits[..length], out);
    let mut fields = 0;
    decoder
        .decode(out, &Limits::default(), |_| fields += 1)
        .unwrap();
    assert_eq!(fields, REQUEST.len() + 2);
}

#[test]
fn a_block_allocates_nothing_in_steady_state() {
    let (mut encoder, mut decoder) = (Encoder::new(4096), Decoder::new(4096));
    let mut out = Vec::with_capacity(8192);
    (0..500).for_each(|i| carry(&mut encoder, &mut decoder, &mut out, i));
    let counted =
        measure(|| (500..2500).for_each(|i| carry(&mut encoder, &mut decoder, &mut out, i)));
    assert_eq!(counted.count_total, 0, "in 2,000 blocks: {counted:?}");
}

#[test]
fn a_connection_that_sent_no_header_holds_none() {
    let counted = measure(|| {
        std::hint::black_box((Encoder::new(4096), Decoder::new(4096)));
    });
    assert_eq!(counted.count_total, 0);
    assert!(size_of::<Decoder>() <= 128, "{}", size_of::<Decoder>());
    assert!(size_of::<Encoder>() <= 800, "{}", size_of::<Encoder>());
}

#[test]
fn a_large_block_does_not_keep_its_memory() {
    let mut decoder = Decoder::new(4096);
    let mut out = Vec::new();
    Encoder::new(4096).encode_field(b"cookie", &[b'a'; 60_000], &mut out);
    let counted = measure(|| decoder.decode(&out, &Limits::default(), |_| ()).unwrap());
    assert!(counted.bytes_max >= 60_000);
    assert_eq!(counted.bytes_current, 0);
}
