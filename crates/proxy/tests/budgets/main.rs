//! Budgets that are counted, not timed: allocations per request and proxy, the size of a request's future. The numbers
//! are in `budgets.toml` at the root of the repository.
//!
//! A count is that of one thread. Client and application share the thread of the proxy beside them; they are written so
//! as to allocate nothing.

#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
#[path = "../control/control_plane.rs"]
mod control_plane;
#[allow(dead_code)]
#[path = "../control/mesh.rs"]
mod mesh;
#[allow(dead_code)]
#[path = "../data_path/rig.rs"]
mod rig;
#[path = "../control/serving.rs"]
mod serving;
mod traces;
mod updates;

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::mpsc;

use allocation_counter::measure;
use rcgen::KeyPair;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::oneshot;
use tulle_proxy::http::serve::MAX_REQUEST_FUTURE;

const REQUEST: &[u8] = b"GET /api/list?page=2 HTTP/1.1\r\nHost: voting\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n";
const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\nContent-Type: text/plain\r\n\r\nhello, world\n";

const WARM_UP: usize = 200;
const REQUESTS: usize = 500;

/// A number of the file.
fn budget(name: &str) -> f64 {
    let file = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../budgets.toml"))
        .unwrap();
    let mut pairs = file.lines().filter_map(|line| line.split_once('='));
    let number =
        pairs.find_map(|(key, value)| (key.trim() == name).then(|| value.trim().parse().unwrap()));
    number.unwrap_or_else(|| panic!("budgets.toml has no {name}"))
}

/// Fails when a number is exceeded, and says by how much.
fn hold(name: &str, measured: f64) {
    let allowed = budget(name);
    println!("{name} = {measured:.2} (budget {allowed})");
    assert!(
        measured <= allowed,
        "{name}: measured {measured:.2}, budgets.toml allows {allowed}: {:.2} too much",
        measured - allowed
    );
}

fn runtime() -> LocalRuntime {
    Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .unwrap()
}

async fn application(mut stream: TcpStream) {
    let mut bytes = [0; 4096];
    while let Ok(1..) = stream.read(&mut bytes).await {
        stream.write_all(ANSWER).await.unwrap();
    }
}

async fn exchange(client: &mut TcpStream, times: usize) {
    exchange_of(client, REQUEST, times).await;
}

async fn exchange_of(client: &mut TcpStream, request: &[u8], times: usize) {
    let mut bytes = [0; 4096];
    for _ in 0..times {
        client.write_all(request).await.unwrap();
        let mut held = 0;
        while !bytes[..held].ends_with(b"hello, world\n") {
            held += client.read(&mut bytes[held..]).await.unwrap();
        }
    }
}

/// Allocations of this thread per request, when all parts live in it.
fn counted(client: impl Future<Output = (TcpStream, rig::Pod)>) -> f64 {
    let runtime = runtime();
    let (mut client, _pod) = runtime.block_on(async {
        let (mut client, pod) = client.await;
        exchange(&mut client, WARM_UP).await;
        (client, pod)
    });
    per_request(|| runtime.block_on(exchange(&mut client, REQUESTS)))
}

fn per_request(work: impl FnOnce()) -> f64 {
    measured(REQUESTS, work)
}

/// Allocations of this thread per request of so many.
fn measured(requests: usize, work: impl FnOnce()) -> f64 {
    let done = Rc::new(Cell::new(false));
    let told = done.clone();
    let counts = measure(move || {
        work();
        told.set(true);
    });
    assert!(done.get());
    counts.count_total as f64 / requests as f64
}

#[test]
fn an_http1_request_in_costs_what_it_may() {
    let count = counted(async {
        let pod = rig::Mesh::new().pod("voting").await;
        rig::app(pod.address(18080), application).await;
        (pod.enter().await, pod)
    });
    hold("allocations_inbound_h1", count);
}

#[test]
fn an_http1_request_out_costs_what_it_may() {
    let count = counted(async {
        let mesh = rig::Mesh::new();
        let pod = mesh.pod("web").await;
        rig::app(pod.address(18080), application).await;
        mesh.service("voting", &[rig::plain(pod.address(18080))]);
        (pod.call().await, pod)
    });
    hold("allocations_outbound_h1", count);
}

/// Client and outbound proxy in this thread, inbound proxy and application in another; both are counted meanwhile.
#[test]
fn a_request_between_two_proxies_costs_each_what_it_may() {
    let key = KeyPair::generate().unwrap();
    let pem = key.serialize_pem();
    let (tell, told) = mpsc::channel::<SocketAddr>();
    let (begin, begun) = oneshot::channel::<()>();
    let (end, ended) = oneshot::channel::<()>();
    let (counting, counts) = mpsc::channel::<()>();
    let inbound = std::thread::spawn(move || {
        let runtime = runtime();
        let _pod = runtime.block_on(async {
            let pod = rig::Mesh::with_key(KeyPair::from_pem(&pem).unwrap())
                .pod("voting")
                .await;
            rig::app(pod.address(18080), application).await;
            tell.send(pod.address(80)).unwrap();
            begun.await.unwrap();
            pod
        });
        counting.send(()).unwrap();
        per_request(|| runtime.block_on(ended).unwrap())
    });
    let runtime = runtime();
    let (mut client, _pod) = runtime.block_on(async {
        let mesh = rig::Mesh::with_key(key);
        let pod = mesh.pod("web").await;
        let (mut endpoint, address) = (
            mesh.pod("voting").await.endpoint(80),
            rig::plain(told.recv().unwrap()),
        );
        endpoint.addr = address.addr;
        mesh.service("voting", &[endpoint]);
        let mut client = pod.call().await;
        exchange(&mut client, WARM_UP).await;
        (client, pod)
    });
    begin.send(()).unwrap();
    counts.recv().unwrap();
    let outbound = per_request(|| runtime.block_on(exchange(&mut client, REQUESTS)));
    end.send(()).unwrap();
    let inbound = inbound.join().unwrap();
    hold("allocations_outbound_mesh", outbound);
    hold("allocations_inbound_mesh", inbound);
}

/// The pipelines do not compile when the future is larger than the constant; the constant is the file's.
#[test]
fn the_limit_of_a_requests_future_is_the_budget() {
    hold("request_future_bytes", MAX_REQUEST_FUTURE as f64);
}
