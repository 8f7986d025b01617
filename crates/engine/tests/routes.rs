//! Routing by the compiled table, held against the naive way: weigh every match of every rule, take the best.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use proptest::prelude::*;
use tulle_api::{http_route as matches, http_types, meta, outbound as api};
use tulle_engine::outbound::{Answer, HttpVersion, Policy};
use tulle_engine::route::{Candidate, Outcome, Recorder};
use tulle_engine::{Headers, Reason, RequestView};

fn policy(routes: Vec<api::HttpRoute>) -> api::OutboundPolicy {
    let http = api::proxy_protocol::Http1 {
        routes,
        failure_accrual: None,
    };
    api::OutboundPolicy {
        protocol: Some(api::ProxyProtocol {
            kind: Some(api::proxy_protocol::Kind::Http1(http)),
        }),
        metadata: None,
        ..Default::default()
    }
}

fn named(name: &str) -> Option<meta::Metadata> {
    Some(meta::Metadata {
        kind: Some(meta::metadata::Kind::Default(name.into())),
    })
}

fn empty() -> Option<api::http_route::Distribution> {
    use api::http_route::distribution::{Empty, Kind};
    Some(api::http_route::Distribution {
        kind: Some(Kind::Empty(Empty {})),
    })
}

fn first_available(backends: Vec<api::http_route::RouteBackend>) -> api::http_route::Distribution {
    use api::http_route::distribution::{FirstAvailable, Kind};
    api::http_route::Distribution {
        kind: Some(Kind::FirstAvailable(FirstAvailable { backends })),
    }
}

fn rule(matches: Vec<matches::HttpRouteMatch>) -> api::http_route::Rule {
    api::http_route::Rule {
        matches,
        backends: empty(),
        ..Default::default()
    }
}

fn route(name: &str, hosts: &[&str], rules: Vec<api::http_route::Rule>) -> api::HttpRoute {
    api::HttpRoute {
        metadata: named(name),
        hosts: hosts.iter().map(|host| host_match(host)).collect(),
        rules,
    }
}

fn host_match(host: &str) -> matches::HostMatch {
    use matches::host_match::{Match, Suffix};
    let kind = match host.strip_prefix("*.") {
        Some(suffix) => Match::Suffix(Suffix {
            reverse_labels: suffix.split('.').rev().map(Into::into).collect(),
        }),
        None => Match::Exact(host.into()),
    };
    matches::HostMatch {
        r#match: Some(kind),
    }
}

fn path(kind: matches::path_match::Kind) -> matches::HttpRouteMatch {
    matches::HttpRouteMatch {
        path: Some(matches::PathMatch { kind: Some(kind) }),
        ..Default::default()
    }
}

fn prefix(text: &str) -> matches::HttpRouteMatch {
    path(matches::path_match::Kind::Prefix(text.into()))
}

fn exact(text: &str) -> matches::HttpRouteMatch {
    path(matches::path_match::Kind::Exact(text.into()))
}

fn regex(text: &str) -> matches::HttpRouteMatch {
    path(matches::path_match::Kind::Regex(text.into()))
}

fn view<'a, H: Headers + ?Sized>(
    authority: &'a str,
    path: &'a str,
    headers: &'a H,
) -> RequestView<'a, H> {
    RequestView {
        method: b"GET",
        authority: authority.as_bytes(),
        path: path.as_bytes(),
        headers,
    }
}

fn found(policy: &Policy, authority: &str, path: &str) -> String {
    policy
        .route(HttpVersion::Http1, &view(authority, path, &()))
        .map_or_else(
            || "-".into(),
            |found| format!("{}/{}", found.route.meta.name(), found.rule.number),
        )
}

