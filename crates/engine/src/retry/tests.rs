//! The table of further tries, and that no sequence of outcomes gets more of them than allowed.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::outbound::{Backoff, Statuses};

const MS: u64 = 1_000_000;

fn rule() -> Retry {
    Retry {
        max_retries: 2,
        conditions: RetryConditions {
            http: Statuses::default().with(500..=599).with(429..=429),
            grpc: 1 << 14,
            ..Default::default()
        },
        ..Retry::default()
    }
}

fn get() -> Request {
    Request {
        idempotent: true,
        ..Request::default()
    }
}

fn post() -> Request {
    Request::default()
}

fn bucket() -> Bucket {
    Bucket::new(&RetryBudget::default())
}

fn once(rule: Option<&Retry>, tried: Tried, request: &Request) -> Verdict {
    Tries::default().decide(rule, tried, request, &mut bucket())
}

const NOW: Verdict = Verdict::Retry { after: 0 };

#[test]
fn what_calls_for_another_try() {
    let grpc = |grpc| Tried::Answer {
        status: 200,
        grpc: Some(grpc),
        hint: Hint::None,
    };
    let all = Retry {
        conditions: RetryConditions {
            reset: true,
            connect_failure: true,
            ..rule().conditions
        },
        ..rule()
    };
    let alone = Tried::Unconnected { others: false };
    let others = Tried::Unconnected { others: true };
    for (tried, without, with, with_all) in [
        (
            Tried::answer(200),
            Verdict::Done,
            Verdict::Done,
            Verdict::Done,
        ),
        (Tried::answer(503), Verdict::Done, NOW, NOW),
        (Tried::answer(429), Verdict::Done, NOW, NOW),
        (
            Tried::answer(404),
            Verdict::Done,
            Verdict::Done,
            Verdict::Done,
        ),
        (grpc(14), Verdict::Done, NOW, NOW),
        (grpc(13), Verdict::Done, Verdict::Done, Verdict::Done),
        (grpc(255), Verdict::Done, Verdict::Done, Verdict::Done),
        (Tried::Reset, Verdict::Done, Verdict::Done, NOW),
        (Tried::Stale, NOW, NOW, NOW),
        (Tried::Refused, NOW, NOW, NOW),
        (others, NOW, NOW, NOW),
        (alone, Verdict::Done, Verdict::Done, NOW),
        (Tried::Late, Verdict::Done, NOW, NOW),
        (Tried::FailFast, Verdict::Done, NOW, NOW),
    ] {
        assert_eq!(
            once(None, tried, &get()),
            without,
            "{tried:?} without a rule"
        );
        assert_eq!(
            once(Some(&rule()), tried, &get()),
            with,
            "{tried:?} with a rule"
        );
        assert_eq!(
            once(Some(&all), tried, &get()),
            with_all,
            "{tried:?} with all"
        );
    }
}

#[test]
fn a_method_that_is_not_idempotent_is_repeated_only_unseen_or_when_the_rule_says_so() {
    let resets = Retry {
        conditions: RetryConditions {
            reset: true,
            ..rule().conditions
        },
        ..rule()
    };
    let not_idempotent = Verdict::Skip(Skip::NotIdempotent);
    for tried in [Tried::answer(503), Tried::Reset, Tried::Late, Tried::Stale] {
        assert_eq!(
            once(Some(&resets), tried, &post()),
            not_idempotent,
            "{tried:?}"
        );
    }
    for tried in [
        Tried::Refused,
        Tried::FailFast,
        Tried::Unconnected { others: true },
    ] {
        assert_eq!(once(Some(&resets), tried, &post()), NOW, "{tried:?}");
    }
    let unavailable = Tried::Answer {
        status: 200,
        grpc: Some(14),
        hint: Hint::None,
    };
    assert_eq!(
        once(Some(&resets), unavailable, &post()),
        NOW,
        "named by the rule"
    );
    assert_eq!(once(None, Tried::Stale, &post()), Verdict::Done);
    let all = Retry {
        conditions: RetryConditions {
            non_idempotent: true,
            ..resets.conditions
        },
        ..resets
    };
    assert_eq!(once(Some(&all), Tried::answer(503), &post()), NOW);
    for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"] {
        assert!(is_idempotent(method.as_bytes()), "{method}");
    }
    for method in ["POST", "PATCH", "CONNECT", "get", ""] {
        assert!(!is_idempotent(method.as_bytes()), "{method}");
    }
}

