//! How many requests per second a port lets in: the rule (`HTTPLocalRateLimitPolicy`) and what has been let in so far.
//!
//! GCRA with a burst of one second, as Linkerd has it: a client that was quiet may send a second's worth at once, and
//! then one request per interval. A request is weighed against its client's bucket and against the total, and is
//! charged to both or to neither: a client beyond its own share takes nothing from the others'.
//!
//! Cost: a look-up by identity and two comparisons; the first request of an identity allocates its bucket. There are at
//! most [`MAX_BUCKETS`]; a bucket that is full again is forgotten when room is needed, which nobody can notice, and
//! identities beyond the bound share one bucket.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use tulle_api::inbound as api;

use crate::invalid::Invalid;
use crate::meta::Meta;

/// The most identities with a bucket of their own, per port.
pub const MAX_BUCKETS: usize = 10_000;

const SECOND: u64 = 1_000_000_000;

/// How many requests per second one proxy lets in.
#[derive(Clone, Debug, PartialEq)]
pub struct RateLimit {
    /// The HTTPLocalRateLimitPolicy.
    pub meta: Arc<Meta>,
    /// Of all clients together.
    pub total: Option<u32>,
    /// Of each identity; clients without one share a share.
    pub identity: Option<u32>,
    /// For some identities.
    pub overrides: Vec<RateLimitOverride>,
}

/// A limit for some identities, which share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimitOverride {
    /// Requests per second.
    pub limit: u32,
    /// Whose.
    pub identities: Vec<Box<str>>,
}

impl RateLimit {
    /// Reads the message. An override without a limit is a problem and is left out: its clients have the limit of all.
    pub(super) fn compile(
        message: &api::HttpLocalRateLimit,
        problems: &mut Vec<Invalid>,
    ) -> Option<Self> {
        let limit = |limit: &Option<api::http_local_rate_limit::Limit>| {
            limit
                .map(|limit| limit.requests_per_second)
                .filter(|limit| *limit != 0)
        };
        let mut overrides = Vec::new();
        for (index, message) in message.overrides.iter().enumerate() {
            let Some(limit) = limit(&message.limit) else {
                problems.push(Invalid::missing(format!(
                    "local_rate_limit.overrides[{index}].limit"
                )));
                continue;
            };
            let identities = message
                .clients
                .iter()
                .flat_map(|clients| &clients.identities);
            overrides.push(RateLimitOverride {
                limit,
                identities: identities
                    .map(|identity| identity.name.as_str().into())
                    .collect(),
            });
        }
        let compiled = Self {
            meta: Meta::compile(message.metadata.as_ref()),
            total: limit(&message.total),
            identity: limit(&message.identity),
            overrides,
        };
        let limits = compiled.total.is_some()
            || compiled.identity.is_some()
            || !compiled.overrides.is_empty();
        limits.then_some(compiled)
    }
}

/// What a client has to stay within.
impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = [
            (self.total, "of all clients"),
            (self.identity, "of each client"),
        ];
        let limits = named
            .into_iter()
            .filter_map(|(limit, whose)| Some((limit?, whose)))
            .chain(
                self.overrides
                    .iter()
                    .map(|own| (own.limit, "of an override")),
            );
        for (index, (limit, whose)) in limits.enumerate() {
            let separator = if index > 0 { ", " } else { "at most " };
            write!(f, "{separator}{limit} requests per second {whose}")?;
        }
        Ok(())
    }
}

/// Which of the limits was reached; the `scope` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// That of all clients together.
    Total,
    /// That of the client's identity, or of the override that names it.
    Identity,
}

impl Scope {
    /// The `scope` label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Identity => "identity",
        }
    }
}

/// A request beyond a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited {
    /// Which limit.
    pub scope: Scope,
    /// Requests per second.
    pub limit: u32,
    /// Nanoseconds until one more request would be let in, if nobody else sent any; at most a second.
    pub wait: u64,
}

/// The theoretical arrival time of GCRA: when the bucket will be full again, in the caller's nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bucket(u64);

