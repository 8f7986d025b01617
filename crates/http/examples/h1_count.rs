//! Instructions per message of the HTTP/1.1 codec. Meant to run under callgrind, twice, so that start-up cancels out:
//!
//! ```text
//! cargo build --release -p tulle-http --example h1_count
//! for n in 1000 11000; do
//!   valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/examples/h1_count decode-request $n
//! done   # (collected(11000) - collected(1000)) / 10000
//! ```
//!
//! Steps: `decode-request`, `carry-request` (decode, hygiene, one header added, encode), `decode-response`,
//! `carry-response` (decode with body, hop-by-hop removal, encode), `exchange` (both carries: one proxy, one request).

use std::hint::black_box;
use std::process::ExitCode;

use bytes::BytesMut;
use tulle_http::h1::{self, Answering, Asked, Decoder, Event, Persist};
use tulle_http::hop::{self, UpgradeField};
use tulle_http::{Error, Head, Limits, MethodKind, Version, l5d};

const GET: &[u8] = b"GET /api/list?page=2 HTTP/1.1\r\nHost: web-svc.emojivoto:80\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\
    Accept-Encoding: gzip, deflate, br\r\nX-Request-Id: 6f1d8a2e-0f7b-4c0e-8a52-3a1a9b0f2c11\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nDate: Mon, 23 Nov 2026 06:00:00 GMT\r\nServer: tulle\r\nContent-Type: text/plain\r\n\
    Content-Length: 12\r\n\r\nhello, world";

struct Proxy {
    downstream: Decoder,
    upstream: Decoder,
    head: Head,
    input: BytesMut,
    out: Vec<u8>,
}

impl Proxy {
    fn decode_request(&mut self) -> Result<h1::Framing, Error> {
        self.input.extend_from_slice(GET);
        let framing = match self.downstream.next(&mut self.input, &mut self.head)? {
            Event::Head(framing) => framing,
            event => unreachable!("{event:?}"),
        };
        let end = self.downstream.next(&mut self.input, &mut self.head)?;
        debug_assert_eq!(end, Event::End);
        // Take the room of what was read back: the whole buffer is free again.
        self.input.reserve(1024);
        Ok(framing)
    }

    fn carry_request(&mut self) -> Result<(), Box<dyn std::error::Error>> {
        let framing = self.decode_request()?;
        l5d::strip_unbelievable(&mut self.head, l5d::Peer::Untrusted);
        l5d::strip_controls(&mut self.head);
        hop::strip(&mut self.head, UpgradeField::Drop);
        self.head.push(
            "l5d-client-id",
            "web.emojivoto.serviceaccount.identity.linkerd.cluster.local",
        )?;
        self.out.clear();
        h1::encode_request(&self.head, framing.body, Persist::KeepAlive, &mut self.out)?
            .finish(None, &mut self.out)?;
        black_box(&self.out);
        Ok(())
    }

    fn response(&mut self, carry: bool) -> Result<(), Box<dyn std::error::Error>> {
        self.input.extend_from_slice(ANSWER);
        self.upstream.expect(Asked::default());
        let mut body = None;
        self.out.clear();
        loop {
            match self.upstream.next(&mut self.input, &mut self.head)? {
                Event::Head(framing) if carry => {
                    hop::strip(&mut self.head, UpgradeField::Drop);
                    let to = Answering {
                        method: MethodKind::Other,
                        version: Version::Http11,
                    };
                    body = Some(h1::encode_response(
                        &self.head,
                        to,
                        framing.body,
                        Persist::KeepAlive,
                        &mut self.out,
                    )?);
                }
                Event::Head(framing) => drop(black_box(framing)),
                Event::Data(data) => match &mut body {
                    Some(body) => body.data(&data, &mut self.out)?,
                    None => drop(black_box(data)),
                },
                Event::End => break,
                event => unreachable!("{event:?}"),
            }
        }
        if let Some(body) = body {
            body.finish(None, &mut self.out)?;
        }
        black_box(&self.out);
        self.input.reserve(1024);
        Ok(())
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let step = arguments.next().unwrap_or_else(|| "exchange".to_owned());
    let count: u32 = arguments
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(1000);
    let limits = Limits::default();
    let mut proxy = Proxy {
        downstream: Decoder::server(limits),
        upstream: Decoder::client(limits),
        head: Head::new(),
        input: BytesMut::with_capacity(16 * 1024),
        out: Vec::with_capacity(4096),
    };
    for _ in 0..count {
        let done = match step.as_str() {
            "decode-request" => proxy.decode_request().map(drop).map_err(Into::into),
            "carry-request" => proxy.carry_request(),
            "decode-response" => proxy.response(false),
            "carry-response" => proxy.response(true),
            "exchange" => proxy.carry_request().and_then(|()| proxy.response(true)),
            _ => Err("unknown step: decode-request, carry-request, decode-response, carry-response or exchange".into()),
        };
        if let Err(error) = done {
            eprintln!("h1_count {step}: {error}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
