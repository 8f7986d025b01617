//! The registry: every series, its writers' cells, the cap and the eviction of idle ones.
//!
//! The lock is taken when a series is resolved (configuration changed), at a scrape and at a sweep; never on a
//! request. Every writer (a thread) has its own cells for a series, so `store(load + n)` loses nothing.

use std::collections::{BTreeMap, HashMap};
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::families::{Family, Kind};
use super::histogram::{Histogram, bump};
use super::labels::Labels;

/// The two bounds of the registry.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most series kept at once; a series beyond it is refused and counted.
    pub max_series: usize,
    /// How long a series that nothing refers to may stay unchanged before it is forgotten.
    pub retain_idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_series: 20_000,
            retain_idle: Duration::from_secs(600),
        }
    }
}

/// All series of the process. Cheap to clone, shared by all threads.
#[derive(Clone, Debug)]
pub struct Registry {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    limits: Limits,
    refused: AtomicU64,
    evicted: AtomicU64,
    writers: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    count: usize,
    families: BTreeMap<&'static str, FamilySeries>,
}

#[derive(Debug)]
struct FamilySeries {
    family: &'static Family,
    series: HashMap<Labels, Series>,
}

#[derive(Debug)]
struct Series {
    /// The cells of each writer that has resolved this series.
    cells: Vec<(u64, Arc<[AtomicU64]>)>,
    /// Sum over everything at the last sweep, and when it was last seen to differ.
    last_total: u64,
    changed: Instant,
}

impl Series {
    fn totals(&self, family: &Family) -> Vec<u64> {
        let mut totals = vec![0u64; cells_of(family)];
        for (_, cells) in &self.cells {
            for (total, cell) in totals.iter_mut().zip(cells.iter()) {
                *total = total.wrapping_add(cell.load(Relaxed));
            }
        }
        totals
    }

    /// Whether some thread holds a handle: the registry itself holds one count of each writer's cells.
    fn referenced(&self) -> bool {
        self.cells
            .iter()
            .any(|(_, cells)| Arc::strong_count(cells) > 1)
    }
}

fn cells_of(family: &Family) -> usize {
    match family.kind {
        Kind::Counter | Kind::Gauge => 1,
        Kind::Histogram(bounds) => Histogram::cells_of(bounds),
    }
}

fn fresh(family: &Family) -> Arc<[AtomicU64]> {
    (0..cells_of(family)).map(|_| AtomicU64::new(0)).collect()
}

/// One family as a scrape sees it: its series sorted by label text, each with its summed cells.
#[derive(Debug)]
pub(super) struct Scraped {
    pub(super) family: &'static Family,
    pub(super) series: Vec<(Labels, Vec<u64>)>,
}

impl Registry {
    /// An empty registry.
    pub fn new(limits: Limits) -> Self {
        Self {
            inner: Arc::new(Inner {
                limits,
                refused: AtomicU64::new(0),
                evicted: AtomicU64::new(0),
                writers: AtomicU64::new(0),
                state: Mutex::new(State::default()),
            }),
        }
    }

    /// A new writer. The result and all handles from it stay on the thread that called this.
    pub fn shard(&self) -> Shard {
        Shard {
            registry: self.clone(),
            writer: self.inner.writers.fetch_add(1, Relaxed),
            one_thread: PhantomData,
        }
    }

    /// How many series there are now.
    pub fn series(&self) -> usize {
        self.lock().count
    }

    /// How many series were refused since the start, because the registry was full.
    pub fn refused(&self) -> u64 {
        self.inner.refused.load(Relaxed)
    }

    /// How many idle series were forgotten since the start.
    pub fn evicted(&self) -> u64 {
        self.inner.evicted.load(Relaxed)
    }

    /// Forgets series that nothing refers to and that have not changed for `retain_idle`. Call it about once a minute.
    pub fn sweep(&self, now: Instant) {
        let retain = self.inner.limits.retain_idle;
        let mut state = self.lock();
        let mut forgotten = 0;
        for entry in state.families.values_mut() {
            let family = entry.family;
            entry.series.retain(|_, series| {
                let total = series
                    .totals(family)
                    .iter()
                    .fold(0u64, |sum, cell| sum.wrapping_add(*cell));
                if series.referenced() || total != series.last_total {
                    series.last_total = total;
                    series.changed = now;
                    return true;
                }
                let keep = now.saturating_duration_since(series.changed) < retain;
                forgotten += usize::from(!keep);
                keep
            });
        }
        state.families.retain(|_, entry| !entry.series.is_empty());
        state.count -= forgotten;
        self.inner.evicted.fetch_add(forgotten as u64, Relaxed);
    }

