//! The choice of an endpoint. Pure: time, chance and what the request says come in.

use std::hash::Hash;
use std::num::NonZeroU64;

use super::Balancer;
use super::members::{EndpointId, Member};
use super::pool::{Entry, Pool, uniform};
use super::ring::mix;
use crate::breaker::{Breaker, State};
use crate::random_below;

/// What a choice looks at beside load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// [`super::hash_key`] of what keeps requests together; only used where the policy hashes.
    pub key: Option<NonZeroU64>,
    /// Not this one if there is another: it has just been tried. Such a second try is not sent as a probe either, if
    /// it can be helped.
    pub not: Option<EndpointId>,
}

/// An endpoint that was picked for one try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picked {
    /// Which.
    pub id: EndpointId,
    /// The number of the probe it is; 0 for an ordinary request.
    pub probe: u32,
}

impl Picked {
    /// Whether the try decides if the endpoint comes back.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        self.probe != 0
    }
}

/// Why no endpoint was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unready {
    /// There are none.
    Empty,
    /// Those that could be used have as many requests as they may.
    Full,
    /// Breakers have ejected all that could be connected to.
    Ejected,
    /// None can be connected to.
    Unreachable,
}

/// Draws of a point that an endpoint which has just come may pass on.
const DRAWS: u32 = 8;
/// Points of the ring that are looked at for one key.
const MAX_STEPS: usize = 1024;
/// Requests at once that are no overload, whatever the average is: else two requests of one client at a quiet time would
/// go to two endpoints.
pub const ALWAYS_ROOM: u32 = 8;
/// The least share of a new endpoint, of its full one: without any request nothing would be known of it.
const LEAST_SHARE: f64 = 0.05;

impl<K: Clone + Eq + Hash> Balancer<K> {
    /// Chooses an endpoint for a request, which begins with it: each pick is answered by one [`Self::on_end`].
    ///
    /// Without a key, two different endpoints are drawn where all weigh the same. Otherwise each of two draws falls by
    /// weight, and may fall on the same endpoint twice: so shares follow the weights while loads are alike. With one, the
    /// first endpoint on the ring is taken that has room: no more than the configured multiple of its share of all
    /// requests in flight.
    ///
    /// # Errors
    /// When none is ready.
    pub fn pick(&mut self, now: u64, random: u64, choice: Choice) -> Result<Picked, Unready> {
        let keyed = match (choice.key, &self.ring) {
            (Some(key), Some(_)) => self.by_key(now, key.get(), choice.not),
            _ => None,
        };
        let picked = match keyed {
            Some(picked) => picked,
            None => self.by_load(now, random, choice)?,
        };
        self.begin(picked.id);
        Ok(picked)
    }

    fn by_load(&mut self, now: u64, random: u64, choice: Choice) -> Result<Picked, Unready> {
        let ordinary = |id| Picked { id, probe: 0 };
        let due = self.ejections.due(now).filter(|id| !self.is_out(*id));
        let second_try = choice.not.is_some();
        if let Some(id) = due.filter(|_| !second_try) {
            if let Some(probe) = self.probe(id, now) {
                return Ok(Picked { id, probe });
            }
        }
        if let Some(id) = self.draw(now, random, choice.not) {
            return Ok(ordinary(id));
        }
        if let Some(id) = due {
            if let Some(probe) = self.probe(id, now) {
                return Ok(Picked { id, probe });
            }
        }
        Err(self.why_none())
    }

    /// Out for another reason than its breaker.
    fn is_out(&self, id: EndpointId) -> bool {
        self.members
            .get(id)
            .is_none_or(|member| member.out.unreachable || member.out.full)
    }

    fn why_none(&self) -> Unready {
        if self.is_empty() {
            Unready::Empty
        } else if self.ejections.full() > 0 {
            Unready::Full
        } else if self.ejections.len() > 0 {
            Unready::Ejected
        } else {
            Unready::Unreachable
        }
    }

    fn draw(&self, now: u64, random: u64, not: Option<EndpointId>) -> Option<EndpointId> {
        let pools = self.pools(not);
        let mut dice = Dice(random);
        // Where it stands in the draw, if it is there at all.
        let not = not
            .and_then(|id| self.members.get(id))
            .filter(|member| !member.out.any())
            .and_then(|member| pools.place(member));
        if pools.len() == 1 {
            return pools.get(0).map(|entry| entry.id);
        }
        let same = uniform([pools.near, pools.far]);
        let first = self.draw_one(now, &pools, same, [not, None], &mut dice, true)?;
        let besides = if same { Some(first) } else { None };
        let second = self.draw_one(now, &pools, same, [not, besides], &mut dice, false);
        let cost = |place| {
            pools
                .get(place)
                .map_or(f64::INFINITY, |entry: Entry| self.cost(entry, now, &pools))
        };
        let place = match second {
            Some(second) if cost(second) < cost(first) => second,
            _ => first,
        };
        pools.get(place).map(|entry| entry.id)
    }

    /// A place by weight. One that has just come passes most draws on; if all do, `insist` takes the last.
    fn draw_one(
        &self,
        now: u64,
        pools: &Pools<'_>,
        same: bool,
        besides: [Option<usize>; 2],
        dice: &mut Dice,
        insist: bool,
    ) -> Option<usize> {
        let mut drawn = None;
        for _ in 0..DRAWS {
            let place = if same {
                pools.at_random(dice.roll(), besides)
            } else {
                pools.by_weight(dice.roll(), besides[0])
            }?;
            drawn = Some(place);
            let share = pools
                .get(place)
                .map_or(1.0, |entry| self.grown(entry.id, now));
            if share >= 1.0 || dice.chance() < share {
                return drawn;
            }
        }
        drawn.filter(|_| insist)
    }

