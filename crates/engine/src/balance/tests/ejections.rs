//! Ejections: the bound on them, the one probe, penalties.

use super::*;
use crate::breaker::Outcome;
use crate::outbound::Backoff;

fn accrual(percent: u32, min_ready: u32) -> FailureAccrual {
    FailureAccrual {
        consecutive: Some(3),
        success_rate: None,
        backoff: Backoff {
            min: Duration::from_secs(1),
            max: Duration::from_secs(60),
            jitter: 0.0,
            respect_retry_after: false,
        },
        min_ready_endpoints: min_ready,
        max_ejected_percent: percent,
    }
}

fn breaking(count: u32, accrual: FailureAccrual) -> Balancer<u32> {
    let mut balancer = Balancer::new(&Balance::default(), Some(accrual));
    balancer.update(0, (0..count).map(|number| (number, Facts::default())));
    balancer
}

fn ok() -> Outcome {
    Outcome::of_answer(200, None, None)
}

fn bad() -> Outcome {
    Outcome::of_answer(500, None, None)
}

/// Requests one after another, each of which ends as `outcome` says for its endpoint.
fn run(
    balancer: &mut Balancer<u32>,
    now: u64,
    requests: u64,
    outcome: impl Fn(u32) -> Outcome,
) -> BTreeMap<u32, u32> {
    let mut served = BTreeMap::new();
    for request in 0..requests {
        let Some(picked) = pick(balancer, now, ring::mix(request)) else {
            break;
        };
        let key = *balancer.key(picked.id).unwrap();
        *served.entry(key).or_default() += 1;
        balancer.on_result(picked, now, now, 0, &outcome(key));
        balancer.on_end(picked, now);
    }
    served
}

#[test]
fn one_that_fails_is_ejected_and_comes_back_by_exactly_one_probe() {
    let mut balancer = breaking(4, accrual(50, 0));
    let fails = |key| if key == 2 { bad() } else { ok() };
    let served = run(&mut balancer, 0, 1_000, fails);
    assert_eq!(served[&2], 3, "three failures in a row");
    let two = balancer.id(&2).unwrap();
    assert_eq!(balancer.breaker(two), Some(State::Ejected(S)));
    assert_eq!(run(&mut balancer, S - 1, 1_000, fails).get(&2), None);

    // Its time has come: the next request is its probe, and no other goes there until that one has ended.
    let probe = pick(&mut balancer, S, 1).unwrap();
    assert!(probe.is_probe());
    assert_eq!(probe.id, two);
    assert_eq!(run(&mut balancer, S, 1_000, fails).get(&2), None);
    balancer.on_result(probe, S, S, 0, &bad());
    balancer.on_end(probe, S);
    assert_eq!(
        balancer.breaker(two),
        Some(State::Ejected(3 * S)),
        "for longer"
    );

    let probe = pick(&mut balancer, 3 * S, 1).unwrap();
    balancer.on_result(probe, 3 * S, 3 * S, 0, &ok());
    balancer.on_end(probe, 3 * S);
    assert_eq!(balancer.breaker(two), Some(State::Closed));
    assert!(run(&mut balancer, 3 * S, 1_000, |_| ok())[&2] > 100);
    assert_eq!(
        balancer.tally(),
        Tally {
            consecutive: 1,
            probe_failed: 1,
            probes: 2,
            readmitted: 1,
            ..Tally::default()
        }
    );
}

#[test]
fn a_probe_that_was_given_up_is_followed_by_another() {
    let mut balancer = breaking(2, accrual(50, 0));
    run(
        &mut balancer,
        0,
        100,
        |key| if key == 0 { bad() } else { ok() },
    );
    let probe = pick(&mut balancer, S, 1).unwrap();
    assert!(probe.is_probe());
    balancer.on_end(probe, S); // The caller has left.
    assert!(pick(&mut balancer, S, 1).unwrap().is_probe());
}

#[test]
fn a_second_try_is_no_probe_unless_nothing_else_is_there() {
    let mut balancer = breaking(3, accrual(100, 0));
    run(
        &mut balancer,
        0,
        100,
        |key| if key == 0 { bad() } else { ok() },
    );
    let not = balancer.id(&1);
    let choice = Choice { key: None, not };
    let second = balancer.pick(2 * S, 1, choice).unwrap();
    assert!(!second.is_probe());
    assert_eq!(balancer.key(second.id), Some(&2));
    run(&mut balancer, 0, 100, |_| bad());
    let third = balancer.pick(3 * S, 1, choice).unwrap();
    assert!(third.is_probe());
}

#[test]
fn a_bad_deploy_leaves_half_of_the_endpoints_in() {
    for count in 1..20 {
        let mut balancer = breaking(count, accrual(50, 0));
        let served = run(&mut balancer, 0, 2_000, |_| bad());
        assert_eq!(
            served.values().sum::<u32>(),
            2_000,
            "requests are still sent"
        );
        assert_eq!(balancer.ejected_len() as u32, count / 2);
        assert!(balancer.tally().refused > 0);
    }
    let mut balancer = breaking(4, accrual(100, 3));
    run(&mut balancer, 0, 1_000, |_| bad());
    assert_eq!(balancer.ejected_len(), 1, "three stay in whatever happens");
    let mut balancer = breaking(4, accrual(100, 0));
    run(&mut balancer, 0, 1_000, |_| bad());
    assert_eq!(
        balancer.pick(0, 1, Choice::default()),
        Err(Unready::Ejected)
    );
    assert_eq!(balancer.next_due(), Some(S));
}

