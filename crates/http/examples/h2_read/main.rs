//! What our HTTP/2 makes of conversations, for a comparison with another implementation (tests/http2/test_nghttp2.py).
//!
//! `h2_read server|client FIRST COUNT`: one line of JSON per conversation, sound and spoiled, made from the seeds on:
//! what the peer sent, what we understood, what we wrote. `h2_read encode FIRST COUNT`: header blocks of our encoder.
//! `h2_read decode`: reads blocks in hexadecimal, a line each, all of one connection, and writes their fields.

#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::io::BufRead as _;

use tulle_http::Head;
use tulle_http::h2::{Connection, Settings};
use tulle_http::hpack::{Decoder, Encoder, Limits};

#[path = "../../tests/h2_differential/ours.rs"]
#[allow(dead_code)]
mod ours;
#[path = "../../tests/h2_differential/told.rs"]
#[allow(dead_code)]
mod told;
#[path = "../../tests/h2_differential/traffic.rs"]
mod traffic;

use told::{Fields, Message, Told};
use traffic::{Dice, Writer, spoil};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Requests that a client has open.
const STREAMS: u32 = 5;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| {
        words
            .get(at)
            .and_then(|word| word.parse().ok())
            .unwrap_or(0)
    };
    let seeds = number(1)..number(1) + number(2);
    match words.first().map(String::as_str) {
        Some("server") => seeds.for_each(server),
        Some("client") => seeds.for_each(client),
        Some("encode") => encode(seeds),
        Some("decode") => decode(),
        _ => {
            eprintln!("h2_read server|client|encode FIRST COUNT, or h2_read decode");
            std::process::exit(2);
        }
    }
}

fn server(seed: u64) {
    for spoiled in [false, true] {
        let frames = maybe_spoiled(Writer::new(seed).client(), seed, spoiled);
        let wire = [PREFACE, &frames.concat()].concat();
        let mut connection = Connection::server(Settings::default());
        let (told, written) = ours::read_and_write(&mut connection, &wire, 1000);
        tell(seed, spoiled, &wire, &told, &written);
    }
}

fn client(seed: u64) {
    for spoiled in [false, true] {
        let wire = maybe_spoiled(Writer::new(seed).server(STREAMS), seed, spoiled).concat();
        let mut connection = Connection::client(Settings::default());
        let mut head = Head::new();
        head.set_method(b"GET").expect("sound");
        head.set_scheme(b"http").expect("sound");
        head.set_authority(b"web").expect("sound");
        head.set_path(b"/").expect("sound");
        for _ in 0..STREAMS {
            connection
                .open(&head, true)
                .expect("a new connection takes it");
        }
        let (told, written) = ours::read_and_write(&mut connection, &wire, 1000);
        tell(seed, spoiled, &wire, &told, &written);
    }
}

fn maybe_spoiled(frames: Vec<Vec<u8>>, seed: u64, spoiled: bool) -> Vec<Vec<u8>> {
    match spoiled {
        true => spoil(frames, &mut Dice::new(!seed)),
        false => frames,
    }
}

fn tell(seed: u64, spoiled: bool, wire: &[u8], told: &Told, written: &[u8]) {
    let messages: Vec<String> = told
        .messages
        .iter()
        .map(|(id, message)| format!("\"{id}\":{}", shown(message)))
        .collect();
    println!(
        "{{\"seed\":{seed},\"spoiled\":{spoiled},\"lost\":{},\"wire\":\"{}\",\"written\":\"{}\",\"messages\":{{{}}}}}",
        told.lost,
        hex(wire),
        hex(written),
        messages.join(",")
    );
}

fn shown(message: &Message) -> String {
    format!(
        "{{\"start\":\"{}\",\"fields\":{},\"trailers\":{},\"body\":\"{}\",\"end\":\"{:?}\"}}",
        hex(message.start.as_bytes()),
        pairs(&message.fields),
        pairs(&message.trailers),
        hex(&message.body),
        message.end
    )
}

fn pairs(fields: &Fields) -> String {
    let shown: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("[\"{}\",\"{}\"]", hex(name.as_bytes()), hex(value)))
        .collect();
    format!("[{}]", shown.join(","))
}

/// Blocks of one connection, whose table changes its size now and then.
fn encode(seeds: std::ops::Range<u64>) {
    let mut encoder = Encoder::new(4096);
    for seed in seeds {
        let mut dice = Dice::new(seed);
        if dice.roll(10) == 0 {
            encoder.set_max_table(dice.roll(4097));
        }
        let mut block = Vec::new();
        encoder.begin_block(&mut block);
        let mut fields = Fields::new();
        for _ in 0..dice.roll(12) {
            let name = [
                "accept",
                "cookie",
                ":path",
                "x-a",
                "x-request-id",
                "authorization",
            ][dice.roll(6)];
            let value: Vec<u8> = match dice.roll(3) {
                0 => format!("value-{}", dice.roll(20)).into_bytes(),
                1 => (0..dice.roll(40)).map(|_| dice.roll(256) as u8).collect(),
                _ => Vec::new(),
            };
            match dice.roll(8) {
                0 => encoder.encode_sensitive(name.as_bytes(), &value, &mut block),
                _ => encoder.encode_field(name.as_bytes(), &value, &mut block),
            }
            fields.push((name.to_owned(), value));
        }
        println!(
            "{{\"block\":\"{}\",\"fields\":{}}}",
            hex(&block),
            pairs(&fields)
        );
    }
}

fn decode() {
    let mut decoder = Decoder::new(4096);
    for line in std::io::stdin().lock().lines() {
        let block = unhex(line.expect("text").trim());
        let mut fields = Fields::new();
        let read = decoder.decode(&block, &Limits::default(), |field| {
            fields.push((
                String::from_utf8_lossy(field.name).into_owned(),
                field.value.to_vec(),
            ));
        });
        match read {
            Ok(()) => println!("{}", pairs(&fields)),
            Err(error) => println!("\"{}\"", error.reason()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).expect("a hexadecimal digit") as u8;
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| digit(pair[0]) << 4 | digit(pair[1]))
        .collect()
}
