//! Draws, shares and updates of the balancer.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const MS: u64 = 1_000_000;

/// A generator of our own, so that a failure repeats (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn balancer(weights: &[(&'static str, u32)]) -> Balancer<&'static str> {
    let mut balancer = Balancer::new(Load::default());
    balancer.update(0, weights.iter().copied());
    balancer
}

/// Requests that overlap: one begins every `every`, and each lasts as long as `latency` says for its endpoint.
fn shares(
    balancer: &mut Balancer<&'static str>,
    every: u64,
    latency: impl Fn(&str) -> u64,
) -> BTreeMap<&'static str, f64> {
    const REQUESTS: u64 = 30_000;
    let mut random = Random(7);
    let mut counts = BTreeMap::new();
    let mut flying: BTreeSet<(u64, u64, EndpointId, u64)> = BTreeSet::new();
    for request in 0..REQUESTS {
        let now = request * every;
        while let Some((ends, _, id, started)) =
            flying.first().copied().filter(|(ends, ..)| *ends <= now)
        {
            flying.pop_first();
            balancer.on_first_response(id, started, ends);
            balancer.on_end(id);
        }
        let id = balancer.pick(now, random.next()).unwrap();
        let key = *balancer.key(id).unwrap();
        *counts.entry(key).or_insert(0.0) += 1.0 / REQUESTS as f64;
        balancer.on_start(id);
        // A little noise, as the world has.
        let lasts = latency(key) * (90 + random.next() % 20) / 100;
        flying.insert((now + lasts, request, id, now));
    }
    counts
}

#[test]
fn nothing_ready_gives_nothing() {
    let mut balancer = balancer(&[]);
    assert_eq!(balancer.pick(0, 1), None);

    let id = balancer.update(0, [("a", 1)]).added[0];
    assert_eq!(balancer.pick(0, u64::MAX), Some(id));

    balancer.set_ready(id, false);
    assert_eq!(balancer.pick(0, 1), None);
    assert_eq!((balancer.len(), balancer.ready_len()), (1, 0));
}

#[test]
fn equal_endpoints_get_equal_shares() {
    let mut balancer = balancer(&[("a", 10_000), ("b", 10_000), ("c", 10_000), ("d", 10_000)]);

    let shares = shares(&mut balancer, MS, |_| 20 * MS);

    for (key, share) in &shares {
        assert!((0.22..0.28).contains(share), "{key} {share}");
    }
}

#[test]
fn a_slow_endpoint_gets_less_and_is_not_forgotten() {
    let mut balancer = balancer(&[("fast", 10_000), ("fast2", 10_000), ("slow", 10_000)]);

    let shares = shares(&mut balancer, MS, |key| {
        if key == "slow" { 200 * MS } else { 10 * MS }
    });

    assert!(shares["slow"] < 0.1, "{shares:?}");
    assert!(shares["slow"] > 0.0005, "{shares:?}");
}

#[test]
fn shares_follow_weights_at_low_and_high_load() {
    for every in [100 * MS, MS] {
        let mut balancer = balancer(&[("heavy", 30_000), ("light", 10_000)]);

        let shares = shares(&mut balancer, every, |_| 20 * MS);

        assert!(
            (0.60..0.90).contains(&shares["heavy"]),
            "every {every}: {shares:?}"
        );
    }
}

#[test]
fn weight_0_takes_nothing_while_others_are_there() {
    let mut random = Random(1);
    let mut balancer = balancer(&[("a", 10_000), ("off", 0), ("b", 10_000)]);
    let off = balancer.id(&"off").unwrap();

    assert!((0..10_000).all(|_| balancer.pick(0, random.next()) != Some(off)));

    balancer.update(0, [("off", 0)]);
    assert_eq!(
        balancer.pick(0, random.next()),
        Some(off),
        "alone it is better than nothing"
    );
}

#[test]
fn requests_in_flight_count_until_they_end() {
    let mut balancer = balancer(&[("a", 1), ("b", 1)]);
    let (a, b) = (balancer.id(&"a").unwrap(), balancer.id(&"b").unwrap());
    for _ in 0..5 {
        balancer.on_start(a);
    }
    balancer.on_first_response(a, 0, 0);

    let mut random = Random(2);
    assert!(
        (0..100).all(|_| balancer.pick(0, random.next()) == Some(b)),
        "the first answer is not the end"
    );

    for _ in 0..5 {
        balancer.on_end(a);
    }
    assert_eq!(balancer.pending(a), 0);
}

