//! The families of balancers: Linkerd's `outbound_{http,tcp,tls}_balancer_*` and
//! `control_{destination,policy,identity}_balancer_*`. How many endpoints there are, and what waits for one.

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::families as f;
use super::{Counter, Family, Gauge, Histogram, Labels, Shard};

/// The series of one balancer.
#[derive(Debug)]
pub struct Balanced {
    ready: Level,
    pending: Level,
    p2c: Level,
    /// The whole list of endpoints was read.
    pub reset: Counter,
    /// An endpoint was added.
    pub added: Counter,
    /// An endpoint was removed.
    pub removed: Counter,
    /// What waits for an endpoint now.
    pub queue_length: Gauge,
    /// What had to wait.
    pub queue_requests: Counter,
    queue_latency: Histogram,
    gate_open: Counter,
    gate_shut: Counter,
    gate_open_time: Level,
    gate_shut_time: Level,
    /// Never changes; held for as long as the others are.
    _gate_timeout: Level,
}

impl Balanced {
    /// `failfast`: after so long without a ready endpoint what waits fails; zero is never.
    pub fn new(shard: &Shard, families: &Families, labels: &Labels, failfast: Duration) -> Self {
        let with = |name, value| labels.extend().add(name, value).build();
        let level = |family, labels: &Labels| Level::new(shard.gauge(family, labels));
        let update = |op| shard.counter(families.updates, &with("op", op));
        let timeout = level(families.gate_timeout, labels);
        timeout.set(failfast.as_secs());
        Balanced {
            ready: level(families.endpoints, &with("endpoint_state", "ready")),
            pending: level(families.endpoints, &with("endpoint_state", "pending")),
            p2c: level(families.p2c, labels),
            reset: update("Reset"),
            added: update("Add"),
            removed: update("Remove"),
            queue_length: shard.gauge(families.queue_length, labels),
            queue_requests: shard.counter(families.queue_requests, labels),
            queue_latency: shard.histogram(families.queue_latency, labels),
            gate_open: shard.counter(families.gate_open, labels),
            gate_shut: shard.counter(families.gate_shut, labels),
            gate_open_time: level(families.gate_open_time, labels),
            gate_shut_time: level(families.gate_shut_time, labels),
            _gate_timeout: timeout,
        }
    }

    /// So many endpoints are known now, and so many of them ready.
    pub fn show(&self, all: usize, ready: usize) {
        let (all, ready) = (all as u64, ready as u64);
        self.ready.set(ready);
        self.pending.set(all - ready);
        self.p2c.set(all);
    }

    /// An endpoint is ready again.
    pub fn opened(&self) {
        self.gate_open.inc();
        self.gate_open_time.set(unix_now());
    }

    /// The last endpoint that was ready no longer is.
    pub fn shut(&self) {
        self.gate_shut.inc();
        self.gate_shut_time.set(unix_now());
    }

    /// A request has left the queue, served or not.
    pub fn waited(&self, length: Duration) {
        self.queue_latency.record(length);
    }
}

/// The families of balancers of one kind.
#[derive(Debug)]
pub struct Families {
    endpoints: &'static Family,
    p2c: &'static Family,
    updates: &'static Family,
    queue_length: &'static Family,
    queue_requests: &'static Family,
    queue_latency: &'static Family,
    gate_open: &'static Family,
    gate_shut: &'static Family,
    gate_open_time: &'static Family,
    gate_shut_time: &'static Family,
    gate_timeout: &'static Family,
}

