//! The endpoints of a balancer in their places, and what is known of each.

use std::collections::HashMap;
use std::hash::Hash;
use std::num::NonZeroU32;

use super::ewma::PeakEwma;
use crate::breaker::Breaker;

/// An endpoint of a balancer. It stays good while the endpoint is there; afterwards it means nothing and harms nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId {
    index: u32,
    /// Not zero, so that an id which may be absent needs no more room.
    generation: NonZeroU32,
}

impl EndpointId {
    pub(super) const FIRST: Self = Self {
        index: 0,
        generation: NonZeroU32::MIN,
    };

    /// Dense from 0 and reused after an endpoint is gone, so that a caller may keep a list of its own beside.
    #[must_use]
    pub fn index(self) -> usize {
        self.index as usize
    }

    #[cfg(test)]
    pub(super) fn of(index: u32) -> Self {
        Self {
            index,
            ..Self::FIRST
        }
    }
}

/// Why an endpoint is not in the draw; all `false`: it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Out {
    /// It cannot be connected to.
    pub(super) unreachable: bool,
    /// Its breaker is not closed.
    pub(super) ejected: bool,
    /// It has as many requests as it may.
    pub(super) full: bool,
}

impl Out {
    pub(super) fn any(self) -> bool {
        self.unreachable || self.ejected || self.full
    }

    /// Out for what it did, not for what it has to do.
    pub(super) fn failed(self) -> bool {
        self.unreachable || self.ejected
    }
}

#[derive(Clone, Debug)]
pub(super) struct Member<K> {
    pub(super) key: K,
    pub(super) weight: u32,
    /// In the zone that is preferred.
    pub(super) near: bool,
    /// When it came, if its share is still to grow.
    pub(super) came: Option<u64>,
    pub(super) load: PeakEwma,
    pub(super) pending: u32,
    pub(super) breaker: Option<Breaker>,
    pub(super) out: Out,
    /// Where it stands in its pool, while it is in the draw.
    pub(super) place: usize,
}

#[derive(Clone, Debug)]
struct Slot<K> {
    generation: NonZeroU32,
    endpoint: Option<Member<K>>,
}

/// A slab of members that are also found by key.
#[derive(Clone, Debug)]
pub(super) struct Members<K> {
    slots: Vec<Slot<K>>,
    free: Vec<u32>,
    ids: HashMap<K, EndpointId>,
}

impl<K> Default for Members<K> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            ids: HashMap::new(),
        }
    }
}

impl<K: Clone + Eq + Hash> Members<K> {
    /// The key must not be there yet.
    pub(super) fn insert(&mut self, member: Member<K>) -> EndpointId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: NonZeroU32::MIN,
                endpoint: None,
            });
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let key = member.key.clone();
        let mut generation = NonZeroU32::MIN;
        if let Some(slot) = self.slots.get_mut(index as usize) {
            generation = slot.generation;
            slot.endpoint = Some(member);
        }
        let id = EndpointId { index, generation };
        self.ids.insert(key, id);
        id
    }

    pub(super) fn remove(&mut self, id: EndpointId) -> Option<Member<K>> {
        let slot = self
            .slots
            .get_mut(id.index())
            .filter(|slot| slot.generation == id.generation)?;
        let member = slot.endpoint.take()?;
        slot.generation = slot.generation.checked_add(1).unwrap_or(NonZeroU32::MIN);
        self.ids.remove(&member.key);
        self.free.push(id.index);
        Some(member)
    }

    pub(super) fn get(&self, id: EndpointId) -> Option<&Member<K>> {
        let slot = self.slots.get(id.index())?;
        slot.endpoint
            .as_ref()
            .filter(|_| slot.generation == id.generation)
    }

    pub(super) fn get_mut(&mut self, id: EndpointId) -> Option<&mut Member<K>> {
        let slot = self.slots.get_mut(id.index())?;
        slot.endpoint
            .as_mut()
            .filter(|_| slot.generation == id.generation)
    }

    pub(super) fn id(&self, key: &K) -> Option<EndpointId> {
        self.ids.get(key).copied()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = (&K, EndpointId)> {
        self.ids.iter().map(|(key, id)| (key, *id))
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }
}