impl Bucket {
    /// What the bucket becomes when one more request is let in now; else how long to wait.
    fn charge(self, limit: u32, now: u64) -> Result<Self, u64> {
        let interval = (SECOND / u64::from(limit.max(1))).max(1);
        let burst = interval.saturating_mul(u64::from(limit)).min(SECOND);
        let next = self.0.max(now).saturating_add(interval);
        match (next - now).checked_sub(burst.max(interval)) {
            None | Some(0) => Ok(Self(next)),
            Some(wait) => Err(wait),
        }
    }

    fn is_full(self, now: u64) -> bool {
        self.0 <= now
    }
}

/// What a port has let in lately. One per port and proxy.
#[derive(Clone, Debug)]
pub struct RateLimiter {
    rule: Arc<RateLimit>,
    total: Bucket,
    /// In the order of the rule.
    overrides: Vec<Bucket>,
    /// Place in `overrides`, by identity.
    overridden: HashMap<Box<str>, usize>,
    /// Of clients without an identity.
    nameless: Bucket,
    identities: HashMap<Box<str>, Bucket>,
    /// Of identities beyond the bound.
    crowd: Bucket,
    /// Buckets that are full again are not looked for before.
    next_sweep: u64,
}

impl RateLimiter {
    /// Nothing has been let in yet.
    #[must_use]
    pub fn new(rule: Arc<RateLimit>) -> Self {
        let mut overridden = HashMap::new();
        for (index, place) in rule.overrides.iter().enumerate() {
            for identity in &place.identities {
                overridden.insert(identity.clone(), index);
            }
        }
        Self {
            total: Bucket::default(),
            overrides: vec![Bucket::default(); rule.overrides.len()],
            overridden,
            nameless: Bucket::default(),
            identities: HashMap::new(),
            crowd: Bucket::default(),
            next_sweep: 0,
            rule,
        }
    }

    /// The rule in force.
    #[must_use]
    pub fn rule(&self) -> &Arc<RateLimit> {
        &self.rule
    }

    /// Follows a change of policy. Limits that stay as they were go on from where they are; others begin afresh.
    pub fn follow(&mut self, rule: &Arc<RateLimit>) {
        if Arc::ptr_eq(&self.rule, rule) {
            return;
        }
        let mut next = Self::new(rule.clone());
        if self.rule.total == rule.total {
            next.total = self.total;
        }
        if self.rule.identity == rule.identity {
            next.nameless = self.nameless;
            next.crowd = self.crowd;
            next.identities = std::mem::take(&mut self.identities);
            next.next_sweep = self.next_sweep;
        }
        for (place, bucket) in rule.overrides.iter().zip(&mut next.overrides) {
            let known = self.rule.overrides.iter().position(|known| known == place);
            if let Some(known) = known.and_then(|known| self.overrides.get(known)) {
                *bucket = *known;
            }
        }
        *self = next;
    }

    /// Lets one request of this client in, or says which limit is in the way. `now` never goes back.
    pub fn admit(&mut self, identity: Option<&str>, now: u64) -> Result<(), Limited> {
        let total = match self.rule.total {
            None => None,
            Some(limit) => Some(self.total.charge(limit, now).map_err(|wait| Limited {
                scope: Scope::Total,
                limit,
                wait,
            })?),
        };
        let place = identity.and_then(|name| self.overridden.get(name).copied());
        let overriding = place.and_then(|place| {
            let limit = self.rule.overrides.get(place)?.limit;
            Some((limit, self.overrides.get_mut(place)?))
        });
        let own = match (overriding, self.rule.identity) {
            (Some(own), _) => Some(own),
            (None, Some(limit)) => {
                let bucket = match identity {
                    None => &mut self.nameless,
                    Some(name) => bucket_of(
                        &mut self.identities,
                        &mut self.crowd,
                        &mut self.next_sweep,
                        name,
                        now,
                    ),
                };
                Some((limit, bucket))
            }
            (None, None) => None,
        };
        if let Some((limit, bucket)) = own {
            *bucket = bucket.charge(limit, now).map_err(|wait| Limited {
                scope: Scope::Identity,
                limit,
                wait,
            })?;
        }
        if let Some(total) = total {
            self.total = total;
        }
        Ok(())
    }

