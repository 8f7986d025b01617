//! Decisions that remember: any order of what can happen to them, held against a plain count of the same.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use tulle_engine::Meta;
use tulle_engine::balance::{
    Balance, Balancer, Choice, ConsistentHash, Facts, HashKey, Picked, Unready,
};
use tulle_engine::breaker::{Breaker, Outcome, State, Verdict};
use tulle_engine::budget::{Bucket, RetryBudget};
use tulle_engine::deadline::{self, Deadlines};
use tulle_engine::hedge::Latencies;
use tulle_engine::inbound::{RateLimit, RateLimitOverride, RateLimiter};
use tulle_engine::outbound::{
    Backoff, FailureAccrual, Retry, RetryConditions, SuccessRate, Timeouts,
};
use tulle_engine::retry::{Body, Hint, MAX_UNSEEN, Request, Tried, Tries, Verdict as Again};

use super::Input;

const SECOND: u64 = 1_000_000_000;

fn accrual(how: u8) -> FailureAccrual {
    FailureAccrual {
        consecutive: (how & 1 == 0).then_some(1 + u32::from(how >> 5)),
        success_rate: (how & 2 != 0).then_some(SuccessRate {
            threshold: 0.5,
            decay: Duration::from_secs(10),
            min_requests: 4,
        }),
        backoff: Backoff {
            min: Duration::from_millis(100),
            max: Duration::from_secs(10),
            jitter: 0.5,
            respect_retry_after: how & 4 != 0,
        },
        min_ready_endpoints: u32::from(how >> 3 & 1),
        max_ejected_percent: 50,
    }
}

fn outcome(byte: u8) -> Outcome {
    let hint = (byte & 0x80 != 0).then(|| Duration::from_secs(u64::from(byte)));
    match byte % 4 {
        0 => Outcome::broken(),
        1 => Outcome::of_answer(503, None, hint),
        2 => Outcome::of_answer(429, Some(8), hint),
        _ => Outcome::of_answer(200, Some(0), None),
    }
}

/// Endpoints that come, go, fail and recover while requests are sent. Held against a list of them and of the requests
/// in flight: a pick is an endpoint that is there, counts are exact, and never more than half are ejected.
pub fn balancer(bytes: &[u8]) {
    let mut input = Input(bytes);
    let how = input.byte();
    let accrual = accrual(input.byte());
    let limit = (how & 2 != 0).then_some(3);
    let config = Balance {
        hash: (how & 1 != 0).then_some(ConsistentHash {
            key: HashKey::SourceAddress,
            load_bound: 1.25,
        }),
        slow_start: (how & 4 != 0).then_some(Duration::from_secs(10)),
        max_in_flight: limit,
        ..Balance::default()
    };
    let mut balancer: Balancer<u8> = Balancer::new(&config, Some(accrual));
    let mut members: HashMap<u8, u32> = HashMap::new();
    let mut flying: Vec<(Picked, u8, u64)> = Vec::new();
    let mut now = SECOND;
    while !input.is_empty() {
        let (what, key) = (input.byte(), input.byte() % 24);
        now = input.later(now);
        match what % 8 {
            0 => {
                let facts = Facts {
                    weight: u32::from(what >> 3) * 1000,
                    near: key % 2 == 0,
                };
                match balancer.id(&key) {
                    Some(id) => balancer.set_facts(id, facts),
                    None => {
                        balancer.insert(now, key, facts);
                        members.insert(key, 0);
                    }
                }
            }
            1 => {
                if let Some(id) = balancer.id(&key) {
                    balancer.remove(id);
                    members.remove(&key);
                    flying.retain(|(_, of, _)| *of != key);
                }
            }
            2 => {
                if let Some(id) = balancer.id(&key) {
                    balancer.set_ready(id, what & 8 != 0);
                }
            }
            3 if !flying.is_empty() => {
                let (picked, of, since) = flying.swap_remove(usize::from(key) % flying.len());
                balancer.on_result(picked, since, now, u64::from(what) << 40, &outcome(key));
                balancer.on_end(picked, now);
                members.entry(of).and_modify(|count| *count -= 1);
            }
            4 if !flying.is_empty() => {
                let (picked, of, since) = flying.swap_remove(usize::from(key) % flying.len());
                balancer.on_first_response(picked, since, now);
                // Its caller has left.
                balancer.on_end(picked, now);
                members.entry(of).and_modify(|count| *count -= 1);
            }
            _ => {
                let choice = Choice {
                    key: NonZeroU64::new(u64::from(key) << 32),
                    not: flying
                        .last()
                        .map(|(picked, ..)| picked.id)
                        .filter(|_| what & 8 != 0),
                };
                match balancer.pick(now, input.number(), choice) {
                    Ok(picked) => {
                        let of = balancer
                            .key(picked.id)
                            .copied()
                            .expect("a pick is a member");
                        let count = members.get_mut(&of).expect("it is one of ours");
                        *count += 1;
                        assert!(limit.is_none_or(|limit| *count <= limit), "{count} at once");
                        flying.push((picked, of, now));
                    }
                    Err(Unready::Empty) => assert!(members.is_empty()),
                    Err(_) => assert!(!members.is_empty()),
                }
            }
        }
        assert_eq!(balancer.len(), members.len());
        assert!(balancer.ready_len() <= members.len());
        assert!(
            2 * balancer.ejected_len() <= members.len(),
            "{} of {} are ejected",
            balancer.ejected_len(),
            members.len()
        );
        for (key, count) in &members {
            let id = balancer.id(key).expect("a member has an id");
            assert_eq!(balancer.pending(id), *count, "of {key}");
        }
    }
}