    pub(super) fn scrape(&self) -> Vec<Scraped> {
        let state = self.lock();
        let mut families = Vec::with_capacity(state.families.len());
        for entry in state.families.values() {
            let mut series: Vec<_> = entry
                .series
                .iter()
                .map(|(labels, series)| (labels.clone(), series.totals(entry.family)))
                .collect();
            series.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            families.push(Scraped {
                family: entry.family,
                series,
            });
        }
        families
    }

    fn resolve(&self, writer: u64, family: &'static Family, labels: &Labels) -> Arc<[AtomicU64]> {
        let mut state = self.lock();
        let full = state.count >= self.inner.limits.max_series;
        let entry = state
            .families
            .entry(family.name)
            .or_insert_with(|| FamilySeries {
                family,
                series: HashMap::new(),
            });
        if let Some(series) = entry.series.get_mut(labels) {
            if let Some((_, cells)) = series.cells.iter().find(|(by, _)| *by == writer) {
                return cells.clone();
            }
            let cells = fresh(family);
            series.cells.push((writer, cells.clone()));
            return cells;
        }
        if full {
            self.inner.refused.fetch_add(1, Relaxed);
            return fresh(family);
        }
        let cells = fresh(family);
        let series = Series {
            cells: vec![(writer, cells.clone())],
            last_total: 0,
            changed: Instant::now(),
        };
        entry.series.insert(labels.clone(), series);
        state.count += 1;
        cells
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under this lock leaves whole values behind: every change is one insert or one remove.
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// One writer's way to its handles. Stays on its thread.
#[derive(Clone, Debug)]
pub struct Shard {
    registry: Registry,
    writer: u64,
    one_thread: PhantomData<Rc<()>>,
}

impl Shard {
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

#[cfg(test)]
mod tests {
    use super::super::families;
    use super::*;

    fn labels(n: usize) -> Labels {
        Labels::builder().add_number("n", n as u64).build()
    }

    fn value(registry: &Registry, family: &Family, labels: &Labels) -> Option<u64> {
        let scraped = registry.scrape();
        let family = scraped
            .iter()
            .find(|scraped| scraped.family.name == family.name)?;
        family
            .series
            .iter()
            .find(|(of, _)| of == labels)
            .map(|(_, cells)| cells[0])
    }

    #[test]
    fn two_writers_of_one_series_are_added_up() {
        let registry = Registry::new(Limits::default());
        let (here, there) = (registry.shard(), registry.shard());
        here.counter(&families::REQUEST_TOTAL, &labels(1)).add(2);
        there.counter(&families::REQUEST_TOTAL, &labels(1)).add(3);
        here.counter(&families::REQUEST_TOTAL, &labels(1)).inc();
        assert_eq!(
            value(&registry, &families::REQUEST_TOTAL, &labels(1)),
            Some(6)
        );
        assert_eq!(registry.series(), 1);
    }

    #[test]
    fn series_beyond_the_cap_are_refused_and_counted() {
        let registry = Registry::new(Limits {
            max_series: 2,
            ..Limits::default()
        });
        let shard = registry.shard();
        for n in 0..5 {
            shard.counter(&families::REQUEST_TOTAL, &labels(n)).inc();
        }
        assert_eq!((registry.series(), registry.refused()), (2, 3));
        assert_eq!(value(&registry, &families::REQUEST_TOTAL, &labels(4)), None);
    }

    #[test]
    fn an_idle_series_is_forgotten_only_when_nothing_refers_to_it() {
        let registry = Registry::new(Limits::default());
        let shard = registry.shard();
        let held = shard.counter(&families::REQUEST_TOTAL, &labels(1));
        shard.counter(&families::REQUEST_TOTAL, &labels(2)).inc();
        let start = Instant::now();
        registry.sweep(start);
        registry.sweep(start + Duration::from_secs(599));
        assert_eq!(registry.series(), 2);
        registry.sweep(start + Duration::from_secs(601));
        assert_eq!((registry.series(), registry.evicted()), (1, 1));
        drop(held);
        registry.sweep(start + Duration::from_secs(602));
        assert_eq!(registry.series(), 1, "it was in use until a moment ago");
        registry.sweep(start + Duration::from_secs(1_300));
        assert_eq!(registry.series(), 0);
    }

    #[test]
    fn a_gauge_goes_down_again() {
        let registry = Registry::new(Limits::default());
        let shard = registry.shard();
        let open = shard.gauge(&families::TCP_OPEN_CONNECTIONS, &labels(1));
        open.inc();
        open.inc();
        open.dec();
        assert_eq!(
            value(&registry, &families::TCP_OPEN_CONNECTIONS, &labels(1)),
            Some(1)
        );
    }
}
