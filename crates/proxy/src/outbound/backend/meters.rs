//! What a backend shows of itself: Linkerd's families of its balancers, and ours of the breakers.

use std::cell::{Cell, OnceCell};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tulle_engine::Meta;
use tulle_engine::balance::{Balancer, Tally};
use tulle_engine::outbound::Backend as Policy;

use super::affinity::Traffic;
use crate::metrics::families as f;
use crate::metrics::{Counter, Family, Gauge, Histogram, Labels, Shard};

/// The series of one backend; each kind of traffic has its own from its first pick on.
pub(super) struct Meters {
    breaks: bool,
    by: [OnceCell<Box<Balanced>>; 3],
    breakers: OnceCell<Breakers>,
}

/// The series of one kind of traffic.
pub(super) struct Balanced {
    ready: Level,
    pending: Level,
    p2c: Level,
    reset: Counter,
    added: Counter,
    removed: Counter,
    pub(super) queue_length: Gauge,
    pub(super) queue_requests: Counter,
    queue_latency: Histogram,
    gate_open: Counter,
    gate_shut: Counter,
    gate_open_time: Level,
    gate_shut_time: Level,
    /// Never changes; held for as long as the backend is.
    _gate_timeout: Level,
}

struct Breakers {
    ejected: Level,
    consecutive: Counter,
    success_rate: Counter,
    probe_failed: Counter,
    refused: Counter,
    probes: Counter,
    readmitted: Counter,
    forced: Counter,
    shown: Cell<Tally>,
}

impl Meters {
    /// `breaks`: there is a circuit breaker.
    pub(super) fn new(breaks: bool) -> Self {
        Meters {
            breaks,
            by: Default::default(),
            breakers: OnceCell::new(),
        }
    }

    pub(super) fn of(&self, traffic: Traffic) -> Option<&Balanced> {
        self.by[traffic as usize].get().map(|balanced| &**balanced)
    }

    /// The first pick of this traffic. `shut`: no endpoint is ready.
    pub(super) fn begin(&self, traffic: Traffic, shard: &Shard, policy: &Policy, shut: bool) {
        let labels = labels(&policy.meta);
        if self.breaks {
            self.breakers.get_or_init(|| Breakers::new(shard, &labels));
        }
        let balanced = Balanced::new(shard, families(traffic), &labels, policy);
        balanced.reset.inc();
        if shut {
            balanced.shut();
        }
        // It was empty, or it would not begin.
        let _new = self.by[traffic as usize].set(Box::new(balanced));
    }

    fn each(&self) -> impl Iterator<Item = &Balanced> {
        self.by.iter().filter_map(|of| of.get().map(|b| &**b))
    }

    /// The whole list has been read.
    pub(super) fn reset(&self) {
        self.each().for_each(|balanced| balanced.reset.inc());
    }

    pub(super) fn added(&self) {
        self.each().for_each(|balanced| balanced.added.inc());
    }

    pub(super) fn removed(&self) {
        self.each().for_each(|balanced| balanced.removed.inc());
    }

    /// Shows the state of the balancer as it is now.
    pub(super) fn show(&self, balancer: &Balancer<SocketAddr>) {
        self.each().for_each(|balanced| balanced.show(balancer));
        if let Some(breakers) = self.breakers.get() {
            breakers.show(balancer);
        }
    }

    /// An endpoint is ready again.
    pub(super) fn opened(&self) {
        self.each().for_each(Balanced::opened);
    }

    /// The last endpoint that was ready no longer is.
    pub(super) fn shut(&self) {
        self.each().for_each(Balanced::shut);
    }
}

fn labels(meta: &Meta) -> Labels {
    Labels::builder()
        .add("backend_group", meta.group())
        .add("backend_kind", meta.kind())
        .add("backend_namespace", meta.namespace())
        .add("backend_name", meta.name())
        .add_number("backend_port", u64::from(meta.port()))
        .add("backend_section_name", meta.section())
        .build()
}

/// The families of one kind of traffic.
struct Families {
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

fn families(traffic: Traffic) -> &'static Families {
    match traffic {
        Traffic::Http => &HTTP,
        Traffic::Tcp => &TCP,
        Traffic::Tls => &TLS,
    }
}

static HTTP: Families = Families {
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

static TCP: Families = Families {
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

static TLS: Families = Families {
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

impl Balanced {
    fn new(shard: &Shard, families: &Families, labels: &Labels, policy: &Policy) -> Self {
        let with = |name, value| labels.extend().add(name, value).build();
        let level = |family, labels: &Labels| Level::new(shard.gauge(family, labels));
        let update = |op| shard.counter(families.updates, &with("op", op));
        let timeout = level(families.gate_timeout, labels);
        timeout.set(policy.queue.failfast.as_secs());
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

    fn show(&self, balancer: &Balancer<SocketAddr>) {
        let (all, ready) = (balancer.len() as u64, balancer.ready_len() as u64);
        self.ready.set(ready);
        self.pending.set(all - ready);
        self.p2c.set(all);
    }

    fn opened(&self) {
        self.gate_open.inc();
        self.gate_open_time.set(unix_now());
    }

    fn shut(&self) {
        self.gate_shut.inc();
        self.gate_shut_time.set(unix_now());
    }

    /// A request has left the queue, served or not.
    pub(super) fn waited(&self, length: Duration) {
        self.queue_latency.record(length);
    }
}

impl Breakers {
    fn new(shard: &Shard, labels: &Labels) -> Self {
        let by = |family: &'static Family, why| {
            shard.counter(family, &labels.extend().add("reason", why).build())
        };
        let ejections = &f::OUTBOUND_HTTP_BALANCER_EJECTIONS_TOTAL;
        let readmissions = &f::OUTBOUND_HTTP_BALANCER_READMISSIONS_TOTAL;
        let ejected = &f::OUTBOUND_HTTP_BALANCER_EJECTED_ENDPOINTS;
        Breakers {
            ejected: Level::new(shard.gauge(ejected, labels)),
            consecutive: by(ejections, "consecutive"),
            success_rate: by(ejections, "success_rate"),
            probe_failed: by(ejections, "probe"),
            refused: shard.counter(&f::OUTBOUND_HTTP_BALANCER_EJECTIONS_REFUSED_TOTAL, labels),
            probes: shard.counter(&f::OUTBOUND_HTTP_BALANCER_PROBES_TOTAL, labels),
            readmitted: by(readmissions, "probe"),
            forced: by(readmissions, "bound"),
            shown: Cell::default(),
        }
    }

    fn show(&self, balancer: &Balancer<SocketAddr>) {
        self.ejected.set(balancer.ejected_len() as u64);
        let (now, shown) = (balancer.tally(), self.shown.get());
        for (counter, now, shown) in [
            (&self.consecutive, now.consecutive, shown.consecutive),
            (&self.success_rate, now.success_rate, shown.success_rate),
            (&self.probe_failed, now.probe_failed, shown.probe_failed),
            (&self.refused, now.refused, shown.refused),
            (&self.probes, now.probes, shown.probes),
            (&self.readmitted, now.readmitted, shown.readmitted),
            (&self.forced, now.forced, shown.forced),
        ] {
            counter.add(now - shown);
        }
        self.shown.set(now);
    }
}

/// A backend's part of a gauge that others of the same labels add to.
struct Level {
    gauge: Gauge,
    shown: Cell<u64>,
}

impl Level {
    fn new(gauge: Gauge) -> Self {
        Level {
            gauge,
            shown: Cell::new(0),
        }
    }

    fn set(&self, value: u64) {
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
