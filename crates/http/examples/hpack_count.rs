//! Instructions per header block. Meant to run under callgrind, twice, so that start-up cancels out:
//!
//! ```text
//! cargo build --release -p tulle-http --example hpack_count
//! for n in 1000 11000; do
//!   valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/examples/hpack_count encode $n
//! done   # (collected(11000) - collected(1000)) / 10000
//! ```
//!
//! Steps: `encode` and `decode` of a gRPC request whose fields are in the tables but for a trace's identifier;
//! `decode-literal` of the same block as a connection's first: everything Huffman coded.

use std::hint::black_box;
use std::process::ExitCode;

use tulle_http::hpack::{Decoder, Encoder, Error, Limits};

const REQUEST: [(&str, &str); 8] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/emojivoto.v1.EmojiService/ListAll"),
    (":authority", "emoji-svc.emojivoto:8080"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
    ("user-agent", "grpc-go/1.83.1"),
    (
        "traceparent",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ),
];

fn encode(encoder: &mut Encoder, number: u32, out: &mut Vec<u8>) {
    out.clear();
    encoder.begin_block(out);
    for (name, value) in &REQUEST[..7] {
        encoder.encode_field(name.as_bytes(), value.as_bytes(), out);
    }
    let mut trace = *b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    trace[3..7].copy_from_slice(&number.to_be_bytes().map(|octet| b'a' + octet % 16));
    encoder.encode_field(REQUEST[7].0.as_bytes(), &trace, out);
}

fn run(step: &str, count: u32) -> Result<(), Error> {
    let (mut encoder, mut decoder) = (Encoder::new(4096), Decoder::new(4096));
    let (mut out, mut first) = (Vec::with_capacity(1024), Vec::new());
    let limits = Limits::default();
    encode(&mut encoder, 0, &mut first);
    decoder.decode(&first, &limits, |_| ())?;
    for number in 0..3 {
        encode(&mut encoder, number, &mut out);
        decoder.decode(&out, &limits, |_| ())?;
    }
    for number in 0..count {
        match step {
            "encode" => encode(&mut encoder, number, &mut out),
            "decode" => decoder.decode(&out, &limits, |field| {
                black_box(field.value);
            })?,
            _ => decoder.decode(&first, &limits, |field| {
                black_box(field.value);
            })?,
        }
        black_box(&out);
    }
    Ok(())
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let step = arguments.next().unwrap_or_else(|| "decode".to_owned());
    let count = arguments
        .next()
        .and_then(|count| count.parse().ok())
        .unwrap_or(1000);
    if !["encode", "decode", "decode-literal"].contains(&step.as_str()) {
        eprintln!("hpack_count: no step {step}; there are encode, decode and decode-literal");
        return ExitCode::from(64);
    }
    match run(&step, count) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hpack_count {step}: {error}");
            ExitCode::from(2)
        }
    }
}
