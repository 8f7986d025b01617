//! The breaker against its table and against a naive one.

use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::outbound::SuccessRate;
use Verdict::{Failure, Success, Throttled};

const S: u64 = 1_000_000_000;

fn backoff(jitter: f32, respect_retry_after: bool) -> Backoff {
    Backoff {
        min: Duration::from_secs(1),
        max: Duration::from_secs(60),
        jitter,
        respect_retry_after,
    }
}

fn accrual(consecutive: u32, rate: Option<(f64, u32)>) -> FailureAccrual {
    FailureAccrual {
        consecutive: Some(consecutive).filter(|max| *max > 0),
        success_rate: rate.map(|(threshold, min_requests)| SuccessRate {
            threshold,
            decay: Duration::from_secs(10),
            min_requests,
        }),
        backoff: backoff(0.0, false),
        min_ready_endpoints: 0,
        max_ejected_percent: 100,
    }
}

/// What each verdict in turn leads to.
fn record(accrual: &FailureAccrual, verdicts: &[Verdict]) -> Vec<Option<Trip>> {
    let mut breaker = Breaker::new(accrual);
    let record = |verdict: &Verdict| breaker.record(accrual, 0, *verdict);
    verdicts.iter().map(record).collect()
}

#[test]
fn failures_in_a_row_trip_and_a_success_or_nothing_else_ends_the_row() {
    let three = accrual(3, None);
    let trip = Some(Trip::Consecutive);
    for (verdicts, results) in [
        (&[Failure, Failure, Failure][..], &[None, None, trip][..]),
        (
            &[Failure, Failure, Success, Failure, Failure],
            &[None, None, None, None, None],
        ),
        (
            &[Failure, Throttled, Failure, Throttled, Failure],
            &[None, None, None, None, trip],
        ),
        (&[Throttled; 9], &[None; 9]),
    ] {
        assert_eq!(record(&three, verdicts), results, "{verdicts:?}");
    }
    assert_eq!(
        record(&accrual(0, None), &[Failure; 50]),
        [None; 50],
        "both parts off never trip"
    );
}

#[test]
fn a_low_success_rate_trips_once_enough_is_known() {
    let rated = |min, threshold| accrual(0, Some((threshold, min)));
    let trip = Some(Trip::SuccessRate);
    assert_eq!(
        record(&rated(5, 0.8), &[Failure; 5]),
        [None, None, None, None, trip]
    );
    assert_eq!(
        record(&rated(5, 0.8), &[Throttled; 5]),
        [None, None, None, None, trip],
        "what was throttled is no success"
    );
    assert_eq!(
        record(
            &rated(5, 0.8),
            &[Success, Success, Success, Success, Failure]
        ),
        [None; 5],
        "0.8 is not below 0.8"
    );
    assert_eq!(record(&rated(0, 0.8), &[Failure]), [trip]);
    assert_eq!(
        record(&rated(2, 1.0), &[Success, Success, Failure]),
        [None, None, trip]
    );
    assert_eq!(
        record(&accrual(2, Some((0.5, 100))), &[Failure, Failure]),
        [None, Some(Trip::Consecutive)]
    );
}

#[test]
fn each_state_does_what_the_table_says() {
    let rule = accrual(1, None);
    let mut breaker = Breaker::new(&rule);
    assert_eq!(breaker.state(), State::Closed);
    assert_eq!(breaker.record(&rule, 0, Failure), Some(Trip::Consecutive));
    assert_eq!(
        breaker.state(),
        State::Closed,
        "ejecting is the balancer's to allow"
    );
    assert_eq!(breaker.record(&rule, 0, Failure), Some(Trip::Consecutive));

    assert_eq!(breaker.eject(&rule.backoff, 0, 0, None), S);
    assert_eq!(breaker.state(), State::Ejected(S));
    for late in [Success, Throttled, Failure] {
        assert_eq!(breaker.record(&rule, 0, late), None);
        assert_eq!(breaker.state(), State::Ejected(S));
    }

    let first = breaker.begin_probe();
    assert!(breaker.awaits(first) && !breaker.awaits(0));
    assert_eq!(
        breaker.record(&rule, 0, Failure),
        None,
        "no probe, and late"
    );
    assert_eq!(
        breaker.eject(&rule.backoff, S, 0, None),
        3 * S,
        "for longer"
    );
    assert!(!breaker.awaits(first));

    let second = breaker.begin_probe();
    assert!(!breaker.awaits(first) && breaker.awaits(second));
    breaker.give_up_probe(5 * S);
    assert_eq!(breaker.state(), State::Ejected(5 * S));

    breaker.close();
    assert_eq!(breaker.state(), State::Closed);
    assert_eq!(
        breaker.eject(&rule.backoff, 0, 0, None),
        S,
        "from the start again"
    );
}

