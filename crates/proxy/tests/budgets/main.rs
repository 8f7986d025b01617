//! Budgets that are counted, not timed: allocations per request. Everything of the test runs in one thread and is
//! counted together, the client and the application included; those two are written so as to allocate nothing.
//!
//! A number here changes only with a reason, in the commit that changes it.

#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
#[path = "../data_path/rig.rs"]
mod rig;

use std::cell::Cell;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};

/// HTTP/1 in, HTTP/1 out: nothing.
const ONE_HOP: f64 = 0.0;
/// HTTP/1, carried in HTTP/2 under TLS, HTTP/1: both proxies together. Nearly all are the `h2` crate's and `HeaderMap`'s.
const TWO_HOPS: f64 = 26.0;

const REQUEST: &[u8] = b"GET /api/list?page=2 HTTP/1.1\r\nHost: voting\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\nContent-Type: text/plain\r\n\r\nhello, world\n";

async fn application(mut stream: TcpStream) {
    let mut bytes = [0; 4096];
    while let Ok(1..) = stream.read(&mut bytes).await {
        stream.write_all(ANSWER).await.unwrap();
    }
}

async fn exchange(client: &mut TcpStream, times: usize) {
    let mut bytes = [0; 4096];
    for _ in 0..times {
        client.write_all(REQUEST).await.unwrap();
        let mut held = 0;
        while !bytes[..held].ends_with(b"hello, world\n") {
            held += client.read(&mut bytes[held..]).await.unwrap();
        }
    }
}

/// Allocations per request on a connection that has carried requests before.
fn counted(client: impl Future<Output = (TcpStream, Vec<rig::Pod>)>) -> f64 {
    const REQUESTS: usize = 500;
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    let (mut client, pods) = runtime.block_on(async {
        let (mut client, pods) = client.await;
        exchange(&mut client, 200).await;
        (client, pods)
    });
    let done = Rc::new(Cell::new(false));
    let told = done.clone();
    let counts = allocation_counter::measure(move || {
        runtime.block_on(exchange(&mut client, REQUESTS));
        told.set(true);
        // Dropped outside of the measurement it is not, but it frees only.
        drop(runtime);
    });
    assert!(done.get());
    drop(pods);
    counts.count_total as f64 / REQUESTS as f64
}

#[test]
fn a_request_through_one_sidecar_allocates_nothing() {
    let count = counted(async {
        let pod = rig::Mesh::new().pod("voting").await;
        rig::app(pod.address(18080), application).await;
        (pod.enter().await, vec![pod])
    });
    println!("one hop: {count:.2} allocations per request");
    assert!(count <= ONE_HOP + 0.1, "{count:.2} allocations per request, {ONE_HOP} are allowed");
}

#[test]
fn a_request_through_two_sidecars_allocates_what_http2_does() {
    let count = counted(async {
        let mesh = rig::Mesh::new();
        let (web, voting) = (mesh.pod("web").await, mesh.pod("voting").await);
        rig::app(voting.address(18080), application).await;
        mesh.service("voting", &[voting.endpoint(80)]);
        (web.call().await, vec![web, voting])
    });
    println!("two hops: {count:.2} allocations per request");
    assert!(count <= TWO_HOPS, "{count:.2} allocations per request, {TWO_HOPS} are allowed");
}
