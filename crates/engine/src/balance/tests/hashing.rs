//! Consistent hashing: who owns a key, how few keys move, and the bound on the load.

use super::*;

fn hashed(count: u32) -> Balancer<u32> {
    bounded(count, 1.25)
}

fn bounded(count: u32, load_bound: f64) -> Balancer<u32> {
    let config = Balance {
        hash: Some(ConsistentHash {
            key: HashKey::Header("x-user".into()),
            load_bound,
        }),
        ..Balance::default()
    };
    let mut balancer = Balancer::new(&config, None);
    balancer.update(0, (0..count).map(|number| (number, Facts::default())));
    balancer
}

fn key(number: u32) -> Choice {
    Choice {
        key: Some(hash_key(&number.to_be_bytes())),
        not: None,
    }
}

/// Who serves each key when nothing else is in flight.
fn owners(balancer: &mut Balancer<u32>) -> Vec<u32> {
    const KEYS: u32 = 10_000;
    let mut owner = |number| {
        let picked = balancer.pick(0, u64::from(number), key(number)).unwrap();
        balancer.on_end(picked, 0);
        *balancer.key(picked.id).unwrap()
    };
    (0..KEYS).map(&mut owner).collect()
}

fn moved(before: &[u32], after: &[u32]) -> Vec<(u32, u32)> {
    let pairs = before.iter().copied().zip(after.iter().copied());
    pairs.filter(|(before, after)| before != after).collect()
}

#[test]
fn a_key_keeps_its_endpoint_and_every_endpoint_has_keys() {
    let mut balancer = hashed(10);
    let first = owners(&mut balancer);

    assert_eq!(owners(&mut balancer), first);
    for endpoint in 0..10 {
        let share = first.iter().filter(|owner| **owner == endpoint).count();
        assert!(
            (500..1_600).contains(&share),
            "{endpoint}: {share} of 10,000"
        );
    }
    assert_eq!(
        owners(&mut hashed(10)),
        first,
        "another proxy has the same owners"
    );
}

#[test]
fn an_endpoint_without_its_share_of_weight_has_its_share_of_keys() {
    let mut balancer = hashed(4);
    let id = balancer.id(&0).unwrap();
    balancer.set_facts(id, facts(30_000));
    let owners = owners(&mut balancer);
    let share = owners.iter().filter(|owner| **owner == 0).count();
    assert!(
        (4_000..6_000).contains(&share),
        "{share} of 10,000, where half is fair"
    );
}

#[test]
fn a_request_without_a_key_goes_by_load() {
    let mut balancer = hashed(4);
    let shares = at_rest(&mut balancer, 0, Choice::default());
    assert_eq!(shares.len(), 4);
}

#[test]
fn a_second_try_goes_to_the_keys_next_endpoint_always_the_same() {
    let mut balancer = hashed(5);
    for number in 0..100 {
        let mut choice = key(number);
        let first = balancer.pick(0, 1, choice).unwrap();
        balancer.on_end(first, 0);
        choice.not = Some(first.id);
        let second: BTreeSet<_> = (0..10)
            .map(|random| {
                let picked = balancer.pick(0, random, choice).unwrap();
                balancer.on_end(picked, 0);
                picked.id
            })
            .collect();
        assert_eq!(second.len(), 1);
        assert!(!second.contains(&first.id));
    }
}

#[test]
fn a_popular_key_spills_over_at_the_bound_and_comes_home_when_there_is_room() {
    let mut balancer = bounded(10, 1.25);
    let popular = key(7);
    let home = balancer.pick(0, 0, popular).unwrap();
    let flying: Vec<_> = (1..100)
        .map(|random| balancer.pick(0, random, popular).unwrap())
        .collect();
    for number in 0..10 {
        let id = balancer.id(&number).unwrap();
        assert!(
            balancer.pending(id) <= 13,
            "{number} has {} of 100, more than 1.25 times its tenth",
            balancer.pending(id)
        );
    }
    for picked in flying {
        balancer.on_end(picked, 0);
    }
    balancer.on_end(home, 0);
    assert_eq!(balancer.pick(0, 5, popular).unwrap().id, home.id);
}

#[test]
fn an_endpoint_that_is_down_lends_its_keys_and_gets_them_back() {
    let mut balancer = hashed(10);
    let before = owners(&mut balancer);
    let down = balancer.id(&3).unwrap();
    balancer.set_ready(down, false);

    let during = owners(&mut balancer);

    assert!(
        moved(&before, &during)
            .iter()
            .all(|(from, to)| *from == 3 && *to != 3)
    );
    assert!(!during.contains(&3));
    balancer.set_ready(down, true);
    assert_eq!(owners(&mut balancer), before);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Of n endpoints, one that goes moves its own keys and no other; one that comes takes keys and leaves the others
    /// where they were. Both are about 1/n of all.
    #[test]
    fn one_of_n_moves_about_one_in_n_keys(count in 2_u32..40, which in any::<prop::sample::Index>()) {
        let mut balancer = hashed(count);
        let before = owners(&mut balancer);
        let gone = which.index(count as usize) as u32;
        balancer.remove(balancer.id(&gone).unwrap());
        let without = owners(&mut balancer);
        let left = moved(&before, &without);
        prop_assert!(left.iter().all(|(from, _)| *from == gone), "a key of another endpoint moved");
        let fair = before.len() as f64 / f64::from(count);
        prop_assert!((left.len() as f64) < 1.7 * fair, "{} keys moved, {fair} is fair", left.len());

        balancer.insert(0, 1_000, Facts::default());
        let with = owners(&mut balancer);
        let taken = moved(&without, &with);
        prop_assert!(taken.iter().all(|(_, to)| *to == 1_000), "a key moved between old endpoints");
        prop_assert!((taken.len() as f64) < 1.7 * fair, "{} keys taken, {fair} is fair", taken.len());
    }
}