/// One endpoint's breaker, held against a count of failures in a row.
pub fn breaker(bytes: &[u8]) {
    let mut input = Input(bytes);
    let accrual = FailureAccrual {
        success_rate: None,
        ..accrual(input.byte() & !1)
    };
    let wanted = accrual.consecutive.expect("it counts");
    let mut breaker = Breaker::new(&accrual);
    let (mut now, mut streak) = (SECOND, 0);
    while !input.is_empty() {
        let what = input.byte();
        now = input.later(now);
        let outcome = outcome(what >> 2);
        match breaker.state() {
            State::Closed => {
                match outcome.verdict {
                    Verdict::Success => streak = 0,
                    Verdict::Throttled => {}
                    Verdict::Failure => streak += 1,
                }
                let tripped = breaker.record(&accrual, now, outcome.verdict).is_some();
                let expected = outcome.verdict == Verdict::Failure && streak >= wanted;
                assert_eq!(tripped, expected, "{streak} of {wanted}");
                if tripped {
                    let until =
                        breaker.eject(&accrual.backoff, now, input.number(), outcome.retry_after);
                    assert!(until > now);
                }
            }
            State::Ejected(_) => {
                assert_eq!(breaker.record(&accrual, now, outcome.verdict), None);
                let probe = breaker.begin_probe();
                assert!(breaker.awaits(probe) && probe != 0);
            }
            State::Probing if what & 1 == 0 => {
                breaker.close();
                streak = 0;
            }
            State::Probing => breaker.give_up_probe(now),
        }
    }
}

/// Tries of requests, one after the other, under one budget. Held against the sum of what the budget grants; no request
/// is tried again after its caller has seen an answer, nor beyond its rule or its deadline.
pub fn retry(bytes: &[u8]) {
    let mut input = Input(bytes);
    let budget = RetryBudget {
        ratio: f32::from(input.byte()) / 255.0,
        min_per_second: u32::from(input.byte() % 8),
        ttl: Duration::from_secs(10),
    };
    let rule = Retry {
        max_retries: u32::from(input.byte() % 4),
        conditions: RetryConditions {
            grpc: 1 << 14,
            reset: true,
            connect_failure: true,
            ..RetryConditions::default()
        },
        budget,
        ..Retry::default()
    };
    let mut bucket = Bucket::new(&budget);
    let (begun, mut now) = (SECOND, SECOND);
    let (mut requests, mut spent) = (0_u32, 0_u32);
    while !input.is_empty() {
        let how = input.byte();
        now = input.later(now);
        bucket.deposit(now);
        requests += 1;
        let mut tries = Tries::default();
        let deadline = (how & 1 != 0).then(|| now + SECOND);
        loop {
            let what = input.byte();
            let tried = match what % 7 {
                0 => Tried::answer(503),
                1 => Tried::Answer {
                    status: 200,
                    grpc: Some(14),
                    hint: [
                        Hint::None,
                        Hint::Never,
                        Hint::After(Duration::from_millis(7)),
                    ][usize::from(what >> 5) % 3],
                },
                2 => Tried::Reset,
                3 => Tried::Refused,
                4 => Tried::Unconnected {
                    others: what & 8 != 0,
                },
                5 => Tried::Late,
                _ => Tried::Stale,
            };
            let request = Request {
                idempotent: what & 16 != 0,
                body: if what & 32 != 0 {
                    Body::TooLarge
                } else {
                    Body::Kept
                },
                answer_begun: what & 64 != 0,
                deadline,
                now,
                random: u64::from(what) << 56,
            };
            let before = tries;
            let Again::Retry { after } = tries.decide(Some(&rule), tried, &request, &mut bucket)
            else {
                assert_eq!(before, tries, "what is not done is not counted");
                break;
            };
            assert!(!request.answer_begun, "{tried:?}");
            assert!(request.body == Body::Kept, "{tried:?}");
            assert!(tries.retries() <= rule.max_retries);
            assert!(
                deadline.is_none_or(|deadline| now + after < deadline),
                "{after}"
            );
            if !matches!(tried, Tried::Unconnected { .. }) {
                spent += 1;
            }
            now += after;
            // An input that has ended says the same for ever.
            if input.is_empty() {
                assert!(tries.retries() <= rule.max_retries + u32::from(MAX_UNSEEN));
                break;
            }
        }
        let seconds = (now - begun) / SECOND + 2;
        let granted = f64::from(budget.ratio) * f64::from(requests)
            + f64::from(budget.min_per_second) * seconds as f64;
        assert!(
            f64::from(spent) <= granted + 1.0,
            "{spent} tries, {granted} granted"
        );
    }
}

