//! The application and the load generator of `make bench`, small enough that neither is what is measured.
//!
//! `load serve ADDRESS BYTES` answers every HTTP/1.1 request with a body of BYTES octets (HOST, when set, replaces the
//! address's host). `load run ADDRESS HOST CONNECTIONS SECONDS BYTES` keeps CONNECTIONS requests in flight (closed
//! loop), checks every answer (status 200, exact length) and prints one JSON line: requests, errors, seconds, p50_us,
//! p99_us.

#![allow(clippy::unwrap_used)] // a measuring tool: what goes wrong ends it

use std::net::SocketAddr;
use std::process::exit;
use std::rc::Rc;
use std::time::{Duration, Instant};

use std::cell::RefCell;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};

const END: &[u8] = b"\r\n\r\n";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .unwrap();
    match words.as_slice() {
        ["serve", address, bytes] => runtime.block_on(serve(address, number(bytes))),
        ["run", address, host, connections, seconds, bytes] => {
            let plan = Plan {
                address: address.parse().unwrap_or_else(|_| usage()),
                request: format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n").into_bytes(),
                body: number(bytes),
                until: Instant::now() + Duration::from_secs(number(seconds) as u64),
            };
            runtime.block_on(run(Rc::new(plan), number(connections)));
        }
        _ => usage(),
    }
}

fn usage() -> ! {
    eprintln!("load serve ADDRESS BYTES | load run ADDRESS HOST CONNECTIONS SECONDS BYTES");
    exit(2)
}

fn number(text: &str) -> usize {
    text.parse().unwrap_or_else(|_| usage())
}

async fn serve(address: &str, bytes: usize) {
    let (mut host, port) = address.rsplit_once(':').unwrap_or_else(|| usage());
    let pod = std::env::var("HOST").unwrap_or_default();
    if !pod.is_empty() {
        host = &pod;
    }
    let listener = TcpListener::bind(format!("{host}:{port}")).await.unwrap();
    let body = "x".repeat(bytes);
    let answer =
        Rc::new(format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n{body}").into_bytes());
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            continue;
        };
        let answer = answer.clone();
        tokio::task::spawn_local(async move { answer_all(socket, &answer).await });
    }
}

async fn answer_all(mut socket: TcpStream, answer: &[u8]) {
    let _ = socket.set_nodelay(true);
    let mut input = Vec::with_capacity(16 * 1024);
    let mut output = Vec::new();
    while socket.read_buf(&mut input).await.is_ok_and(|read| read > 0) {
        output.clear();
        while let Some(end) = find(&input) {
            input.drain(..end);
            output.extend_from_slice(answer);
        }
        if !output.is_empty() && socket.write_all(&output).await.is_err() {
            return;
        }
    }
}

fn find(input: &[u8]) -> Option<usize> {
    input
        .windows(END.len())
        .position(|window| window == END)
        .map(|start| start + END.len())
}

struct Plan {
    address: SocketAddr,
    request: Vec<u8>,
    body: usize,
    until: Instant,
}

async fn run(plan: Rc<Plan>, connections: usize) {
    let latencies = Rc::new(RefCell::new(Vec::<u32>::with_capacity(1 << 20)));
    let began = Instant::now();
    let workers: Vec<_> = (0..connections)
        .map(|_| tokio::task::spawn_local(client(plan.clone(), latencies.clone())))
        .collect();
    let mut errors = 0_u64;
    for worker in workers {
        errors += worker.await.unwrap();
    }
    let seconds = began.elapsed().as_secs_f64();
    let mut sorted = latencies.borrow_mut();
    sorted.sort_unstable();
    let at = |share: f64| {
        sorted
            .get(((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1)))
            .copied()
    };
    println!(
        "{{\"requests\":{},\"errors\":{errors},\"seconds\":{seconds:.3},\"p50_us\":{},\"p99_us\":{}}}",
        sorted.len(),
        at(0.5).unwrap_or(0),
        at(0.99).unwrap_or(0),
    );
}

/// One connection's closed loop; returns how many answers were wrong. A broken connection is an error and is reopened.
async fn client(plan: Rc<Plan>, latencies: Rc<RefCell<Vec<u32>>>) -> u64 {
    let mut errors = 0;
    let mut buffer = Vec::with_capacity(plan.body + 4096);
    while Instant::now() < plan.until {
        let Ok(mut socket) = TcpStream::connect(plan.address).await else {
            errors += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let _ = socket.set_nodelay(true);
        while Instant::now() < plan.until {
            let sent = Instant::now();
            let right = exchange(&mut socket, &plan, &mut buffer).await;
            if !right {
                errors += 1;
                break;
            }
            latencies
                .borrow_mut()
                .push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
        }
    }
    errors
}

/// Sends one request and reads its answer; false unless it is a 200 of exactly the expected length.
async fn exchange(socket: &mut TcpStream, plan: &Plan, buffer: &mut Vec<u8>) -> bool {
    buffer.clear();
    if socket.write_all(&plan.request).await.is_err() {
        return false;
    }
    loop {
        if !socket.read_buf(buffer).await.is_ok_and(|read| read > 0) {
            return false;
        }
        let Some(head) = find(buffer) else { continue };
        if buffer.len() >= head + plan.body {
            return buffer.len() == head + plan.body && buffer.starts_with(b"HTTP/1.1 200");
        }
    }
}
