//! What a backend shows of itself: Linkerd's families of its balancers, and ours of the breakers.

use std::cell::{Cell, OnceCell};
use std::net::SocketAddr;

use tulle_engine::Meta;
use tulle_engine::balance::{Balancer, Tally};
use tulle_engine::outbound::Backend as Policy;

use super::affinity::Traffic;
use crate::metrics::balancer::{self, Balanced, Families, Level};
use crate::metrics::families as f;
use crate::metrics::{Counter, Family, Labels, Shard};

/// The series of one backend; each kind of traffic has its own from its first pick on.
pub(super) struct Meters {
    breaks: bool,
    by: [OnceCell<Box<Balanced>>; 3],
    breakers: OnceCell<Breakers>,
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
        let balanced = Balanced::new(shard, families(traffic), &labels, policy.queue.failfast);
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
        let (all, ready) = (balancer.len(), balancer.ready_len());
        self.each().for_each(|balanced| balanced.show(all, ready));
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

fn families(traffic: Traffic) -> &'static Families {
    match traffic {
        Traffic::Http => &balancer::HTTP,
        Traffic::Tcp => &balancer::TCP,
        Traffic::Tls => &balancer::TLS,
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