#[test]
fn each_objection_has_its_name() {
    let spent = {
        let mut bucket = bucket();
        while bucket.withdraw(0) {}
        bucket
    };
    let answer = |hint| Tried::Answer {
        status: 503,
        grpc: None,
        hint,
    };
    let pause = |seconds| Hint::After(Duration::from_secs(seconds));
    let slow = Retry {
        backoff: Some(Backoff {
            min: Duration::from_millis(20),
            max: Duration::from_millis(80),
            jitter: 0.0,
            respect_retry_after: false,
        }),
        ..rule()
    };
    let until = |deadline| Request {
        deadline: Some(deadline),
        ..get()
    };
    let body = |body| Request { body, ..get() };
    let begun = Request {
        answer_begun: true,
        ..get()
    };
    for (tried, request, expected) in [
        (
            answer(Hint::Never),
            get(),
            Verdict::Skip(Skip::ServerSaysNo),
        ),
        (answer(pause(11)), get(), Verdict::Skip(Skip::ServerSaysNo)),
        (
            answer(pause(10)),
            get(),
            Verdict::Retry { after: 10_000 * MS },
        ),
        (answer(pause(0)), get(), NOW),
        (answer(Hint::None), get(), Verdict::Retry { after: 20 * MS }),
        (
            answer(Hint::None),
            until(20 * MS),
            Verdict::Skip(Skip::Deadline),
        ),
        (
            answer(pause(1)),
            until(900 * MS),
            Verdict::Skip(Skip::Deadline),
        ),
        (
            answer(Hint::None),
            until(21 * MS),
            Verdict::Retry { after: 20 * MS },
        ),
        (answer(Hint::None), begun, Verdict::Skip(Skip::HeadersSent)),
        (
            answer(Hint::None),
            body(Body::TooLarge),
            Verdict::Skip(Skip::BodyTooLarge),
        ),
        (
            answer(Hint::None),
            body(Body::NoRoom),
            Verdict::Skip(Skip::NoRoom),
        ),
        (
            Tried::Refused,
            body(Body::TooLarge),
            Verdict::Skip(Skip::BodyTooLarge),
        ),
    ] {
        assert_eq!(
            once(Some(&slow), tried, &request),
            expected,
            "{tried:?} {request:?}"
        );
    }
    for (tried, expected) in [
        (answer(Hint::None), Verdict::Skip(Skip::NoBudget)),
        (Tried::Refused, Verdict::Skip(Skip::NoBudget)),
        (Tried::Unconnected { others: true }, NOW),
    ] {
        let verdict = Tries::default().decide(Some(&slow), tried, &get(), &mut spent.clone());
        assert_eq!(verdict, expected, "{tried:?} with nothing left");
    }
    let mut codes: Vec<_> = Skip::ALL.map(Skip::code).to_vec();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), Skip::ALL.len());
}

#[test]
fn the_waits_double_and_full_jitter_draws_from_all_of_them() {
    let backoff = |jitter| Backoff {
        min: Duration::from_millis(25),
        max: Duration::from_millis(250),
        jitter,
        respect_retry_after: false,
    };
    let millis = |jitter, retries, random| backoff(jitter).wait(retries, random).as_millis();

    let waits: Vec<_> = (0..6).map(|retries| millis(0.0, retries, 7)).collect();
    assert_eq!(waits, [25, 50, 100, 200, 250, 250]);
    assert_eq!(millis(0.0, u32::MAX, 7), 250);
    assert_eq!((millis(1.0, 2, 0), millis(1.0, 2, u64::MAX)), (0, 100));
    assert_eq!((millis(0.5, 2, 0), millis(0.5, 2, u64::MAX)), (50, 100));
    assert_eq!(millis(1.0, 2, u64::MAX / 4), 25, "evenly");
}

proptest! {
    #[test]
    fn no_sequence_of_outcomes_gets_more_tries_than_allowed(
        max_retries in 0_u32..6,
        outcomes in proptest::collection::vec((0_u8..8, any::<bool>(), any::<u64>(), 0_u64..500), 0..60),
    ) {
        let rule = Retry {
            max_retries,
            conditions: RetryConditions { reset: true, connect_failure: true, ..rule().conditions },
            ..rule()
        };
        let (mut tries, mut bucket, mut now) = (Tries::default(), bucket(), 0);
        let mut granted = 0;
        for (kind, idempotent, random, pause) in outcomes {
            now += pause * MS;
            let tried = match kind {
                0 => Tried::answer(503),
                1 => Tried::answer(200),
                2 => Tried::Reset,
                3 => Tried::Stale,
                4 => Tried::Refused,
                5 => Tried::Unconnected { others: idempotent },
                6 => Tried::Late,
                _ => Tried::FailFast,
            };
            let request = Request { idempotent, now, random, ..Request::default() };
            if let Verdict::Retry { .. } = tries.decide(Some(&rule), tried, &request, &mut bucket) {
                granted += 1;
                prop_assert!(tried != Tried::answer(200));
                let may_have_acted = matches!(tried, Tried::Answer { .. } | Tried::Reset | Tried::Stale | Tried::Late);
                prop_assert!(idempotent || !may_have_acted, "{:?}", tried);
            }
        }
        prop_assert!(granted <= u32::from(MAX_UNSEEN) + max_retries);
        prop_assert_eq!(tries.any(), granted > 0);
    }
}
