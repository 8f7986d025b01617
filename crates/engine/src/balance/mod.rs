//! Which endpoint takes a request: of two drawn at random, the one with the lower load.
//!
//! Load is peak-EWMA, as in Linkerd (tower): latency, averaged so that it jumps up at once and comes down slowly, times
//! the requests in flight and the new one. Endpoints that are not ready are out of the draw, so no draw is in vain.
//!
//! ```
//! use tulle_engine::balance::{Balancer, Load};
//!
//! let mut balancer = Balancer::new(Load::default());
//! balancer.update(0, [("10.0.0.1:80", 10_000), ("10.0.0.2:80", 10_000)]);
//!
//! let (now, random) = (1_000_000, 42); // nanoseconds, and a number of the caller's generator
//! let chosen = balancer.pick(now, random).expect("two endpoints are ready");
//! balancer.on_start(chosen);
//! balancer.on_first_response(chosen, now, now + 3_000_000);
//! balancer.on_end(chosen);
//! assert_eq!(balancer.pending(chosen), 0);
//! ```
//!
//! Cost: a pick reads two endpoints and reckons two exponentials; no allocation. An update costs its endpoints.

mod ewma;

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use tulle_api::outbound as api;

pub use self::ewma::PeakEwma;
use crate::invalid::{Invalid, duration};
use crate::random_below;

/// How load is reckoned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// The latency of an endpoint that has not answered yet.
    pub default_rtt: Duration,
    /// The time in which the average falls to 1/e.
    pub decay: Duration,
    /// What failures count as; `None`: as any other answer.
    pub penalty: Option<Penalty>,
}

/// What failures count as. Read and kept; the balancer does not act on it yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Penalty {
    /// The latency of a failure, at least.
    pub latency: Duration,
    /// The longest `retry-after` that is believed.
    pub max_retry_after: Duration,
    /// The time in which a penalty falls to 1/e.
    pub decay: Duration,
}

impl Default for Load {
    /// Linkerd's: 30 ms, 10 s.
    fn default() -> Self {
        Self {
            default_rtt: Duration::from_millis(30),
            decay: Duration::from_secs(10),
            penalty: None,
        }
    }
}

impl Load {
    pub(crate) fn compile(
        message: Option<&api::backend::balance_p2c::Load>,
    ) -> Result<Self, Invalid> {
        use api::backend::balance_p2c::Load as Message;
        let or =
            |field: &str, length: &Option<prost_types::Duration>, default: Duration| match length {
                None => Ok(default),
                Some(length) => duration(field, length),
            };
        let default = Self::default();
        match message {
            None => Err(Invalid::missing("load")),
            Some(Message::PeakEwma(ewma)) => Ok(Self {
                default_rtt: or(
                    "peak_ewma.default_rtt",
                    &ewma.default_rtt,
                    default.default_rtt,
                )?,
                decay: or("peak_ewma.decay", &ewma.decay, default.decay)?,
                penalty: None,
            }),
            Some(Message::PenaltyPeakEwma(ewma)) => Ok(Self {
                default_rtt: or(
                    "penalty_peak_ewma.default_rtt",
                    &ewma.default_rtt,
                    default.default_rtt,
                )?,
                decay: or("penalty_peak_ewma.decay", &ewma.decay, default.decay)?,
                penalty: Some(Penalty {
                    latency: or(
                        "penalty_peak_ewma.penalty",
                        &ewma.penalty,
                        Duration::from_secs(5),
                    )?,
                    max_retry_after: or(
                        "penalty_peak_ewma.max_retry_after",
                        &ewma.max_retry_after,
                        Duration::from_secs(300),
                    )?,
                    decay: or(
                        "penalty_peak_ewma.penalty_decay",
                        &ewma.penalty_decay,
                        default.decay,
                    )?,
                }),
            }),
        }
    }
}

/// An endpoint of a balancer. It stays good while the endpoint is there; afterwards it means nothing and harms nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId {
    index: u32,
    generation: u32,
}

impl EndpointId {
    /// Dense from 0 and reused after an endpoint is gone, so that a caller may keep a list of its own beside.
    #[must_use]
    pub fn index(self) -> usize {
        self.index as usize
    }
}

#[derive(Clone, Debug)]
struct Slot<K> {
    generation: u32,
    endpoint: Option<Member<K>>,
}

#[derive(Clone, Debug)]
struct Member<K> {
    key: K,
    weight: u32,
    load: PeakEwma,
    pending: u32,
    /// Where it stands among the ready ones.
    ready: Option<usize>,
}

