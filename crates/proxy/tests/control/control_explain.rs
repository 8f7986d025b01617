//! Who may read `/explain`: a process beside the sidecar, tap's identity over the mesh, and nobody else.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};

use super::control_plane::{Answer, ControlPlane, Script};
use super::mesh::{add, balanced, dns_server, hinted_h2, meshed, server};
use super::proxy::{Proxy, eventually, fresh_ip, identity, request};

#[test]
fn over_the_mesh_only_taps_identity_reads_explain_and_nobody_changes_anything() {
    let script = Script::new();
    let control = ControlPlane::start(&script);
    let tap = identity("tap");
    let more = [
        ("LINKERD2_PROXY_TAP_SVC_NAME", tap.as_str()),
        ("TULLE_PROXY_DNS_SERVER", dns_server()),
        ("LINKERD2_PROXY_INBOUND_IPS", "{ip}"),
        ("LINKERD2_PROXY_SHUTDOWN_ENDPOINT_ENABLED", "true"),
    ];
    let mut voting = Proxy::start("voting", &control, &script, &more);
    script.port(4191, Answer::Say(server("admin", true)));
    let path = "voting.default.svc.cluster.local:4191";
    script.policy("voting:4191", Answer::Say(balanced("voting", path)));
    let endpoint = hinted_h2(meshed(voting.admin(), &identity("voting"), 4143));
    script.endpoints(path, Answer::Say(add(vec![endpoint])));
    voting.wait_ready();
    let asked = |client: &Proxy, method: &str, path: &str| {
        request(client.outbound(), method, "voting:4191", path, "").map(|(status, _)| status)
    };

    let dns = [("TULLE_PROXY_DNS_SERVER", dns_server())];
    let stranger = Proxy::start("stranger", &control, &script, &dns);
    stranger.wait_ready();
    assert_eq!(
        asked(&stranger, "GET", "/live"),
        Some(200),
        "it gets there\n{}",
        voting.log()
    );
    for (method, path) in [
        ("GET", "/explain"),
        ("GET", "/explain/some-id"),
        ("GET", "/proxy-log-level"),
        ("POST", "/shutdown"),
    ] {
        assert_eq!(asked(&stranger, method, path), Some(403), "{path}");
    }
    let reader = Proxy::start("tap", &control, &script, &dns);
    reader.wait_ready();
    assert_eq!(asked(&reader, "GET", "/explain"), Some(200));
    assert_eq!(asked(&reader, "POST", "/shutdown"), Some(403));
    assert_eq!(voting.get("/explain").unwrap().0, 200, "from beside it");
    assert!(voting.is_running());
}

/// An address of this machine that is not loopback; none where there is no other.
fn elsewhere() -> Option<SocketAddr> {
    // Sends nothing: it only asks which way the packets would go.
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.254:9").ok()?;
    let local = socket.local_addr().ok()?;
    (!local.ip().is_loopback() && !local.ip().is_unspecified()).then_some(local)
}

#[test]
fn from_elsewhere_nobody_reads_explain_whatever_he_claims() {
    let Some(here) = elsewhere() else {
        eprintln!("this machine has loopback only: nothing is elsewhere");
        return;
    };
    // A port that was free a moment ago.
    let free = TcpListener::bind((here.ip(), 0)).unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let tap = identity("tap");
    let _proxy = Elsewhere::start(address, &tap);
    for claim in [String::new(), format!("l5d-client-id: {tap}\r\n")] {
        assert_eq!(get(address, "/live", &claim), 200);
        assert_eq!(get(address, "/explain", &claim), 403, "{claim}");
        assert_eq!(get(address, "/explain/x", &claim), 403, "{claim}");
    }
}

/// A sidecar whose admin server is on an address of the machine; killed when dropped.
struct Elsewhere(Child);

impl Elsewhere {
    fn start(admin: SocketAddr, tap: &str) -> Self {
        let ip = fresh_ip();
        let child = Command::new(env!("CARGO_BIN_EXE_tulle-proxy"))
            .env_clear()
            .env("LINKERD2_PROXY_IDENTITY_DISABLED", "1")
            .env("LINKERD2_PROXY_TAP_SVC_NAME", tap)
            .env("LINKERD2_PROXY_OUTBOUND_LISTEN_ADDR", format!("{ip}:4140"))
            .env("LINKERD2_PROXY_INBOUND_LISTEN_ADDR", format!("{ip}:4143"))
            .env("LINKERD2_PROXY_ADMIN_LISTEN_ADDR", admin.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let started = Elsewhere(child);
        eventually("the admin server answers", || {
            TcpStream::connect(admin).is_ok()
        });
        started
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

fn get(to: SocketAddr, path: &str, fields: &str) -> u16 {
    let mut stream = TcpStream::connect(to).unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n{fields}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}
