//! What a backend shows of itself: Linkerd's families of its balancers, and ours of the breakers.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tulle_engine::balance::{Balancer, Tally};
use tulle_engine::outbound::Backend as Policy;

use crate::metrics::{Counter, Family, Gauge, Histogram, Labels, Shard, families};

pub(super) struct Meters {
    ready: Level,
    pending: Level,
    p2c: Level,
    pub(super) reset: Counter,
    pub(super) added: Counter,
    pub(super) removed: Counter,
    pub(super) queue_length: Gauge,
    pub(super) queue_requests: Counter,
    queue_latency: Histogram,
    gate_open: Counter,
    gate_shut: Counter,
    gate_open_time: Level,
    gate_shut_time: Level,
    /// Never changes; held for as long as the backend is.
    _gate_timeout: Level,
    breakers: Option<Breakers>,
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
    pub(super) fn new(shard: &Shard, policy: &Policy, breaks: bool) -> Self {
        let meta = &policy.meta;
        let labels = Labels::builder()
            .add("backend_group", meta.group())
            .add("backend_kind", meta.kind())
            .add("backend_namespace", meta.namespace())
            .add("backend_name", meta.name())
            .add_number("backend_port", u64::from(meta.port()))
            .add("backend_section_name", meta.section())
            .build();
        let with = |name, value| labels.extend().add(name, value).build();
        let level = |family, labels: &Labels| Level::new(shard.gauge(family, labels));
        let update = |op| {
            shard.counter(
                &families::OUTBOUND_HTTP_BALANCER_P2C_UPDATES_TOTAL,
                &with("op", op),
            )
        };
        let endpoints = &families::OUTBOUND_HTTP_BALANCER_ENDPOINTS;
        let timeout = level(
            &families::OUTBOUND_HTTP_BALANCER_QUEUE_GATE_TIMEOUT_SECONDS,
            &labels,
        );
        timeout.set(policy.queue.failfast.as_secs());
        Meters {
            ready: level(endpoints, &with("endpoint_state", "ready")),
            pending: level(endpoints, &with("endpoint_state", "pending")),
            p2c: level(&families::OUTBOUND_HTTP_BALANCER_P2C_ENDPOINTS, &labels),
            reset: update("Reset"),
            added: update("Add"),
            removed: update("Remove"),
            queue_length: shard.gauge(&families::OUTBOUND_HTTP_BALANCER_QUEUE_LENGTH, &labels),
            queue_requests: shard.counter(
                &families::OUTBOUND_HTTP_BALANCER_QUEUE_REQUESTS_TOTAL,
                &labels,
            ),
            queue_latency: shard.histogram(
                &families::OUTBOUND_HTTP_BALANCER_QUEUE_LATENCY_SECONDS,
                &labels,
            ),
            gate_open: shard.counter(
                &families::OUTBOUND_HTTP_BALANCER_QUEUE_GATE_OPEN_TOTAL,
                &labels,
            ),
            gate_shut: shard.counter(
                &families::OUTBOUND_HTTP_BALANCER_QUEUE_GATE_SHUT_TOTAL,
                &labels,
            ),
            gate_open_time: level(
                &families::OUTBOUND_HTTP_BALANCER_QUEUE_GATE_OPEN_TIME_SECONDS,
                &labels,
            ),
            gate_shut_time: level(
                &families::OUTBOUND_HTTP_BALANCER_QUEUE_GATE_SHUT_TIME_SECONDS,
                &labels,
            ),
            _gate_timeout: timeout,
            breakers: breaks.then(|| Breakers::new(shard, &labels)),
        }
    }

    /// Shows the state of the balancer as it is now.
    pub(super) fn show(&self, balancer: &Balancer<SocketAddr>) {
        let (all, ready) = (balancer.len() as u64, balancer.ready_len() as u64);
        self.ready.set(ready);
        self.pending.set(all - ready);
        self.p2c.set(all);
        if let Some(breakers) = &self.breakers {
            breakers.show(balancer);
        }
    }

    /// An endpoint is ready again.
    pub(super) fn opened(&self) {
        self.gate_open.inc();
        self.gate_open_time.set(unix_now());
    }

    /// The last endpoint that was ready no longer is.
    pub(super) fn shut(&self) {
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
        let ejections = &families::OUTBOUND_HTTP_BALANCER_EJECTIONS_TOTAL;
        let readmissions = &families::OUTBOUND_HTTP_BALANCER_READMISSIONS_TOTAL;
        let ejected = &families::OUTBOUND_HTTP_BALANCER_EJECTED_ENDPOINTS;
        Breakers {
            ejected: Level::new(shard.gauge(ejected, labels)),
            consecutive: by(ejections, "consecutive"),
            success_rate: by(ejections, "success_rate"),
            probe_failed: by(ejections, "probe"),
            refused: shard.counter(
                &families::OUTBOUND_HTTP_BALANCER_EJECTIONS_REFUSED_TOTAL,
                labels,
            ),
            probes: shard.counter(&families::OUTBOUND_HTTP_BALANCER_PROBES_TOTAL, labels),
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
