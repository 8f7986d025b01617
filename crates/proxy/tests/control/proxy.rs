//! The sidecar as a process, and a client of its admin server.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::control_plane::{ControlPlane, NAME, Script};

/// The longest any condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until it holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// An address of 127/8 that no other test of this process uses.
pub fn fresh_ip() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let pid = std::process::id();
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("127.{}.{}.{}", 100 + pid % 100, (pid / 100) % 250, 1 + n)
}

pub fn identity(pod: &str) -> String {
    format!("{pod}.default.serviceaccount.identity.linkerd.cluster.local")
}

/// Runs the binary to its end.
pub fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tulle-proxy"));
    command
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

/// A running sidecar; killed when dropped.
pub struct Proxy {
    pub ip: String,
    pub pod: String,
    pub token_file: PathBuf,
    child: Child,
    folder: PathBuf,
}

impl Proxy {
    /// Beside a pod of this name, following the control plane.
    pub fn start(
        pod: &str,
        control: &ControlPlane,
        script: &Script,
        more: &[(&str, &str)],
    ) -> Self {
        Self::start_at("control-plane.test", pod, control, script, more)
    }

    /// The same, with the control plane under this name.
    pub fn start_at(
        name: &str,
        pod: &str,
        control: &ControlPlane,
        script: &Script,
        more: &[(&str, &str)],
    ) -> Self {
        // Loopback would be plain text: a name that resolves to loopback is not "on loopback".
        let service = control.address.to_string().replace("127.0.0.1", name);
        Self::start_with(
            pod,
            &[
                (
                    "LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS",
                    &script.issuer.pem(),
                ),
                ("LINKERD2_PROXY_IDENTITY_LOCAL_NAME", &identity(pod)),
                ("LINKERD2_PROXY_IDENTITY_SVC_ADDR", &service),
                ("LINKERD2_PROXY_IDENTITY_SVC_NAME", NAME),
                ("LINKERD2_PROXY_DESTINATION_SVC_ADDR", &service),
                ("LINKERD2_PROXY_DESTINATION_SVC_NAME", NAME),
                ("LINKERD2_PROXY_POLICY_SVC_ADDR", &service),
                ("LINKERD2_PROXY_POLICY_SVC_NAME", NAME),
            ],
            more,
        )
    }

    /// With only what a test names.
    pub fn start_with(pod: &str, base: &[(&str, &str)], more: &[(&str, &str)]) -> Self {
        let ip = fresh_ip();
        let folder =
            std::env::temp_dir().join(format!("tulle-proxy-test-{}-{ip}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let token_file = folder.join("token");
        std::fs::write(&token_file, "token-1\n").unwrap();
        let mut environment: BTreeMap<&str, String> = BTreeMap::from([
            ("LINKERD2_PROXY_OUTBOUND_LISTEN_ADDR", format!("{ip}:4140")),
            ("LINKERD2_PROXY_INBOUND_LISTEN_ADDR", format!("{ip}:4143")),
            ("LINKERD2_PROXY_ADMIN_LISTEN_ADDR", format!("{ip}:4191")),
            (
                "LINKERD2_PROXY_IDENTITY_TOKEN_FILE",
                token_file.display().to_string(),
            ),
            ("LINKERD2_PROXY_IDENTITY_MIN_REFRESH", "100ms".to_owned()),
            (
                "LINKERD2_PROXY_POLICY_WORKLOAD",
                format!("{{\"ns\":\"default\",\"pod\":\"{pod}\"}}"),
            ),
            ("LINKERD2_PROXY_LOG", "warn,tulle=debug".to_owned()),
        ]);
        for (name, value) in base.iter().chain(more) {
            environment.insert(name, value.replace("{ip}", &ip));
        }
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_tulle-proxy"))
            .env_clear()
            .envs(environment)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let proxy = Self {
            ip,
            pod: pod.to_owned(),
            token_file,
            child,
            folder,
        };
        eventually("the admin server answers", || proxy.get("/live").is_some());
        proxy
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    pub fn admin(&self) -> SocketAddr {
        format!("{}:4191", self.ip).parse().unwrap()
    }

    pub fn outbound(&self) -> SocketAddr {
        format!("{}:4140", self.ip).parse().unwrap()
    }

    /// Status and body.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
        request(self.admin(), method, "admin", path, body)
    }

    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        self.ask("GET", path, "")
    }

    pub fn is_ready(&self) -> bool {
        self.get("/ready").is_some_and(|(status, _)| status == 200)
    }

    pub fn wait_ready(&self) {
        eventually("the proxy is ready", || self.is_ready());
    }

    /// The value of the one line that begins so; 0 when there is none.
    pub fn metric(&self, line: &str) -> f64 {
        let (_, page) = self.get("/metrics").unwrap_or_default();
        let found = page.lines().filter_map(|shown| {
            shown
                .strip_prefix(line)?
                .strip_prefix(' ')?
                .parse::<f64>()
                .ok()
        });
        found.sum()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// The exit code, once it has ended.
    pub fn wait_end(&mut self) -> Option<i32> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(
                Instant::now() < end,
                "the proxy does not end\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the proxy on {}\n{}", self.ip, self.log());
        }
        let _left = std::fs::remove_dir_all(&self.folder);
    }
}

/// One HTTP/1.1 request on a connection of its own; `None` when there is no whole answer.
pub fn request(
    to: SocketAddr,
    method: &str,
    host: &str,
    path: &str,
    body: &str,
) -> Option<(u16, String)> {
    let (head, body) = request_with(to, method, host, path, "", body)?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, String::from_utf8(body).ok()?))
}

/// The same with more fields, each with its end of line: the answer's head and its body.
pub fn request_with(
    to: SocketAddr,
    method: &str,
    host: &str,
    path: &str,
    fields: &str,
    body: &str,
) -> Option<(String, Vec<u8>)> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(20)).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .ok()?;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{fields}content-length: {length}\r\n\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8(answer[..end].to_vec()).ok()?;
    let body = &answer[end + 4..];
    let chunked = head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked");
    Some((
        head,
        if chunked {
            unchunked(body)?
        } else {
            body.to_vec()
        },
    ))
}

fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|two| two == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).ok()?, 16).ok()?;
        rest = &rest[line + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size + 2..)?;
    }
}

/// An application that answers every HTTP/1.1 request with its name; ends with the process.
pub fn application(address: &str, name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind(address).unwrap();
    let bound = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream, name));
        }
    });
    bound
}

/// `/` is answered with the name; `/stream` with one chunk every 50 ms for four seconds.
fn answer(mut stream: TcpStream, name: &str) -> Option<()> {
    let mut buffer = Vec::new();
    loop {
        while !buffer.windows(4).any(|end| end == b"\r\n\r\n") {
            let mut part = [0; 4_096];
            let read = stream.read(&mut part).ok().filter(|read| *read > 0)?;
            buffer.extend_from_slice(&part[..read]);
        }
        let streaming = buffer.starts_with(b"GET /stream");
        // Four seconds, or longer than anybody waits.
        let chunks = match buffer.starts_with(b"GET /stream-on") {
            true => 10_000,
            false => 80,
        };
        buffer.clear();
        if streaming {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                .ok()?;
            for _ in 0..chunks {
                stream.write_all(b"5\r\nchunk\r\n").ok()?;
                std::thread::sleep(Duration::from_millis(50));
            }
            stream.write_all(b"0\r\n\r\n").ok()?;
        } else {
            let length = name.len();
            stream
                .write_all(
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{name}").as_bytes(),
                )
                .ok()?;
        }
    }
}
