//! The proxy's configuration: one typed value made from the environment at start and never changed after it.
//!
//! Names, meanings and defaults are Linkerd's (`LINKERD2_PROXY_*`), so that either proxy runs under either injector;
//! what only this proxy has begins with `TULLE_PROXY_`. `config/table.rs` lists them all, `config/values.rs` reads
//! single values, `config/reader.rs` gathers problems, `config/from_env.rs` puts it together; this file is the result.

mod from_env;
pub mod help;
mod near;
pub mod reader;
pub mod table;
pub mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub use crate::http::stall::Patience;

pub use reader::{Environment, Problem, Problems, Reader};
pub use tulle_engine::inbound::{Cidr, DefaultPolicy};

/// Exit code for an environment that cannot be used (`EX_USAGE`).
pub const EXIT_BAD_ENVIRONMENT: u8 = 64;

/// Everything the environment says.
#[derive(Clone, Debug)]
pub struct Config {
    /// The pod this proxy stands beside.
    pub pod: Pod,
    /// How to get a certificate; `None` when identity is disabled.
    pub identity: Option<Identity>,
    /// The destination service.
    pub destination: Destination,
    /// The policy service.
    pub policy: Policy,
    /// Limits of discovery streams.
    pub control_streams: ControlStreams,
    /// DNS for control-plane addresses.
    pub dns: Dns,
    /// The admin server's address.
    pub admin_listen: SocketAddr,
    /// Who may watch requests, and where; `None`: nobody.
    pub tap: Option<Tap>,
    /// Connections to the pod.
    pub inbound: Inbound,
    /// The application's own connections.
    pub outbound: Outbound,
    /// Mark of the proxy's own sockets.
    pub mark: Option<u32>,
    /// From the first byte of an HTTP/1 request's head to its last.
    pub http1_head_timeout: Duration,
    /// Between two requests of an HTTP/1 client; `None` is for ever.
    pub http1_idle_timeout: Option<Duration>,
    /// For exchanges whose route has no idle timeout.
    pub body_idle_timeout: Option<Duration>,
    /// How long a peer may hold an exchange up. Only inbound clients are timed as senders.
    pub patience: Patience,
    /// How long connections may take to end after SIGTERM.
    pub shutdown_grace: Duration,
    /// How long connections are still accepted after SIGTERM.
    pub shutdown_accept: Duration,
    /// Whether `POST /shutdown` is served.
    pub shutdown_endpoint: bool,
    /// Log levels, as given.
    pub log_levels: String,
    /// Log lines as JSON.
    pub log_json: bool,
    /// The access log of the inbound side, if there is one.
    pub access_log: Option<crate::observe::access::Format>,
    /// Where spans go, if they are wanted.
    pub tracing: Option<Tracing>,
    /// How long unused series are kept.
    pub metrics_retain_idle: Duration,
    /// Worker threads, at least 1.
    pub workers: usize,
    /// What to warn of once logging works.
    pub warnings: Vec<String>,
}

/// The pod, as metrics label it. Parts that are not known are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its node.
    pub node: String,
}

/// Who may watch requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tap {
    /// Where it is served.
    pub listen: SocketAddr,
    /// The identity that a caller must prove.
    pub identity: String,
}

/// How to get a certificate.
#[derive(Clone, Debug)]
pub struct Identity {
    /// PEM of the trust anchors; empty only where the source brings its own.
    pub trust_anchors: String,
    /// The identity to ask for: a DNS name, or a SPIFFE ID.
    pub local_name: String,
    /// The server name by which peers dial this proxy.
    pub server_name: String,
    /// Where the certificate comes from.
    pub source: IdentitySource,
}

/// Where the certificate comes from.
#[derive(Clone, Debug)]
pub enum IdentitySource {
    /// The control plane's identity service.
    Service(Certify),
    /// The SPIFFE Workload API on this unix socket.
    Spire(PathBuf),
}

/// How to ask the identity service.
#[derive(Clone, Debug)]
pub struct Certify {
    /// File with the service-account token.
    pub token_file: String,
    /// The identity service.
    pub service: ControlService,
    /// Shortest time between renewals.
    pub min_refresh: Duration,
    /// Longest time between renewals.
    pub max_refresh: Duration,
}

/// A service of the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlService {
    /// Where it is.
    pub addr: ServiceAddr,
    /// The identity it must prove; `None` speaks plain text, which only loopback may.
    pub identity: Option<String>,
}

