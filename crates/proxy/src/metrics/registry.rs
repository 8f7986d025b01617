//! The registry: every series, its writers' cells, the cap and the eviction of idle ones.
//!
//! The lock is taken when a series is resolved (configuration changed), at a scrape and at a sweep; never on a
//! request. Every writer (a thread) has its own cells for a series, so `store(load + n)` loses nothing.
//!
//! What comes beyond the bounds is counted all the same: in the family's one series `overflow="true"`.

use std::collections::{BTreeMap, btree_map};
use std::marker::PhantomData;
use std::ops::Bound;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::exemplar::{self, Exemplars, Kept, Pace};
use super::families::{Family, Kind};
use super::histogram::{Histogram, bump};
use super::labels::Labels;

/// Most series of a proxy; with `MAX_FAMILY` what a hostile client can make it hold (about 10 MiB).
pub const MAX_SERIES: usize = 16_000;
/// Most series of one family.
pub const MAX_FAMILY: usize = 3_500;
/// The labels of what has no series of its own.
const OVERFLOW: &str = "overflow";

/// The bounds of the registry.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most series kept at once, the overflows of families aside.
    pub max_series: usize,
    /// Most series of one family, so that those that clients can multiply leave room for the others.
    pub max_family: usize,
    /// How long a series that nothing refers to may stay unchanged before it is forgotten.
    pub retain_idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_series: MAX_SERIES,
            max_family: MAX_FAMILY,
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
    started: Instant,
    /// Seconds after the start until which exemplars are kept; 0 is never.
    exemplars_until: AtomicU64,
    exemplars: Kept,
    /// Forgotten series by the writer that made them, for those that take their own.
    dead: Mutex<BTreeMap<u64, Vec<(Labels, Series)>>>,
    any_dead: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    count: usize,
    families: BTreeMap<&'static str, FamilySeries>,
}

#[derive(Debug)]
struct FamilySeries {
    family: &'static Family,
    series: BTreeMap<Labels, Series>,
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
    fn new() -> Self {
        Series {
            cells: Vec::with_capacity(1),
            last_total: 0,
            changed: Instant::now(),
        }
    }

    /// The cells of one writer.
    fn cells_by(&mut self, writer: u64, family: &Family) -> Arc<[AtomicU64]> {
        if let Some((_, cells)) = self.cells.iter().find(|(by, _)| *by == writer) {
            return cells.clone();
        }
        let cells = fresh(family);
        self.cells.push((writer, cells.clone()));
        cells
    }

    fn totals(&self, family: &Family) -> Vec<u64> {
        let mut totals = vec![0u64; cells_of(family)];
        for (_, cells) in &self.cells {
            for (total, cell) in totals.iter_mut().zip(cells.iter()) {
                *total = total.wrapping_add(cell.load(Relaxed));
            }
        }
        totals
    }