#[test]
fn endpoints_that_leave_or_fall_away_give_ejected_ones_back() {
    let mut balancer = breaking(4, accrual(50, 0));
    run(
        &mut balancer,
        0,
        1_000,
        |key| if key < 2 { bad() } else { ok() },
    );
    assert_eq!((balancer.ejected_len(), balancer.ready_len()), (2, 2));
    balancer.remove(balancer.id(&2).unwrap());
    assert_eq!((balancer.ejected_len(), balancer.ready_len()), (1, 2));
    balancer.set_ready(balancer.id(&3).unwrap(), false);
    assert_eq!((balancer.ejected_len(), balancer.ready_len()), (0, 2));
    assert_eq!(balancer.tally().forced, 2);
}

#[test]
fn one_whose_probe_hangs_is_taken_back_when_it_is_the_last() {
    let mut balancer = breaking(2, accrual(50, 0));
    run(
        &mut balancer,
        0,
        100,
        |key| if key == 1 { bad() } else { ok() },
    );
    let probe = pick(&mut balancer, S, 1).unwrap();
    assert!(probe.is_probe());
    balancer.remove(balancer.id(&0).unwrap());
    assert_eq!(balancer.ejected_len(), 0, "of one endpoint none may be out");
    let other = pick(&mut balancer, S, 2).unwrap();
    assert!(!other.is_probe() && other.id == probe.id);
    // What the probe then says counts like any other result.
    balancer.on_result(probe, S, 2 * S, 0, &bad());
    balancer.on_end(probe, 2 * S);
    assert_eq!(balancer.breaker(other.id), Some(State::Closed));
}

#[test]
fn a_keys_own_endpoint_is_probed_by_the_keys_request() {
    let config = Balance {
        hash: Some(ConsistentHash {
            key: HashKey::SourceAddress,
            load_bound: 1.25,
        }),
        ..Balance::default()
    };
    let mut balancer = Balancer::new(&config, Some(accrual(50, 0)));
    balancer.update(0, (0..5).map(|number| (number, Facts::default())));
    let choice = Choice {
        key: Some(hash_key(b"alice")),
        not: None,
    };
    let home = balancer.pick(0, 0, choice).unwrap();
    balancer.on_end(home, 0);
    for _ in 0..3 {
        let picked = balancer.pick(0, 0, choice).unwrap();
        assert_eq!(picked.id, home.id);
        balancer.on_result(picked, 0, 0, 0, &bad());
        balancer.on_end(picked, 0);
    }
    let other = balancer.pick(0, 0, choice).unwrap();
    assert_ne!(other.id, home.id);
    balancer.on_end(other, 0);
    let probe = balancer.pick(S, 0, choice).unwrap();
    assert_eq!((probe.id, probe.is_probe()), (home.id, true));
    let meanwhile = balancer.pick(S, 0, choice).unwrap();
    assert_eq!(meanwhile.id, other.id);
    balancer.on_result(probe, S, S, 0, &ok());
    balancer.on_end(probe, S);
    assert_eq!(balancer.pick(S, 0, choice).unwrap().id, home.id);
}

