//! The application's own connections, from accept to relay. Read top to bottom:
//!
//! `serve` (here): where the connection wants to go and what it speaks. `target`: the policy of that place, followed
//! while it changes. `http`: one request: route, filters, backend, exchange, account (`attempt`: one try of it, `tries`:
//! whether there is another, `hedge`: a second beside the first, `rules`: what both know of a rule). `mirror`: copies of
//! requests. `tcp`: one opaque connection.
//! `backend`: the endpoints of a backend and which of them takes the next request. `explicit`: a client that was not
//! redirected here but came by itself and names its destination in each request.

mod attempt;
mod backend;
mod explicit;
mod hedge;
mod http;
mod labels;
pub mod mirror;
mod rules;
mod target;
mod tcp;
mod tries;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tulle_engine::outbound::Protocol;
use tulle_engine::route::RuleName;
use tulle_engine::{Meta, Reason};

use crate::config::Config;
use crate::detect;
use crate::discovery::{Discovery, Target};
use crate::drain::Guard;
use crate::http::answer::Refusal;
use crate::http::decision::{Origin, fault_labels, preflight_labels};
use crate::http::replay::Room;
use crate::http::stall::Stalls;
use crate::http::{h2, serve};
use crate::identity::Trust;
use crate::metrics::{Labels, Shard, errors, families};
use crate::net::dial::Dialer;
use crate::net::io::Io;
use crate::net::listen::Accepted;
use crate::net::server_first::Silence;
use crate::net::sniff::{self, Spoken};
use crate::net::tls::Handshakes;
use crate::observe::Observer;
use crate::places::Places;
pub use http::{Requests, Tunnel};

/// How long a new target's policy is waited for.
const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(10);

/// What the outbound side of a worker shares among its connections.
pub struct Outbound {
    config: Arc<Config>,
    discovery: Discovery,
    trust: Trust,
    shard: Shard,
    dialer: Dialer,
    handshakes: Rc<Handshakes>,
    /// Our own listeners: a request for one of them would come back.
    listening: Vec<SocketAddr>,
    targets: RefCell<target::Targets>,
    backends: RefCell<backend::Backends>,
    in_flight: Places,
    silence: Silence,
    mirrored: Rc<Places>,
    /// For bodies that may have to be sent again.
    room: Rc<Room>,
    observer: Rc<Observer>,
    stalls: Stalls,
}

impl Outbound {
    pub fn new(
        config: Arc<Config>,
        discovery: Discovery,
        trust: Trust,
        shard: Shard,
        listening: Vec<SocketAddr>,
        observer: Rc<Observer>,
    ) -> Rc<Self> {
        let connections = &config.outbound.connections;
        let dialer = Dialer::to_connect(connections, config.mark);
        let family = &families::OUTBOUND_TCP_DETECT_SERVER_FIRST_TOTAL;
        Rc::new(Outbound {
            stalls: Stalls::new(config.patience, &shard, "outbound"),
            handshakes: Rc::new(Handshakes::new(&shard, "outbound")),
            silence: Silence::new(shard.clone(), family),
            room: Room::new(
                shard.gauge(&families::OUTBOUND_HTTP_RETRY_BUFFER_BYTES, &Labels::none()),
            ),
            discovery,
            trust,
            shard,
            dialer,
            listening,
            observer,
            targets: RefCell::default(),
            backends: RefCell::default(),
            in_flight: Places::new(connections.max_in_flight),
            mirrored: Rc::new(Places::new(mirror::MAX_MIRRORED)),
            config,
        })
    }

    /// What the client speaks; counted.
    async fn detect(
        &self,
        io: &mut Io,
        timeout: Duration,
        compiled: Option<&target::Compiled>,
    ) -> io::Result<Spoken> {
        let begun = Instant::now();
        let spoken = sniff::sniff(io, timeout).await;
        self.detected(compiled, &spoken, begun);
        spoken
    }

    fn detected(
        &self,
        compiled: Option<&target::Compiled>,
        spoken: &io::Result<Spoken>,
        begun: Instant,
    ) {
        let (result, took) = (sniff::result(spoken), begun.elapsed());
        match compiled {
            Some(compiled) => compiled.detected(result, took),
            // Each of its requests will say where it goes.
            None => target::count_detected(&self.shard, &Meta::Default("".into()), result, took),
        }
    }