    /// Whether it may go; takes note of a change since the last time.
    fn is_idle(&mut self, family: &Family, now: Instant, retain: Duration) -> bool {
        let totals = self.totals(family);
        let total = totals
            .iter()
            .fold(0, |sum: u64, cell| sum.wrapping_add(*cell));
        if self.referenced() || total != self.last_total {
            self.last_total = total;
            self.changed = now;
            return false;
        }
        now.saturating_duration_since(self.changed) >= retain
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
                started: Instant::now(),
                exemplars_until: AtomicU64::new(0),
                exemplars: Kept::default(),
                dead: Mutex::default(),
                any_dead: AtomicBool::new(false),
            }),
        }
    }

    /// A new writer. The result and all handles from it stay on the thread that called this.
    pub fn shard(&self) -> Shard {
        Shard {
            registry: self.clone(),
            writer: self.inner.writers.fetch_add(1, Relaxed),
            pace: Rc::default(),
            one_thread: PhantomData,
        }
    }

    /// How long a series that nothing refers to may stay unchanged.
    pub fn retain_idle(&self) -> Duration {
        self.inner.limits.retain_idle
    }

    /// How many series there are now.
    pub fn series(&self) -> usize {
        self.lock().count
    }

    /// How often a series was refused since the start, and its numbers went to the family's overflow.
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
            let mut idle = Vec::new();
            for (labels, series) in &mut entry.series {
                if !series.is_idle(family, now, retain) {
                    continue;
                }
                idle.push(labels.clone());
            }
            forgotten += idle.len();
            for labels in idle {
                if let Some(series) = entry.series.remove(&labels) {
                    self.bury(labels, series);
                }
            }
        }
        state.families.retain(|_, entry| !entry.series.is_empty());
        state.count -= forgotten;
        self.inner.evicted.fetch_add(forgotten as u64, Relaxed);
    }

    /// Leaves a series to the thread that has made it, if that takes its own.
    fn bury(&self, labels: Labels, series: Series) {
        let mut dead = lock(&self.inner.dead);
        let maker = series.cells.first().map(|(by, _)| *by);
        if let Some(dead) = maker.and_then(|maker| dead.get_mut(&maker)) {
            dead.push((labels, series));
            self.inner.any_dead.store(true, Relaxed);
        }
    }

    /// The family whose name comes after this one.
    pub(super) fn family_after(&self, name: &str) -> Option<&'static Family> {
        let state = self.lock();
        let mut later = state
            .families
            .range::<str, _>((Bound::Excluded(name), Bound::Unbounded));
        later.next().map(|(_, entry)| entry.family)
    }

    /// Hands on the series of a family that come after these labels, each with its summed cells, until `take` says that
    /// it has enough. Returns the labels it has come to; `None` at the family's end.
    pub(super) fn series_after(
        &self,
        family: &Family,
        after: Option<&Labels>,
        mut take: impl FnMut(&Labels, &[u64]) -> bool,
    ) -> Option<Labels> {
        let state = self.lock();
        let entry = state.families.get(family.name)?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        for (labels, series) in entry.series.range((from, Bound::Unbounded)) {
            if !take(labels, &series.totals(family)) {
                return Some(labels.clone());
            }
        }
        None
    }

    /// Somebody reads exemplars: they are kept for the next minutes.
    pub fn want_exemplars(&self) {
        let until = self.inner.started.elapsed() + exemplar::WANTED_FOR;
        self.inner.exemplars_until.store(until.as_secs(), Relaxed);
    }

    pub(super) fn exemplars(&self, family: &Family, labels: &Labels) -> Option<Arc<Exemplars>> {
        self.inner.exemplars.find(family, labels)
    }

    fn resolve(&self, writer: u64, family: &'static Family, labels: &Labels) -> Arc<[AtomicU64]> {
        let mut state = self.lock();
        let State { count, families } = &mut *state;
        let entry = families.entry(family.name).or_insert_with(|| FamilySeries {
            family,
            series: BTreeMap::new(),
        });
        if let Some(series) = entry.series.get_mut(labels) {
            return series.cells_by(writer, family);
        }
        let limits = &self.inner.limits;
        if *count >= limits.max_series || entry.series.len() >= limits.max_family {
            self.inner.refused.fetch_add(1, Relaxed);
            let overflow = Labels::builder().add(OVERFLOW, "true").build();
            let series = match entry.series.entry(overflow) {
                btree_map::Entry::Occupied(known) => known.into_mut(),
                btree_map::Entry::Vacant(place) => {
                    *count += 1;
                    place.insert(Series::new())
                }
            };
            return series.cells_by(writer, family);
        }
        *count += 1;
        let series = entry.series.entry(labels.clone());
        series.or_insert_with(Series::new).cells_by(writer, family)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.inner.state)
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic under these locks leaves whole values behind: every change is one insert or one remove.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One writer's way to its handles. Stays on its thread.
#[derive(Clone, Debug)]
pub struct Shard {
    registry: Registry,
    writer: u64,
    pace: Rc<Pace>,
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

    /// Drops this thread's own series that the registry has forgotten; all later ones are left to it. The allocator gives
    /// memory back when the thread frees it that asked for it.
    pub fn drop_forgotten(&self) {
        let inner = &self.registry.inner;
        if !inner.any_dead.load(Relaxed) {
            return;
        }
        let mut dead = lock(&inner.dead);
        let mine = dead.get_mut(&self.writer).map(std::mem::take);
        let others = dead.values().any(|dead| !dead.is_empty());
        inner.any_dead.store(others, Relaxed);
        drop(dead);
        // Outside of the lock: there may be thousands.
        drop(mine);
    }

    /// From now on forgotten series of this thread wait for [`Self::drop_forgotten`].
    pub fn take_own(&self) {
        lock(&self.registry.inner.dead)
            .entry(self.writer)
            .or_default();
    }

    /// Whether the name of a request that begins now is to be kept for exemplars.
    pub fn wants_name(&self, now: Instant) -> bool {
        let inner = &self.registry.inner;
        let until = inner.exemplars_until.load(Relaxed);
        let wanted = || now.saturating_duration_since(inner.started).as_secs() <= until;
        until != 0 && wanted() && self.pace.admits(now)
    }

    /// The exemplars of a histogram.
    pub fn exemplars(&self, family: &'static Family, labels: &Labels) -> Arc<Exemplars> {
        self.registry.inner.exemplars.of(family, labels)
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
        let mut value = None;
        registry.series_after(family, None, |of, cells| {
            value = value.or((of == labels).then(|| cells[0]));
            true
        });
        value
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
    fn what_comes_beyond_the_bounds_is_counted_in_one_series() {
        for (max_series, max_family) in [(2, 100), (100, 2)] {
            let registry = Registry::new(Limits {
                max_series,
                max_family,
                ..Limits::default()
            });
            let shard = registry.shard();
            for n in 0..5 {
                shard.counter(&families::REQUEST_TOTAL, &labels(n)).inc();
            }
            assert_eq!((registry.series(), registry.refused()), (3, 3));
            assert_eq!(value(&registry, &families::REQUEST_TOTAL, &labels(4)), None);
            let overflow = Labels::builder().add("overflow", "true").build();
            let beyond = value(&registry, &families::REQUEST_TOTAL, &overflow);
            assert_eq!(beyond, Some(3), "nothing is lost");
            let held = value(&registry, &families::REQUEST_TOTAL, &labels(1));
            assert_eq!(held, Some(1));
        }
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
