//! The dynamic table (RFC 7541 §2.3.2): entries, newest first, over one arena of octets.
//!
//! New octets go to the end of the arena, dead ones lie at its front; they are moved away when room is needed, each
//! octet about once. So an entry is always one slice, and the arena never exceeds twice the table size.

use std::collections::VecDeque;

use super::FIELD_OVERHEAD;

/// An entry; `start` counts octets since the arena began, dead and moved ones included, and wraps around.
#[derive(Clone, Copy, Debug)]
struct Entry<T> {
    start: u32,
    name: u32,
    value: u32,
    note: T,
}

/// The name of an entry to insert.
#[derive(Clone, Copy, Debug)]
pub(super) enum Name<'a> {
    Octets(&'a [u8]),
    /// That of another entry, which the insertion may evict (§4.4).
    SameAs(usize),
}

/// The table; `T` is what its owner notes with each entry.
#[derive(Debug)]
pub(super) struct Table<T> {
    arena: Vec<u8>,
    /// The `start` of the arena's first octet.
    base: u32,
    /// Oldest first.
    entries: VecDeque<Entry<T>>,
    /// Sum of the entries' sizes, never above `max`.
    size: usize,
    max: usize,
}

impl<T: Copy> Table<T> {
    pub(super) fn new(max: usize) -> Self {
        Self {
            arena: Vec::new(),
            base: 0,
            entries: VecDeque::new(),
            size: 0,
            max,
        }
    }

    pub(super) fn max(&self) -> usize {
        self.max
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Changes the size, evicting what no longer fits.
    pub(super) fn resize(&mut self, max: usize) {
        self.max = max;
        self.evict_to(max);
    }

    /// Name and value of the entry that has `newer` younger ones.
    #[inline]
    pub(super) fn get(&self, newer: usize) -> Option<(&[u8], &[u8])> {
        let entry = self.entry(newer)?;
        let name = self.place(entry);
        let value = name + entry.name as usize;
        Some((
            &self.arena[name..value],
            &self.arena[value..value + entry.value as usize],
        ))
    }

    /// What was noted with that entry.
    #[inline]
    pub(super) fn note(&self, newer: usize) -> Option<T> {
        self.entry(newer).map(|entry| entry.note)
    }

    /// Inserts an entry, evicting the oldest. One that is larger than the table empties it and stays out (§4.4): false.
    pub(super) fn insert(&mut self, name: Name<'_>, value: &[u8], note: T) -> bool {
        let name_len = match name {
            Name::Octets(octets) => octets.len(),
            Name::SameAs(newer) => self.entry(newer).map_or(0, |entry| entry.name as usize),
        };
        let size = name_len + value.len() + FIELD_OVERHEAD;
        if size > self.max {
            self.evict_to(0);
            return false;
        }
        self.make_room(name_len + value.len());
        let source = match name {
            Name::Octets(_) => 0,
            Name::SameAs(newer) => self.entry(newer).map_or(0, |entry| self.place(entry)),
        };
        // Evicted octets stay in the arena until room is made again: `source` remains good.
        self.evict_to(self.max - size);
        let start = self.base.wrapping_add(self.arena.len() as u32);
        match name {
            Name::Octets(octets) => self.arena.extend_from_slice(octets),
            Name::SameAs(_) => self.arena.extend_from_within(source..source + name_len),
        }
        self.arena.extend_from_slice(value);
        self.entries.push_back(Entry {
            start,
            name: name_len as u32,
            value: value.len() as u32,
            note,
        });
        self.size += size;
        true
    }

    #[inline]
    fn entry(&self, newer: usize) -> Option<&Entry<T>> {
        let at = self.entries.len().checked_sub(newer + 1)?;
        self.entries.get(at)
    }

    /// Where in the arena an entry begins.
    #[inline]
    fn place(&self, entry: &Entry<T>) -> usize {
        entry.start.wrapping_sub(self.base) as usize
    }

    fn evict_to(&mut self, size: usize) {
        while self.size > size {
            let Some(entry) = self.entries.pop_front() else {
                return;
            };
            self.size -= entry.name as usize + entry.value as usize + FIELD_OVERHEAD;
        }
    }

    /// Makes the arena take `new` octets without moving the old ones.
    fn make_room(&mut self, new: usize) {
        if self.arena.len() + new <= self.arena.capacity() {
            return;
        }
        let dead = self
            .entries
            .front()
            .map_or(self.arena.len(), |oldest| self.place(oldest));
        let live = self.arena.len() - dead;
        self.arena.copy_within(dead.., 0);
        self.arena.truncate(live);
        self.base = self.base.wrapping_add(dead as u32);
        // Grow before the arena is so full that every insertion would move all of it.
        let needed = live + new;
        if needed * 4 > self.arena.capacity() * 3 {
            let enough = (needed * 2).next_power_of_two().min(2 * self.max);
            self.arena.reserve_exact(enough.max(needed) - live);
        }
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.arena.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(table: &Table<u8>) -> Vec<(Vec<u8>, Vec<u8>, u8)> {
        (0..table.len())
            .map(|i| {
                let (name, value) = table.get(i).unwrap();
                (name.to_vec(), value.to_vec(), table.note(i).unwrap())
            })
            .collect()
    }

    #[test]
    fn it_agrees_with_a_list_of_pairs_through_any_history() {
        let mut table = Table::new(400);
        let mut model: Vec<(Vec<u8>, Vec<u8>, u8)> = Vec::new();
        let mut max = 400;
        let mut random = 0x2545_f491u32;
        for step in 0..50_000u32 {
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            if random % 97 == 0 {
                max = (random >> 8) as usize % 900;
                table.resize(max);
            } else {
                let value = vec![step as u8; (random >> 8) as usize % 60];
                let same = (random >> 20) as usize % 12;
                let name = match model.get(same) {
                    Some((name, ..)) if random & 64 != 0 => name.clone(),
                    _ => format!("x-{}", random >> 22).into_bytes(),
                };
                let by = match model.get(same) {
                    Some((known, ..)) if *known == name => Name::SameAs(same),
                    _ => Name::Octets(&name),
                };
                let kept = table.insert(by, &value, step as u8);
                assert_eq!(kept, name.len() + value.len() + 32 <= max);
                model.insert(0, (name, value, step as u8));
            }
            let mut size = 0;
            let fits = model.iter().position(|(name, value, _)| {
                size += name.len() + value.len() + 32;
                size > max
            });
            model.truncate(fits.unwrap_or(model.len()));
            assert_eq!(entries(&table), model, "step {step}");
        }
        assert!(table.held() <= 2 * 900, "{}", table.held());
    }

    #[test]
    fn an_empty_table_holds_nothing() {
        assert_eq!(Table::<u8>::new(4096).held(), 0);
    }
}
