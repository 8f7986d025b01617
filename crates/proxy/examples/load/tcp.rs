//! Octets: a connection that is filled, and connections that carry one exchange each.

use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http1::connect;
use crate::plan::{Plan, Work};

/// What is written at once; a multiple of what a TLS record holds.
const CHUNK: usize = 256 * 1024;

pub async fn echo(mut socket: TcpStream) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = socket.read(&mut buffer).await {
        if socket.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// Reads to the end and answers with the number of octets, so that the sender knows that all have come.
pub async fn sink(mut socket: TcpStream) {
    let mut buffer = vec![0; CHUNK];
    let mut total = 0_u64;
    while let Ok(count @ 1..) = socket.read(&mut buffer).await {
        total += count as u64;
    }
    let _ = socket.write_all(total.to_string().as_bytes()).await;
}

/// Fills a connection until the time is over; the sink has to have seen every octet.
pub async fn bulk(plan: Rc<Plan>, work: Rc<Work>) {
    let chunk = vec![0_u8; CHUNK];
    let Some(mut socket) = connect(&plan, &work).await else {
        return;
    };
    let mut sent = 0_u64;
    while !work.over() {
        if socket.write_all(&chunk).await.is_err() {
            return work.failed();
        }
        sent += chunk.len() as u64;
        work.moved(chunk.len() as u64);
    }
    let mut told = String::new();
    let heard = socket.shutdown().await.is_ok()
        && tokio::time::timeout(Duration::from_secs(10), socket.read_to_string(&mut told))
            .await
            .is_ok();
    if !heard || told.parse() != Ok(sent) {
        work.failed();
    }
}

/// Connection after connection, each with one exchange.
pub async fn short(plan: Rc<Plan>, work: Rc<Work>) {
    let message = vec![b'x'; plan.bytes.max(1)];
    let mut buffer = vec![0; message.len()];
    while !work.over() {
        let begun = Instant::now();
        let right = match TcpStream::connect(plan.address).await {
            Ok(mut socket) => {
                let _ = socket.set_nodelay(true);
                socket.write_all(&message).await.is_ok()
                    && socket.read_exact(&mut buffer).await.is_ok()
                    && buffer == message
                    && socket.shutdown().await.is_ok()
                    && matches!(socket.read(&mut buffer).await, Ok(0))
            }
            Err(_) => false,
        };
        if right {
            work.answered(begun);
        } else {
            work.failed();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A connection with one exchange, which is then held until the end.
pub async fn hold(plan: Rc<Plan>, work: Rc<Work>) {
    // Spread over the time for warming up, so that it is no burst of handshakes.
    tokio::time::sleep(plan.warm.mul_f64(0.8 * fastrand::f64())).await;
    let message = vec![b'x'; plan.bytes.max(1)];
    let mut buffer = vec![0; message.len()];
    let Some(mut socket) = connect(&plan, &work).await else {
        return;
    };
    let right = socket.write_all(&message).await.is_ok()
        && socket.read_exact(&mut buffer).await.is_ok()
        && buffer == message;
    if !right {
        work.failed();
    }
    while !work.over() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
