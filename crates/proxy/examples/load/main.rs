//! The applications and the load generators of `make bench`, small enough that neither is what is measured.
//!
//! `load serve KIND ADDRESS [BYTES]` is an application: `http` answers every HTTP/1.1 request with BYTES octets, `grpc`
//! echoes every call, `echo` every octet, `sink` swallows a connection and says at its end how much it was.
//!
//! `load run KIND NAME=VALUE…` is a client (KIND as above, `short` for a TCP connection for each exchange, `idle` and
//! `hold` for HTTP and TCP connections that do one exchange and are then held). It warms up, prints `start`, measures,
//! and prints one JSON object. Every answer is checked: status, exact length, `grpc-status`, echoed octets, the count
//! that the sink confirms. With `rate` the loop is open: requests begin at random moments (Poisson), and latency counts
//! from the moment at which a request was meant to begin, so that a proxy which stalls cannot hide it.

#![allow(clippy::unwrap_used)] // a measuring tool: what goes wrong ends it

mod frames;
mod grpc;
mod http1;
mod plan;
mod tcp;

use std::process::exit;
use std::rc::Rc;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};

use crate::plan::Plan;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .unwrap();
    match words.as_slice() {
        ["serve", kind, address, rest @ ..] => {
            let bytes = rest.first().map_or(0, |bytes| plan::number(bytes));
            runtime.block_on(serve(kind, address, bytes));
        }
        ["run", kind, settings @ ..] => {
            let plan = Plan::parse(settings);
            runtime.block_on(run(kind, Rc::new(plan)));
        }
        _ => usage(),
    }
}

fn usage() -> ! {
    eprintln!("load serve http|grpc|echo|sink ADDRESS [BYTES]");
    eprintln!("load run http|grpc|sink|short|idle|hold {}", plan::SETTINGS);
    exit(2)
}

/// Runs an application for ever. HOST, when set, replaces the address's host: a pod's address is its own.
async fn serve(kind: &str, address: &str, bytes: usize) {
    let (mut host, port) = address.rsplit_once(':').unwrap_or_else(|| usage());
    let pod = std::env::var("HOST").unwrap_or_default();
    if !pod.is_empty() {
        host = &pod;
    }
    let listener = TcpListener::bind(format!("{host}:{port}")).await.unwrap();
    let answer: Rc<[u8]> = http1::answer(bytes).into();
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            continue;
        };
        let _ = socket.set_nodelay(true);
        let answer = answer.clone();
        match kind {
            "http" => tokio::task::spawn_local(async move { http1::serve(socket, &answer).await }),
            "grpc" => tokio::task::spawn_local(grpc::serve(socket)),
            "echo" => tokio::task::spawn_local(tcp::echo(socket)),
            "sink" => tokio::task::spawn_local(tcp::sink(socket)),
            _ => usage(),
        };
    }
}

async fn run(kind: &str, plan: Rc<Plan>) {
    let work = plan.begin();
    let clients: Vec<_> = (0..plan.connections)
        .map(|_| {
            let (plan, work) = (plan.clone(), work.clone());
            match kind {
                "http" => tokio::task::spawn_local(http1::run(plan, work)),
                "grpc" => tokio::task::spawn_local(grpc::run(plan, work)),
                "sink" => tokio::task::spawn_local(tcp::bulk(plan, work)),
                "short" => tokio::task::spawn_local(tcp::short(plan, work)),
                "hold" => tokio::task::spawn_local(tcp::hold(plan, work)),
                "idle" => tokio::task::spawn_local(http1::idle(plan, work)),
                _ => usage(),
            }
        })
        .collect();
    work.watch(&plan).await;
    for client in clients {
        client.await.unwrap();
    }
    println!("{}", work.report());
}