#[test]
fn an_endpoint_that_stays_keeps_its_load_and_one_that_comes_back_begins_anew() {
    let mut balancer = balancer(&[("a", 1), ("b", 1)]);
    let a = balancer.id(&"a").unwrap();
    balancer.on_first_response(a, 0, 500 * MS);
    let cost =
        |balancer: &Balancer<_>, id: EndpointId| balancer.cost(Ready { id, weight: 1 }, 500 * MS);

    let diff = balancer.update(500 * MS, [("a", 1), ("c", 1)]);
    assert_eq!((diff.added.len(), diff.removed.len()), (1, 1));
    assert_eq!(balancer.id(&"a"), Some(a));
    assert_eq!(cost(&balancer, a), 500e6);

    balancer.update(500 * MS, [("c", 1)]);
    balancer.update(500 * MS, [("c", 1), ("a", 1)]);
    let again = balancer.id(&"a").unwrap();
    assert_ne!(again, a);
    assert_eq!(cost(&balancer, again), 30e6);
}

#[test]
fn what_ends_after_its_endpoint_is_gone_harms_nobody() {
    let mut balancer = balancer(&[("a", 1)]);
    let a = balancer.id(&"a").unwrap();
    balancer.on_start(a);
    balancer.update(0, [("b", 1)]);
    let b = balancer.id(&"b").unwrap();
    assert_eq!(b.index(), a.index(), "the place is used again");
    balancer.on_start(b);

    balancer.on_end(a);
    balancer.on_first_response(a, 0, 9000 * MS);
    balancer.set_ready(a, false);

    assert_eq!(balancer.pending(b), 1);
    assert_eq!(balancer.key(a), None);
    assert_eq!(balancer.pick(0, 3), Some(b));
}

proptest! {
    /// The balancer's members and ready list are those of a plain set, whatever happens in whatever order.
    #[test]
    fn updates_and_readiness_agree_with_a_plain_set(
        steps in proptest::collection::vec(
            prop_oneof![
                proptest::collection::btree_map(0_u8..12, 0_u32..4, 0..8).prop_map(Step::Update),
                (0_u8..12, any::<bool>()).prop_map(|(key, ready)| Step::Ready(key, ready)),
            ],
            1..40,
        ),
        random in any::<u64>(),
    ) {
        let mut balancer = Balancer::new(Load::default());
        let mut members: BTreeMap<u8, bool> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Update(endpoints) => {
                    let added: Vec<_> = endpoints.keys().filter(|key| !members.contains_key(key)).copied().collect();
                    let before = members.len();
                    members.retain(|key, _| endpoints.contains_key(key));
                    let removed = before - members.len();
                    members.extend(added.iter().map(|key| (*key, true)));
                    let diff = balancer.update(0, endpoints);
                    let keys: Vec<_> = diff.added.iter().map(|id| *balancer.key(*id).unwrap()).collect();
                    prop_assert_eq!(keys, added);
                    prop_assert_eq!(diff.removed.len(), removed);
                }
                Step::Ready(key, ready) => {
                    if let Some(id) = balancer.id(&key) {
                        balancer.set_ready(id, ready);
                        members.insert(key, ready);
                    }
                }
            }
            let ready: BTreeSet<_> = members.iter().filter(|(_, ready)| **ready).map(|(key, _)| *key).collect();
            let found: BTreeSet<_> = balancer.ready.iter().map(|entry| *balancer.key(entry.id).unwrap()).collect();
            prop_assert_eq!(&found, &ready);
            prop_assert_eq!(balancer.len(), members.len());
            let picked = balancer.pick(0, random).map(|id| *balancer.key(id).unwrap());
            prop_assert_eq!(picked.is_some(), !ready.is_empty());
            prop_assert!(picked.is_none_or(|key| ready.contains(&key)));
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Update(BTreeMap<u8, u32>),
    Ready(u8, bool),
}
