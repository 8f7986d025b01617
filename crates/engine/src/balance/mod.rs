//! Which endpoint takes a request: of two drawn at random, the one with the lower load; or the one that its key names.
//!
//! Load is peak-EWMA, as in Linkerd (tower): latency, averaged so that it jumps up at once and comes down slowly, times
//! the requests in flight and the new one. Endpoints that cannot be connected to, that a breaker has ejected or that
//! have as many requests as they may are out of the draw, so no draw is in vain. An ejected endpoint comes back by one
//! request that is sent to it as a probe.
//!
//! | file | owns |
//! |---|---|
//! | `config` | what a policy says about balancing |
//! | `members`, `pool`, `ring` | the endpoints, those in the draw, their points for hashing |
//! | `ewma` | the load of one |
//! | `pick` | the choice |
//! | `eject` | breakers, probes, and how many may be out at once |
//!
//! ```
//! use tulle_engine::balance::{Balance, Balancer, Choice, Facts};
//!
//! let mut balancer = Balancer::new(&Balance::default(), None);
//! balancer.update(0, [("10.0.0.1:80", Facts::default()), ("10.0.0.2:80", Facts::default())]);
//!
//! let (now, random) = (1_000_000, 42); // nanoseconds, and a number of the caller's generator
//! let picked = balancer.pick(now, random, Choice::default()).expect("two endpoints are ready");
//! assert_eq!(balancer.pending(picked.id), 1);
//! balancer.on_first_response(picked, now, now + 3_000_000);
//! balancer.on_end(picked, now + 4_000_000);
//! assert_eq!(balancer.pending(picked.id), 0);
//! ```
//!
//! Cost: a pick reads two endpoints and reckons two exponentials; no allocation. An endpoint that comes, goes or changes
//! costs the logarithm of their number.

mod config;
mod eject;
mod ewma;
mod members;
mod pick;
mod pool;
mod ring;

use std::hash::Hash;

pub use self::config::{Balance, ConsistentHash, Cookie, HashKey, Load, Penalty, ZonePreference};
pub use self::eject::Tally;
pub use self::ewma::PeakEwma;
pub use self::members::EndpointId;
pub use self::pick::{ALWAYS_ROOM, Choice, Picked, Unready};
pub use self::ring::hash_key;

use self::eject::Ejections;
use self::members::{Member, Members, Out};
use self::pool::{Entry, Pool};
use self::ring::Ring;
use crate::breaker::{Breaker, State};
use crate::destination::ORDINARY_WEIGHT;
use crate::outbound::FailureAccrual;

/// What the balancer is told of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its share; [`ORDINARY_WEIGHT`] is ordinary, 0 takes nothing while others are there.
    pub weight: u32,
    /// In the client's zone, where zones are preferred.
    pub near: bool,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            weight: ORDINARY_WEIGHT,
            near: true,
        }
    }
}

/// Picks endpoints, known by keys of the caller's (an address, say).
#[derive(Clone, Debug)]
pub struct Balancer<K> {
    config: Balance,
    members: Members<K>,
    /// Those in the draw: of the zone that is preferred (all, without a preference), and the others.
    near: Pool,
    far: Pool,
    /// Endpoints of the preferred zone, in the draw or not.
    near_members: usize,
    ring: Option<Ring>,
    /// Requests in flight.
    pending: u64,
    ejections: Ejections,
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
    /// Without endpoints. `accrual`: when one is ejected; `None`: never.
    #[must_use]
    pub fn new(config: &Balance, accrual: Option<FailureAccrual>) -> Self {
        Self {
            ring: config.hash.as_ref().map(|_| Ring::default()),
            config: config.clone(),
            members: Members::default(),
            near: Pool::default(),
            far: Pool::default(),
            near_members: 0,
            pending: 0,
            ejections: Ejections::new(accrual),
        }
    }

    /// Makes the endpoints these. Those that stay keep what is known of them. Costs all of them: for the first time, and
    /// for when it is not known what has changed.
    pub fn update(&mut self, now: u64, endpoints: impl IntoIterator<Item = (K, Facts)>) -> Diff {
        let mut diff = Diff::default();
        // Endpoints that are there when nothing was known are not new ones: nobody else carries their share meanwhile.
        let first = self.is_empty();
        let mut wanted = std::collections::HashSet::new();
        // In the order given, so that the same updates give the same ids.
        for (key, facts) in endpoints {
            if let Some(id) = self.members.id(&key) {
                self.set_facts(id, facts);
            } else {
                let id = self.insert(now, key.clone(), facts);
                if let Some(member) = self.members.get_mut(id).filter(|_| first) {
                    member.came = None;
                }
                diff.added.push(id);
            }
            wanted.insert(key);
        }
        let gone = self
            .members
            .ids()
            .filter(|(key, _)| !wanted.contains(*key))
            .map(|(_, id)| id);
        diff.removed = gone.collect();
        diff.removed.sort_unstable();
        for id in &diff.removed {
            self.remove(*id);
        }
        diff
    }

    /// Adds an endpoint, or replaces the one with this key by a new one of which nothing is known.
    pub fn insert(&mut self, now: u64, key: K, facts: Facts) -> EndpointId {
        if let Some(known) = self.members.id(&key) {
            self.remove(known);
        }
        let Facts { weight, near } = self.seen(facts);
        let id = self.members.insert(Member {
            key: key.clone(),
            weight,
            near,
            came: self.config.slow_start.map(|_| now),
            load: PeakEwma::new(&self.config.load, now),
            pending: 0,
            breaker: self.ejections.accrual().map(Breaker::new),
            out: Out::default(),
            place: 0,
        });
        if let Some(ring) = &mut self.ring {
            ring.weigh(id, &key, 0, weight);
        }
        self.near_members += usize::from(near);
        self.enter(id);
        id
    }

