//! ServiceProfiles: their routes in the metrics, and their word on what is a failure.

use tulle_api::destination::{self as profile, DestinationProfile, ResponseClass, Route};

use crate::client::Http1;
use crate::rig::{Mesh, Pod, plain, policy, run};
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
fn without_a_budget_or_with_one_that_makes_no_sense_nothing_is_tried_again() {
    run(async {
        let budget = |retry_ratio, seconds| profile::RetryBudget {
            retry_ratio,
            min_retries_per_second: 1,
            ttl: Some(prost_types::Duration { seconds, nanos: 0 }),
        };
        let sound = Some(budget(0.2, 10));
        for (budget, tries) in [
            (sound, 2),
            (None, 1),
            (Some(budget(10_000.0, 10)), 1),
            (Some(budget(-1.0, 10)), 1),
            (Some(budget(0.1, 1_000)), 1),
        ] {
            let mesh = Mesh::new();
            let (web, voting) = (mesh.pod("web").await, mesh.pod("voting").await);
            let server = Server::start(voting.address(18080), &[BUSY, OK]).await;
            mesh.endpoints("voting", &[plain(voting.address(18080))]);
            let message = DestinationProfile {
                fully_qualified_name: "voting.default.svc.cluster.local".into(),
                routes: vec![Route {
                    is_retryable: true,
                    ..route("GET /vote", "/vote")
                }],
                retry_budget: budget,
                ..Default::default()
            };
            let problems = mesh.unsound_profile("voting", &message);
            let named = problems.contains("retry_budget");
            assert_eq!(named, budget.is_some() && budget != sound, "{problems}");
            let answer = Http1::new(web.call().await).get("voting", "/vote").await;
            assert_eq!(
                (answer.status() == 200, server.count()),
                (tries == 2, tries),
                "{budget:?}"
            );
        }
    });
}