#[test]
fn a_probe_that_was_throttled_passes_only_where_no_rate_is_reckoned() {
    for (rule, verdict, expected) in [
        (accrual(3, None), Success, true),
        (accrual(3, None), Throttled, true),
        (accrual(3, None), Failure, false),
        (accrual(3, Some((0.8, 5))), Success, true),
        (accrual(3, Some((0.8, 5))), Throttled, false),
        (accrual(3, Some((0.8, 5))), Failure, false),
    ] {
        assert_eq!(passes(&rule, verdict), expected, "{verdict:?}");
    }
}

#[test]
fn pauses_double_to_the_maximum_with_jitter_above_and_a_servers_wish() {
    let plain = backoff(0.0, false);
    let pauses: Vec<_> = (0..8).map(|n| pause(&plain, n, 0, None) / S).collect();
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    assert_eq!(pause(&plain, u32::MAX, u64::MAX, None), 60 * S);

    let half = backoff(0.5, false);
    assert_eq!(pause(&half, 0, 0, None), S);
    assert_eq!(pause(&half, 0, u64::MAX, None), S + S / 2);

    let wish = Some(Duration::from_secs(30));
    assert_eq!(pause(&plain, 0, 0, wish), S, "not asked to respect it");
    let polite = backoff(0.0, true);
    assert_eq!(pause(&polite, 0, 0, wish), 30 * S);
    assert_eq!(pause(&polite, 6, 0, wish), 60 * S, "it only lengthens");
    let long = Some(Duration::from_secs(1 << 40));
    assert_eq!(pause(&polite, 0, 0, long), 300 * S, "and not for ever");
}

#[test]
fn samples_age_out_bucket_by_bucket_and_a_long_silence_forgets_all() {
    let mut window = Window::new(Duration::from_secs(10));
    for second in 0..10 {
        window.record(second * S, second != 0);
    }
    assert_eq!(window.totals(), (9, 10));
    window.record(10 * S, true);
    assert_eq!(
        window.totals(),
        (10, 10),
        "the failure of the first second is out"
    );
    window.record(1_000_000 * S, false);
    assert_eq!(window.totals(), (0, 1));
    window.record(5 * S, false);
    assert_eq!(
        window.totals(),
        (0, 2),
        "a time before the newest is the newest"
    );
    let mut tiny = Window::new(Duration::ZERO);
    tiny.record(u64::MAX, true);
    assert_eq!(tiny.totals(), (1, 1));
}

/// All that the breaker should know, kept as a list.
struct Naive {
    history: VecDeque<(u64, Verdict)>,
}

impl Naive {
    fn record(&mut self, rule: &FailureAccrual, now: u64, verdict: Verdict) -> Option<Trip> {
        self.history.push_back((now, verdict));
        let row = self
            .history
            .iter()
            .rev()
            .filter(|(_, verdict)| *verdict != Throttled)
            .take_while(|(_, verdict)| *verdict == Failure)
            .count();
        if verdict == Failure && rule.consecutive.is_some_and(|max| row >= max as usize) {
            return Some(Trip::Consecutive);
        }
        let rate = rule.success_rate?;
        let recent: Vec<_> = self
            .history
            .iter()
            .filter(|(at, _)| at / S + 10 > now / S)
            .collect();
        let good = recent
            .iter()
            .filter(|(_, verdict)| *verdict == Success)
            .count();
        let low = (good as f64) < rate.threshold * recent.len() as f64;
        (recent.len() >= rate.min_requests.max(1) as usize && low).then_some(Trip::SuccessRate)
    }
}

proptest! {
    /// The same verdict as a breaker that keeps the whole history, for every prefix of it.
    #[test]
    fn it_agrees_with_a_naive_breaker(
        events in proptest::collection::vec((0..3 * S, prop::sample::select(vec![Success, Success, Throttled, Failure])), 1..120),
        consecutive in 0_u32..5,
        rate in prop::option::of((prop::sample::select(vec![0.2, 0.5, 0.8, 1.0]), 0_u32..8)),
    ) {
        let rule = accrual(consecutive, rate);
        let mut breaker = Breaker::new(&rule);
        let mut naive = Naive { history: VecDeque::new() };
        let mut now = 0;
        for (pause, verdict) in events {
            now += pause;
            prop_assert_eq!(breaker.record(&rule, now, verdict), naive.record(&rule, now, verdict));
        }
    }
}
