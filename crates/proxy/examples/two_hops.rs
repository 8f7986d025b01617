//! What two hops cost: `cargo run --release -p tulle-proxy --example two_hops [wrk arguments]`.
//!
//! An outbound worker, an inbound worker and an application, each a thread of its own; `wrk` sends HTTP/1 through both.
//! Prints processor time per request of the two workers together, from the scheduler's own account of the threads, so
//! that neither the load generator nor the application counts. Discovery is scripted; everything else is what runs.

#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
#[path = "../tests/data_path/rig.rs"]
mod rig;

use std::net::SocketAddr;
use std::process::Command;
use std::sync::mpsc;

use rcgen::KeyPair;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, LocalOptions};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let key = KeyPair::generate().unwrap().serialize_pem();
    let (told, tell) = mpsc::channel::<(String, SocketAddr)>();
    let thread = |name: &str, work: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(work)
            .unwrap();
    };
    let inbound = {
        let (key, told) = (key.clone(), told.clone());
        move || {
            on_runtime(async move {
                let mesh = rig::Mesh::with_key(KeyPair::from_pem(&key).unwrap());
                let pod = mesh.pod("voting").await;
                told.send((pod.name.clone(), pod.address(80))).unwrap();
                std::future::pending::<()>().await;
            });
        }
    };
    thread("inbound", Box::new(inbound));
    let (_, voting) = tell.recv().unwrap();
    thread(
        "application",
        Box::new(move || on_runtime(application(SocketAddr::new(voting.ip(), 18080)))),
    );
    let outbound = move || {
        on_runtime(async move {
            let mesh = rig::Mesh::with_key(KeyPair::from_pem(&key).unwrap());
            let pod = mesh.pod("web").await;
            let mut endpoint = rig::plain(voting);
            let like = pod.endpoint(80);
            (endpoint.tls_identity, endpoint.protocol_hint) =
                (like.tls_identity, like.protocol_hint);
            if let Some(identity) = &mut endpoint.tls_identity {
                identity.strategy = Some(
                    tulle_api::destination::tls_identity::Strategy::DnsLikeIdentity(
                        tulle_api::destination::tls_identity::DnsLikeIdentity {
                            name: rig::identity("voting"),
                        },
                    ),
                );
            }
            mesh.service("voting", &[endpoint]);
            told.send((pod.name.clone(), pod.address(4140))).unwrap();
            std::future::pending::<()>().await;
        });
    };
    thread("outbound", Box::new(outbound));
    let (_, web) = tell.recv().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));

    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments = if arguments.is_empty() {
        ["-t1", "-c50", "-d5s"].map(str::to_owned).to_vec()
    } else {
        arguments
    };
    // Both proxies on one core, what surrounds them on the other: as the reference measurements were made.
    for (name, core) in [("outbound", "1"), ("inbound", "1"), ("application", "0")] {
        let task = task(name);
        let id = task.file_name().unwrap().to_str().unwrap();
        Command::new("taskset")
            .args(["-cp", core, id])
            .output()
            .unwrap();
    }
    let (before, waited) = (cpu("outbound") + cpu("inbound"), std::time::Instant::now());
    let output = Command::new("taskset")
        .args(["-c", "0", "wrk"])
        .args(&arguments)
        .args(["-H", "Host: voting"])
        .arg(format!("http://{web}/"))
        .output()
        .unwrap();
    let used = cpu("outbound") + cpu("inbound") - before;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    print!("{text}");
    let requests: f64 = text
        .lines()
        .find_map(|line| line.trim().split_once(" requests in"))
        .map(|(count, _)| count.trim().parse().unwrap())
        .expect("wrk prints how many requests it made");
    println!(
        "{:.1} us per request, both hops; {:.0} % of a core",
        used as f64 / 1e3 / requests,
        used as f64 / 1e7 / waited.elapsed().as_secs_f64()
    );
}

fn on_runtime(work: impl Future<Output = ()>) {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .unwrap();
    runtime.block_on(work);
}

async fn application(address: SocketAddr) {
    rig::app(address, |mut stream| async move {
        stream.set_nodelay(true).unwrap();
        let mut bytes = vec![0; 16 * 1024];
        let mut held = 0;
        while let Ok(count) = stream.read(&mut bytes[held..]).await {
            if count == 0 {
                return;
            }
            held += count;
            if bytes[..held].ends_with(b"\r\n\r\n") {
                held = 0;
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\nContent-Type: text/plain\r\n\r\nhello, world\n").await.unwrap();
            }
        }
    })
    .await;
    std::future::pending::<()>().await;
}

/// Nanoseconds that the thread of this name has run.
fn cpu(name: &str) -> u64 {
    let account = std::fs::read_to_string(task(name).join("schedstat")).unwrap();
    account.split(' ').next().unwrap().parse().unwrap()
}

fn task(name: &str) -> std::path::PathBuf {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let mut paths = tasks.map(|task| task.unwrap().path());
    paths
        .find(|task| std::fs::read_to_string(task.join("comm")).unwrap().trim() == name)
        .unwrap()
}
