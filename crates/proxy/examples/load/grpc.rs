//! gRPC, unary: an application that echoes, and a client with many calls at once on a connection.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tulle_http::hpack::{Decoder, Limits};

use crate::frames::{
    self, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, Link, PREFACE, RST_STREAM,
};
use crate::http1::connect;
use crate::plan::{Plan, Work};

const READ: usize = 64 * 1024;
/// `:status: 200` and `content-type: application/grpc`, not indexed.
const ANSWER: &[u8] = b"\x88\x0f\x10\x10application/grpc";
/// `grpc-status: 0`, not indexed.
const TRAILERS: &[u8] = b"\x00\x0bgrpc-status\x010";

/// Echoes every call of a connection.
pub async fn serve(mut socket: TcpStream) {
    let mut link = Link::new(false);
    let (mut input, mut bodies, mut late) = (Vec::with_capacity(READ), HashMap::new(), Vec::new());
    let mut greeted = false;
    while socket.read_buf(&mut input).await.is_ok_and(|read| read > 0) {
        let mut used = 0;
        if !greeted && input.len() >= PREFACE.len() {
            (greeted, used) = (true, PREFACE.len());
        }
        while let Some((frame, length)) = frames::first(&input[used..]).filter(|_| greeted) {
            if !link.take(&frame) {
                return;
            }
            match frame.kind {
                DATA => {
                    let body: &mut Vec<u8> = bodies.entry(frame.stream).or_default();
                    body.extend_from_slice(frame.payload);
                    if frame.ends_stream() {
                        late.push((frame.stream, std::mem::take(body)));
                        bodies.remove(&frame.stream);
                    }
                }
                RST_STREAM => drop(bodies.remove(&frame.stream)),
                _ => {}
            }
            used += length;
        }
        input.drain(..used);
        late.retain(|(stream, body)| !echo(&mut link, *stream, body));
        if !link.out.is_empty() && socket.write_all(&link.out).await.is_err() {
            return;
        }
        link.out.clear();
    }
}

/// False when the window does not allow it yet.
fn echo(link: &mut Link, stream: u32, body: &[u8]) -> bool {
    let may = link.may_send(body.len());
    if may {
        frames::put(&mut link.out, HEADERS, END_HEADERS, stream, ANSWER);
        frames::put(&mut link.out, DATA, 0, stream, body);
        frames::put(
            &mut link.out,
            HEADERS,
            END_HEADERS | END_STREAM,
            stream,
            TRAILERS,
        );
    }
    may
}

/// One call that waits for its answer.
struct Call {
    begun: Instant,
    status: bool,
    grpc_status: bool,
    body: usize,
}

/// Calls on one connection, `streams` at once. A connection that breaks fails its calls and is opened again.
pub async fn run(plan: Rc<Plan>, work: Rc<Work>) {
    while !work.over() {
        let Some(socket) = connect(&plan, &work).await else {
            continue;
        };
        Client::new(&plan, &work).run(socket).await;
    }
}

struct Client<'c> {
    plan: &'c Plan,
    work: &'c Work,
    link: Link,
    head: Vec<u8>,
    message: Vec<u8>,
    calls: HashMap<u32, Call>,
    next: u32,
    heads: Decoder,
    block: Vec<u8>,
}

impl<'c> Client<'c> {
    fn new(plan: &'c Plan, work: &'c Work) -> Self {
        let mut head = b"\x83\x86".to_vec();
        literal(&mut head, &[0x04], b"/bench.Echo/Unary");
        literal(&mut head, &[0x01], plan.host.as_bytes());
        literal(&mut head, &[0x0f, 0x10], b"application/grpc");
        literal(&mut head, b"\x00\x02te", b"trailers");
        let mut message = vec![0];
        message.extend_from_slice(&u32::try_from(plan.bytes).unwrap().to_be_bytes());
        message.resize(message.len() + plan.bytes, b'x');
        Client {
            plan,
            work,
            link: Link::new(true),
            head,
            message,
            calls: HashMap::new(),
            next: 1,
            heads: Decoder::new(4096),
            block: Vec::new(),
        }
    }

