//! Choosing a backend, and what is read of timeouts, retries and breakers.

use proptest::prelude::*;
use tulle_api::net;
use tulle_api::outbound as api;
use tulle_api::{destination, http_route};

use super::backend::Backends;
use super::*;
use crate::destination::ORDINARY_WEIGHT;

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

fn forward(number: u32) -> api::Backend {
    let ip = net::IpAddress {
        ip: Some(net::ip_address::Ip::Ipv4(0x0a00_0000 + number)),
    };
    api::Backend {
        kind: Some(api::backend::Kind::Forward(destination::WeightedAddr {
            addr: Some(net::TcpAddress {
                ip: Some(ip),
                port: 80,
            }),
            weight: ORDINARY_WEIGHT,
            ..Default::default()
        })),
        ..Default::default()
    }
}

fn weighted(weights: &[u32]) -> Distribution {
    let mut backends = Backends::default();
    let list = weights
        .iter()
        .zip(0..)
        .map(|(weight, number)| RouteBackend {
            backend: backends.add(Some(&forward(number))).unwrap(),
            weight: *weight,
            filters: Vec::new(),
            response_timeout: None,
        });
    Distribution::RandomAvailable(list.collect())
}

/// How often each backend is chosen when every number is drawn equally often.
fn shares(distribution: &Distribution, available: impl Fn(BackendId) -> bool) -> Vec<u32> {
    let mut counts = vec![0; distribution.backends().len()];
    for step in 0..1000 {
        let random = step * (u64::MAX / 1000) + u64::MAX / 2000;
        if let Some(chosen) = distribution.choose(random, &available) {
            counts[chosen.backend.index()] += 1;
        }
    }
    counts
}

#[test]
fn backends_are_chosen_by_weight() {
    assert_eq!(shares(&weighted(&[90, 10]), |_| true), [900, 100]);
    assert_eq!(shares(&weighted(&[1, 0, 3]), |_| true), [250, 0, 750]);
    assert_eq!(
        shares(&weighted(&[u32::MAX, u32::MAX]), |_| true),
        [500, 500]
    );
    assert_eq!(shares(&weighted(&[0, 0]), |_| true), [0, 0]);
    assert_eq!(shares(&weighted(&[]), |_| true), Vec::<u32>::new());
}

#[test]
fn a_backend_that_is_not_available_leaves_its_share_to_the_others() {
    let distribution = weighted(&[80, 10, 10]);

    assert_eq!(shares(&distribution, |id| id.index() != 0), [0, 500, 500]);
    assert_eq!(shares(&distribution, |_| false), [0, 0, 0]);
}

#[test]
fn the_first_available_backend_takes_all() {
    let list = weighted(&[1, 1, 1]).backends().to_vec();
    let distribution = Distribution::FirstAvailable(list);

    assert_eq!(shares(&distribution, |_| true), [1000, 0, 0]);
    assert_eq!(shares(&distribution, |id| id.index() != 0), [0, 1000, 0]);
    assert!(Distribution::Empty.choose(0, |_| true).is_none());
}

#[test]
fn equal_backends_are_one_backend() {
    let mut backends = Backends::default();
    let first = backends.add(Some(&forward(1))).unwrap();
    let other = backends.add(Some(&forward(2))).unwrap();

    assert_eq!(backends.add(Some(&forward(1))).unwrap(), first);
    assert_ne!(first, other);
    assert_eq!(backends.list.len(), 2);
}

