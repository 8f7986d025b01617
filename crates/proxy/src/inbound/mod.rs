//! Connections to the workload, from accept to relay. Read top to bottom:
//!
//! `serve` (here): which port a connection is for, whether it is ours to take, whether it is TLS for us, what it
//! speaks. `direct`: connections to the proxy's own port, which must begin with mutual TLS and a transport header.
//! `port`: the policy of a port, followed while it changes, and the way to the application behind it. `session`: who
//! the client is and what it may do. `http`: one request. `admission`: what an authorized request has to meet beside
//! (tokens, limits, an external service). `profiles`: the ServiceProfiles that requests are counted by. `sweep`: what is no longer used is let go. `audit`: what is let in only to be watched. `tcp`: one opaque connection.
//!
//! Nothing here falls open: a connection or request goes on only with a permit that the engine gave for it.

pub mod admission;
mod audit;
mod direct;
mod gateway;
mod http;
mod labels;
mod port;
mod profiles;
mod session;
mod sweep;
mod tcp;

use std::cell::{Cell, OnceCell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tulle_engine::inbound::{Protocol, Server};
use tulle_engine::{Meta, Reason};

use crate::config::Config;
use crate::detect;
use crate::discovery::Discovery;
use crate::drain::Guard;
use crate::http::answer::Refusal;
use crate::http::decision::{fault_labels, preflight_labels};
use crate::http::stall::Stalls;
use crate::http::{h2, serve};
use crate::identity::{Direction, Epoch, PeerIdentity, ServerAlpn, Trust, failure_reason};
use crate::metrics::{Labels, Shard, errors, families};
use crate::net::dial::Dialer;
use crate::net::io::Io;
use crate::net::listen::Accepted;
use crate::net::proxy_protocol;
use crate::net::server_first::Silence;
use crate::net::sniff::{self, Spoken};
use crate::net::tls::{self, Handshakes};
use crate::observe::Observer;
use crate::outbound::Outbound;
use crate::places::Places;
use port::{Port, Ports};
use profiles::Profiles;
pub use session::ClientTls;
use session::Session;

/// What the inbound side of a worker shares among its connections.
pub struct Inbound {
    config: Arc<Config>,
    discovery: Discovery,
    trust: Trust,
    shard: Shard,
    dialer: Dialer,
    handshakes: Handshakes,
    ports: RefCell<Ports>,
    profiles: RefCell<Profiles>,
    sweeping: Cell<bool>,
    in_flight: Places,
    silence: Silence,
    /// The same worker's way out, for a gateway.
    gateway: OnceCell<Rc<Outbound>>,
    shared: Arc<admission::Shared>,
    audit: audit::Log,
    observer: Rc<Observer>,
    stalls: Stalls,
}

impl Inbound {
    pub fn new(
        config: Arc<Config>,
        discovery: Discovery,
        trust: Trust,
        shard: Shard,
        shared: Arc<admission::Shared>,
        observer: Rc<Observer>,
    ) -> Rc<Self> {
        let connections = &config.inbound.connections;
        let dialer = Dialer::to_connect(connections, config.mark);
        let family = &families::INBOUND_TCP_DETECT_SERVER_FIRST_TOTAL;
        Rc::new(Inbound {
            stalls: Stalls::new(config.patience, &shard, "inbound"),
            handshakes: Handshakes::new(&shard, "inbound"),
            gateway: OnceCell::new(),
            silence: Silence::new(shard.clone(), family),
            discovery,
            trust,
            shard,
            dialer,
            ports: RefCell::default(),
            profiles: RefCell::default(),
            sweeping: Cell::new(false),
            in_flight: Places::new(connections.max_in_flight),
            shared,
            audit: audit::Log::default(),
            observer,
            config,
        })
    }

    /// Forwards what other proxies send with a name.
    pub fn forward_through(&self, outbound: Rc<Outbound>) {
        // It is told once, by the worker.
        let _already = self.gateway.set(outbound);
    }

    /// What a client is that has not begun TLS.
    fn no_tls(&self) -> ClientTls {
        ClientTls::None(match self.config.identity {
            Some(_) => "no_tls_from_remote",
            None => labels::DISABLED,
        })
    }

    /// How long what nobody uses is kept.
    fn idle(&self) -> Duration {
        self.config.inbound.connections.discovery_idle
    }

    fn gateway(&self) -> Option<&Rc<Outbound>> {
        self.gateway.get()
    }

    fn counted_direct(&self, labels: &Labels) {
        let family = &families::INBOUND_TCP_TRANSPORT_HEADER_CONNECTIONS_TOTAL;
        self.shard.counter(family, labels).inc();
    }

    /// Where the application listens for what is sent to this port of the mesh.
    fn application(&self, ip: IpAddr, port: u16) -> SocketAddr {
        SocketAddr::new(
            ip,
            self.config
                .inbound
                .port_map
                .get(&port)
                .copied()
                .unwrap_or(port),
        )
    }

    /// Is this port the sidecar's own admin server? It is told who asks, and answers most of the mesh less than loopback.
    fn is_admin(&self, port: u16) -> bool {
        let mapped = self.config.inbound.port_map.get(&port).copied();
        mapped.unwrap_or(port) == self.config.admin_listen.port()
    }

    /// Is this one of our own listeners? A connection for it would come back.
    fn is_own_port(&self, port: u16) -> bool {
        port == self.config.inbound.listen.port()
            || self
                .config
                .outbound
                .listen
                .iter()
                .any(|own| own.port() == port)
            || self
                .config
                .tap
                .as_ref()
                .is_some_and(|tap| tap.listen.port() == port)
    }

    fn handshake_failed(&self, error: &std::io::Error) {
        let labels = Labels::builder()
            .add("direction", "inbound")
            .add("reason", failure_reason(error))
            .build();
        self.shard
            .counter(&families::TLS_HANDSHAKE_FAILURES_TOTAL, &labels)
            .inc();
        let late = error.kind() == std::io::ErrorKind::TimedOut;
        let word = if late { "tls detection timeout" } else { "i/o" };
        self.failed(Some(word), Reason::TlsFailed.code());
    }

    fn detected(&self, port: &Port, server: &Server, result: &str, took: Duration) {
        let srv = labels::port(port, server);
        let results = srv.extend().add("result", result).build();
        self.shard
            .counter(&families::INBOUND_TCP_DETECT_HTTP_RESULTS_TOTAL, &results)
            .inc();
        self.shard
            .histogram(&families::INBOUND_TCP_DETECT_HTTP_DURATION_SECONDS, &srv)
            .record(took);
    }

    /// Counts a request that we answered instead of the application.
    fn answered_itself(&self, session: &Session, reason: Reason) {
        let Some(error) = errors::inbound(reason) else {
            return;
        };
        let labels = labels::error(session, error, reason);
        self.shard
            .counter(&families::INBOUND_HTTP_ERRORS_TOTAL, &labels)
            .inc();
    }

    /// Counts a request that a fault of a route has hit.
    fn fault(&self, route: &Meta, kind: &str) {
        let labels = fault_labels("inbound", route, kind);
        self.shard
            .counter(&families::HTTP_FAULTS_TOTAL, &labels)
            .inc();
    }

    /// Counts a preflight request that a route has answered.
    fn preflight(&self, answer: &Refusal) {
        let labels = preflight_labels("inbound", answer);
        self.shard
            .counter(&families::HTTP_PREFLIGHTS_TOTAL, &labels)
            .inc();
    }

    /// Counts a connection that we closed, or could not carry.
    fn refused(&self, reason: Reason) {
        self.failed(errors::inbound(reason), reason.code());
    }

    fn failed(&self, error: Option<&str>, reason: &str) {
        let labels = Labels::builder()
            .add("error", error.unwrap_or("unexpected"))
            .add("reason", reason)
            .build();
        self.shard
            .counter(&families::INBOUND_TCP_ERRORS_TOTAL, &labels)
            .inc();
    }

    fn h1_timeouts(&self) -> serve::Timeouts {
        serve::Timeouts::from_config(&self.config)
    }

    fn server_settings(&self) -> h2::Settings {
        h2::Settings::from_config(&self.config.inbound.connections.h2)
    }
}

/// Serves one accepted connection to its end. `stands_for`: the listener is plain and stands for this port.
pub async fn serve(
    inbound: Rc<Inbound>,
    accepted: Accepted,
    stands_for: Option<u16>,
    guard: Guard,
) {
    let client = accepted.client;
    let io = Io::from(accepted.stream);
    let (ip, port) = match stands_for {
        Some(port) => (pod_ip(&inbound.config, accepted.local.ip()), port),
        None if accepted.original.port() == inbound.config.inbound.listen.port() => {
            return direct::serve(inbound, io, client, accepted.local, guard).await;
        }
        None => (accepted.original.ip(), accepted.original.port()),
    };
    let ips = &inbound.config.inbound.ips;
    if !ips.is_empty() && !ips.contains(&ip.to_canonical()) {
        return inbound.refused(Reason::UnexpectedAddress);
    }
    if inbound.is_own_port(port) {
        return inbound.refused(Reason::Loop);
    }
    let port = Ports::get(&inbound, port, inbound.application(ip, port));
    transparent(inbound, io, client, port, guard).await;
}

/// The address that a plain listener's connections are for.
fn pod_ip(config: &Config, local: IpAddr) -> IpAddr {
    let ips = &config.inbound.ips;
    if ips.contains(&local) {
        local
    } else {
        ips.first().copied().unwrap_or(local)
    }
}

/// Serves a connection to a port of the workload.
async fn transparent(
    inbound: Rc<Inbound>,
    mut io: Io,
    client: SocketAddr,
    port: Rc<Port>,
    guard: Guard,
) {
    let server = port.server();
    let detect_timeout = match &server.protocol {
        Protocol::Detect { timeout, .. } => *timeout,
        _ => inbound.config.inbound.connections.detect_timeout,
    };
    let client = match server.proxy_protocol {
        false => client,
        true => match fronted(&mut io, client, detect_timeout).await {
            Some(client) => client,
            None => return inbound.refused(Reason::ProxyProtocolInvalid),
        },
    };
    if matches!(server.protocol, Protocol::Opaque) {
        let session = Session::new(port, client, ClientTls::None("port_skipped"));
        return tcp::serve(inbound, io, session, None, guard).await;
    }
    let begun = Instant::now();
    let mut session = Session::new(port.clone(), client, inbound.no_tls());
    let (mut spoken, mut opened) =
        detect(&inbound, &mut io, &session, &server, detect_timeout).await;
    if let Some(epoch) = spoken
        .as_ref()
        .ok()
        .and_then(|spoken| ours(&inbound.trust, spoken))
    {
        io = match tls::accept(io, epoch.server(ServerAlpn::None), detect_timeout).await {
            Ok(io) => io,
            Err(error) => return inbound.handshake_failed(&error),
        };
        inbound.handshakes.count(&io);
        let Some(tls) = client_tls(&inbound.trust, &epoch, &mut io) else {
            return inbound.refused(Reason::TlsFailed);
        };
        session = Session::new(port.clone(), client, tls);
        (spoken, opened) = detect(&inbound, &mut io, &session, &server, detect_timeout).await;
    } else if let Ok(Spoken::Tls {
        server_name: Some(name),
    }) = &spoken
    {
        session = Session::new(
            port.clone(),
            client,
            ClientTls::Passthrough(name.as_str().into()),
        );
    }
    inbound.detected(&port, &server, sniff::result(&spoken), begun.elapsed());
    let Ok(spoken) = spoken else { return };
    let http = match (&spoken, &server.protocol) {
        (Spoken::Known(detect::Protocol::Http1), _) => Some(false),
        (Spoken::Known(detect::Protocol::Http2), _) => Some(true),
        // Declared as HTTP, and it is none: the codec says so to the client.
        (_, Protocol::Http1(_) | Protocol::Http2(_) | Protocol::Grpc(_)) => Some(false),
        _ => None,
    };
    match http.filter(|_| server.http().is_some()) {
        Some(http2) => serve_http(inbound, io, session, http2, guard).await,
        None => tcp::serve(inbound, io, session, opened, guard).await,
    }
}

/// What the client speaks. Where anything may be spoken, the application may be the one to speak first.
async fn detect(
    inbound: &Inbound,
    io: &mut Io,
    session: &Session,
    server: &Server,
    timeout: Duration,
) -> (std::io::Result<Spoken>, Option<Io>) {
    if !matches!(server.protocol, Protocol::Detect { .. }) {
        return (sniff::sniff(io, timeout).await, None);
    }
    let open = || async { tcp::open(session).await.map(|server| ((), server)) };
    let (spoken, opened) = inbound.silence.sniff(io, timeout, open).await;
    (spoken, opened.map(|((), server)| server))
}

/// Who the client is, as the load balancer in front says in the connection's first bytes. `None`: they say nothing.
async fn fronted(io: &mut Io, client: SocketAddr, timeout: Duration) -> Option<SocketAddr> {
    let read = async {
        loop {
            if let Some(header) = proxy_protocol::parse(io.ahead()).ok()? {
                io.consume_ahead(header.length);
                return Some(header.source.unwrap_or(client));
            }
            if io.read_ahead().await.ok()? == 0 {
                return None;
            }
        }
    };
    tokio::time::timeout(timeout, read).await.ok().flatten()
}

/// Our certificates, if the client begins TLS for our name.
fn ours(trust: &Trust, spoken: &Spoken) -> Option<Arc<Epoch>> {
    let Spoken::Tls {
        server_name: Some(name),
    } = spoken
    else {
        return None;
    };
    trust.epoch().filter(|epoch| epoch.is_named(name))
}

/// Who the client is, after a handshake. `None`: a certificate that names nobody we could name, or one whose anchor
/// was dropped during the handshake.
pub(crate) fn client_tls(trust: &Trust, epoch: &Epoch, io: &mut Io) -> Option<ClientTls> {
    let Some(chain) = io.peer_certificates() else {
        return Some(ClientTls::Unauthenticated);
    };
    let peer = PeerIdentity::from_leaf(chain.first()?).ok()?;
    let standing = trust.admit(epoch, chain, Direction::Inbound).ok()?;
    io.proved(standing);
    Some(ClientTls::Peer(Rc::new(peer)))
}

async fn serve_http(inbound: Rc<Inbound>, mut io: Io, session: Session, http2: bool, guard: Guard) {
    io.measure(labels::client_meter(&inbound, &session));
    let guard = guard.with(io.standing());
    let (settings, timeouts) = (inbound.server_settings(), inbound.h1_timeouts());
    let requests = http::Requests::new(inbound, session);
    if http2 {
        // The connection's task has told the peer what was wrong with it.
        let _ended = serve::http2(io, Rc::new(requests), settings, guard).await;
    } else {
        serve::http1(
            io,
            &requests,
            tulle_http::Limits::default(),
            timeouts,
            guard,
        )
        .await;
    }
}
