//! What a channel to the control plane shows of its connections: Linkerd's `control_*_balancer_*`.
//!
//! There is no balancer: addresses are dialled in turn and a connection carries many calls. An address is *ready* while a
//! connection to it takes calls, and what waits for a connection is the queue.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::metrics::balancer::{self, Balanced, Families};
use crate::metrics::{Labels, Shard};

/// The meters of one channel.
#[derive(Debug)]
pub struct Connections {
    shown: Option<Balanced>,
    addresses: RefCell<BTreeSet<SocketAddr>>,
    ready: Cell<usize>,
}

/// Somebody waits for a connection, for as long as this lives.
pub struct Waiting<'c> {
    connections: &'c Connections,
    since: Instant,
}

fn families(client: &str) -> Option<&'static Families> {
    match client {
        "destination" => Some(&balancer::CONTROL_DESTINATION),
        "policy" => Some(&balancer::CONTROL_POLICY),
        "identity" => Some(&balancer::CONTROL_IDENTITY),
        _ => None,
    }
}

impl Connections {
    /// `addr`: of the service, as it is configured. Clients that Linkerd does not have show nothing.
    pub fn new(client: &str, addr: &str, shard: &Shard) -> Self {
        let labels = Labels::builder().add("addr", addr).build();
        Connections {
            shown: families(client)
                .map(|families| Balanced::new(shard, families, &labels, Duration::ZERO)),
            addresses: RefCell::default(),
            ready: Cell::new(0),
        }
    }

    /// The service has these addresses.
    pub fn resolved(&self, addresses: &[SocketAddr]) {
        let Some(shown) = &self.shown else { return };
        let now: BTreeSet<SocketAddr> = addresses.iter().copied().collect();
        let before = self.addresses.replace(now);
        let now = self.addresses.borrow();
        if before.is_empty() {
            shown.reset.inc();
        } else {
            shown.added.add(now.difference(&before).count() as u64);
            shown.removed.add(before.difference(&now).count() as u64);
        }
        shown.show(now.len().max(self.ready.get()), self.ready.get());
    }

    /// There are connections to these addresses now.
    pub fn open(&self, to: impl Iterator<Item = Option<SocketAddr>>) {
        let Some(shown) = &self.shown else { return };
        let ready = to.flatten().collect::<BTreeSet<_>>().len();
        match (self.ready.replace(ready), ready) {
            (0, 1..) => shown.opened(),
            (1.., 0) => shown.shut(),
            _ => {}
        }
        // A connection may outlive its address.
        shown.show(self.addresses.borrow().len().max(ready), ready);
    }

    /// Somebody has found no connection.
    pub fn wait(&self) -> Waiting<'_> {
        if let Some(shown) = &self.shown {
            shown.queue_requests.inc();
            shown.queue_length.inc();
        }
        Waiting {
            connections: self,
            since: Instant::now(),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(shown) = &self.connections.shown {
            shown.queue_length.dec();
            shown.waited(self.since.elapsed());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Format, Limits, Registry, render};

    #[test]
    fn addresses_connections_and_those_who_wait_are_shown() {
        let registry = Registry::new(Limits::default());
        let connections = Connections::new("policy", "policy.test:8090", &registry.shard());
        let address = |last: u8| Some(SocketAddr::from(([10, 0, 0, last], 8090)));
        let page = || render(&registry, Vec::new(), Format::Prometheus);
        let shows = |family: &str, more: &str, value: &str| {
            let line = format!(
                "control_policy_balancer_{family}{{addr=\"policy.test:8090\"{more}}} {value}"
            );
            assert!(
                page().lines().any(|shown| shown == line),
                "{line}\n{}",
                page()
            );
        };
        let waiting = connections.wait();
        connections.resolved(&[address(1).unwrap(), address(2).unwrap()]);
        shows("endpoints", ",endpoint_state=\"pending\"", "2");
        shows("queue_length", "", "1");
        connections.open([address(1), address(1)].into_iter());
        drop(waiting);
        shows("queue_length", "", "0");
        shows("queue_requests_total", "", "1");
        shows("queue_latency_seconds_count", "", "1");
        shows("endpoints", ",endpoint_state=\"ready\"", "1");
        shows("endpoints", ",endpoint_state=\"pending\"", "1");
        shows("queue_gate_open_total", "", "1");
        shows("queue_gate_shut_total", "", "0");
        connections.resolved(&[address(2).unwrap(), address(3).unwrap()]);
        shows("p2c_updates_total", ",op=\"Reset\"", "1");
        shows("p2c_updates_total", ",op=\"Add\"", "1");
        shows("p2c_updates_total", ",op=\"Remove\"", "1");
        connections.open(std::iter::empty());
        shows("queue_gate_shut_total", "", "1");
        shows("p2c_endpoints", "", "2");
        shows("queue_gate_timeout_seconds", "", "0");
        assert!(!page().contains("control_identity"));
    }
}