    async fn run(mut self, mut socket: TcpStream) {
        let mut input = Vec::with_capacity(READ);
        loop {
            if !self.work.is_open() {
                while self.calls.len() < self.plan.streams && !self.work.over() {
                    if !self.call(Instant::now()) {
                        break;
                    }
                }
            }
            if !self.link.out.is_empty() {
                if socket.write_all(&self.link.out).await.is_err() {
                    return self.broken();
                }
                self.link.out.clear();
            }
            if self.calls.is_empty() && self.work.over() {
                return;
            }
            let asks = self.work.is_open() && self.calls.len() < self.plan.streams;
            tokio::select! {
                read = socket.read_buf(&mut input) => {
                    if !read.is_ok_and(|read| read > 0) || !self.take(&mut input) {
                        return self.broken();
                    }
                }
                begun = self.work.next(), if asks => match begun {
                    Some(begun) => drop(self.call(begun)),
                    None if self.calls.is_empty() => return,
                    None => tokio::time::sleep(std::time::Duration::from_millis(1)).await,
                },
            }
        }
    }

    fn call(&mut self, begun: Instant) -> bool {
        if !self.link.may_send(self.message.len()) {
            return false;
        }
        let (stream, out) = (self.next, &mut self.link.out);
        frames::put(out, HEADERS, END_HEADERS, stream, &self.head);
        frames::put(out, DATA, END_STREAM, stream, &self.message);
        let call = Call {
            begun,
            status: false,
            grpc_status: false,
            body: 0,
        };
        self.calls.insert(stream, call);
        self.next += 2;
        true
    }

    fn broken(&self) {
        for _ in 0..self.calls.len().max(1) {
            self.work.failed();
        }
    }

    /// Takes in what has come; false when the connection is of no use any more.
    fn take(&mut self, input: &mut Vec<u8>) -> bool {
        let mut used = 0;
        while let Some((frame, length)) = frames::first(&input[used..]) {
            used += length;
            if !self.link.take(&frame) {
                return false;
            }
            match frame.kind {
                HEADERS | CONTINUATION => {
                    self.block.extend_from_slice(frame.payload);
                    if frame.flags & END_HEADERS != 0 && !self.decode(frame.stream) {
                        return false;
                    }
                }
                DATA => {
                    if let Some(call) = self.calls.get_mut(&frame.stream) {
                        call.body += frame.payload.len();
                    }
                }
                RST_STREAM => {
                    self.calls.remove(&frame.stream);
                    self.work.failed();
                }
                _ => {}
            }
            if matches!(frame.kind, HEADERS | DATA) && frame.ends_stream() {
                self.end(frame.stream);
            }
        }
        input.drain(..used);
        true
    }

    /// Reads the fields of an answer's head or trailers.
    fn decode(&mut self, stream: u32) -> bool {
        let call = self.calls.get_mut(&stream);
        let (mut status, mut grpc_status) = (false, false);
        let decoded = self.heads.decode(&self.block, &Limits::default(), |field| {
            status |= field.name == b":status" && field.value == b"200";
            grpc_status |= field.name == b"grpc-status" && field.value == b"0";
        });
        self.block.clear();
        if let Some(call) = call {
            call.status |= status;
            call.grpc_status |= grpc_status;
        }
        decoded.is_ok()
    }

    fn end(&mut self, stream: u32) {
        match self.calls.remove(&stream) {
            Some(call) if call.status && call.grpc_status && call.body == self.message.len() => {
                self.work.answered(call.begun);
            }
            _ => self.work.failed(),
        }
    }
}

/// A literal field without indexing.
fn literal(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.push(u8::try_from(value.len()).unwrap());
    out.extend_from_slice(value);
}