#[test]
fn a_failure_counts_as_slow_where_the_policy_says_so() {
    let penalty = Penalty {
        latency: Duration::from_secs(5),
        max_retry_after: Duration::from_secs(300),
        decay: Duration::from_secs(10),
    };
    for (penalty, expected) in [(None, 0.4..0.6), (Some(penalty), 0.0..0.01)] {
        let config = Balance {
            load: Load {
                penalty,
                ..Load::default()
            },
            ..Balance::default()
        };
        let mut balancer = Balancer::new(&config, None);
        balancer.update(0, (0..2).map(|number| (number, Facts::default())));
        let served = run(&mut balancer, 0, 10_000, |key| {
            if key == 0 { bad() } else { ok() }
        });
        let share = f64::from(served.get(&0).copied().unwrap_or_default()) / 10_000.0;
        assert!(expected.contains(&share), "{penalty:?}: {share}");
    }
    for (asked, believed) in [(None, 5), (Some(1), 1), (Some(60), 60), (Some(9_999), 300)] {
        let load = Load {
            penalty: Some(penalty),
            ..Load::default()
        };
        let config = Balance {
            load,
            ..Balance::default()
        };
        let mut balancer = Balancer::new(&config, None);
        let id = balancer.insert(0, 0, Facts::default());
        let outcome = Outcome::of_answer(503, None, asked.map(Duration::from_secs));
        balancer.on_result(Picked { id, probe: 0 }, 0, 0, 0, &outcome);
        let load = balancer.members.get(id).unwrap().load.at(0);
        assert_eq!(load, believed as f64 * 1e9, "asked for {asked:?}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// A request begins; what it is told about its endpoint later.
    Begin(u64),
    End(prop::sample::Index, u16),
    GiveUp(prop::sample::Index),
    Wait(u64),
    Ready(u8, bool),
    Insert(u8),
    Remove(u8),
}

proptest! {
    /// Whatever happens in whatever order: the counts are those of a naive recount, no more than the allowed share is
    /// out but for connections that cannot be made, ejected endpoints take nothing but one probe each, and no two
    /// probes of one endpoint fly at once.
    #[test]
    fn the_bound_and_the_one_probe_hold(
        steps in proptest::collection::vec(
            prop_oneof![
                4 => any::<u64>().prop_map(Step::Begin),
                4 => (any::<prop::sample::Index>(), prop::sample::select(vec![200_u16, 429, 500, 500, 500])).prop_map(|(which, status)| Step::End(which, status)),
                1 => any::<prop::sample::Index>().prop_map(Step::GiveUp),
                1 => (0..2 * S).prop_map(Step::Wait),
                1 => (0_u8..8, any::<bool>()).prop_map(|(key, ready)| Step::Ready(key, ready)),
                1 => (0_u8..8).prop_map(Step::Insert),
                1 => (0_u8..8).prop_map(Step::Remove),
            ],
            1..200,
        ),
        percent in prop::sample::select(vec![1_u32, 34, 50, 100]),
        limit in prop::option::of(1_u32..4),
    ) {
        let mut rule = accrual(percent, 0);
        rule.consecutive = Some(2);
        let config = Balance { max_in_flight: limit, ..Balance::default() };
        let mut balancer = Balancer::new(&config, Some(rule));
        balancer.update(0, (0_u8..5).map(|number| (number, Facts::default())));
        let mut now = 0;
        let mut flying: Vec<Picked> = Vec::new();
        let mut unreachable = BTreeSet::new();
        for step in steps {
            match step {
                Step::Begin(random) => {
                    if let Ok(picked) = balancer.pick(now, random, Choice::default()) {
                        let state = balancer.breaker(picked.id).unwrap();
                        prop_assert_eq!(state, if picked.is_probe() { State::Probing } else { State::Closed });
                        prop_assert!(!unreachable.contains(balancer.key(picked.id).unwrap()));
                        prop_assert!(limit.is_none_or(|limit| balancer.pending(picked.id) <= limit));
                        if picked.is_probe() {
                            prop_assert!(!flying.iter().any(|other| other.id == picked.id && other.is_probe()
                                && balancer.members.get(other.id).unwrap().breaker.as_ref().unwrap().awaits(other.probe)));
                        }
                        flying.push(picked);
                    }
                }
                Step::End(which, status) if !flying.is_empty() => {
                    let picked = flying.swap_remove(which.index(flying.len()));
                    balancer.on_result(picked, now, now, 1, &Outcome::of_answer(status, None, None));
                    balancer.on_end(picked, now);
                }
                Step::GiveUp(which) if !flying.is_empty() => {
                    let picked = flying.swap_remove(which.index(flying.len()));
                    balancer.on_end(picked, now);
                }
                Step::Wait(length) => now += length,
                Step::Ready(key, ready) => {
                    if let Some(id) = balancer.id(&key) {
                        balancer.set_ready(id, ready);
                        if ready { unreachable.remove(&key); } else { unreachable.insert(key); }
                    }
                }
                Step::Insert(key) => {
                    balancer.insert(now, key, Facts::default());
                    unreachable.remove(&key);
                }
                Step::Remove(key) => {
                    if let Some(id) = balancer.id(&key) {
                        balancer.remove(id);
                        unreachable.remove(&key);
                    }
                }
                Step::End(..) | Step::GiveUp(_) => {}
            }
            let all: Vec<_> = (0_u8..8).filter_map(|key| Some((key, balancer.id(&key)?))).collect();
            let (mut ejected, mut out, mut ready, mut waiting) = (0, 0, 0, 0);
            for (key, id) in &all {
                let state = balancer.breaker(*id).unwrap();
                let flags = balancer.members.get(*id).unwrap().out;
                prop_assert_eq!(flags.unreachable, unreachable.contains(key));
                prop_assert_eq!(flags.ejected, state != State::Closed);
                prop_assert_eq!(flags.full, limit.is_some_and(|limit| balancer.pending(*id) >= limit));
                let in_flight = flying.iter().filter(|picked| picked.id == *id).count();
                prop_assert_eq!(balancer.pending(*id) as usize, in_flight);
                ejected += usize::from(flags.ejected);
                out += usize::from(flags.failed());
                ready += usize::from(!flags.any());
                waiting += usize::from(matches!(state, State::Ejected(_)));
            }
            prop_assert_eq!((balancer.ejected_len(), balancer.ready_len()), (ejected, ready));
            let allowed = all.len() * percent as usize / 100;
            prop_assert!(out <= allowed || waiting == 0, "{out} of {} are out, {allowed} may be", all.len());
        }
    }
}