#[test]
fn overrides_are_followed_as_they_come_change_and_go() {
    run(async {
        let mesh = Mesh::new();
        let (web, pod) = (mesh.pod("web").await, mesh.pod("voting").await);
        let names = ["voting", "canary", "stable"];
        let mut servers = Vec::new();
        for (port, name) in (18080..).zip(names) {
            servers.push(Server::start(pod.address(port), &[OK]).await);
            mesh.endpoints(name, &[plain(pod.address(port))]);
        }
        let split = |weights: &[(&str, u32)]| {
            if weights.is_empty() {
                // A profile that says nothing gives way to the policy.
                return mesh.policy("voting", policy("voting"));
            }
            let to = |&(name, weight): &(&str, u32)| profile::WeightedDst {
                authority: format!("{name}.default.svc.cluster.local:80"),
                weight,
                ..Default::default()
            };
            mesh.profile(
                "voting",
                &DestinationProfile {
                    fully_qualified_name: "voting.default.svc.cluster.local".into(),
                    dst_overrides: weights.iter().map(to).collect(),
                    ..Default::default()
                },
            );
        };
        split(&[]);
        let mut client = Http1::new(web.call().await);
        for (weights, taking) in [
            (&[][..], [true, false, false]),
            (&[("canary", 1)], [false, true, false]),
            (&[("canary", 1), ("stable", 1)], [false, true, true]),
            (&[("canary", 0), ("stable", 1)], [false, false, true]),
            (&[("canary", 0), ("stable", 0)], [true, false, false]),
            (&[("canary", 10_000)], [false, true, false]),
            (&[], [true, false, false]),
        ] {
            split(weights);
            let before: Vec<usize> = servers.iter().map(Server::count).collect();
            // Two that share requests evenly are both seen by then.
            for _ in 0..60 {
                assert_eq!(client.get("voting", "/vote").await.status(), 200);
            }
            let took = servers.iter().zip(&before);
            let took: Vec<bool> = took.map(|(server, old)| server.count() > *old).collect();
            assert_eq!(took, taking, "{weights:?}");
        }
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

const PATH: &str = "voting.default.svc.cluster.local:80";
const INBOUND: &str = "direction=\"inbound\"";

fn voting_profile() -> DestinationProfile {
    DestinationProfile {
        fully_qualified_name: "voting.default.svc.cluster.local".into(),
        routes: vec![Route {
            response_classes: vec![class(404, 404, true)],
            ..route("GET /vote", "/vote")
        }],
        ..Default::default()
    }
}

/// `web` calls `voting`, both with sidecars.
async fn meshed(mesh: &Mesh, script: &[Do], more: &[(&str, &str)]) -> (Pod, Pod, Server) {
    let (web, voting) = (mesh.pod("web").await, mesh.pod_with("voting", more).await);
    let server = Server::start(voting.address(18080), script).await;
    mesh.service("voting", &[voting.endpoint(80)]);
    (web, voting, server)
}

/// Sends requests until the server's proxy counts one by its profile; returns how many that took.
async fn until_counted(client: &mut Http1, host: &str, voting: &Pod) -> f64 {
    for asked in 1..2_000 {
        client.get(host, "/vote").await;
        let counted = voting.metric("route_request_total", &[INBOUND, DST, VOTE]);
        if counted > 0.0 {
            assert_eq!(counted, 1.0, "{asked}");
            return counted;
        }
        tokio::task::yield_now().await;
    }
    panic!("never counted\n{}", voting.metrics());
}

#[test]
fn a_server_counts_by_the_profile_that_its_clients_proxy_has_routed_by() {
    run(async {
        let mesh = Mesh::new();
        let (web, voting, server) = meshed(&mesh, &[OK], &[]).await;
        mesh.profile("voting", &voting_profile());
        mesh.inbound_profile(PATH, Some(&voting_profile()));
        let mut client = Http1::new(web.call().await);
        // The client calls a short name: its proxy tells the whole one.
        until_counted(&mut client, "voting", &voting).await;
        assert_eq!(client.get("voting", "/other").await.status(), 200);
        server.script(&[Do::Answer(404, "")]);
        assert_eq!(client.get("voting", "/vote").await.status(), 404);

        let ok = "status_code=\"200\",classification=\"success\"";
        let gone = "status_code=\"404\",classification=\"failure\"";
        for (family, labels, count) in [
            ("route_request_total", &[INBOUND, DST, VOTE][..], 2.0),
            // What no route takes is not counted here.
            ("route_request_total", &[INBOUND], 2.0),
            ("route_response_total", &[INBOUND, DST, VOTE, ok], 1.0),
            ("route_response_total", &[INBOUND, DST, VOTE, gone], 1.0),
            (
                "route_response_latency_ms_bucket",
                &[INBOUND, DST, VOTE, "status_code=\"404\"", "le=\"50000\""],
                1.0,
            ),
            // The classes are the profile's everywhere.
            ("response_total", &[INBOUND, gone], 1.0),
            ("route_actual_request_total", &[INBOUND], 0.0),
            ("route_retryable_total", &[INBOUND], 0.0),
        ] {
            assert_eq!(
                voting.metric(family, labels),
                count,
                "{family} {labels:?}\n{}",
                voting.metrics()
            );
        }
        let told = server.seen();
        let told = told.first().unwrap().field("l5d-dst-canonical");
        assert_eq!(told, Some(PATH));
        assert_eq!(mesh.asked_profiles(), (vec![PATH.to_owned()], 1));
    });
}

#[test]
fn the_profile_of_a_request_is_that_of_its_authority_where_no_proxy_says_more() {
    run(async {
        let mesh = Mesh::new();
        let (_web, voting, server) = meshed(&mesh, &[OK], &[]).await;
        mesh.inbound_profile(PATH, Some(&voting_profile()));
        let mut client = Http1::new(voting.enter().await);
        until_counted(&mut client, "voting.default.svc.cluster.local", &voting).await;
        // A new profile is in force at once, and so is none.
        let mut renamed = voting_profile();
        renamed.routes = vec![route("anything", "/.*")];
        mesh.inbound_profile(PATH, Some(&renamed));
        client
            .get("Voting.default.svc.cluster.local.:80", "/x")
            .await;
        let labels = [INBOUND, DST, "rt_route=\"anything\""];
        assert_eq!(voting.metric("route_request_total", &labels), 1.0);
        mesh.inbound_profile(PATH, None);
        client.get("voting.default.svc.cluster.local", "/x").await;
        assert_eq!(voting.metric("route_request_total", &[INBOUND]), 2.0);

        // A stranger speaks for no proxy, and what is no name of the cluster is asked of nobody.
        client
            .send(
                "GET /vote HTTP/1.1\r\nHost: voting\r\nl5d-dst-canonical: web.default.svc.cluster.local:80\r\n\r\n",
            )
            .await;
        assert_eq!(client.answer().await.status(), 200);
        for host in [
            "127.0.0.1:80",
            "example.org",
            "xsvc.cluster.local",
            "a b.svc.cluster.local",
        ] {
            client.get(host, "/vote").await;
        }
        assert_eq!(mesh.asked_profiles(), (vec![PATH.to_owned()], 1));
        assert!(server.count() > 5);
    });
}

#[test]
fn profiles_that_clients_invent_names_of_are_bounded_and_forgotten_when_idle() {
    run(async {
        let mesh = Mesh::new();
        let idle = [("LINKERD2_PROXY_INBOUND_DISCOVERY_IDLE_TIMEOUT", "1s")];
        let (_web, voting, _server) = meshed(&mesh, &[OK], &idle).await;
        let mut client = Http1::new(voting.enter().await);
        for number in 0..tulle_proxy::discovery::MAX_PROFILES + 50 {
            let host = format!("n{number}.default.svc.cluster.local");
            assert_eq!(client.get(&host, "/").await.status(), 200);
        }
        let (names, asked) = mesh.asked_profiles();
        assert!(asked <= 2 * tulle_proxy::discovery::MAX_PROFILES, "{asked}");
        assert!(names.contains(&"n0.default.svc.cluster.local:80".to_owned()));
        drop(client);
        while mesh.held_profiles() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
}