/// Of backends of requests.
pub static HTTP: Families = Families {
    endpoints: &f::OUTBOUND_HTTP_BALANCER_ENDPOINTS,
    p2c: &f::OUTBOUND_HTTP_BALANCER_P2C_ENDPOINTS,
    updates: &f::OUTBOUND_HTTP_BALANCER_P2C_UPDATES_TOTAL,
    queue_length: &f::OUTBOUND_HTTP_BALANCER_QUEUE_LENGTH,
    queue_requests: &f::OUTBOUND_HTTP_BALANCER_QUEUE_REQUESTS_TOTAL,
    queue_latency: &f::OUTBOUND_HTTP_BALANCER_QUEUE_LATENCY_SECONDS,
    gate_open: &f::OUTBOUND_HTTP_BALANCER_QUEUE_GATE_OPEN_TOTAL,
    gate_shut: &f::OUTBOUND_HTTP_BALANCER_QUEUE_GATE_SHUT_TOTAL,
    gate_open_time: &f::OUTBOUND_HTTP_BALANCER_QUEUE_GATE_OPEN_TIME_SECONDS,
    gate_shut_time: &f::OUTBOUND_HTTP_BALANCER_QUEUE_GATE_SHUT_TIME_SECONDS,
    gate_timeout: &f::OUTBOUND_HTTP_BALANCER_QUEUE_GATE_TIMEOUT_SECONDS,
};

/// Of backends of connections.
pub static TCP: Families = Families {
    endpoints: &f::OUTBOUND_TCP_BALANCER_ENDPOINTS,
    p2c: &f::OUTBOUND_TCP_BALANCER_P2C_ENDPOINTS,
    updates: &f::OUTBOUND_TCP_BALANCER_P2C_UPDATES_TOTAL,
    queue_length: &f::OUTBOUND_TCP_BALANCER_QUEUE_LENGTH,
    queue_requests: &f::OUTBOUND_TCP_BALANCER_QUEUE_REQUESTS_TOTAL,
    queue_latency: &f::OUTBOUND_TCP_BALANCER_QUEUE_LATENCY_SECONDS,
    gate_open: &f::OUTBOUND_TCP_BALANCER_QUEUE_GATE_OPEN_TOTAL,
    gate_shut: &f::OUTBOUND_TCP_BALANCER_QUEUE_GATE_SHUT_TOTAL,
    gate_open_time: &f::OUTBOUND_TCP_BALANCER_QUEUE_GATE_OPEN_TIME_SECONDS,
    gate_shut_time: &f::OUTBOUND_TCP_BALANCER_QUEUE_GATE_SHUT_TIME_SECONDS,
    gate_timeout: &f::OUTBOUND_TCP_BALANCER_QUEUE_GATE_TIMEOUT_SECONDS,
};

/// Of backends of TLS connections that are passed on.
pub static TLS: Families = Families {
    endpoints: &f::OUTBOUND_TLS_BALANCER_ENDPOINTS,
    p2c: &f::OUTBOUND_TLS_BALANCER_P2C_ENDPOINTS,
    updates: &f::OUTBOUND_TLS_BALANCER_P2C_UPDATES_TOTAL,
    queue_length: &f::OUTBOUND_TLS_BALANCER_QUEUE_LENGTH,
    queue_requests: &f::OUTBOUND_TLS_BALANCER_QUEUE_REQUESTS_TOTAL,
    queue_latency: &f::OUTBOUND_TLS_BALANCER_QUEUE_LATENCY_SECONDS,
    gate_open: &f::OUTBOUND_TLS_BALANCER_QUEUE_GATE_OPEN_TOTAL,
    gate_shut: &f::OUTBOUND_TLS_BALANCER_QUEUE_GATE_SHUT_TOTAL,
    gate_open_time: &f::OUTBOUND_TLS_BALANCER_QUEUE_GATE_OPEN_TIME_SECONDS,
    gate_shut_time: &f::OUTBOUND_TLS_BALANCER_QUEUE_GATE_SHUT_TIME_SECONDS,
    gate_timeout: &f::OUTBOUND_TLS_BALANCER_QUEUE_GATE_TIMEOUT_SECONDS,
};