/// `name:port` or `ip:port`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServiceAddr {
    /// A name to be resolved.
    Name(String, u16),
    /// An address.
    Socket(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

impl ServiceAddr {
    /// Whether it can only lead to this machine: a loopback address, `localhost` or `localhost.`.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Name(name, _) => name.strip_suffix('.').unwrap_or(name) == "localhost",
            Self::Socket(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl std::fmt::Display for ServiceAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name, port) => write!(f, "{name}:{port}"),
            Self::Socket(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Where the spans of traced requests go.
#[derive(Clone, Debug)]
pub struct Tracing {
    /// The collector: OTLP over gRPC.
    pub collector: ControlService,
    /// `service.name`, unless something else says it.
    pub service_name: Option<String>,
    /// A file with the pod's labels.
    pub labels_path: Option<String>,
    /// What the environment says of the process beside.
    pub attributes: BTreeMap<String, String>,
    /// `host.name`.
    pub host: String,
    /// How long a span waits at most before it is sent.
    pub interval: Duration,
}

/// The destination service and when to ask it.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Where it is; `None` when there is none, and all traffic goes to its original address.
    pub service: Option<ControlService>,
    /// Handed to it as it is.
    pub context: String,
    /// Networks it is asked about; empty is all.
    pub profile_networks: Vec<Cidr>,
}

/// The policy service.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Where it is; `None` when there is none, and defaults hold.
    pub service: Option<ControlService>,
    /// This workload, as it knows it.
    pub workload: String,
    /// What the `cluster-*` defaults take for the cluster.
    pub cluster_networks: Vec<Cidr>,
}

/// Limits of discovery streams.
#[derive(Clone, Copy, Debug)]
pub struct ControlStreams {
    /// To the first message.
    pub initial: Duration,
    /// Between messages.
    pub idle: Duration,
    /// Of the whole stream.
    pub lifetime: Duration,
}

/// DNS for control-plane addresses.
#[derive(Clone, Debug)]
pub struct Dns {
    /// Servers to ask instead of `/etc/resolv.conf`'s.
    pub servers: Vec<SocketAddr>,
    /// Shortest time an answer is kept.
    pub min_ttl: Duration,
    /// Longest time an answer is kept.
    pub max_ttl: Duration,
}

/// Connections to the pod.
#[derive(Clone, Debug)]
pub struct Inbound {
    /// The listener behind the packet filter.
    pub listen: SocketAddr,
    /// Further listeners, each with the original port it stands for.
    pub extra_listeners: Vec<(SocketAddr, u16)>,
    /// Mesh port → the port where the application listens, where they differ.
    pub port_map: BTreeMap<u16, u16>,
    /// The pod's addresses; empty is any.
    pub ips: BTreeSet<IpAddr>,
    /// The pod's declared ports.
    pub ports: BTreeSet<u16>,
    /// The policy until the controller answers.
    pub default_policy: DefaultPolicy,
    /// Opaque until the controller says otherwise.
    pub opaque_ports: PortSet,
    /// Names that are forwarded to for other proxies; empty is none.
    pub gateway_suffixes: Vec<String>,
    /// Names whose ServiceProfiles are asked for when requests for them come in.
    pub profile_suffixes: Vec<String>,
    /// Inbound HTTP metrics carry the authority.
    pub authority_labels: bool,
    /// Limits.
    pub connections: Connections,
}

/// The application's own connections.
#[derive(Clone, Debug)]
pub struct Outbound {
    /// Listeners, at least one.
    pub listen: Vec<SocketAddr>,
    /// Route by `l5d-dst-override`, else by authority.
    pub ingress_mode: bool,
    /// Nothing leaves in the clear.
    pub require_mesh_tls: bool,
    /// Outbound route metrics carry the hostname.
    pub hostname_labels: bool,
    /// After failed connects.
    pub connect_backoff: Backoff,
    /// What waits for an endpoint of one backend until discovery has answered.
    pub queue_capacity: usize,
    /// Limits.
    pub connections: Connections,
}

/// Limits that both directions have.
#[derive(Clone, Debug)]
pub struct Connections {
    /// Longest time to connect.
    pub connect_timeout: Duration,
    /// Protocol detection.
    pub detect_timeout: Duration,
    /// How long an unused target is watched.
    pub discovery_idle: Duration,
    /// TCP keep-alive of accepted connections.
    pub accept_keepalive: Option<Duration>,
    /// TCP keep-alive of own connections.
    pub connect_keepalive: Option<Duration>,
    /// TCP_USER_TIMEOUT of accepted connections.
    pub accept_user_timeout: Option<Duration>,
    /// TCP_USER_TIMEOUT of own connections.
    pub connect_user_timeout: Option<Duration>,
    /// Requests at once.
    pub max_in_flight: usize,
    /// Idle HTTP/1 connections per endpoint.
    pub pool_max_idle: usize,
    /// How long they are kept.
    pub pool_idle: Duration,
    /// Listen backlog.
    pub backlog: u32,
    /// HTTP/2 on accepted connections.
    pub h2: Http2,
}

/// Exponential back-off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// First pause.
    pub min: Duration,
    /// Longest pause.
    pub max: Duration,
    /// Share of a pause that is random, 0 to 1.
    pub jitter: f64,
}

/// HTTP/2 on accepted connections.
#[derive(Clone, Copy, Debug)]
pub struct Http2 {
    /// Between pings.
    pub keep_alive_interval: Option<Duration>,
    /// For their answers.
    pub keep_alive_timeout: Duration,
    /// Receive window of a stream.
    pub stream_window: u32,
    /// Receive window of a connection.
    pub connection_window: u32,
    /// Most streams at once.
    pub max_streams: u32,
    /// Largest frame.
    pub max_frame: u32,
    /// Largest header list.
    pub max_header_list: u32,
    /// Streams reset before they were served.
    pub max_pending_resets: usize,
    /// Bytes buffered for a stream.
    pub max_send_buffer: usize,
}

/// A set of ports, as ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortSet(Vec<(u16, u16)>);

impl PortSet {
    /// Inclusive ranges.
    pub fn new(ranges: Vec<(u16, u16)>) -> Self {
        Self(ranges)
    }

    /// The ranges, as given.
    pub fn ranges(&self) -> &[(u16, u16)] {
        &self.0
    }

    /// Whether the port is in one of them.
    pub fn contains(&self, port: u16) -> bool {
        self.0
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&port))
    }

    /// Every port in it, rising, without repetition.
    pub fn to_set(&self) -> BTreeSet<u16> {
        self.0
            .iter()
            .flat_map(|(first, last)| *first..=*last)
            .collect()
    }
}

#[cfg(test)]
mod tests;
