//! One series in the registry: the cells of its writers, their sum, and when it last changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::families::{Family, Kind};
use super::histogram::Histogram;
use super::labels::Labels;

/// The series of one family.
#[derive(Debug)]
pub struct FamilySeries {
    pub family: &'static Family,
    pub series: BTreeMap<Labels, Series>,
}

/// One series: a label set, and the cells of those that write it.
#[derive(Debug)]
pub struct Series {
    /// The cells of each writer that has resolved this series.
    cells: Vec<(u64, Arc<[AtomicU64]>)>,
    /// Sum over everything at the last sweep, and when it was last seen to differ.
    last_total: u64,
    changed: Instant,
}

impl Series {
    /// Without a writer.
    pub fn new() -> Self {
        Series {
            cells: Vec::with_capacity(1),
            last_total: 0,
            changed: Instant::now(),
        }
    }

    /// The cells of one writer.
    pub fn cells_by(&mut self, writer: u64, family: &Family) -> Arc<[AtomicU64]> {
        if let Some((_, cells)) = self.cells.iter().find(|(by, _)| *by == writer) {
            return cells.clone();
        }
        let cells = fresh(family);
        self.cells.push((writer, cells.clone()));
        cells
    }

    /// Each cell, summed over the writers.
    pub fn totals(&self, family: &Family) -> Vec<u64> {
        let mut totals = vec![0u64; cells_of(family)];
        for (_, cells) in &self.cells {
            for (total, cell) in totals.iter_mut().zip(cells.iter()) {
                *total = total.wrapping_add(cell.load(Relaxed));
            }
        }
        totals
    }

    /// Whether it may go; takes note of a change since the last time.
    pub fn is_idle(&mut self, family: &Family, now: Instant, retain: Duration) -> bool {
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

    /// The writer that has made it.
    pub fn maker(&self) -> Option<u64> {
        self.cells.first().map(|(by, _)| *by)
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