#[test]
fn the_more_specific_host_decides_before_the_path() {
    let policy = Policy::compile(&policy(vec![
        route("any", &[], vec![rule(vec![exact("/a")])]),
        route("wide", &["*.com"], vec![rule(vec![exact("/a")])]),
        route("narrow", &["*.example.com"], vec![rule(vec![exact("/a")])]),
        route(
            "exact",
            &["www.example.com"],
            vec![rule(vec![prefix("/a")])],
        ),
    ]))
    .unwrap();

    for (authority, path, expected) in [
        ("www.example.com", "/a", "exact/0"),
        ("WWW.example.com.:80", "/a", "exact/0"),
        ("x.example.com", "/a", "narrow/0"),
        ("example.com", "/a", "wide/0"),
        ("other", "/a", "any/0"),
        ("", "/a", "any/0"),
        // The host's own rules do not match, so a wider host's may.
        ("x.example.com", "/b", "-"),
        ("www.example.com", "/a/b", "exact/0"),
    ] {
        assert_eq!(
            found(&policy, authority, path),
            expected,
            "{authority}{path}"
        );
    }
}

#[test]
fn the_most_specific_path_decides_then_the_order() {
    let policy = Policy::compile(&policy(vec![route(
        "r",
        &[],
        vec![
            rule(vec![prefix("/")]),
            rule(vec![prefix("/a")]),
            rule(vec![prefix("/a/b")]),
            rule(vec![regex("/a/[cd]")]),
            rule(vec![exact("/a/c")]),
            rule(vec![exact("/a/c")]),
        ],
    )]))
    .unwrap();

    for (path, expected) in [
        ("/x", "r/0"),
        ("/a", "r/1"),
        ("/a/b/c", "r/2"),
        ("/a/d", "r/3"),
        ("/a/c", "r/4"),
        ("/a/c?d", "r/4"),
    ] {
        assert_eq!(found(&policy, "", path), expected, "{path}");
    }
}

#[test]
fn what_cannot_be_read_fails_itself_alone() {
    let mut bad_filter = rule(vec![prefix("/filter")]);
    bad_filter.filters = vec![api::http_route::Filter { kind: None }];
    let mut no_backend = rule(vec![prefix("/backends")]);
    no_backend.backends = Some(first_available(vec![Default::default()]));
    let policy = Policy::compile(&policy(vec![
        route(
            "bad",
            &[],
            vec![rule(vec![regex("(")]), bad_filter, no_backend],
        ),
        route("good", &[], vec![rule(vec![prefix("/good")])]),
    ]))
    .unwrap();
    let invalid = |path: &str| {
        let view = view("", path, &());
        let answer = policy
            .route(HttpVersion::Http1, &view)
            .and_then(|found| found.answer(&view, 0));
        answer.map(|answer| answer.reason())
    };

    assert_eq!(invalid("/good"), None);
    assert_eq!(invalid("/filter"), Some(Reason::RouteInvalid));
    assert_eq!(invalid("/backends"), Some(Reason::RouteInvalid));
    // Nobody knows what the expression was to match: it fails what no other rule takes.
    assert_eq!(invalid("/other"), Some(Reason::RouteInvalid));
    let problems: Vec<_> = policy.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            "http1.routes[0].rules[0].matches[0].path.regex is not a regular expression: unclosed group",
            "http1.routes[0].rules[1].filters[0].kind is missing",
            "http1.routes[0].rules[2].backends.first_available.backends[0].backend is missing",
        ]
    );
}

#[test]
fn a_backend_that_does_not_exist_answers_for_its_share() {
    let refused = |filters| api::http_route::RouteBackend {
        backend: Some(api::Backend::default()),
        filters,
        ..Default::default()
    };
    let injector = api::http_route::Filter {
        kind: Some(api::http_route::filter::Kind::FailureInjector(
            matches::HttpFailureInjector {
                status: 500,
                message: "Service not found".into(),
                ratio: None,
            },
        )),
    };
    for (filters, expected) in [
        (vec![injector], "Service not found"),
        (Vec::new(), "invalid backend"),
    ] {
        let mut only = rule(Vec::new());
        only.backends = Some(first_available(vec![refused(filters)]));
        let policy = Policy::compile(&policy(vec![route("r", &[], vec![only])])).unwrap();
        let found = policy
            .route(HttpVersion::Http1, &view("", "/", &()))
            .unwrap();
        assert!(found.answer(&view("", "/", &()), 0).is_none());

        let chosen = found.rule.backend(0, |_| true).unwrap();

        let Some(Answer::Failure(failure)) = chosen.answer(&view("", "/", &()), 0) else {
            panic!("{:?}", chosen.answer(&view("", "/", &()), 0))
        };
        assert_eq!(
            (failure.reason, &*failure.message),
            (Reason::BackendInvalid, expected)
        );
    }
}