    /// Takes an endpoint away. What is in flight to it may end later.
    pub fn remove(&mut self, id: EndpointId) {
        self.set_out(id, |out| out.unreachable = true);
        let Some(member) = self.members.remove(id) else {
            return;
        };
        self.near_members -= usize::from(member.near);
        self.pending -= u64::from(member.pending);
        if let Some(ring) = &mut self.ring {
            ring.weigh(id, &member.key, member.weight, 0);
        }
        let state = member.breaker.as_ref().map(Breaker::state);
        self.ejections
            .forget(id, member.out, state.unwrap_or_default());
        self.keep_enough();
    }

    /// Changes what is told of an endpoint.
    pub fn set_facts(&mut self, id: EndpointId, facts: Facts) {
        let Facts { weight, near } = self.seen(facts);
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        if (member.weight, member.near) == (weight, near) {
            return;
        }
        let in_draw = !member.out.any();
        if in_draw {
            self.leave(id);
        }
        if let Some(member) = self.members.get_mut(id) {
            self.near_members += usize::from(near);
            self.near_members -= usize::from(member.near);
            if let Some(ring) = &mut self.ring {
                ring.weigh(id, &member.key, member.weight, weight);
            }
            (member.weight, member.near) = (weight, near);
        }
        if in_draw {
            self.enter(id);
        }
    }

    /// Without a preference all are near.
    fn seen(&self, facts: Facts) -> Facts {
        Facts {
            near: facts.near || self.config.zone.is_none(),
            ..facts
        }
    }

    /// Takes an endpoint into the draw or out of it: one that cannot be connected to.
    pub fn set_ready(&mut self, id: EndpointId, ready: bool) {
        self.set_out(id, |out| out.unreachable = !ready);
        self.keep_enough();
    }

    /// Changes why an endpoint is out, and with it whether it is.
    fn set_out(&mut self, id: EndpointId, change: impl FnOnce(&mut Out)) {
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        let before = member.out;
        change(&mut member.out);
        let after = member.out;
        self.ejections.count(before, after);
        match (before.any(), after.any()) {
            (false, true) => self.leave(id),
            (true, false) => self.enter(id),
            _ => {}
        }
    }

    fn enter(&mut self, id: EndpointId) {
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        let pool = if member.near {
            &mut self.near
        } else {
            &mut self.far
        };
        member.place = pool.push(Entry {
            id,
            weight: member.weight,
        });
    }

    fn leave(&mut self, id: EndpointId) {
        let Some(member) = self.members.get(id) else {
            return;
        };
        let place = member.place;
        let pool = if member.near {
            &mut self.near
        } else {
            &mut self.far
        };
        let moved = pool.remove(place);
        if let Some(member) = moved.and_then(|moved| self.members.get_mut(moved)) {
            member.place = place;
        }
    }

    /// A request begins; part of each pick.
    fn begin(&mut self, id: EndpointId) {
        let limit = self.config.max_in_flight;
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        member.pending = member.pending.saturating_add(1);
        self.pending += 1;
        if limit.is_some_and(|limit| member.pending >= limit) {
            self.set_out(id, |out| out.full = true);
        }
    }

    /// The first data of the response is there: `started` is when the request began.
    pub fn on_first_response(&mut self, picked: Picked, started: u64, now: u64) {
        if let Some(member) = self.members.get_mut(picked.id) {
            member.load.observe(started, now);
        }
    }

    /// The response has ended, or the request has failed. A long stream counts as load until here. A probe whose result
    /// nobody has told was given up.
    pub fn on_end(&mut self, picked: Picked, now: u64) {
        let Some(member) = self.members.get_mut(picked.id) else {
            return;
        };
        if member.pending > 0 {
            member.pending -= 1;
            self.pending -= 1;
        }
        let was_full = member.out.full;
        if was_full && Some(member.pending) < self.config.max_in_flight {
            self.set_out(picked.id, |out| out.full = false);
        }
        self.give_up(picked, now);
    }

    /// The endpoint's key; `None` when it is gone.
    #[must_use]
    pub fn key(&self, id: EndpointId) -> Option<&K> {
        self.members.get(id).map(|member| &member.key)
    }

    /// The endpoint with this key.
    #[must_use]
    pub fn id(&self, key: &K) -> Option<EndpointId> {
        self.members.id(key)
    }

    /// Requests in flight to the endpoint.
    #[must_use]
    pub fn pending(&self, id: EndpointId) -> u32 {
        self.members.get(id).map_or(0, |member| member.pending)
    }

    /// Where the endpoint's breaker stands; `None` when it has none or is gone.
    #[must_use]
    pub fn breaker(&self, id: EndpointId) -> Option<State> {
        Some(self.members.get(id)?.breaker.as_ref()?.state())
    }

    /// How many endpoints there are, ready or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.len() == 0
    }

    /// How many are in the draw.
    #[must_use]
    pub fn ready_len(&self) -> usize {
        self.near.len() + self.far.len()
    }

    /// How many are ejected, those included that are being probed.
    #[must_use]
    pub fn ejected_len(&self) -> usize {
        self.ejections.len()
    }

    /// What has happened so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.ejections.tally()
    }
}

#[cfg(test)]
mod tests;
