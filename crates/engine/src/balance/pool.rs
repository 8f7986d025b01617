//! The endpoints that may be drawn, with their weights: a dense list, and sums over it that make a draw by weight, an
//! arrival and a departure cost the logarithm of their number.
//!
//! The sums are a Fenwick tree: the entry at `i` (from 1) holds the weights of the last `i & -i` places up to `i`.

use super::members::EndpointId;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: EndpointId,
    pub(super) weight: u32,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Pool {
    entries: Vec<Entry>,
    sums: Vec<u64>,
    total: u64,
    /// Tells, with the total, whether all weigh the same.
    squares: u128,
}

impl Pool {
    pub(super) const NONE: &Self = &Self {
        entries: Vec::new(),
        sums: Vec::new(),
        total: 0,
        squares: 0,
    };

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(super) fn get(&self, place: usize) -> Option<Entry> {
        self.entries.get(place).copied()
    }

    /// Adds an endpoint at the end; gives its place.
    pub(super) fn push(&mut self, entry: Entry) -> usize {
        let place = self.entries.len();
        self.entries.push(entry);
        let number = place + 1;
        let mut sum = u64::from(entry.weight);
        // The new sum is over its own weight and over the sums it covers.
        let (mut covered, first) = (place, number - lowest_bit(number));
        while covered > first {
            sum += self.sums.get(covered - 1).copied().unwrap_or_default();
            covered -= lowest_bit(covered);
        }
        self.sums.push(sum);
        self.count(0, entry.weight);
        place
    }

    /// Takes an endpoint out. The last one moves into its place: `Some` is that one.
    pub(super) fn remove(&mut self, place: usize) -> Option<EndpointId> {
        let last = self.entries.len().checked_sub(1)?;
        let moved = self.get(last)?;
        // The moved one's weight is counted at its new place, then no longer at its old one: no sum but those that are
        // popped covers the last place.
        self.set_weight(place, moved.weight);
        self.sums.pop();
        self.entries.pop();
        self.count(moved.weight, 0);
        let entry = self.entries.get_mut(place)?;
        *entry = moved;
        Some(moved.id)
    }

    pub(super) fn set_weight(&mut self, place: usize, weight: u32) {
        let Some(entry) = self.entries.get_mut(place) else {
            return;
        };
        let before = std::mem::replace(&mut entry.weight, weight);
        let mut number = place + 1;
        while let Some(sum) = self.sums.get_mut(number - 1) {
            *sum = *sum - u64::from(before) + u64::from(weight);
            number += lowest_bit(number);
        }
        self.count(before, weight);
    }

    fn count(&mut self, before: u32, after: u32) {
        let square = |weight: u32| u128::from(weight) * u128::from(weight);
        self.total = self.total - u64::from(before) + u64::from(after);
        self.squares = self.squares - square(before) + square(after);
    }

    /// The sum of the weights before a place.
    pub(super) fn before(&self, place: usize) -> u64 {
        let (mut number, mut sum) = (place.min(self.sums.len()), 0);
        while number > 0 {
            sum += self.sums.get(number - 1).copied().unwrap_or_default();
            number -= lowest_bit(number);
        }
        sum
    }

    /// The place whose weight covers a point below the total.
    pub(super) fn at(&self, mut point: u64) -> usize {
        let mut place = 0;
        let mut step = (self.sums.len() + 1).next_power_of_two() / 2;
        while step > 0 {
            let sum = self.sums.get(place + step - 1).copied();
            if let Some(sum) = sum.filter(|sum| *sum <= point) {
                place += step;
                point -= sum;
            }
            step /= 2;
        }
        place
    }
}

/// Whether all endpoints of the pools weigh the same: exactly then the square of the sum is the number times the sum of
/// the squares.
pub(super) fn uniform(pools: [&Pool; 2]) -> bool {
    let count: u128 = pools.iter().map(|pool| pool.len() as u128).sum();
    let total: u128 = pools.iter().map(|pool| u128::from(pool.total)).sum();
    let squares: u128 = pools.iter().map(|pool| pool.squares).sum();
    total * total == count * squares
}

fn lowest_bit(number: usize) -> usize {
    number & number.wrapping_neg()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(index: u32) -> EndpointId {
        EndpointId::of(index)
    }

    proptest! {
        /// Sums, draws and places are those of a plain list, whatever is added, removed and weighed again.
        #[test]
        fn it_agrees_with_a_plain_list(steps in proptest::collection::vec((0_u8..4, any::<u16>(), 0_u32..5), 1..80)) {
            let mut pool = Pool::default();
            let mut plain: Vec<Entry> = Vec::new();
            for (number, (kind, place, weight)) in steps.into_iter().enumerate() {
                let place = usize::from(place) % plain.len().max(1);
                match kind {
                    0 | 1 => {
                        let entry = Entry { id: id(number as u32), weight };
                        prop_assert_eq!(pool.push(entry), plain.len());
                        plain.push(entry);
                    }
                    2 if !plain.is_empty() => {
                        let moved = plain.last().map(|entry| entry.id).filter(|_| place + 1 < plain.len());
                        plain.swap_remove(place);
                        prop_assert_eq!(pool.remove(place), moved);
                    }
                    3 if !plain.is_empty() => {
                        plain[place].weight = weight;
                        pool.set_weight(place, weight);
                    }
                    _ => {}
                }
                prop_assert_eq!(pool.entries(), plain.as_slice());
                let total: u64 = plain.iter().map(|entry| u64::from(entry.weight)).sum();
                prop_assert_eq!(pool.total(), total);
                let same = plain.windows(2).all(|two| two[0].weight == two[1].weight);
                prop_assert_eq!(uniform([&pool, &Pool::default()]), same);
                let mut point = 0;
                for (place, entry) in plain.iter().enumerate() {
                    prop_assert_eq!(pool.before(place), point);
                    for _ in 0..entry.weight {
                        prop_assert_eq!(pool.at(point), place);
                        point += 1;
                    }
                }
            }
        }
    }
}