    /// The same, where the server may be the one to speak first: then it has been connected to.
    async fn detect_beside(
        &self,
        io: &mut Io,
        timeout: Duration,
        target: &target::State,
    ) -> (io::Result<Spoken>, Option<(tcp::Chosen, Io)>) {
        let begun = Instant::now();
        let client = io.client();
        let open = || async { tcp::open(target, b"", client).await.ok() };
        let (spoken, opened) = self.silence.sniff(io, timeout, open).await;
        self.detected(target.current().as_deref(), &spoken, begun);
        (spoken, opened)
    }

    /// Counts a request that we answered instead of a server.
    fn answered_itself(&self, reason: Reason) {
        let Some(error) = errors::outbound(reason) else {
            return;
        };
        let labels = labels::error(error, reason).build();
        self.shard
            .counter(&families::OUTBOUND_HTTP_ERRORS_TOTAL, &labels)
            .inc();
    }

    /// Counts a request that a rule holds back.
    fn delayed(&self, delay: Option<Duration>, rule: RuleName<'_>) {
        if delay.is_some() {
            let labels = fault_labels("outbound", rule.route, "delay");
            self.shard
                .counter(&families::HTTP_FAULTS_TOTAL, &labels)
                .inc();
        }
    }

    /// What a rule answers by itself: counted, and marked for browsers.
    fn answered(
        &self,
        mut answer: Refusal,
        rule: RuleName<'_>,
        origin: Option<Box<Origin>>,
    ) -> Box<Refusal> {
        let (family, labels) = match (answer.reason, origin) {
            (Reason::Preflight, _) => (
                &families::HTTP_PREFLIGHTS_TOTAL,
                preflight_labels("outbound", &answer),
            ),
            (reason, origin) => {
                if let Some(origin) = origin {
                    origin.mark_refusal(&mut answer);
                }
                if reason != Reason::FaultInjected {
                    return Box::new(answer);
                }
                let labels = fault_labels("outbound", rule.route, "abort");
                (&families::HTTP_FAULTS_TOTAL, labels)
            }
        };
        self.shard.counter(family, &labels).inc();
        Box::new(answer)
    }

    /// Counts a connection that we could not carry.
    fn refused(&self, target: &Target, reason: Reason) {
        let error = errors::outbound(reason).unwrap_or("unexpected");
        let labels = labels::error(error, reason);
        let labels = match target {
            Target::Addr(address) => labels::target_address(labels, *address),
            Target::Authority(_) => labels,
        };
        let labels = labels.build();
        self.shard
            .counter(&families::OUTBOUND_TCP_ERRORS_TOTAL, &labels)
            .inc();
    }

    fn h1_limits(&self) -> tulle_http::Limits {
        tulle_http::Limits::default()
    }

    fn h1_timeouts(&self) -> serve::Timeouts {
        serve::Timeouts::from_config(&self.config)
    }

    fn server_settings(&self) -> h2::Settings {
        h2::Settings::from_config(&self.config.outbound.connections.h2)
    }
}

/// What is known of a name, for a gateway.
pub fn named(outbound: &Rc<Outbound>, authority: &str) -> Rc<target::State> {
    target::Targets::get(outbound, Target::Authority(authority.to_owned()))
}

/// Serves a connection of which nothing is known but where it goes, for a gateway.
pub async fn opaque(outbound: Rc<Outbound>, io: Io, target: Rc<target::State>, guard: Guard) {
    tcp::serve(outbound, io, target, b"", None, guard).await;
}

/// Serves one accepted connection to its end.
pub async fn serve(outbound: Rc<Outbound>, accepted: Accepted, guard: Guard) {
    let explicit = !accepted.redirected() || outbound.listening.contains(&accepted.original);
    if explicit
        && !outbound.config.outbound.ingress_mode
        && !is_own(
            accepted.client.ip(),
            accepted.local.ip(),
            &outbound.config.inbound.ips,
        )
    {
        return outbound.refused(&Target::Addr(accepted.original), Reason::Stranger);
    }
    let original = accepted.original;
    let mut io = Io::from(accepted.stream);
    io.measure(labels::client_meter(&outbound, original, explicit));
    if explicit || outbound.config.outbound.ingress_mode {
        let original = (!explicit).then_some(original);
        return explicit::serve(outbound, io, original, guard).await;
    }
    let target = target::Targets::get(&outbound, Target::Addr(original));
    captured(outbound, io, target, guard).await;
}

