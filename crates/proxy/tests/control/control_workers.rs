//! Worker threads: several of them, and what they do when the machine has nothing more to give.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use super::proxy::{Proxy, application, eventually, request};

fn alone(more: &[(&str, &str)]) -> Proxy {
    let proxy = Proxy::start_with("web", &[("LINKERD2_PROXY_IDENTITY_DISABLED", "1")], more);
    proxy.wait_ready();
    proxy
}

/// Nanoseconds of processor time of each worker thread.
fn worked(proxy: &Proxy) -> Vec<u64> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", proxy.pid())).unwrap();
    tasks
        .filter_map(|task| {
            let task = task.ok()?.path();
            let name = std::fs::read_to_string(task.join("comm")).ok()?;
            let spent = std::fs::read_to_string(task.join("schedstat")).ok()?;
            let worker = name.starts_with("tulle-worker");
            worker
                .then(|| spent.split(' ').next()?.parse().ok())
                .flatten()
        })
        .collect()
}

/// Sends requests on one kept connection until the time is over, or the proxy says that the connection ends; returns
/// how many were answered, each of them rightly.
fn ask_until(end: Instant, proxy: std::net::SocketAddr, host: std::net::SocketAddr) -> usize {
    let mut stream = TcpStream::connect(proxy).unwrap();
    let asked = format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n");
    let mut count = 0;
    while Instant::now() < end {
        stream.write_all(asked.as_bytes()).unwrap();
        let (mut answer, mut part) = (Vec::new(), [0; 1024]);
        while !answer.ends_with(b"\r\n\r\nweb") {
            let read = stream.read(&mut part).unwrap();
            assert!(read > 0, "cut: {:?}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&part[..read]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
        count += 1;
        if String::from_utf8_lossy(&answer).contains("connection: close") {
            break;
        }
    }
    count
}

#[test]
fn several_workers_answer_every_request_and_end_together() {
    let app = application("127.0.0.1:0", "web");
    let mut proxy = alone(&[("LINKERD2_PROXY_CORES", "2")]);
    let (to, end) = (proxy.outbound(), Instant::now() + Duration::from_secs(3));
    let clients: Vec<_> = (0..48)
        .map(|_| std::thread::spawn(move || ask_until(end, to, app)))
        .collect();
    let answered: usize = clients
        .into_iter()
        .map(|client| client.join().unwrap())
        .sum();
    let spent = worked(&proxy);
    assert_eq!(spent.len(), 2);
    let (_, page) = proxy.get("/metrics").unwrap();
    let counted = page
        .lines()
        .filter(|line| line.starts_with("request_total{"));
    let counted: f64 = counted
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum();
    assert_eq!(counted, answered as f64);
    // Each has connections when the end comes, and no request of theirs is lost.
    let end = Instant::now() + Duration::from_secs(10);
    let clients: Vec<_> = (0..24)
        .map(|_| std::thread::spawn(move || ask_until(end, to, app)))
        .collect();
    std::thread::sleep(Duration::from_millis(500));
    proxy.signal("TERM");
    for client in clients {
        assert!(client.join().unwrap() > 0);
    }
    assert_eq!(proxy.wait_end(), Some(0));
}

#[test]
fn workers_take_equal_shares_of_the_connections() {
    let app = application("127.0.0.1:0", "web");
    let proxy = alone(&[("LINKERD2_PROXY_CORES", "2")]);
    let host = app.to_string();
    let total = 300;
    for _ in 0..total {
        let (status, _) = request(proxy.outbound(), "GET", &host, "/", "").unwrap();
        assert_eq!(status, 200);
    }
    let taken = ["0", "1"].map(|worker| {
        let labels = format!("{{worker=\"{worker}\",direction=\"outbound\"}}");
        proxy.metric(&format!("worker_accepted_connections_total{labels}"))
    });
    assert_eq!(taken.iter().sum::<f64>(), f64::from(total));
    // The kernel's hash deals them out: one in a million times a share is below 36 %.
    assert!(
        taken.iter().all(|share| *share > 0.36 * f64::from(total)),
        "{taken:?}"
    );
    // What several listeners share of one process is not shared with another's.
    let address = proxy.outbound();
    let socket = std::net::TcpListener::bind(address);
    assert_eq!(socket.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
}

/// Open descriptors of a process.
fn descriptors(proxy: &Proxy) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", proxy.pid()))
        .unwrap()
        .count()
}

#[test]
fn without_descriptors_left_it_waits_and_serves_again_within_a_second() {
    let app = application("127.0.0.1:0", "web");
    let proxy = alone(&[]);
    let limit = descriptors(&proxy) + 12;
    let status = Command::new("prlimit")
        .args([
            "--pid",
            &proxy.pid().to_string(),
            &format!("--nofile={limit}:{limit}"),
        ])
        .status()
        .unwrap();
    assert!(status.success());
    let held: Vec<TcpStream> = (0..60)
        .map(|_| TcpStream::connect(proxy.outbound()).unwrap())
        .collect();
    eventually("it has used all up", || descriptors(&proxy) >= limit);
    let before: u64 = worked(&proxy).iter().sum();
    std::thread::sleep(Duration::from_secs(2));
    let spent = Duration::from_nanos(worked(&proxy).iter().sum::<u64>() - before);
    assert!(spent < Duration::from_millis(500), "it spins: {spent:?}");
    drop(held);
    let begun = Instant::now();
    let host = app.to_string();
    eventually("it serves again", || {
        request(proxy.outbound(), "GET", &host, "/", "").is_some_and(|(status, _)| status == 200)
    });
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
    assert!(proxy.get("/live").is_some_and(|(status, _)| status == 200));
}