/// Requests of some clients, held against how many a limit can let in over the time that has passed.
pub fn rate_limit(bytes: &[u8]) {
    let mut input = Input(bytes);
    let limit = |byte: u8| (byte != 0).then(|| u32::from(byte % 50) + 1);
    let rule = Arc::new(RateLimit {
        meta: Meta::named("limit"),
        total: limit(input.byte()),
        identity: limit(input.byte()),
        overrides: vec![RateLimitOverride {
            limit: u32::from(input.byte()) + 1,
            identities: vec!["a".into(), "b".into()],
        }],
    });
    let mut limiter = RateLimiter::new(rule.clone());
    let (begun, mut now) = (SECOND, SECOND);
    let mut admitted: HashMap<Option<&str>, u32> = HashMap::new();
    while !input.is_empty() {
        let who = [None, Some("a"), Some("b"), Some("c")][usize::from(input.byte()) % 4];
        now = input.later(now);
        if let Err(limited) = limiter.admit(who, now) {
            assert!(limited.limit > 0);
            continue;
        }
        *admitted.entry(who).or_default() += 1;
    }
    let of = |who: &[Option<&str>]| -> u32 { who.iter().filter_map(|who| admitted.get(who)).sum() };
    let most = |limit: u32| u64::from(limit) * ((now - begun) / SECOND + 2) + 1;
    let within =
        |count: u32, limit: u32| assert!(u64::from(count) <= most(limit), "{count} by {limit}");
    if let Some(total) = rule.total {
        within(admitted.values().sum(), total);
    }
    within(of(&[Some("a"), Some("b")]), rule.overrides[0].limit);
    if let Some(each) = rule.identity {
        within(of(&[None]), each);
        within(of(&[Some("c")]), each);
    }
}

/// Deadlines of one exchange, and the headers that carry them; latencies for hedging.
pub fn deadlines(bytes: &[u8]) {
    let mut input = Input(bytes);
    let some = |input: &mut Input<'_>| {
        let byte = input.byte();
        (byte & 1 != 0).then(|| Duration::from_millis(1 << (byte % 20)))
    };
    let timeouts = Timeouts {
        request: some(&mut input),
        response: some(&mut input),
        idle: some(&mut input),
    };
    let mut now = SECOND;
    let limit = some(&mut input);
    let mut deadlines = Deadlines::begin(&timeouts, None, now).within(limit, now);
    let mut latencies = Latencies::default();
    while !input.is_empty() {
        let what = input.byte();
        let before = now;
        now = input.later(now);
        match what % 4 {
            0 => deadlines.request_sent(now),
            1 => deadlines.progress(now),
            2 => deadlines.begin_try(Some(Duration::from_millis(u64::from(what))), now),
            _ => deadlines.answered(),
        }
        match deadlines.next() {
            None => assert_eq!(deadlines.expired(u64::MAX - 1), None),
            Some(next) => {
                assert!(
                    deadlines.expired(next).is_some(),
                    "what is waited for comes"
                );
                assert!(
                    next == 0 || deadlines.expired(next - 1).is_none(),
                    "and not before"
                );
            }
        }
        latencies.record(now - before, now);
        let shares = [0.5, 0.9, 0.99].map(|share| latencies.percentile(share));
        assert!(
            shares.windows(2).all(|pair| pair[0] <= pair[1]),
            "{shares:?}"
        );
    }
    if let Some(read) = deadline::read_grpc_timeout(bytes) {
        let written = deadline::grpc_timeout(read);
        let again = deadline::read_grpc_timeout(written.as_bytes());
        // It may be written in a coarser unit, never as nothing.
        assert!(
            again.is_some_and(|again| again <= read || again - read < Duration::from_secs(3600))
        );
    }
}