#[test]
fn a_balancer_without_a_path_or_load_is_refused_by_name() {
    let dst = |path: &str| api::backend::EndpointDiscovery {
        kind: Some(api::backend::endpoint_discovery::Kind::Dst(
            api::backend::endpoint_discovery::DestinationGet { path: path.into() },
        )),
    };
    for (discovery, load, expected) in [
        (None, true, "backend.balancer.discovery is missing"),
        (
            Some(dst("")),
            true,
            "backend.balancer.discovery.dst.path is empty",
        ),
        (Some(dst("a:80")), false, "backend.balancer.load is missing"),
    ] {
        let load =
            load.then(|| {
                api::backend::balance_p2c::Load::PeakEwma(
                    api::backend::balance_p2c::PeakEwma::default(),
                )
            });
        let message = api::Backend {
            kind: Some(api::backend::Kind::Balancer(api::backend::BalanceP2c {
                discovery,
                load,
                ..Default::default()
            })),
            ..Default::default()
        };

        let error = Backends::default().add(Some(&message)).unwrap_err();

        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn the_newer_response_timeout_replaces_the_older() {
    let timeouts = |response, legacy| {
        let message = http_route::Timeouts {
            response,
            ..Default::default()
        };
        Timeouts::compile(Some(&message), legacy).unwrap().response
    };
    let older = seconds(9);

    assert_eq!(
        timeouts(seconds(1), older.as_ref()),
        Some(Duration::from_secs(1))
    );
    assert_eq!(timeouts(None, older.as_ref()), Some(Duration::from_secs(9)));
    assert_eq!(timeouts(seconds(0), None), None);
    let alone = Timeouts::compile(None, older.as_ref()).unwrap();
    assert_eq!(alone.response, Some(Duration::from_secs(9)));
    assert!(Timeouts::compile(None, seconds(-1).as_ref()).is_err());
}

fn backoff(min: i64, max: i64, jitter_ratio: f32) -> Option<api::ExponentialBackoff> {
    Some(api::ExponentialBackoff {
        min_backoff: seconds(min),
        max_backoff: seconds(max),
        jitter_ratio,
        respect_retry_after_hint: false,
    })
}

#[test]
fn retries_are_read_with_their_bounds() {
    use api::http_route::retry::{Conditions, conditions::StatusRange};
    let retry = |start, end| {
        Retry::http(&api::http_route::Retry {
            max_retries: 2,
            conditions: Some(Conditions {
                status_ranges: vec![StatusRange { start, end }],
                ..Default::default()
            }),
            backoff: backoff(1, 2, 0.5),
            ..Default::default()
        })
    };

    let read = retry(500, 599).unwrap();
    assert_eq!(read.max_retries, 2);
    assert_eq!(read.max_request_bytes, MAX_REQUEST_BYTES);
    let http = Statuses::default().with(500..=599);
    assert_eq!(
        read.conditions,
        RetryConditions {
            http,
            ..Default::default()
        }
    );
    assert_eq!(
        format!("{:?}", http.with(404..=404)),
        "{404..=404, 500..=599}"
    );
    for (start, end) in [(599, 500), (0, 599), (500, 600), (500, 70_000)] {
        assert!(retry(start, end).is_err(), "{start} to {end}");
    }

    let grpc = Retry::grpc(&api::grpc_route::Retry {
        conditions: Some(api::grpc_route::retry::Conditions {
            cancelled: true,
            unavailable: true,
            ..Default::default()
        }),
        ..Default::default()
    });
    let conditions = grpc.unwrap().conditions;
    assert_eq!(conditions.grpc, 1 << 1 | 1 << 14);
    assert!(conditions.non_idempotent, "every call is a POST");

    let too_much = Retry::http(&api::http_route::Retry {
        max_request_bytes: MAX_REQUEST_BYTES + 1,
        ..Default::default()
    });
    assert_eq!(too_much.unwrap_err().field, "retry.max_request_bytes");
    let budget = Retry::http(&api::http_route::Retry {
        budget: Some(tulle_api::http_route::RetryBudget {
            retry_ratio: -1.0,
            ..Default::default()
        }),
        ..Default::default()
    });
    assert_eq!(budget.unwrap_err().field, "retry.budget.retry_ratio");
}

#[test]
fn a_breaker_is_read_and_a_senseless_one_refused() {
    use api::failure_accrual::{ConsecutiveFailures, Kind, Unified};
    let accrual = |kind| {
        FailureAccrual::compile(&api::FailureAccrual {
            kind: Some(kind),
            ejection: Some(api::EjectionConfig {
                min_ready_endpoints: 1,
                ..Default::default()
            }),
        })
    };
    let consecutive = |backoff| {
        accrual(Kind::ConsecutiveFailures(ConsecutiveFailures {
            max_failures: 7,
            backoff,
        }))
    };
    let unified = |success_rate_threshold| {
        accrual(Kind::Unified(Unified {
            success_rate_threshold,
            decay: seconds(10),
            backoff: backoff(1, 60, 0.5),
            ..Default::default()
        }))
    };

    let read = consecutive(backoff(1, 60, 0.5)).unwrap();
    assert_eq!((read.consecutive, read.min_ready_endpoints), (Some(7), 1));
    assert_eq!(read.backoff.max, Duration::from_secs(60));
    assert!(consecutive(None).is_err());
    assert!(consecutive(backoff(0, 60, 0.5)).is_err());
    assert!(consecutive(backoff(60, 1, 0.5)).is_err());
    assert!(consecutive(backoff(1, 60, f32::NAN)).is_err());
    assert!(consecutive(backoff(1, 60, -1.0)).is_err());

    let rate = unified(0.8).unwrap().success_rate.unwrap();
    assert_eq!((rate.threshold, rate.decay), (0.8, Duration::from_secs(10)));
    assert_eq!(
        unified(0.0).unwrap().success_rate,
        None,
        "0 switches it off"
    );
    assert!(unified(1.5).is_err() && unified(f64::NAN).is_err());
}

proptest! {
    /// The chosen backend is one that is available and weighs something, whenever there is one.
    #[test]
    fn a_choice_is_always_a_sound_one(
        weights in proptest::collection::vec(0_u32..5, 0..6),
        available in any::<u8>(),
        random in any::<u64>(),
    ) {
        let distribution = weighted(&weights);
        let is_available = |id: BackendId| available >> id.index() & 1 == 1;
        let sound: Vec<_> = (0..weights.len())
            .filter(|index| weights[*index] > 0 && available >> index & 1 == 1)
            .collect();

        let chosen = distribution.choose(random, is_available).map(|chosen| chosen.backend.index());

        prop_assert_eq!(chosen.is_some(), !sound.is_empty());
        prop_assert!(chosen.is_none_or(|index| sound.contains(&index)));
    }
}
