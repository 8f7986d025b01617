//! The registry: every series, its writers' cells, the cap and the eviction of idle ones.
//!
//! The lock is taken when a series is resolved (configuration changed), at a scrape and at a sweep; never on a
//! request. Every writer (a thread) has its own cells for a series, so `store(load + n)` loses nothing.
//!
//! What comes beyond the bounds is counted all the same: in the family's one series `overflow="true"`.

use std::collections::{BTreeMap, btree_map};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::exemplar::{self, Exemplars, Kept};
use super::families::Family;
use super::handles::Shard;
use super::labels::Labels;
use super::series::{FamilySeries, Series};

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
        Shard::new(self.clone(), self.inner.writers.fetch_add(1, Relaxed))
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
        if let Some(dead) = series.maker().and_then(|maker| dead.get_mut(&maker)) {
            dead.push((labels, series));
            self.inner.any_dead.store(true, Relaxed);
        }
    }

    /// From now on forgotten series of this writer wait for [`Self::exhume`].
    pub(super) fn keep_dead(&self, writer: u64) {
        lock(&self.inner.dead).entry(writer).or_default();
    }

    /// The writer's own series that were forgotten, to be dropped by its thread: outside of the lock, for there may be
    /// thousands.
    pub(super) fn exhume(&self, writer: u64) -> Option<Vec<(Labels, Series)>> {
        if !self.inner.any_dead.load(Relaxed) {
            return None;
        }
        let mut dead = lock(&self.inner.dead);
        let own = dead.get_mut(&writer).map(std::mem::take);
        let others = dead.values().any(|dead| !dead.is_empty());
        self.inner.any_dead.store(others, Relaxed);
        own
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

    /// Whether somebody reads exemplars.
    #[inline]
    pub(super) fn wants_exemplars(&self, now: Instant) -> bool {
        let until = self.inner.exemplars_until.load(Relaxed);
        let since = || now.saturating_duration_since(self.inner.started);
        until != 0 && since().as_secs() <= until
    }

    /// The exemplars of a histogram, made if there are none yet.
    pub(super) fn exemplars_of(&self, family: &'static Family, labels: &Labels) -> Arc<Exemplars> {
        self.inner.exemplars.of(family, labels)
    }

    /// The exemplars of a histogram, if it has any.
    pub(super) fn exemplars(&self, family: &Family, labels: &Labels) -> Option<Arc<Exemplars>> {
        self.inner.exemplars.find(family, labels)
    }

    /// A writer's cells of a series, or of the family's overflow.
    pub(super) fn resolve(
        &self,
        writer: u64,
        family: &'static Family,
        labels: &Labels,
    ) -> Arc<[AtomicU64]> {
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