/// Is a client that was not redirected here of our own pod? Where others can reach the port, they could borrow our identity.
fn is_own(client: IpAddr, local: IpAddr, pod: &BTreeSet<IpAddr>) -> bool {
    let client = client.to_canonical();
    client.is_loopback() || client == local.to_canonical() || pod.contains(&client)
}

/// Serves a connection whose destination is known: detects what it speaks, if its policy says so.
async fn captured(outbound: Rc<Outbound>, mut io: Io, target: Rc<target::State>, guard: Guard) {
    let compiled = match target.ready(DISCOVERY_TIMEOUT).await {
        Ok(compiled) => compiled,
        Err(reason) => return outbound.refused(target.target(), reason),
    };
    compiled.connected();
    let detect_timeout = outbound.config.outbound.connections.detect_timeout;
    let (timeout, fallback) = match &compiled.policy().protocol {
        Protocol::Opaque(_) => {
            return tcp::serve(outbound, io, target, b"", None, guard).await;
        }
        Protocol::Detect { timeout, .. } => (*timeout, true),
        Protocol::Tls(_) => (detect_timeout, true),
        Protocol::Http1(_) | Protocol::Http2(_) | Protocol::Grpc(_) => (detect_timeout, false),
    };
    // Where the protocol is declared, the client speaks first in it.
    let (spoken, opened) = match &compiled.policy().protocol {
        Protocol::Detect { .. } => outbound.detect_beside(&mut io, timeout, &target).await,
        _ => (
            outbound.detect(&mut io, timeout, Some(&compiled)).await,
            None,
        ),
    };
    let Ok(spoken) = spoken else { return };
    drop(compiled);
    let (limits, timeouts) = (outbound.h1_limits(), outbound.h1_timeouts());
    match spoken {
        Spoken::Known(detect::Protocol::Http2) => {
            let settings = outbound.server_settings();
            let requests = http::Requests::to(outbound, io.peer(), target);
            // The connection's task has told the peer what was wrong with it.
            let _ended = serve::http2(io, Rc::new(requests), settings, guard).await;
        }
        Spoken::Known(detect::Protocol::Http1) => {
            let requests = http::Requests::to(outbound, io.peer(), target);
            serve::http1(io, &requests, limits, timeouts, guard).await;
        }
        // Declared as HTTP, and it is none: the codec says so to the client.
        _ if !fallback => {
            let requests = http::Requests::to(outbound, io.peer(), target);
            serve::http1(io, &requests, limits, timeouts, guard).await;
        }
        Spoken::Tls { server_name } => {
            let name = server_name.unwrap_or_default();
            tcp::serve(outbound, io, target, name.as_bytes(), None, guard).await;
        }
        Spoken::Known(_) | Spoken::Silent | Spoken::ServerFirst => {
            tcp::serve(outbound, io, target, b"", opened, guard).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pods_own_clients_may_name_destinations() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let pod = BTreeSet::from([ip("10.0.0.5"), ip("fd00::5")]);
        for (client, local, own) in [
            ("127.0.0.1", "127.0.0.1", true),
            ("::1", "::1", true),
            ("::ffff:127.0.0.1", "::ffff:127.0.0.1", true),
            ("10.0.0.5", "10.0.0.5", true),
            ("10.0.0.5", "127.0.0.1", true),
            ("fd00::5", "fd00::9", true),
            ("10.0.0.6", "10.0.0.5", false),
            ("::ffff:10.0.0.6", "10.0.0.5", false),
            ("fd00::6", "fd00::5", false),
        ] {
            assert_eq!(
                is_own(ip(client), ip(local), &pod),
                own,
                "{client} to {local}"
            );
        }
        assert!(
            is_own(ip("10.0.0.7"), ip("10.0.0.7"), &BTreeSet::new()),
            "its addresses are not told"
        );
    }
}