    /// How many identities have a bucket of their own now.
    #[must_use]
    pub fn buckets(&self) -> usize {
        self.identities.len()
    }
}

fn bucket_of<'b>(
    identities: &'b mut HashMap<Box<str>, Bucket>,
    crowd: &'b mut Bucket,
    next_sweep: &mut u64,
    name: &str,
    now: u64,
) -> &'b mut Bucket {
    if !identities.contains_key(name) {
        if identities.len() >= MAX_BUCKETS && now >= *next_sweep {
            identities.retain(|_, bucket| !bucket.is_full(now));
            // However many come: the whole table is looked at once a second at most.
            *next_sweep = now.saturating_add(SECOND);
        }
        if identities.len() >= MAX_BUCKETS {
            return crowd;
        }
        identities.insert(name.into(), Bucket::default());
    }
    identities.get_mut(name).unwrap_or(crowd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(
        total: Option<u32>,
        identity: Option<u32>,
        overrides: &[(u32, &[&str])],
    ) -> Arc<RateLimit> {
        Arc::new(RateLimit {
            meta: Meta::named("limit"),
            total,
            identity,
            overrides: overrides
                .iter()
                .map(|(limit, names)| RateLimitOverride {
                    limit: *limit,
                    identities: names.iter().map(|name| (*name).into()).collect(),
                })
                .collect(),
        })
    }

    fn admitted(limiter: &mut RateLimiter, who: Option<&str>, now: u64, times: usize) -> usize {
        (0..times)
            .filter(|_| limiter.admit(who, now).is_ok())
            .count()
    }

    #[test]
    fn a_quiet_client_has_a_seconds_worth_at_once_and_then_its_rate() {
        let mut limiter = RateLimiter::new(rule(Some(5), None, &[]));
        assert_eq!(admitted(&mut limiter, None, 0, 20), 5);
        assert_eq!(admitted(&mut limiter, None, SECOND / 5, 20), 1);
        assert_eq!(admitted(&mut limiter, None, SECOND * 9, 20), 5);
        let limited = limiter.admit(None, SECOND * 9).unwrap_err();
        assert_eq!(
            limited,
            Limited {
                scope: Scope::Total,
                limit: 5,
                wait: SECOND / 5
            }
        );
        assert!(limiter.admit(None, SECOND * 9 + limited.wait).is_ok());
    }

    #[test]
    fn identities_have_buckets_of_their_own_and_the_nameless_share_one() {
        let mut limiter = RateLimiter::new(rule(None, Some(2), &[(4, &["c", "d"])]));
        assert_eq!(admitted(&mut limiter, Some("a"), 0, 9), 2);
        assert_eq!(admitted(&mut limiter, Some("b"), 0, 9), 2);
        assert_eq!(admitted(&mut limiter, None, 0, 9), 2);
        assert_eq!(admitted(&mut limiter, None, 0, 9), 0);
        // An override is shared by those whom it names.
        assert_eq!(admitted(&mut limiter, Some("c"), 0, 3), 3);
        assert_eq!(admitted(&mut limiter, Some("d"), 0, 9), 1);
        assert_eq!(limiter.buckets(), 2);
    }

    #[test]
    fn a_client_beyond_its_share_takes_nothing_from_the_total() {
        let mut limiter = RateLimiter::new(rule(Some(10), Some(2), &[]));
        assert_eq!(admitted(&mut limiter, Some("noisy"), 0, 100), 2);
        let quiet: usize = ["a", "b", "c", "d"]
            .map(|who| admitted(&mut limiter, Some(who), 0, 9))
            .iter()
            .sum();
        assert_eq!(quiet, 8);
        assert_eq!(limiter.admit(Some("e"), 0).unwrap_err().scope, Scope::Total);
    }

    #[test]
    fn what_stays_the_same_in_a_change_of_policy_goes_on() {
        let mut limiter = RateLimiter::new(rule(Some(5), Some(3), &[(1, &["x"])]));
        assert_eq!(admitted(&mut limiter, Some("a"), 0, 9), 3);
        assert_eq!(admitted(&mut limiter, Some("x"), 0, 9), 1);
        limiter.follow(&rule(Some(5), Some(3), &[(2, &["y"]), (1, &["x"])]));
        assert_eq!(admitted(&mut limiter, Some("x"), 0, 9), 0);
        assert_eq!(admitted(&mut limiter, Some("a"), 0, 9), 0);
        assert_eq!(admitted(&mut limiter, Some("b"), 0, 9), 1);
        limiter.follow(&rule(Some(6), Some(4), &[]));
        assert_eq!(admitted(&mut limiter, Some("a"), 0, 9), 4);
    }

    #[test]
    fn buckets_are_bounded_and_full_ones_make_room() {
        let mut limiter = RateLimiter::new(rule(None, Some(1), &[]));
        for number in 0..MAX_BUCKETS {
            assert!(limiter.admit(Some(&number.to_string()), 0).is_ok());
        }
        // The crowd shares one bucket: it is limited together, never let in unlimited.
        assert!(limiter.admit(Some("late"), 1).is_ok());
        assert!(limiter.admit(Some("later"), 1).is_err());
        assert_eq!(limiter.buckets(), MAX_BUCKETS);
        assert!(limiter.admit(Some("later"), 2 * SECOND).is_ok());
        assert_eq!(limiter.buckets(), 1);
    }

    #[test]
    fn any_number_is_a_limit() {
        for limit in [1, 3, 7, 999, 1_000_000, 2_000_000_000, u32::MAX] {
            let mut limiter = RateLimiter::new(rule(Some(limit), None, &[]));
            assert!(limiter.admit(None, u64::MAX - 1).is_ok(), "{limit}");
            let burst = admitted(
                &mut RateLimiter::new(rule(Some(limit), None, &[])),
                None,
                0,
                2000,
            );
            assert_eq!(burst, (limit as usize).min(2000), "{limit}");
        }
    }

    /// A bucket of tokens that drip in, counted in nanoseconds of credit.
    struct Oracle {
        credit: u64,
        last: u64,
    }

    impl Oracle {
        fn refill(&mut self, limit: u32, now: u64) {
            let interval = SECOND / u64::from(limit);
            self.credit = (self.credit + (now - self.last)).min(interval * u64::from(limit));
            self.last = now;
        }
    }

    proptest! {
        #[test]
        fn it_lets_in_what_a_dripping_bucket_lets_in(
            total in 1_u32..40,
            own in 1_u32..20,
            steps in proptest::collection::vec((0_u64..400_000_000, 0_usize..4), 1..200),
        ) {
            let names = [None, Some("a"), Some("b"), Some("c")];
            let mut limiter = RateLimiter::new(rule(Some(total), Some(own), &[]));
            let full = |limit: u32| Oracle { credit: SECOND / u64::from(limit) * u64::from(limit), last: 0 };
            let mut all = full(total);
            let mut each = [full(own), full(own), full(own), full(own)];
            let mut now = 0;
            let mut let_in = Vec::new();
            for (pause, who) in steps {
                now += pause;
                all.refill(total, now);
                each[who].refill(own, now);
                let (costs_all, costs_own) = (SECOND / u64::from(total), SECOND / u64::from(own));
                let expected = if all.credit < costs_all {
                    Err(Scope::Total)
                } else if each[who].credit < costs_own {
                    Err(Scope::Identity)
                } else {
                    all.credit -= costs_all;
                    each[who].credit -= costs_own;
                    let_in.push(now);
                    Ok(())
                };
                prop_assert_eq!(limiter.admit(names[who], now).map_err(|limited| limited.scope), expected);
            }
            // Whatever happened: no second holds more than a burst and a second's worth.
            for (index, begin) in let_in.iter().enumerate() {
                let within = let_in[index..].iter().take_while(|at| **at - begin < SECOND).count();
                prop_assert!(within <= 2 * total as usize);
            }
        }
    }
}
