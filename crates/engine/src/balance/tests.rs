//! Draws, shares and updates of the balancer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

mod ejections;
mod hashing;
mod updates;
mod zones;

const MS: u64 = 1_000_000;
const S: u64 = 1000 * MS;

/// A generator of our own, so that a failure repeats.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = ring::mix(self.0);
        self.0
    }
}

fn facts(weight: u32) -> Facts {
    Facts { weight, near: true }
}

fn with(config: &Balance, weights: &[(&'static str, u32)]) -> Balancer<&'static str> {
    let mut balancer = Balancer::new(config, None);
    balancer.update(
        0,
        weights.iter().map(|(key, weight)| (*key, facts(*weight))),
    );
    balancer
}

fn balancer(weights: &[(&'static str, u32)]) -> Balancer<&'static str> {
    with(&Balance::default(), weights)
}

fn pick<K: Clone + Eq + Hash>(balancer: &mut Balancer<K>, now: u64, random: u64) -> Option<Picked> {
    balancer.pick(now, random, Choice::default()).ok()
}

/// Picks that end at once, and what share each endpoint has of them.
fn at_rest<K: Clone + Ord + Hash>(
    balancer: &mut Balancer<K>,
    now: u64,
    choice: Choice,
) -> BTreeMap<K, f64> {
    const PICKS: u64 = 20_000;
    let mut random = Random(7);
    let mut counts = BTreeMap::new();
    for _ in 0..PICKS {
        let picked = balancer.pick(now, random.next(), choice).unwrap();
        let key = balancer.key(picked.id).unwrap().clone();
        *counts.entry(key).or_insert(0.0) += 1.0 / PICKS as f64;
        balancer.on_end(picked, now);
    }
    counts
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
    let mut flying: BTreeMap<(u64, u64), (Picked, u64)> = BTreeMap::new();
    for request in 0..REQUESTS {
        let now = request * every;
        while let Some(entry) = flying.first_entry().filter(|entry| entry.key().0 <= now) {
            let ends = entry.key().0;
            let (picked, started) = entry.remove();
            balancer.on_first_response(picked, started, ends);
            balancer.on_end(picked, ends);
        }
        let picked = pick(balancer, now, random.next()).unwrap();
        let key = *balancer.key(picked.id).unwrap();
        *counts.entry(key).or_insert(0.0) += 1.0 / REQUESTS as f64;
        // A little noise, as the world has.
        let lasts = latency(key) * (90 + random.next() % 20) / 100;
        flying.insert((now + lasts, request), (picked, now));
    }
    counts
}

#[test]
fn nothing_ready_gives_nothing_and_says_why() {
    let mut balancer = balancer(&[]);
    let why = |balancer: &mut Balancer<_>| balancer.pick(0, 1, Choice::default());
    assert_eq!(why(&mut balancer), Err(Unready::Empty));

    let id = balancer.update(0, [("a", facts(1))]).added[0];
    assert_eq!(pick(&mut balancer, 0, u64::MAX).unwrap().id, id);

    balancer.set_ready(id, false);
    assert_eq!(why(&mut balancer), Err(Unready::Unreachable));
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

    assert!((0..10_000).all(|_| pick(&mut balancer, 0, random.next()).unwrap().id != off));

    balancer.update(0, [("off", facts(0))]);
    let picked = pick(&mut balancer, 0, random.next()).unwrap();
    assert_eq!(picked.id, off, "alone it is better than nothing");
}

#[test]
fn requests_in_flight_count_until_they_end() {
    let mut balancer = balancer(&[("a", 1), ("b", 1)]);
    let (a, b) = (balancer.id(&"a").unwrap(), balancer.id(&"b").unwrap());
    let other = Choice {
        not: Some(b),
        key: None,
    };
    let flying: Vec<_> = (0..5)
        .map(|random| balancer.pick(0, random, other).unwrap())
        .collect();
    assert_eq!(balancer.pending(a), 5);
    balancer.on_first_response(flying[0], 0, 0);

    let mut random = Random(2);
    for _ in 0..100 {
        let picked = pick(&mut balancer, 0, random.next()).unwrap();
        assert_eq!(picked.id, b, "the first answer is not the end");
        balancer.on_end(picked, 0);
    }

    for picked in flying {
        balancer.on_end(picked, 0);
    }
    assert_eq!(balancer.pending(a), 0);
}

#[test]
fn a_second_try_goes_to_any_endpoint_but_the_first_and_to_each_alike() {
    for weights in [[10_000; 4], [10_000, 20_000, 30_000, 40_000]] {
        let keys = ["a", "b", "c", "d"];
        let list: Vec<_> = keys.into_iter().zip(weights).collect();
        let mut balancer = balancer(&list);
        for (tried, weight) in &list {
            let choice = Choice {
                key: None,
                not: balancer.id(tried),
            };

            let shares = at_rest(&mut balancer, 0, choice);

            assert_eq!(shares.get(tried), None);
            let left = f64::from(weights.iter().sum::<u32>() - weight);
            for (key, weight) in list.iter().filter(|(key, _)| key != tried) {
                let fair = f64::from(*weight) / left;
                assert!((shares[key] - fair).abs() < 0.02, "{key}: {shares:?}");
            }
        }
    }
    let mut alone = balancer(&[("a", 10_000)]);
    let not = alone.id(&"a");
    let picked = alone.pick(0, 7, Choice { key: None, not }).unwrap();
    assert_eq!(Some(picked.id), not, "there is no other");
}

#[test]
fn an_endpoint_with_as_many_requests_as_it_may_is_passed_over_until_one_ends() {
    let limited = Balance {
        max_in_flight: Some(2),
        ..Balance::default()
    };
    let mut balancer = with(&limited, &[("a", 1), ("b", 1)]);
    let flying: Vec<_> = (0..4)
        .map(|random| pick(&mut balancer, 0, random).unwrap())
        .collect();
    let (a, b) = (balancer.id(&"a").unwrap(), balancer.id(&"b").unwrap());
    assert_eq!((balancer.pending(a), balancer.pending(b)), (2, 2));
    assert_eq!(
        balancer.pick(0, 5, Choice::default()),
        Err(Unready::Full),
        "full, and it says so"
    );

    balancer.on_end(flying[1], 0);

    assert_eq!(pick(&mut balancer, 0, 6).unwrap().id, flying[1].id);
    assert!(pick(&mut balancer, 0, 7).is_none());
}

#[test]
fn a_new_endpoints_share_grows_in_a_straight_line() {
    let slowly = Balance {
        slow_start: Some(Duration::from_secs(10)),
        ..Balance::default()
    };
    let mut balancer = with(&slowly, &[("a", 10_000), ("b", 10_000), ("c", 10_000)]);
    let shares = at_rest(&mut balancer, 0, Choice::default());
    assert!(shares["a"] > 0.3, "the first ones are not new: {shares:?}");

    balancer.insert(100 * S, "new", facts(10_000));
    for (seconds, grown) in [(1, 0.1), (2, 0.2), (5, 0.5), (8, 0.8), (10, 1.0), (60, 1.0)] {
        // At rest and with latencies alike, costs are alike and the first draw decides.
        let now = (100 + seconds) * S;
        for key in ["a", "b", "c", "new"] {
            let id = balancer.id(&key).unwrap();
            balancer.on_first_response(Picked { id, probe: 0 }, 0, now);
        }
        let shares = at_rest(&mut balancer, now, Choice::default());
        let fair = grown / (3.0 + grown);
        let share = shares.get("new").copied().unwrap_or_default();
        assert!(
            (share - fair).abs() < 0.03,
            "{seconds} s: {share}, not {fair}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// With loads alike, shares are the weights' shares: whatever they are, in whatever order they came.
    #[test]
    fn shares_at_rest_are_those_of_the_weights(weights in proptest::collection::vec(0_u32..40_000, 1..12)) {
        let mut balancer = Balancer::new(&Balance::default(), None);
        let list: Vec<_> = weights.iter().copied().enumerate().collect();
        balancer.update(0, list.iter().map(|(key, weight)| (*key, facts(*weight))));
        let total: f64 = weights.iter().copied().map(f64::from).sum();
        let shares = at_rest(&mut balancer, 0, Choice::default());
        for (key, weight) in &list {
            let fair = if total == 0.0 { 1.0 / weights.len() as f64 } else { f64::from(*weight) / total };
            let share = shares.get(key).copied().unwrap_or_default();
            prop_assert!((share - fair).abs() < 0.02, "{key}: {share}, not {fair} of {weights:?}");
        }
    }
}
