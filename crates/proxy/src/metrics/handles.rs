//! What a thread writes its numbers with: a [`Shard`] resolves series, and gives handles on their cells.
//!
//! A handle costs a relaxed load and store: no other thread writes its cells.

use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use super::exemplar::{Exemplars, Pace};
use super::families::{self, Family, Kind};
use super::histogram::{Histogram, bump};
use super::labels::Labels;
use super::registry::Registry;

/// One writer's way to its handles. Stays on its thread.
#[derive(Clone, Debug)]
pub struct Shard {
    registry: Registry,
    writer: u64,
    pace: Rc<Pace>,
    one_thread: PhantomData<Rc<()>>,
}

impl Shard {
    pub(super) fn new(registry: Registry, writer: u64) -> Self {
        Shard {
            registry,
            writer,
            pace: Rc::default(),
            one_thread: PhantomData,
        }
    }

    /// The counter of this family and label set. Resolve it when configuration changes, not per request.
    pub fn counter(&self, family: &'static Family, labels: &Labels) -> Counter {
        debug_assert!(
            matches!(family.kind, Kind::Counter),
            "{} is not a counter",
            family.name
        );
        Counter {
            cells: self.registry.resolve(self.writer, family, labels),
            one_thread: PhantomData,
        }
    }

    /// How often a bound was reached that has no metric of its own. `name` as on the page of limits.
    pub fn limit(&self, name: &'static str) -> Counter {
        let labels = Labels::builder().add("limit", name).build();
        self.counter(&families::LIMIT_REACHED_TOTAL, &labels)
    }

    /// Drops this thread's own series that the registry has forgotten; all later ones are left to it. The allocator gives
    /// memory back when the thread frees it that asked for it.
    pub fn drop_forgotten(&self) {
        drop(self.registry.exhume(self.writer));
    }

    /// From now on forgotten series of this thread wait for [`Self::drop_forgotten`].
    pub fn take_own(&self) {
        self.registry.keep_dead(self.writer);
    }

    /// Whether the name of a request that begins now is to be kept for exemplars.
    pub fn wants_name(&self, now: Instant) -> bool {
        self.registry.wants_exemplars(now) && self.pace.admits(now)
    }

    /// The exemplars of a histogram.
    pub fn exemplars(&self, family: &'static Family, labels: &Labels) -> Arc<Exemplars> {
        self.registry.exemplars_of(family, labels)
    }

    /// The gauge of this family and label set. Writers' values are added up.
    pub fn gauge(&self, family: &'static Family, labels: &Labels) -> Gauge {
        debug_assert!(
            matches!(family.kind, Kind::Gauge),
            "{} is not a gauge",
            family.name
        );
        Gauge {
            cells: self.registry.resolve(self.writer, family, labels),
            one_thread: PhantomData,
        }
    }

    /// The histogram of this family and label set.
    ///
    /// # Panics
    /// When the family is not a histogram: an error in the program, found by the first test that resolves it.
    pub fn histogram(&self, family: &'static Family, labels: &Labels) -> Histogram {
        let Kind::Histogram(bounds) = family.kind else {
            panic!("{} is not a histogram", family.name);
        };
        Histogram {
            bounds,
            cells: self.registry.resolve(self.writer, family, labels),
            one_thread: PhantomData,
        }
    }
}

/// A handle on one counter series.
#[derive(Clone, Debug)]
pub struct Counter {
    cells: Arc<[AtomicU64]>,
    one_thread: PhantomData<Rc<()>>,
}

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        bump(&self.cells[0], n);
    }
}

/// A handle on one gauge series.
#[derive(Clone, Debug)]
pub struct Gauge {
    cells: Arc<[AtomicU64]>,
    one_thread: PhantomData<Rc<()>>,
}

impl Gauge {
    /// Adds one.
    pub fn inc(&self) {
        bump(&self.cells[0], 1);
    }

    /// Takes one away.
    pub fn dec(&self) {
        bump(&self.cells[0], u64::MAX);
    }

    /// Adds the difference between two levels: for one of several parts that make up the value.
    pub fn change(&self, from: u64, to: u64) {
        bump(&self.cells[0], to.wrapping_sub(from));
    }

    /// Sets this writer's share of the value.
    pub fn set(&self, value: u64) {
        self.cells[0].store(value, Relaxed);
    }
}
