//! Resolution of control-plane names: SRV first (a headless Service tells each pod's own port), then A and AAAA.
//!
//! A small resolver of our own, because the C library's blocks a thread per look-up and knows no SRV. It reads
//! `/etc/resolv.conf` and `/etc/hosts` at each resolution (they are small and may change), asks the servers in turn
//! over UDP, over TCP when the answer is cut, and keeps answers between the configured bounds of their TTL. When a
//! name stops resolving, the last good addresses stay in use.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::dns_message::{self, Answer, Record, RecordType};
use crate::config::{Dns, ServiceAddr};
use crate::metrics::{Counter, Labels, Shard, families};

/// How long one DNS server is waited for.
const ATTEMPT: Duration = Duration::from_secs(2);
/// Rounds over all DNS servers.
const ROUNDS: usize = 2;
/// Largest UDP answer that is read; servers keep to 512 bytes unless asked otherwise.
const UDP_BYTES: usize = 4_096;
/// Most suffixes of the search list that are tried, beside the name as it is.
const MAX_SUFFIXES: usize = 8;
/// Most addresses kept per name.
const MAX_ADDRESSES: usize = 256;
/// Most names remembered; beyond it those go whose time is over, then all.
const MAX_NAMES: usize = 1_024;

/// Resolves names and remembers the answers.
#[derive(Debug)]
pub struct Resolver {
    settings: Dns,
    shard: Shard,
    known: RefCell<HashMap<ServiceAddr, Known>>,
}

#[derive(Clone, Debug)]
struct Known {
    addresses: Vec<SocketAddr>,
    until: Instant,
}

impl Resolver {
    /// A resolver with these settings; look-ups are counted through `shard`.
    pub fn new(settings: Dns, shard: Shard) -> Self {
        Self {
            settings,
            shard,
            known: RefCell::default(),
        }
    }

    /// The addresses of a service, sorted. After a failure the last good ones, if there ever were any.
    ///
    /// # Errors
    /// The name has never resolved; the text says what was tried.
    pub async fn resolve(
        &self,
        addr: &ServiceAddr,
        client: &'static str,
    ) -> io::Result<Vec<SocketAddr>> {
        let (name, port) = match addr {
            ServiceAddr::Socket(address) => return Ok(vec![*address]),
            ServiceAddr::Unix(_) => return Ok(Vec::new()),
            ServiceAddr::Name(name, port) => (name, *port),
        };
        if addr.is_loopback() {
            return Ok(vec![
                (Ipv4Addr::LOCALHOST, port).into(),
                (Ipv6Addr::LOCALHOST, port).into(),
            ]);
        }
        let now = Instant::now();
        let known = self.known.borrow().get(addr).cloned();
        if let Some(known) = known.as_ref().filter(|known| known.until > now) {
            return Ok(known.addresses.clone());
        }
        match self.look_up(name, port, client).await {
            Ok((addresses, ttl)) => {
                let ttl = ttl.clamp(
                    self.settings.min_ttl,
                    self.settings.max_ttl.max(self.settings.min_ttl),
                );
                let fresh = Known {
                    addresses: addresses.clone(),
                    until: now + ttl,
                };
                let mut names = self.known.borrow_mut();
                if names.len() >= MAX_NAMES {
                    names.retain(|_, known| known.until > now);
                }
                if names.len() >= MAX_NAMES {
                    self.shard.limit("proxy::control::dns::MAX_NAMES").inc();
                    names.clear();
                }
                names.insert(addr.clone(), fresh);
                Ok(addresses)
            }
            Err(error) => match known {
                Some(mut known) => {
                    // Not asked again by each dial: servers that are silent take a while to have failed.
                    known.until = Instant::now() + self.settings.min_ttl;
                    self.known.borrow_mut().insert(addr.clone(), known.clone());
                    tracing::warn!(%addr, %error, "name does not resolve now; going on with its last addresses");
                    Ok(known.addresses)
                }
                None => Err(error),
            },
        }
    }

