//! The ports of the workload: the policy of each, and the connections to the application behind it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use tokio::sync::watch;
use tulle_engine::inbound::Server;
use tulle_engine::route::RuleId;

use crate::http::h2;
use crate::http::origin::{self, Origin};
use crate::inbound::admission::Gate;
use crate::inbound::profiles::Routes;
use crate::inbound::{Inbound, labels};
use crate::metrics::http::HttpMetrics;
use crate::metrics::route::Edge;
use crate::metrics::{Counter, Labels, Shard};
use crate::net::reach::Reach;

/// The ports that have been asked for, by port and the application's address. Peers name ports, so they are bounded.
#[derive(Default)]
pub struct Ports {
    known: HashMap<(u16, SocketAddr), Rc<Port>>,
}

/// Ports that a worker remembers: more than a workload has.
const MAX_PORTS: usize = 1024;
/// Sets of series that one port keeps at hand; the registry has the series themselves.
const MAX_SERIES: usize = 512;

/// Routes of profiles that one of them keeps at hand.
const MAX_PROFILED: usize = 64;

/// What a request's series are told apart by, within a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SeriesKey {
    pub route: usize,
    pub authorization: usize,
    pub service: Box<str>,
    /// Only where the configuration wants it: clients make series with it.
    pub authority: Box<str>,
    pub client: Box<str>,
    pub client_pod: Box<str>,
}

/// The series of such requests.
pub struct Series {
    pub allowed: Counter,
    pub http: HttpMetrics,
    /// Of the route alone, whoever the client is.
    pub edge: Rc<Edge>,
    pub route: RouteLabels,
    /// The same for requests that a profile's route takes.
    pub profiled: RefCell<Vec<Profiled>>,
}

/// What the series of a route are resolved by.
pub struct RouteLabels {
    pub grpc: bool,
    pub labels: Labels,
}

/// Requests of one route that one profile's route takes.
pub struct Profiled {
    by: Weak<Routes>,
    rule: RuleId,
    edge: Rc<Edge>,
}

impl RouteLabels {
    pub fn edge(&self, shard: &Shard) -> Edge {
        Edge::inbound(shard, self.grpc, &self.labels)
    }
}

impl Series {
    /// Where requests are counted that this route of a profile takes.
    pub fn profiled(&self, shard: &Shard, by: &Rc<Routes>, rule: RuleId) -> Rc<Edge> {
        let mut known = self.profiled.borrow_mut();
        let same = |known: &&Profiled| known.rule == rule && known.by.as_ptr() == Rc::as_ptr(by);
        if let Some(known) = known.iter().find(same) {
            return known.edge.clone();
        }
        if known.len() >= MAX_PROFILED {
            shard.limit("proxy::inbound::port::MAX_PROFILED").inc();
            known.clear();
        }
        let profile = by.classified(shard, rule);
        let edge = Rc::new(self.route.edge(shard).of_profile(Some(profile)));
        known.push(Profiled {
            by: Rc::downgrade(by),
            rule,
            edge: edge.clone(),
        });
        edge
    }
}

pub struct Port {
    pub number: u16,
    server: RefCell<watch::Receiver<Arc<Server>>>,
    current: RefCell<Arc<Server>>,
    pub application: Rc<Origin>,
    series: RefCell<HashMap<SeriesKey, Rc<Series>>>,
    /// Made when a policy has requirements beyond authorization.
    gate: RefCell<Option<Rc<Gate>>>,
}

impl Ports {
    /// A port, whose policy is watched from now on.
    pub fn get(inbound: &Rc<Inbound>, number: u16, address: SocketAddr) -> Rc<Port> {
        let mut ports = inbound.ports.borrow_mut();
        if let Some(port) = ports.known.get(&(number, address)) {
            return port.clone();
        }
        if ports.known.len() >= MAX_PORTS {
            inbound.shard.limit("proxy::inbound::port::MAX_PORTS").inc();
            ports.known.retain(|_, port| Rc::strong_count(port) > 1);
        }
        let port = Rc::new(Port::new(inbound, number, address));
        ports.known.insert((number, address), port.clone());
        port
    }
}

impl Ports {
    /// Lets go of the series that no connection has used last, and of those of profiles that are gone. Returns whether
    /// there are others. A client that comes again resolves its series again.
    pub fn sweep(&self) -> bool {
        let mut left = false;
        for port in self.known.values() {
            let mut known = port.series.borrow_mut();
            known.retain(|_, series| Rc::strong_count(series) > 1);
            for series in known.values() {
                let mut profiled = series.profiled.borrow_mut();
                profiled.retain(|profiled| profiled.by.strong_count() > 0);
            }
            left |= !known.is_empty();
        }
        left
    }
}

impl Port {
    fn new(inbound: &Inbound, number: u16, address: SocketAddr) -> Self {
        let connections = &inbound.config.inbound.connections;
        let limits = origin::Limits {
            connect_timeout: connections.connect_timeout,
            idle: connections.pool_max_idle,
            idle_time: connections.pool_idle,
            h1: tulle_http::Limits::default(),
            // The application is next door; a ping tells nothing that the socket does not.
            h2: h2::Settings {
                keepalive_interval: None,
                ..h2::Settings::default()
            },
        };
        let meter = labels::application_meter(inbound, address);
        let mut server = inbound.discovery.inbound(number);
        let current = server.borrow_and_update().clone();
        Port {
            number,
            server: RefCell::new(server),
            current: RefCell::new(current),
            application: Origin::new(
                Reach::plain(address),
                inbound.dialer,
                inbound.trust.clone(),
                limits,
                meter,
                None,
            ),
            series: RefCell::default(),
            gate: RefCell::default(),
        }
    }

    /// What is kept for requirements beyond authorization.
    pub fn gate(&self, inbound: &Inbound) -> Rc<Gate> {
        let mut gate = self.gate.borrow_mut();
        gate.get_or_insert_with(|| Gate::new(inbound, self.number))
            .clone()
    }

    /// The newest policy.
    pub fn server(&self) -> Arc<Server> {
        if self.server.borrow().has_changed().unwrap_or(false) {
            *self.current.borrow_mut() = self.server.borrow_mut().borrow_and_update().clone();
            self.series.borrow_mut().clear();
        }
        self.current.borrow().clone()
    }

    /// To be told of changes.
    pub fn watch(&self) -> watch::Receiver<Arc<Server>> {
        self.server.borrow().clone()
    }

    /// The series of these requests; resolved once.
    pub fn series(&self, key: SeriesKey, resolve: impl FnOnce(&SeriesKey) -> Series) -> Rc<Series> {
        let mut series = self.series.borrow_mut();
        if let Some(known) = series.get(&key) {
            return known.clone();
        }
        if series.len() >= MAX_SERIES {
            series.clear();
        }
        let resolved = Rc::new(resolve(&key));
        series.insert(key, resolved.clone());
        resolved
    }
}
