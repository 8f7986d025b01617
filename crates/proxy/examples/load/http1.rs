//! HTTP/1.1: the application, the client, and connections that are only held.

use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::plan::{Plan, Work};

const END: &[u8] = b"\r\n\r\n";

pub fn answer(bytes: usize) -> Vec<u8> {
    let body = "x".repeat(bytes);
    format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n{body}").into_bytes()
}

/// Answers every request of a connection. Requests have no bodies.
pub async fn serve(mut socket: TcpStream, answer: &[u8]) {
    let mut input = Vec::with_capacity(16 * 1024);
    let mut output = Vec::new();
    while socket.read_buf(&mut input).await.is_ok_and(|read| read > 0) {
        output.clear();
        while let Some(end) = end_of_head(&input) {
            input.drain(..end);
            output.extend_from_slice(answer);
        }
        if !output.is_empty() && socket.write_all(&output).await.is_err() {
            return;
        }
    }
}

fn end_of_head(input: &[u8]) -> Option<usize> {
    input
        .windows(END.len())
        .position(|window| window == END)
        .map(|start| start + END.len())
}

/// One connection's requests, one after the other. A connection that breaks is an error and is opened again.
pub async fn run(plan: Rc<Plan>, work: Rc<Work>) {
    let request = request(&plan);
    let mut buffer = Vec::with_capacity(plan.bytes + 4096);
    while !work.over() {
        let Some(mut socket) = connect(&plan, &work).await else {
            continue;
        };
        while let Some(begun) = work.next().await {
            if exchange(&mut socket, &request, plan.bytes, &mut buffer).await {
                work.answered(begun);
            } else {
                work.failed();
                break;
            }
        }
        if work.is_open() && work.over() {
            return;
        }
    }
}

/// One exchange, then the connection is held until the end.
pub async fn idle(plan: Rc<Plan>, work: Rc<Work>) {
    // Spread over the time for warming up, so that it is no burst of handshakes.
    tokio::time::sleep(plan.warm.mul_f64(0.8 * fastrand::f64())).await;
    let mut buffer = Vec::with_capacity(plan.bytes + 4096);
    let Some(mut socket) = connect(&plan, &work).await else {
        return;
    };
    if !exchange(&mut socket, &request(&plan), plan.bytes, &mut buffer).await {
        work.failed();
    }
    while !work.over() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn request(plan: &Plan) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nhost: {}\r\n\r\n", plan.host).into_bytes()
}

pub async fn connect(plan: &Plan, work: &Work) -> Option<TcpStream> {
    if let Ok(socket) = TcpStream::connect(plan.address).await {
        let _ = socket.set_nodelay(true);
        return Some(socket);
    }
    work.failed();
    tokio::time::sleep(Duration::from_millis(50)).await;
    None
}

/// Sends one request and reads its answer; false unless it is a 200 of exactly the expected length.
async fn exchange(
    socket: &mut TcpStream,
    request: &[u8],
    bytes: usize,
    buffer: &mut Vec<u8>,
) -> bool {
    buffer.clear();
    if socket.write_all(request).await.is_err() {
        return false;
    }
    loop {
        if !socket.read_buf(buffer).await.is_ok_and(|read| read > 0) {
            return false;
        }
        let Some(head) = end_of_head(buffer) else {
            continue;
        };
        if buffer.len() >= head + bytes {
            return buffer.len() == head + bytes && buffer.starts_with(b"HTTP/1.1 200");
        }
    }
}