/// Picks endpoints, known by keys of the caller's (an address, say).
#[derive(Clone, Debug)]
pub struct Balancer<K> {
    load: Load,
    slots: Vec<Slot<K>>,
    free: Vec<u32>,
    ids: HashMap<K, EndpointId>,
    /// The endpoints that may be picked.
    ready: Vec<Ready>,
    /// Of the ready ones; 0 when all weigh the same, so that the weights need no look.
    total_weight: u64,
}

#[derive(Clone, Copy, Debug)]
struct Ready {
    id: EndpointId,
    weight: u32,
}

/// What an update of a balancer changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// New endpoints; they are ready.
    pub added: Vec<EndpointId>,
    /// Endpoints that are gone; their ids mean nothing any more.
    pub removed: Vec<EndpointId>,
}

impl<K: Clone + Eq + Hash> Balancer<K> {
    /// Without endpoints.
    #[must_use]
    pub fn new(load: Load) -> Self {
        Self {
            load,
            slots: Vec::new(),
            free: Vec::new(),
            ids: HashMap::new(),
            ready: Vec::new(),
            total_weight: 0,
        }
    }

    /// Makes the endpoints these. Those that stay keep what is known of their load.
    pub fn update(&mut self, now: u64, endpoints: impl IntoIterator<Item = (K, u32)>) -> Diff {
        let mut diff = Diff::default();
        let mut wanted: HashMap<K, u32> = HashMap::new();
        let mut new = Vec::new();
        // In the order given, so that the same updates give the same ids.
        for (key, weight) in endpoints {
            if wanted.insert(key.clone(), weight).is_none() && !self.ids.contains_key(&key) {
                new.push(key);
            }
        }
        let gone = self
            .ids
            .iter()
            .filter(|(key, _)| !wanted.contains_key(*key))
            .map(|(_, id)| *id);
        diff.removed = gone.collect();
        diff.removed.sort_unstable();
        for id in &diff.removed {
            self.remove(*id);
        }
        diff.added = new.into_iter().map(|key| self.insert(now, key)).collect();
        for (key, weight) in wanted {
            let id = self.ids.get(&key).copied();
            if let Some(member) = id.and_then(|id| self.member_mut(id)) {
                member.weight = weight;
            }
        }
        self.reweigh();
        diff
    }

