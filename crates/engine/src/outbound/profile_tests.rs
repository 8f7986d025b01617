//! Tables of profiles.

use super::*;
use crate::outbound::{BackendKind, HttpVersion};
use tulle_api::http_types;

fn path(regex: &str) -> profile::RequestMatch {
    profile::RequestMatch {
        r#match: Some(profile::request_match::Match::Path(profile::PathMatch {
            regex: regex.into(),
        })),
    }
}

fn get() -> profile::RequestMatch {
    profile::RequestMatch {
        r#match: Some(profile::request_match::Match::Method(
            http_types::HttpMethod {
                r#type: Some(http_types::http_method::Type::Registered(0)),
            },
        )),
    }
}

fn all(matches: Vec<profile::RequestMatch>) -> profile::RequestMatch {
    profile::RequestMatch {
        r#match: Some(profile::request_match::Match::All(
            profile::request_match::Seq { matches },
        )),
    }
}

fn any(matches: Vec<profile::RequestMatch>) -> profile::RequestMatch {
    profile::RequestMatch {
        r#match: Some(profile::request_match::Match::Any(
            profile::request_match::Seq { matches },
        )),
    }
}

fn not(part: profile::RequestMatch) -> profile::RequestMatch {
    profile::RequestMatch {
        r#match: Some(profile::request_match::Match::Not(Box::new(part))),
    }
}

fn route(name: &str, condition: profile::RequestMatch) -> profile::Route {
    profile::Route {
        condition: Some(condition),
        metrics_labels: [("route".to_owned(), name.to_owned())].into(),
        ..Default::default()
    }
}

fn of(routes: Vec<profile::Route>) -> profile::DestinationProfile {
    profile::DestinationProfile {
        fully_qualified_name: "voting.default.svc.cluster.local".into(),
        routes,
        retry_budget: Some(profile::RetryBudget {
            retry_ratio: 0.2,
            min_retries_per_second: 10,
            ttl: Some(seconds(Duration::from_secs(10))),
        }),
        ..Default::default()
    }
}

fn compiled(message: &profile::DestinationProfile) -> Policy {
    Policy::from_profile(message, 80, Duration::from_secs(10))
        .unwrap()
        .unwrap()
}

fn found(policy: &Policy, method: &str, path: &str) -> String {
    let request = RequestView {
        method: method.as_bytes(),
        authority: b"voting",
        path: path.as_bytes(),
        headers: &(),
    };
    let found = policy.route(HttpVersion::Http2, &request).unwrap();
    found.route.meta.section().to_owned()
}

#[test]
fn the_first_route_whose_condition_holds_takes_the_request() {
    let policy = compiled(&of(vec![
        route("list", all(vec![get(), path("/api/.*")])),
        route("odd", not(any(vec![path("/api/.*"), path("/")]))),
        route("api", path("/api/.*")),
        route("late", path(".*")),
    ]));

    assert!(policy.problems.is_empty(), "{:?}", policy.problems);
    for (method, path, expected) in [
        ("GET", "/api/x?y", "list"),
        ("POST", "/api/x", "api"),
        ("POST", "/other", "odd"),
        ("POST", "/", "late"),
    ] {
        assert_eq!(found(&policy, method, path), expected, "{method} {path}");
    }
}

#[test]
fn what_no_route_takes_goes_on_as_it_is() {
    let policy = compiled(&of(vec![route("a", path("/a"))]));

    assert_eq!(found(&policy, "GET", "/b"), "");
    let [backend] = policy.backends.as_slice() else {
        panic!("{:?}", policy.backends)
    };
    let BackendKind::Balancer { dst, .. } = &backend.kind else {
        panic!("{backend:?}")
    };
    assert_eq!(&**dst, "voting.default.svc.cluster.local:80");
}

#[test]
fn a_route_that_cannot_be_read_takes_nothing_and_is_named() {
    let policy = compiled(&of(vec![
        route("broken", path("(")),
        profile::Route::default(),
        route("sound", path(".*")),
    ]));

    assert_eq!(found(&policy, "GET", "/"), "sound");
    let problems: Vec<_> = policy.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            "routes[0].condition.path.regex is not a regular expression: unclosed group",
            "routes[1].condition.match is missing",
        ]
    );
}

