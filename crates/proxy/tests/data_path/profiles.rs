//! ServiceProfiles: their routes in the metrics, and their word on what is a failure.

use tulle_api::destination::{self as profile, DestinationProfile, ResponseClass, Route};

use crate::client::Http1;
use crate::rig::{Mesh, Pod, plain, run};
use crate::scripted::{BUSY, Do, OK, Server};

const DST: &str = "dst=\"voting.default.svc.cluster.local:80\"";
const VOTE: &str = "rt_route=\"GET /vote\"";

fn route(name: &str, path: &str) -> Route {
    let path = profile::PathMatch { regex: path.into() };
    Route {
        condition: Some(profile::RequestMatch {
            r#match: Some(profile::request_match::Match::Path(path)),
        }),
        metrics_labels: [("route".to_owned(), name.to_owned())].into(),
        ..Default::default()
    }
}

fn class(min: u32, max: u32, is_failure: bool) -> ResponseClass {
    let range = profile::HttpStatusRange { min, max };
    ResponseClass {
        condition: Some(profile::ResponseMatch {
            r#match: Some(profile::response_match::Match::Status(range)),
        }),
        is_failure,
    }
}

async fn profiled(script: &[Do], change: impl Fn(&mut DestinationProfile)) -> (Pod, Server) {
    let mesh = Mesh::new();
    let (web, voting) = (mesh.pod("web").await, mesh.pod("voting").await);
    let server = Server::start(voting.address(18080), script).await;
    let mut message = DestinationProfile {
        fully_qualified_name: "voting.default.svc.cluster.local".into(),
        routes: vec![route("GET /vote", "/vote")],
        retry_budget: Some(profile::RetryBudget {
            retry_ratio: 0.2,
            min_retries_per_second: 10,
            ttl: Some(prost_types::Duration {
                seconds: 10,
                nanos: 0,
            }),
        }),
        ..Default::default()
    };
    change(&mut message);
    mesh.profile("voting", &message);
    mesh.endpoints("voting", &[plain(voting.address(18080))]);
    (web, server)
}

#[test]
fn requests_and_their_tries_are_counted_by_the_profiles_route() {
    run(async {
        let (web, server) = profiled(&[BUSY, OK], |profile| {
            profile.routes[0].is_retryable = true;
        })
        .await;
        let mut client = Http1::new(web.call().await);
        assert_eq!(client.get("voting", "/vote").await.status(), 200);
        assert_eq!(client.get("voting", "/other").await.status(), 200);
        assert_eq!(server.count(), 3, "one was tried again");

        let (direction, ok) = (
            "direction=\"outbound\"",
            "status_code=\"200\",classification=\"success\"",
        );
        let busy = "status_code=\"503\",classification=\"failure\"";
        for (family, labels, count) in [
            ("route_request_total", &[direction, DST, VOTE][..], 1.0),
            ("route_response_total", &[DST, VOTE, ok], 1.0),
            ("route_response_total", &[busy], 0.0),
            (
                "route_response_latency_ms_count",
                &[DST, VOTE, "status_code=\"200\""],
                1.0,
            ),
            ("route_actual_request_total", &[DST, VOTE], 2.0),
            ("route_actual_response_total", &[DST, VOTE, ok], 1.0),
            ("route_actual_response_total", &[DST, VOTE, busy], 1.0),
            ("route_retryable_total", &[DST, VOTE], 1.0),
            (
                "route_retryable_total",
                &[VOTE, "skipped=\"no_budget\""],
                0.0,
            ),
            ("route_request_total", &[DST], 2.0),
            ("route_response_total", &[DST], 2.0),
        ] {
            assert_eq!(
                web.metric(family, labels),
                count,
                "{family} {labels:?}\n{}",
                web.metrics()
            );
        }
        // What no route takes has no rt_route.
        let rest = format!("route_request_total{{{direction},{DST}}} 1");
        assert!(
            web.metrics().lines().any(|line| line == rest),
            "{}",
            web.metrics()
        );
    });
}

#[test]
fn a_retry_that_the_budget_has_no_room_for_is_counted_as_skipped() {
    run(async {
        let (web, _server) = profiled(&[BUSY], |profile| {
            profile.routes[0].is_retryable = true;
            let budget = profile.retry_budget.as_mut().unwrap();
            (budget.retry_ratio, budget.min_retries_per_second) = (0.0, 0);
        })
        .await;
        let mut client = Http1::new(web.call().await);
        assert_eq!(client.get("voting", "/vote").await.status(), 503);
        let skipped = web.metric("route_retryable_total", &[VOTE, "skipped=\"no_budget\""]);
        assert_eq!(skipped, 1.0, "{}", web.metrics());
    });
}

#[test]
fn the_profiles_classes_tell_success_from_failure_everywhere() {
    run(async {
        let script = [Do::Answer(503, ""), Do::Answer(404, "")];
        let (web, _server) = profiled(&script, |profile| {
            profile.routes[0].response_classes =
                vec![class(503, 503, false), class(400, 499, true)];
        })
        .await;
        let mut client = Http1::new(web.call().await);
        assert_eq!(client.get("voting", "/vote").await.status(), 503);
        assert_eq!(client.get("voting", "/vote").await.status(), 404);
        for family in [
            "route_response_total",
            "route_actual_response_total",
            "response_total",
        ] {
            for (status, class) in [("503", "success"), ("404", "failure")] {
                let labels = [
                    format!("status_code=\"{status}\""),
                    format!("classification=\"{class}\""),
                ];
                let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
                assert_eq!(
                    web.metric(family, &labels),
                    1.0,
                    "{family} {labels:?}\n{}",
                    web.metrics()
                );
            }
        }
    });
}