    fn insert(&mut self, now: u64, key: K) -> EndpointId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                endpoint: None,
            });
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let generation = self
            .slots
            .get(index as usize)
            .map_or(0, |slot| slot.generation);
        let id = EndpointId { index, generation };
        let member = Member {
            key: key.clone(),
            weight: 0,
            load: PeakEwma::new(self.load.default_rtt, self.load.decay, now),
            pending: 0,
            ready: Some(self.ready.len()),
        };
        if let Some(slot) = self.slots.get_mut(index as usize) {
            slot.endpoint = Some(member);
        }
        self.ready.push(Ready { id, weight: 0 });
        self.ids.insert(key, id);
        id
    }

    fn remove(&mut self, id: EndpointId) {
        self.set_ready(id, false);
        let slot = self
            .slots
            .get_mut(id.index())
            .filter(|slot| slot.generation == id.generation);
        let Some(slot) = slot else { return };
        let Some(member) = slot.endpoint.take() else {
            return;
        };
        slot.generation = slot.generation.wrapping_add(1);
        self.ids.remove(&member.key);
        self.free.push(id.index);
    }

    /// Takes an endpoint into the draw or out of it: one that cannot be connected to, or that a breaker has ejected.
    pub fn set_ready(&mut self, id: EndpointId, ready: bool) {
        let Some(member) = self.member(id) else {
            return;
        };
        match (member.ready, ready) {
            (None, true) => {
                let entry = Ready {
                    id,
                    weight: member.weight,
                };
                let place = self.ready.len();
                self.ready.push(entry);
                if let Some(member) = self.member_mut(id) {
                    member.ready = Some(place);
                }
            }
            (Some(place), false) => {
                self.ready.swap_remove(place);
                let moved = self.ready.get(place).map(|entry| entry.id);
                if let Some(member) = moved.and_then(|moved| self.member_mut(moved)) {
                    member.ready = Some(place);
                }
                if let Some(member) = self.member_mut(id) {
                    member.ready = None;
                }
            }
            _ => return,
        }
        self.reweigh();
    }

    fn reweigh(&mut self) {
        let slots = &self.slots;
        let mut same = true;
        let mut total = 0_u64;
        let mut first = None;
        for entry in &mut self.ready {
            let member = slots
                .get(entry.id.index())
                .and_then(|slot| slot.endpoint.as_ref());
            entry.weight = member.map_or(0, |member| member.weight);
            same &= *first.get_or_insert(entry.weight) == entry.weight;
            total += u64::from(entry.weight);
        }
        // All of weight 0 is all of the same weight: traffic goes somewhere rather than nowhere.
        self.total_weight = if same { 0 } else { total };
    }

    /// Chooses a ready endpoint; `None` when there is none.
    ///
    /// Where all weigh the same, two different ones are drawn. Otherwise each of two draws falls by weight, and may fall
    /// on the same endpoint twice: so shares follow the weights while loads are alike.
    #[must_use]
    pub fn pick(&self, now: u64, random: u64) -> Option<EndpointId> {
        self.pick_other(now, random, None)
    }

    /// The same, but never `not` if there is another.
    #[must_use]
    pub fn pick_other(&self, now: u64, random: u64, not: Option<EndpointId>) -> Option<EndpointId> {
        let picked = self.draw_two(now, random)?;
        if Some(picked) != not || self.ready.len() < 2 {
            return Some(picked);
        }
        // The next one after it: all others have had their chance in the draw above.
        let place = self.ready.iter().position(|entry| entry.id == picked)?;
        let next = (place + 1) % self.ready.len();
        self.ready.get(next).map(|entry| entry.id)
    }

    fn draw_two(&self, now: u64, random: u64) -> Option<EndpointId> {
        let count = self.ready.len() as u64;
        // One generator's number serves two draws: each half is uniform by itself.
        let (high, low) = (random & 0xffff_ffff_0000_0000, random << 32);
        let (first, second) = if self.total_weight == 0 {
            let first = random_below(high, count);
            let second = random_below(low, count.saturating_sub(1));
            (first, if second >= first { second + 1 } else { second })
        } else {
            (self.draw(high), self.draw(low))
        };
        let first = self.ready.get(first as usize)?;
        match self.ready.get(second as usize) {
            Some(second) if self.cost(*second, now) < self.cost(*first, now) => Some(second.id),
            _ => Some(first.id),
        }
    }

    fn draw(&self, random: u64) -> u64 {
        let mut point = random_below(random, self.total_weight);
        let place = self.ready.iter().position(|entry| {
            let weight = u64::from(entry.weight);
            let drawn = point < weight;
            point = point.saturating_sub(weight);
            drawn
        });
        place.unwrap_or_default() as u64
    }

    fn cost(&self, entry: Ready, now: u64) -> f64 {
        let Some(member) = self.member(entry.id) else {
            return f64::INFINITY;
        };
        let mut pending = f64::from(member.pending);
        if self.total_weight != 0 {
            // Twice the weight may have twice the requests in flight.
            let mean = self.total_weight as f64 / self.ready.len() as f64;
            pending *= mean / f64::from(member.weight.max(1));
        }
        member.load.at(now) * (pending + 1.0)
    }

    /// A request begins. Each call is answered by one of [`Self::on_end`].
    pub fn on_start(&mut self, id: EndpointId) {
        if let Some(member) = self.member_mut(id) {
            member.pending = member.pending.saturating_add(1);
        }
    }

    /// The first data of the response is there: `started` is when the request began.
    pub fn on_first_response(&mut self, id: EndpointId, started: u64, now: u64) {
        if let Some(member) = self.member_mut(id) {
            member.load.observe(started, now);
        }
    }

    /// The response has ended, or the request has failed. A long stream counts as load until here.
    pub fn on_end(&mut self, id: EndpointId) {
        if let Some(member) = self.member_mut(id) {
            member.pending = member.pending.saturating_sub(1);
        }
    }

    /// The endpoint's key; `None` when it is gone.
    #[must_use]
    pub fn key(&self, id: EndpointId) -> Option<&K> {
        self.member(id).map(|member| &member.key)
    }

    /// The endpoint with this key.
    #[must_use]
    pub fn id(&self, key: &K) -> Option<EndpointId> {
        self.ids.get(key).copied()
    }

    /// Requests in flight to the endpoint.
    #[must_use]
    pub fn pending(&self, id: EndpointId) -> u32 {
        self.member(id).map_or(0, |member| member.pending)
    }

    /// How many endpoints there are, ready or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// How many may be picked.
    #[must_use]
    pub fn ready_len(&self) -> usize {
        self.ready.len()
    }

    fn member(&self, id: EndpointId) -> Option<&Member<K>> {
        let slot = self.slots.get(id.index())?;
        slot.endpoint
            .as_ref()
            .filter(|_| slot.generation == id.generation)
    }

    fn member_mut(&mut self, id: EndpointId) -> Option<&mut Member<K>> {
        let slot = self.slots.get_mut(id.index())?;
        slot.endpoint
            .as_mut()
            .filter(|_| slot.generation == id.generation)
    }
}

#[cfg(test)]
mod tests;