    /// How much of its share an endpoint has by now: it grows in a straight line since the endpoint came.
    fn grown(&self, id: EndpointId, now: u64) -> f64 {
        let Some(length) = self.config.slow_start else {
            return 1.0;
        };
        let Some(came) = self.members.get(id).and_then(|member| member.came) else {
            return 1.0;
        };
        let since = now.saturating_sub(came) as f64;
        (since / length.as_nanos() as f64).max(LEAST_SHARE)
    }

    fn cost(&self, entry: Entry, now: u64, pools: &Pools<'_>) -> f64 {
        let Some(member) = self.members.get(entry.id) else {
            return f64::INFINITY;
        };
        // Twice the weight may have twice the requests in flight, and one that is still growing the fewer.
        let mean = pools.total() as f64 / pools.len() as f64;
        let share = f64::from(member.weight.max(1)) * self.grown(entry.id, now).min(1.0);
        let pending = f64::from(member.pending) * mean.max(1.0) / share;
        member.load.at(now) * (pending + 1.0)
    }

    /// Which endpoints are drawn from: the near ones, and the others too when too few of the near ones are ready.
    fn pools(&self, not: Option<EndpointId>) -> Pools<'_> {
        let enough = match self.config.zone {
            None => true,
            Some(zone) => {
                let ready = self.near.len() as u64 * 100;
                let wanted = u64::from(zone.spill_over_below_percent) * self.near_members as u64;
                let other = match self.near.entries() {
                    [] => false,
                    [only] => Some(only.id) != not,
                    _ => true,
                };
                other && ready >= wanted
            }
        };
        Pools {
            near: &self.near,
            far: if enough { Pool::NONE } else { &self.far },
        }
    }

    fn by_key(&mut self, now: u64, key: u64, not: Option<EndpointId>) -> Option<Picked> {
        match self.on_ring(now, key, not)? {
            Found::Ready(id) => Some(Picked { id, probe: 0 }),
            Found::Due(id) => self.probe(id, now).map(|probe| Picked { id, probe }),
        }
    }

    fn on_ring(&self, now: u64, key: u64, not: Option<EndpointId>) -> Option<Found> {
        let bound = self.config.hash.as_ref()?.load_bound;
        let mut without_room = None;
        for id in self.ring.as_ref()?.from(key).take(MAX_STEPS) {
            let Some(member) = self.members.get(id) else {
                continue;
            };
            if Some(id) == not {
                continue;
            }
            if !member.out.any() {
                if self.has_room(member, bound) {
                    return Some(Found::Ready(id));
                }
                without_room.get_or_insert(Found::Ready(id));
            } else if not.is_none() && member.out.ejected && !self.is_out(id) {
                let state = member.breaker.as_ref().map(Breaker::state);
                if matches!(state, Some(State::Ejected(until)) if until <= now) {
                    return Some(Found::Due(id));
                }
            }
        }
        without_room
    }

    /// Whether one more request stays within the bound on the endpoint's share of all that are in flight.
    fn has_room(&self, member: &Member<K>, bound: f64) -> bool {
        let all = (self.pending + 1) as f64;
        let (weight, total) = (f64::from(member.weight), self.near.total() as f64);
        // One more is no more than the bound, rounded up.
        member.pending < ALWAYS_ROOM || f64::from(member.pending) < bound * all * weight / total
    }
}

enum Found {
    Ready(EndpointId),
    /// Ejected, and it may be probed.
    Due(EndpointId),
}

/// The endpoints that are drawn from, as one list.
struct Pools<'p> {
    near: &'p Pool,
    far: &'p Pool,
}

impl Pools<'_> {
    fn len(&self) -> usize {
        self.near.len() + self.far.len()
    }

    fn total(&self) -> u64 {
        self.near.total() + self.far.total()
    }

    fn get(&self, place: usize) -> Option<Entry> {
        match place.checked_sub(self.near.len()) {
            None => self.near.get(place),
            Some(place) => self.far.get(place),
        }
    }

    /// Where a member stands that is in the draw.
    fn place<K>(&self, member: &Member<K>) -> Option<usize> {
        if member.near {
            Some(member.place)
        } else {
            Some(self.near.len() + member.place).filter(|place| *place < self.len())
        }
    }

    /// Any but these, each as likely as the other.
    fn at_random(&self, random: u64, mut besides: [Option<usize>; 2]) -> Option<usize> {
        besides.sort_unstable();
        let besides = besides.into_iter().flatten();
        let left = self.len().checked_sub(besides.clone().count())?;
        if left == 0 {
            return None;
        }
        let drawn = random_below(random, left as u64) as usize;
        Some(besides.fold(drawn, |place, gone| place + usize::from(place >= gone)))
    }

    /// Any but this, by weight; this, if no other has any.
    fn by_weight(&self, random: u64, not: Option<usize>) -> Option<usize> {
        let weight = not
            .and_then(|not| self.get(not))
            .map_or(0, |entry| entry.weight);
        let left = self.total() - u64::from(weight);
        if left == 0 {
            return not;
        }
        let mut point = random_below(random, left);
        if not.is_some_and(|not| point >= self.before(not)) {
            point += u64::from(weight);
        }
        Some(match point.checked_sub(self.near.total()) {
            None => self.near.at(point),
            Some(point) => self.near.len() + self.far.at(point),
        })
    }

    fn before(&self, place: usize) -> u64 {
        match place.checked_sub(self.near.len()) {
            None => self.near.before(place),
            Some(place) => self.near.total() + self.far.before(place),
        }
    }
}

/// Several numbers out of the one that the caller handed in (SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Between 0 and 1.
    fn chance(&mut self) -> f64 {
        self.roll() as f64 / u64::MAX as f64
    }
}