    async fn look_up(
        &self,
        name: &str,
        port: u16,
        client: &'static str,
    ) -> io::Result<(Vec<SocketAddr>, Duration)> {
        let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        let found = in_hosts(&hosts, name);
        if !found.is_empty() {
            let addresses = found
                .into_iter()
                .map(|ip| SocketAddr::new(ip, port))
                .collect();
            return Ok((addresses, self.settings.min_ttl));
        }
        let resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let mut system = SystemDns::parse(&resolv_conf);
        if !self.settings.servers.is_empty() {
            system.servers.clone_from(&self.settings.servers);
        }
        let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{name} has no address"));
        for candidate in system.candidates(name) {
            match self
                .look_up_one(&system.servers, &candidate, port, client)
                .await
            {
                Ok(found) => return Ok(found),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn look_up_one(
        &self,
        servers: &[SocketAddr],
        name: &str,
        port: u16,
        client: &'static str,
    ) -> io::Result<(Vec<SocketAddr>, Duration)> {
        let mut ttl = u32::MAX;
        let mut addresses = BTreeSet::new();
        // Kubernetes answers SRV for the bare name of a headless Service with one host per pod; the port given in the
        // configuration wins over the record's, which is that of the Service's first port.
        let srv = self.ask(servers, name, RecordType::Srv, client).await;
        if let Ok(answer) = &srv {
            let hosts = answer.records.iter().filter_map(|record| match record {
                Record::Srv {
                    host,
                    port: at,
                    ttl: keep,
                    ..
                } if *at == port => Some((host, *keep)),
                _ => None,
            });
            for (host, keep) in hosts.take(MAX_ADDRESSES) {
                ttl = ttl.min(keep);
                let along: Vec<IpAddr> = answer
                    .additional
                    .iter()
                    .filter(|(of, _)| of == host)
                    .map(|(_, ip)| *ip)
                    .collect();
                let ips = if along.is_empty() {
                    // Of a host that does not resolve now, more is known soon: the whole is not kept for long.
                    let found = self.addresses_of(servers, host, client).await;
                    let (ips, keep) = found.unwrap_or_default();
                    ttl = ttl.min(keep);
                    ips
                } else {
                    along
                };
                addresses.extend(ips.into_iter().map(|ip| SocketAddr::new(ip, port)));
            }
        }
        if addresses.is_empty() {
            let (ips, keep) = self.addresses_of(servers, name, client).await?;
            ttl = keep;
            addresses.extend(ips.into_iter().map(|ip| SocketAddr::new(ip, port)));
        }
        if addresses.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("{name} has no address"),
            ));
        }
        if addresses.len() > MAX_ADDRESSES {
            self.shard.limit("proxy::control::dns::MAX_ADDRESSES").inc();
        }
        let addresses = addresses.into_iter().take(MAX_ADDRESSES).collect();
        Ok((addresses, Duration::from_secs(u64::from(ttl))))
    }

    async fn addresses_of(
        &self,
        servers: &[SocketAddr],
        name: &str,
        client: &'static str,
    ) -> io::Result<(Vec<IpAddr>, u32)> {
        let mut found = Vec::new();
        let mut ttl = u32::MAX;
        let (v4, v6) = tokio::join!(
            self.ask(servers, name, RecordType::A, client),
            self.ask(servers, name, RecordType::Aaaa, client)
        );
        let answers = match (v4, v6) {
            (Err(error), Err(_)) => return Err(error),
            (v4, v6) => v4.into_iter().chain(v6),
        };
        for record in answers.flat_map(|answer| answer.records) {
            if let Record::Ip(ip, keep) = record {
                found.push(ip);
                ttl = ttl.min(keep);
            }
        }
        Ok((found, ttl))
    }

    async fn ask(
        &self,
        servers: &[SocketAddr],
        name: &str,
        kind: RecordType,
        client: &'static str,
    ) -> io::Result<Answer> {
        let outcome = ask(servers, name, kind).await;
        let result = match &outcome {
            Ok(answer) if answer.code == 0 => "ok",
            Ok(answer) if answer.code == 3 => "not_found",
            _ => "error",
        };
        self.counter(client, kind, result).inc();
        match outcome {
            Ok(answer) if answer.code == 0 => Ok(answer),
            Ok(answer) if answer.code == 3 => Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("there is no name {name}"),
            )),
            Ok(answer) => Err(io::Error::other(format!(
                "the DNS server failed for {name} (code {})",
                answer.code
            ))),
            Err(error) => Err(error),
        }
    }

    fn counter(&self, client: &str, kind: RecordType, result: &str) -> Counter {
        let labels = Labels::builder()
            .add("client", client)
            .add("record_type", kind.label())
            .add("result", result)
            .build();
        self.shard
            .counter(&families::CONTROL_DNS_RESOLUTIONS_TOTAL, &labels)
    }
}