/// What `tulle explain` listens with.
#[derive(Default)]
struct Told(Vec<String>);

impl Recorder for Told {
    const ALL: bool = true;

    fn candidate<H: Headers + ?Sized>(
        &mut self,
        candidate: &Candidate<'_>,
        request: &RequestView<'_, H>,
    ) {
        let outcome = match candidate.outcome {
            Outcome::Matched => "matched".into(),
            Outcome::Shadowed => "shadowed".into(),
            _ => format!(
                "not so: {}, saw {}",
                candidate.because().unwrap(),
                candidate.saw(request).unwrap()
            ),
        };
        self.0.push(format!(
            "rule {}: {} → {outcome}",
            candidate.rule.index(),
            candidate.matcher
        ));
    }
}

#[test]
fn a_recorder_is_told_why_each_other_match_did_not_decide() {
    let policy = Policy::compile(&policy(vec![
        route(
            "a",
            &[],
            vec![rule(vec![prefix("/")]), rule(vec![exact("/vote")])],
        ),
        route("b", &["other.com"], vec![rule(vec![prefix("/vote")])]),
        route("c", &[], vec![rule(vec![prefix("/list")])]),
    ]))
    .unwrap();
    let mut told = Told::default();

    let found = policy
        .route_with(HttpVersion::Http1, &view("voting", "/vote", &()), &mut told)
        .unwrap();

    assert_eq!(found.id.index(), 1);
    assert_eq!(
        told.0,
        [
            "rule 1: path is /vote → matched",
            "rule 3: path is at or below /list → not so: path is at or below /list, saw \"/vote\"",
            "rule 0: any path → shadowed",
            "rule 2: path is at or below /vote → not so: host is other.com, saw \"voting\"",
        ]
    );
}

// The naive way.

#[derive(Clone, Copy, PartialEq, PartialOrd)]
struct Score(u8, usize, u8, usize, bool, usize, usize);

fn score(
    host: &str,
    request: &RequestView<'_, Vec<(String, String)>>,
    route: &api::HttpRoute,
    m: &matches::HttpRouteMatch,
) -> Option<Score> {
    let of_host = |pattern: &matches::HostMatch| match pattern.r#match.as_ref()? {
        matches::host_match::Match::Exact(name) => (name == host).then_some((2, 0)),
        matches::host_match::Match::Suffix(suffix) => {
            let labels: Vec<_> = host.rsplit('.').collect();
            let wanted = &suffix.reverse_labels;
            let fits = labels.len() > wanted.len()
                && labels.iter().zip(wanted).all(|(label, want)| label == want);
            fits.then_some((
                1,
                wanted.iter().map(String::len).sum::<usize>() + wanted.len(),
            ))
        }
    };
    let (host_kind, host_length) = if route.hosts.is_empty() {
        (0, 0)
    } else {
        route.hosts.iter().filter_map(of_host).max()?
    };
    let full = std::str::from_utf8(request.path).unwrap();
    let (path, query) = full.split_once('?').unwrap_or((full, ""));
    use matches::path_match::Kind;
    let (path_kind, path_length) = match m.path.as_ref().and_then(|path| path.kind.as_ref()) {
        None => (0, 0),
        Some(Kind::Exact(exact)) => (exact == path).then_some((2, 0))?,
        // The generator's only expression.
        Some(Kind::Regex(_)) => path.starts_with("/a").then_some((1, 0))?,
        Some(Kind::Prefix(prefix)) => {
            let wanted: Vec<_> = prefix.split('/').filter(|part| !part.is_empty()).collect();
            let parts: Vec<_> = path.split('/').skip(1).collect();
            (parts.len() >= wanted.len()
                && wanted.iter().zip(&parts).all(|(want, part)| want == part))
            .then_some((0, prefix.trim_end_matches('/').len()))?
        }
    };
    let method = match m.method.as_ref().and_then(|method| method.r#type.as_ref()) {
        None => false,
        Some(http_types::http_method::Type::Registered(0)) if request.method == b"GET" => true,
        Some(_) => return None,
    };
    for header in &m.headers {
        let Some(matches::header_match::Value::Exact(value)) = &header.value else {
            return None;
        };
        request
            .headers
            .iter()
            .find(|(name, found)| *name == header.name && found.as_bytes() == value)?;
    }
    for param in &m.query_params {
        let Some(matches::query_param_match::Value::Exact(value)) = &param.value else {
            return None;
        };
        query
            .split('&')
            .find(|pair| **pair == format!("{}={value}", param.name))?;
    }
    Some(Score(
        host_kind,
        host_length,
        path_kind,
        path_length,
        method,
        m.headers.len(),
        m.query_params.len(),
    ))
}