/// Of connections to the control plane's destination service.
pub static CONTROL_DESTINATION: Families = Families {
    endpoints: &f::CONTROL_DESTINATION_BALANCER_ENDPOINTS,
    p2c: &f::CONTROL_DESTINATION_BALANCER_P2C_ENDPOINTS,
    updates: &f::CONTROL_DESTINATION_BALANCER_P2C_UPDATES_TOTAL,
    queue_length: &f::CONTROL_DESTINATION_BALANCER_QUEUE_LENGTH,
    queue_requests: &f::CONTROL_DESTINATION_BALANCER_QUEUE_REQUESTS_TOTAL,
    queue_latency: &f::CONTROL_DESTINATION_BALANCER_QUEUE_LATENCY_SECONDS,
    gate_open: &f::CONTROL_DESTINATION_BALANCER_QUEUE_GATE_OPEN_TOTAL,
    gate_shut: &f::CONTROL_DESTINATION_BALANCER_QUEUE_GATE_SHUT_TOTAL,
    gate_open_time: &f::CONTROL_DESTINATION_BALANCER_QUEUE_GATE_OPEN_TIME_SECONDS,
    gate_shut_time: &f::CONTROL_DESTINATION_BALANCER_QUEUE_GATE_SHUT_TIME_SECONDS,
    gate_timeout: &f::CONTROL_DESTINATION_BALANCER_QUEUE_GATE_TIMEOUT_SECONDS,
};

/// Of connections to the control plane's policy service.
pub static CONTROL_POLICY: Families = Families {
    endpoints: &f::CONTROL_POLICY_BALANCER_ENDPOINTS,
    p2c: &f::CONTROL_POLICY_BALANCER_P2C_ENDPOINTS,
    updates: &f::CONTROL_POLICY_BALANCER_P2C_UPDATES_TOTAL,
    queue_length: &f::CONTROL_POLICY_BALANCER_QUEUE_LENGTH,
    queue_requests: &f::CONTROL_POLICY_BALANCER_QUEUE_REQUESTS_TOTAL,
    queue_latency: &f::CONTROL_POLICY_BALANCER_QUEUE_LATENCY_SECONDS,
    gate_open: &f::CONTROL_POLICY_BALANCER_QUEUE_GATE_OPEN_TOTAL,
    gate_shut: &f::CONTROL_POLICY_BALANCER_QUEUE_GATE_SHUT_TOTAL,
    gate_open_time: &f::CONTROL_POLICY_BALANCER_QUEUE_GATE_OPEN_TIME_SECONDS,
    gate_shut_time: &f::CONTROL_POLICY_BALANCER_QUEUE_GATE_SHUT_TIME_SECONDS,
    gate_timeout: &f::CONTROL_POLICY_BALANCER_QUEUE_GATE_TIMEOUT_SECONDS,
};

/// Of connections to the control plane's identity service.
pub static CONTROL_IDENTITY: Families = Families {
    endpoints: &f::CONTROL_IDENTITY_BALANCER_ENDPOINTS,
    p2c: &f::CONTROL_IDENTITY_BALANCER_P2C_ENDPOINTS,
    updates: &f::CONTROL_IDENTITY_BALANCER_P2C_UPDATES_TOTAL,
    queue_length: &f::CONTROL_IDENTITY_BALANCER_QUEUE_LENGTH,
    queue_requests: &f::CONTROL_IDENTITY_BALANCER_QUEUE_REQUESTS_TOTAL,
    queue_latency: &f::CONTROL_IDENTITY_BALANCER_QUEUE_LATENCY_SECONDS,
    gate_open: &f::CONTROL_IDENTITY_BALANCER_QUEUE_GATE_OPEN_TOTAL,
    gate_shut: &f::CONTROL_IDENTITY_BALANCER_QUEUE_GATE_SHUT_TOTAL,
    gate_open_time: &f::CONTROL_IDENTITY_BALANCER_QUEUE_GATE_OPEN_TIME_SECONDS,
    gate_shut_time: &f::CONTROL_IDENTITY_BALANCER_QUEUE_GATE_SHUT_TIME_SECONDS,
    gate_timeout: &f::CONTROL_IDENTITY_BALANCER_QUEUE_GATE_TIMEOUT_SECONDS,
};

/// A part of a gauge that others of the same labels add to.
#[derive(Debug)]
pub struct Level {
    gauge: Gauge,
    shown: Cell<u64>,
}

impl Level {
    /// Nothing yet.
    pub fn new(gauge: Gauge) -> Self {
        Level {
            gauge,
            shown: Cell::new(0),
        }
    }

    /// Sets this part.
    pub fn set(&self, value: u64) {
        self.gauge.change(self.shown.replace(value), value);
    }
}

impl Drop for Level {
    fn drop(&mut self) {
        self.set(0);
    }
}

fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