async fn ask(servers: &[SocketAddr], name: &str, kind: RecordType) -> io::Result<Answer> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no DNS server is configured");
    for server in std::iter::repeat_n(servers, ROUNDS).flatten() {
        let id = fastrand::u16(..);
        let question = dns_message::question(id, name, kind).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{name} is not a DNS name"),
            )
        })?;
        let attempt = timeout(ATTEMPT, ask_server(*server, &question, id, kind)).await;
        match attempt {
            Ok(Ok(answer)) if answer.code == 0 || answer.code == 3 => return Ok(answer),
            Ok(Ok(answer)) => {
                last =
                    io::Error::other(format!("DNS server {server} answered code {}", answer.code))
            }
            Ok(Err(error)) => {
                last = io::Error::new(error.kind(), format!("DNS server {server}: {error}"))
            }
            Err(_) => {
                last = io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("DNS server {server} did not answer"),
                )
            }
        }
    }
    Err(last)
}

async fn ask_server(
    server: SocketAddr,
    question: &[u8],
    id: u16,
    kind: RecordType,
) -> io::Result<Answer> {
    let any: SocketAddr = if server.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    // A fresh socket per question: a fresh source port, which a forger has to guess beside the id.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; UDP_BYTES];
    loop {
        let length = socket.recv(&mut buffer).await?;
        match dns_message::answer(&buffer[..length], kind) {
            Some(answer) if answer.id == id && answer.truncated => break,
            Some(answer) if answer.id == id => return Ok(answer),
            _ => {} // Not the answer to this question; the true one may still come.
        }
    }
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream
        .write_all(&[&length.to_be_bytes(), question].concat())
        .await?;
    let length = stream.read_u16().await?;
    let mut whole = vec![0; usize::from(length)];
    stream.read_exact(&mut whole).await?;
    dns_message::answer(&whole, kind)
        .filter(|answer| answer.id == id)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer cannot be read"))
}

/// What `/etc/resolv.conf` says.
#[derive(Debug, PartialEq, Eq)]
struct SystemDns {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    ndots: usize,
}

impl SystemDns {
    fn parse(text: &str) -> Self {
        let mut found = Self {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
        };
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let ip = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    found.servers.extend(ip.map(|ip| SocketAddr::new(ip, 53)));
                }
                Some("search" | "domain") => found.search = words.map(str::to_owned).collect(),
                Some("options") => {
                    let ndots = words.find_map(|word| word.strip_prefix("ndots:")?.parse().ok());
                    found.ndots = ndots.unwrap_or(found.ndots);
                }
                _ => {}
            }
        }
        found
    }

    /// The names to try, in order, as the C library would.
    fn candidates(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let suffixes = self.search.iter().take(MAX_SUFFIXES);
        let searched = suffixes.map(|suffix| format!("{name}.{suffix}"));
        let as_is = std::iter::once(name.to_owned());
        let enough_dots = name.matches('.').count() >= self.ndots;
        if enough_dots {
            as_is.chain(searched).collect()
        } else {
            searched.chain(as_is).collect()
        }
    }
}