#[test]
fn a_retryable_route_retries_failures_under_the_budget() {
    let status = |min, max| profile::ResponseMatch {
        r#match: Some(profile::response_match::Match::Status(
            profile::HttpStatusRange { min, max },
        )),
    };
    let class = |min, max, is_failure| profile::ResponseClass {
        condition: Some(status(min, max)),
        is_failure,
    };
    let mut retried = route("a", path(".*"));
    retried.is_retryable = true;
    retried.timeout = Some(seconds(Duration::from_secs(3)));
    // The earlier class wins.
    retried.response_classes = vec![
        class(503, 0, false),
        class(429, 0, true),
        class(500, 599, true),
    ];
    let mut message = of(vec![retried]);

    let policy = compiled(&message);
    let rule = policy.rules.first().unwrap();
    assert_eq!(rule.timeouts.request, Some(Duration::from_secs(3)));
    let retry = rule.retry.unwrap();
    let calls = |status| retry.conditions.http.contains(status);
    assert!(calls(429) && calls(500) && !calls(503) && !calls(200));

    // The same classes tell success from failure; a gRPC status counts where they say nothing.
    let profile = policy.profile().unwrap();
    let fails = |rule, status, grpc| profile.is_failure(RuleId::new(rule), status, grpc);
    assert!(fails(0, 429, None) && fails(0, 500, Some(false)) && !fails(0, 503, Some(true)));
    assert!(fails(0, 200, Some(true)) && !fails(0, 200, Some(false)) && !fails(0, 404, None));
    let rest = 1;
    assert!(fails(rest, 503, None) && !fails(rest, 429, None) && !fails(rest, 500, Some(false)));
    assert_eq!(profile.destination(), "voting.default.svc.cluster.local:80");
    assert_eq!(retry.budget, RetryBudget::default());

    // Without a budget, or with one that makes no sense, nothing is tried again.
    let budget = |ratio, ttl| profile::RetryBudget {
        retry_ratio: ratio,
        min_retries_per_second: 10,
        ttl: Some(seconds(Duration::from_secs(ttl))),
    };
    for budget in [
        None,
        Some(budget(-1.0, 10)),
        Some(budget(10_000.0, 10)),
        Some(budget(0.2, 1000)),
    ] {
        message.retry_budget = budget;
        assert!(
            compiled(&message).rules.first().unwrap().retry.is_none(),
            "{budget:?}"
        );
    }
}

#[test]
fn overrides_split_the_traffic_and_without_any_weight_the_service_itself_gets_it() {
    let to = |authority: &str, weight| profile::WeightedDst {
        authority: authority.into(),
        weight,
        backend_ref: None,
    };
    let mut message = of(Vec::new());
    message.dst_overrides = vec![to("a:80", 1), to("b:80", 3), to("c:80", 0)];
    let policy = compiled(&message);
    let rule = policy.rules.first().unwrap();
    let names: Vec<_> = (0..400_u64)
        .map(|step| {
            rule.backend((step * 2 + 1) * (u64::MAX / 800), |_| true)
                .unwrap()
        })
        .map(|chosen| {
            policy
                .backends
                .get(chosen.backend.index())
                .unwrap()
                .meta
                .name()
        })
        .collect();
    let share = |wanted| names.iter().filter(|name| **name == wanted).count();
    assert_eq!((share("a:80"), share("b:80"), share("c:80")), (100, 300, 0));

    message.dst_overrides = vec![to("a:80", 0)];
    let policy = compiled(&message);
    assert_eq!(
        policy.backends.first().unwrap().meta.name(),
        "voting.default.svc.cluster.local:80"
    );
}

#[test]
fn a_profile_without_routes_and_overrides_says_nothing_of_its_own() {
    let said = Policy::from_profile(&of(Vec::new()), 80, Duration::from_secs(10));

    assert!(said.unwrap().is_none());
}