fn naive(
    routes: &[api::HttpRoute],
    request: &RequestView<'_, Vec<(String, String)>>,
) -> Option<usize> {
    let host = std::str::from_utf8(request.authority).unwrap();
    let mut best: Option<(Score, usize)> = None;
    let mut number = 0;
    for route in routes {
        for rule in &route.rules {
            let everything = [matches::HttpRouteMatch::default()];
            let all = if rule.matches.is_empty() {
                &everything[..]
            } else {
                &rule.matches
            };
            for m in all {
                let score = score(host, request, route, m);
                if score.is_some() && score > best.as_ref().map(|(known, _)| *known) {
                    best = score.map(|score| (score, number));
                }
            }
            number += 1;
        }
    }
    best.map(|(_, number)| number)
}

fn arbitrary_match() -> impl Strategy<Value = matches::HttpRouteMatch> {
    let paths = prop_oneof![
        2 => "(/[ab]){1,2}".prop_map(|text| exact(&text)),
        4 => "(/[ab]){0,2}/?".prop_filter("absolute", |text| text.starts_with('/')).prop_map(|text| prefix(&text)),
        1 => Just(regex("/a.*")),
        1 => Just(matches::HttpRouteMatch::default()),
    ];
    let headers = proptest::collection::vec(("[xy]", "[12]"), 0..2);
    let query = proptest::collection::vec(("[pq]", "[12]"), 0..2);
    let method = prop_oneof![3 => Just(None), 1 => Just(Some(0)), 1 => Just(Some(1))];
    (paths, headers, query, method).prop_map(|(mut m, headers, query, method)| {
        m.headers = headers
            .into_iter()
            .map(|(name, value)| matches::HeaderMatch {
                name,
                value: Some(matches::header_match::Value::Exact(value.into_bytes())),
            })
            .collect();
        m.query_params = query
            .into_iter()
            .map(|(name, value)| matches::QueryParamMatch {
                name,
                value: Some(matches::query_param_match::Value::Exact(value)),
            })
            .collect();
        m.method = method.map(|number| http_types::HttpMethod {
            r#type: Some(http_types::http_method::Type::Registered(number)),
        });
        m
    })
}

fn arbitrary_route() -> impl Strategy<Value = api::HttpRoute> {
    let hosts = proptest::collection::vec("(\\*\\.)?([uv]\\.)?w", 0..3);
    let rules = proptest::collection::vec(proptest::collection::vec(arbitrary_match(), 0..4), 1..4);
    (hosts, rules).prop_map(|(hosts, rules)| {
        let hosts: Vec<_> = hosts.iter().map(String::as_str).collect();
        route("r", &hosts, rules.into_iter().map(rule).collect())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_table_finds_what_the_naive_way_finds(
        routes in proptest::collection::vec(arbitrary_route(), 0..5),
        host in "([uv]\\.){0,2}[wz]",
        path in "(/[abc]){1,3}(\\?([pq]=[12]&?){0,2})?",
        headers in proptest::collection::vec(("[xy]".prop_map(String::from), "[12]".prop_map(String::from)), 0..3),
    ) {
        let message = policy(routes);
        let compiled = Policy::compile(&message).unwrap();
        prop_assert!(compiled.problems.is_empty(), "{:?}", compiled.problems);
        let Some(api::proxy_protocol::Kind::Http1(http)) = message.protocol.and_then(|p| p.kind) else { panic!() };
        let request = RequestView { method: b"GET", authority: host.as_bytes(), path: path.as_bytes(), headers: &headers };

        let found = compiled.route(HttpVersion::Http1, &request).map(|found| found.id.index());

        prop_assert_eq!(found, naive(&http.routes, &request));
    }
}