fn in_hosts(hosts: &str, name: &str) -> Vec<IpAddr> {
    let name = name.strip_suffix('.').unwrap_or(name);
    hosts
        .lines()
        .filter_map(|line| {
            let mut words = line.split('#').next()?.split_ascii_whitespace();
            let ip = words.next()?.parse().ok()?;
            words
                .any(|word| word.eq_ignore_ascii_case(name))
                .then_some(ip)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Limits, Registry};

    #[test]
    fn the_search_list_is_used_as_the_c_library_does() {
        let system = SystemDns::parse(
            "# comment\nnameserver 10.96.0.10\nnameserver bad\nsearch default.svc.cluster.local svc.cluster.local\noptions ndots:5 timeout:1\n",
        );
        assert_eq!(system.servers, ["10.96.0.10:53".parse().expect("address")]);
        assert_eq!(
            system.candidates("linkerd-dst.linkerd"),
            [
                "linkerd-dst.linkerd.default.svc.cluster.local",
                "linkerd-dst.linkerd.svc.cluster.local",
                "linkerd-dst.linkerd"
            ]
        );
        assert_eq!(
            system.candidates("linkerd-dst.linkerd."),
            ["linkerd-dst.linkerd."]
        );
    }

    #[test]
    fn a_long_search_list_does_not_crowd_out_the_name_as_it_is() {
        let search: Vec<_> = (0..20).map(|number| format!("s{number}.test")).collect();
        let text = format!("search {}\noptions ndots:5\n", search.join(" "));
        let candidates = SystemDns::parse(&text).candidates("web.example");
        assert_eq!(candidates.len(), MAX_SUFFIXES + 1);
        assert_eq!(candidates[0], "web.example.s0.test");
        assert_eq!(candidates[MAX_SUFFIXES], "web.example");
    }

    /// A server that answers for a while, then fails.
    #[test]
    fn last_good_addresses_are_used_without_asking_at_each_dial() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let server = UdpSocket::bind("127.0.0.1:0").await.expect("a server");
            let settings = Dns {
                servers: vec![server.local_addr().expect("an address")],
                min_ttl: Duration::from_secs(3_600),
                max_ttl: Duration::from_secs(3_600),
            };
            let resolver = Resolver::new(settings, Registry::new(Limits::default()).shard());
            let web = ServiceAddr::Name("web.test.".into(), 80);
            let known = Known {
                addresses: vec!["10.0.0.9:80".parse().expect("an address")],
                until: Instant::now(),
            };
            let good = known.addresses.clone();
            resolver.known.borrow_mut().insert(web.clone(), known);
            let asked = std::cell::Cell::new(0);
            let fails = async {
                let mut question = [0; 512];
                loop {
                    let (length, client) =
                        server.recv_from(&mut question).await.expect("a question");
                    asked.set(asked.get() + 1);
                    question[2] |= 0x80;
                    question[3] |= 2; // the server failed
                    server
                        .send_to(&question[..length], client)
                        .await
                        .expect("sent");
                }
            };
            let looks = async {
                for _ in 0..3 {
                    let found = resolver.resolve(&web, "test").await.expect("addresses");
                    assert_eq!(found, good);
                }
            };
            tokio::select! {
                () = fails => {}
                () = looks => {}
            }
            // SRV, A and AAAA in every round, once.
            assert_eq!(asked.get(), 3 * ROUNDS);
        });
    }

    /// A server whose UDP answers never fit.
    #[test]
    fn an_answer_that_does_not_fit_is_asked_for_again_over_tcp() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let tcp = tokio::net::TcpListener::bind("127.0.0.1:0")
                .await
                .expect("a listener");
            let address = tcp.local_addr().expect("an address");
            let udp = UdpSocket::bind(address).await.expect("the same port");
            let cut = async {
                let mut question = [0; 512];
                let (length, client) = udp.recv_from(&mut question).await.expect("a question");
                question[2] |= 0x82; // an answer, truncated
                udp.send_to(&question[..length], client)
                    .await
                    .expect("sent");
            };
            let whole = async {
                let (mut stream, _) = tcp.accept().await.expect("a connection");
                let length = stream.read_u16().await.expect("a length");
                let mut message = vec![0; usize::from(length)];
                stream.read_exact(&mut message).await.expect("a question");
                message[2] |= 0x80;
                message[7] = 1;
                message.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 0, 0, 9]);
                stream.write_u16(message.len() as u16).await.expect("sent");
                stream.write_all(&message).await.expect("sent");
            };
            let servers = [address];
            let ((), (), answer) =
                tokio::join!(cut, whole, ask(&servers, "web.test", RecordType::A));
            let records = answer.expect("an answer").records;
            assert_eq!(records, [Record::Ip("10.0.0.9".parse().expect("ip"), 5)]);
        });
    }

    #[test]
    fn the_hosts_file_comes_first() {
        let hosts = "127.0.0.1 localhost\n10.0.0.9  web web.local # ours\n";
        assert_eq!(
            in_hosts(hosts, "WEB.local."),
            ["10.0.0.9".parse::<IpAddr>().expect("ip")]
        );
        assert_eq!(in_hosts(hosts, "ours"), Vec::<IpAddr>::new());
    }
}
