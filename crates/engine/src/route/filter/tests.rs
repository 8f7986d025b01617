//! Tables of filters.

use super::failure::Ratio;
use super::*;
use crate::route::matcher::{Matcher, PathMatcher};
use tulle_api::http_types;

fn redirect(message: api::RequestRedirect) -> Redirect {
    Redirect::compile(&message).unwrap()
}

fn matched_by_prefix(prefix: &str) -> Matcher {
    let mut matcher = Matcher::everything();
    matcher.path = PathMatcher::Prefix(prefix.into());
    matcher
}

#[test]
fn a_redirect_keeps_what_it_does_not_replace() {
    let none = Matcher::everything();
    for (message, authority, path, expected) in [
        (
            api::RequestRedirect::default(),
            "a.com:8080",
            "/x?q=1",
            "http://a.com:8080/x?q=1",
        ),
        (
            api::RequestRedirect {
                host: "b.com".into(),
                ..Default::default()
            },
            "a.com:8080",
            "/x",
            "http://b.com:8080/x",
        ),
        (
            api::RequestRedirect {
                port: 80,
                ..Default::default()
            },
            "a.com:8080",
            "/",
            "http://a.com/",
        ),
        (
            api::RequestRedirect {
                port: 81,
                ..Default::default()
            },
            "[::1]",
            "/",
            "http://[::1]:81/",
        ),
    ] {
        assert_eq!(
            redirect(message)
                .location("http", authority, path, &none)
                .unwrap(),
            expected
        );
    }
}

#[test]
fn a_new_scheme_means_its_own_port() {
    let message = api::RequestRedirect {
        scheme: Some(http_types::Scheme {
            r#type: Some(http_types::scheme::Type::Registered(1)),
        }),
        ..Default::default()
    };

    let location = redirect(message).location("http", "a.com:8080", "/x", &Matcher::everything());

    assert_eq!(location.unwrap(), "https://a.com/x");
}

#[test]
fn a_prefix_is_replaced_only_where_a_prefix_matched() {
    let change = |replacement: &str| {
        redirect(api::RequestRedirect {
            path: Some(api::PathModifier {
                replace: Some(api::path_modifier::Replace::Prefix(replacement.into())),
            }),
            ..Default::default()
        })
    };

    for (prefix, replacement, path, expected) in [
        ("/foo", "/bar", "/foo/x?q", "http://a/bar/x?q"),
        ("/foo", "/bar/", "/foo/x", "http://a/bar/x"),
        ("/foo", "/", "/foo/x", "http://a/x"),
        ("/foo", "/", "/foo", "http://a/"),
        ("/foo", "/bar", "/foo", "http://a/bar"),
        ("", "/bar", "/x", "http://a/bar/x"),
    ] {
        let location = change(replacement).location("http", "a", path, &matched_by_prefix(prefix));
        assert_eq!(location.unwrap(), expected, "{prefix} {replacement} {path}");
    }
    let mut exact = Matcher::everything();
    exact.path = PathMatcher::Exact("/foo".into());
    assert_eq!(change("/bar").location("http", "a", "/foo", &exact), None);
}

#[test]
fn a_ratio_takes_its_share_of_all_numbers() {
    let third = Ratio::compile(Some(&api::Ratio {
        numerator: 1,
        denominator: 3,
    }))
    .unwrap();
    let step = u64::MAX / 3000;

    let included = (0..3000_u64)
        .filter(|index| third.includes(index * step))
        .count();

    assert!((995..=1005).contains(&included), "{included}");
    assert!(Ratio::ALL.includes(u64::MAX));
    let none = Ratio::compile(Some(&api::Ratio {
        numerator: 0,
        denominator: 3,
    }))
    .unwrap();
    assert!(!none.includes(0));
}

#[test]
fn what_would_split_or_frame_a_message_is_refused() {
    let set = |name: &str, value: &str| {
        let header = http_types::headers::Header {
            name: name.into(),
            value: value.as_bytes().to_vec(),
        };
        Filter::request_headers(&api::RequestHeaderModifier {
            set: Some(http_types::Headers {
                headers: vec![header],
            }),
            ..Default::default()
        })
    };

    assert!(set("X-Version", "1").is_ok());
    for (name, value) in [
        ("", "1"),
        ("x y", "1"),
        (":path", "/"),
        ("x", "a\r\nb: c"),
        ("x", "a\0"),
        ("x", " a"),
        ("Content-Length", "1"),
        ("transfer-encoding", "chunked"),
        ("connection", "close"),
    ] {
        assert!(set(name, value).is_err(), "{name}: {value:?}");
    }
}

#[test]
fn statuses_that_are_none_are_refused() {
    let http = |status| {
        Filter::http_failure(&api::HttpFailureInjector {
            status,
            ..Default::default()
        })
    };
    let grpc = |code| {
        Filter::grpc_failure(&grpc_route::GrpcFailureInjector {
            code,
            ..Default::default()
        })
    };

    assert!(http(503).is_ok() && http(0).is_err() && http(100).is_err() && http(600).is_err());
    assert!(grpc(14).is_ok() && grpc(0).is_err() && grpc(17).is_err());
    assert!(
        Redirect::compile(&api::RequestRedirect {
            status: 200,
            ..Default::default()
        })
        .is_err()
    );
}

fn request<'a>(
    method: &'a str,
    headers: &'a [(&'a str, &'a str)],
) -> RequestView<'a, [(&'a str, &'a str)]> {
    RequestView {
        method: method.as_bytes(),
        authority: b"a",
        path: b"/",
        headers,
    }
}

#[test]
fn a_path_is_rewritten_as_the_gateway_api_says() {
    let prefix = |text: &str| PathChange::Prefix(text.into());
    let full = |text: &str| PathChange::Full(text.into());
    for (path, matched, change, expected) in [
        ("/foo/bar", "/foo", prefix("/xyz"), "/xyz/bar"),
        ("/foo/bar", "/foo", prefix("/xyz/"), "/xyz/bar"),
        ("/foo", "/foo", prefix("/xyz"), "/xyz"),
        ("/foo/", "/foo", prefix("/xyz"), "/xyz/"),
        ("/foo/bar", "/foo", prefix(""), "/bar"),
        ("/foo/", "/foo", prefix(""), "/"),
        ("/foo", "/foo", prefix(""), "/"),
        ("/foo/", "/foo", prefix("/"), "/"),
        ("/foo", "/foo", prefix("/"), "/"),
        ("/foo?a=/foo", "/foo", prefix("/x"), "/x?a=/foo"),
        ("/foo/bar?a", "/foo", full("/x"), "/x?a"),
        ("/bar", "", prefix("/x"), "/x/bar"),
    ] {
        let mut out = Vec::new();
        let now = change.apply(path.as_bytes(), Some(matched.len()), &mut out);
        assert!(now.is_some_and(|length| length <= out.len()));
        assert_eq!(
            String::from_utf8(out).unwrap(),
            expected,
            "{path} {change:?}"
        );
    }
    let mut out = b"kept".to_vec();
    assert_eq!(prefix("/x").apply(b"/foo", None, &mut out), None);
    assert_eq!(out, b"kept");
    assert!(full("/x").apply(b"/foo", None, &mut out).is_some());
}

fn cors(change: impl FnOnce(&mut api::Cors)) -> Result<Cors, Invalid> {
    use api::cors::{OriginMatch, origin_match::Kind};
    let origin = Kind::Exact("https://shop.example".into());
    let mut message = api::Cors {
        allow_origins: vec![OriginMatch { kind: Some(origin) }],
        ..Default::default()
    };
    change(&mut message);
    Cors::compile(&message)
}

fn origin(kind: api::cors::origin_match::Kind) -> Vec<api::cors::OriginMatch> {
    vec![api::cors::OriginMatch { kind: Some(kind) }]
}

#[test]
fn origins_are_taken_whole() {
    use api::cors::origin_match::Kind;
    let wild = |text: &str| {
        cors(|message| message.allow_origins = origin(Kind::Wildcard(text.into()))).unwrap()
    };
    let exact = cors(|_| {}).unwrap();
    for (cors, name, granted) in [
        (&exact, "https://shop.example", true),
        (&exact, "https://SHOP.example", true),
        (&exact, "http://shop.example", false),
        (&exact, "https://shop.example.evil", false),
        (&exact, "https://shop.example:8443", false),
        (&exact, "null", false),
        (&exact, "", false),
        (&wild("https://*.example"), "https://a.b.example", true),
        (&wild("https://*.example"), "https://example", false),
        (&wild("https://*.example"), "https://.example", false),
        (&wild("https://*.example"), "https://evil/.example", false),
        (&wild("https://*.example"), "https://evil@a.example", false),
        (&wild("https://*.example"), "https://a.example:80", false),
        (&wild("https://*.example:80"), "https://a.example:80", true),
    ] {
        let is = cors.grant(name.as_bytes()) == CorsGrant::Origin;
        assert_eq!(is, granted, "{cors:?} {name}");
    }
    for kind in [
        Kind::Exact("shop.example".into()),
        Kind::Exact("https://*.example".into()),
        Kind::Exact("https://a/b".into()),
        Kind::Wildcard("*.example".into()),
        Kind::Wildcard("*://a.example".into()),
        Kind::Wildcard("https://*example".into()),
        Kind::Wildcard("https://*.*.example".into()),
    ] {
        assert!(
            cors(|message| message.allow_origins = origin(kind.clone())).is_err(),
            "{kind:?}"
        );
    }
    assert!(cors(|message| message.allow_origins.clear()).is_err());
}

#[test]
fn credentials_take_the_star_away() {
    use api::cors::origin_match::Kind;
    let star = |credentials| {
        cors(|message| {
            message.allow_origins = origin(Kind::Exact("*".into()));
            message.allow_credentials = credentials;
            message.allow_methods = vec!["*".into()];
            message.allow_headers = vec!["*".into()];
        })
        .unwrap()
    };
    let told = |cors: &Cors| {
        let mut told = Vec::new();
        cors.preflight(b"https://a", b"PUT", b"x-a, x-b", &mut |name, value| {
            told.push(format!("{name}: {}", String::from_utf8_lossy(value)));
        });
        told
    };

    assert_eq!(
        told(&star(false)),
        [
            "access-control-allow-origin: *",
            "access-control-allow-methods: PUT",
            "access-control-allow-headers: x-a, x-b",
        ]
    );
    assert_eq!(
        told(&star(true)),
        [
            "access-control-allow-origin: https://a",
            "access-control-allow-credentials: true",
            "access-control-allow-methods: PUT",
            "access-control-allow-headers: x-a, x-b",
        ]
    );
    assert!(!star(false).varies() && star(true).varies());
}

#[test]
fn a_preflight_is_answered_before_faults_and_redirects() {
    let filters = [
        Filter::fail(Reason::FaultInjected, "down"),
        Filter::Cors(Arc::new(cors(|_| {}).unwrap())),
    ];
    let fields = [
        ("origin", "https://shop.example"),
        ("access-control-request-method", "PUT"),
    ];
    let reason = |method| {
        answer(&filters, &request(method, &fields), 0)
            .unwrap()
            .reason()
    };

    assert_eq!(reason("OPTIONS"), Reason::Preflight);
    assert_eq!(reason("GET"), Reason::FaultInjected);
}

#[test]
fn delay_and_abort_of_one_fault_draw_apart() {
    let half = Some(api::Ratio {
        numerator: 1,
        denominator: 2,
    });
    let filters = [Filter::fault(&api::FaultInjector {
        headers: Vec::new(),
        delay: Some(api::fault_injector::Delay {
            duration: Some(prost_types::Duration {
                seconds: 1,
                nanos: 0,
            }),
            ratio: half,
        }),
        abort: Some(api::fault_injector::Abort {
            http_status: 503,
            ratio: half,
            ..Default::default()
        }),
    })
    .unwrap()];
    let mut seen = [0; 4];
    for step in 0..4000_u64 {
        let random = step.wrapping_mul(0xd134_2543_de82_ef95);
        let request = request("GET", &[]);
        let delayed = delay(&filters, &request, random).is_some();
        let aborted = answer(&filters, &request, random).is_some();
        seen[usize::from(delayed) * 2 + usize::from(aborted)] += 1;
    }

    assert!(
        seen.iter().all(|count| (900..=1100).contains(count)),
        "{seen:?}"
    );
}

#[test]
fn statuses_are_mapped_for_the_callers_of_the_other_protocol() {
    let abort = |http_status, grpc_code| {
        let fault = Fault::compile(&api::FaultInjector {
            abort: Some(api::fault_injector::Abort {
                http_status,
                grpc_code,
                ..Default::default()
            }),
            ..Default::default()
        });
        fault.map(|fault| {
            let abort = fault.abort.unwrap();
            (abort.http_status.unwrap(), abort.grpc_status.unwrap())
        })
    };

    for (http, grpc, expected) in [
        (503, 0, (503, 14)),
        (429, 0, (429, 14)),
        (418, 0, (418, 2)),
        (0, 8, (429, 8)),
        (0, 4, (504, 4)),
        (500, 7, (500, 7)),
    ] {
        assert_eq!(abort(http, grpc), Ok(expected));
    }
    assert!(abort(0, 0).is_err() && abort(99, 0).is_err() && abort(0, 17).is_err());
    assert!(Fault::compile(&api::FaultInjector::default()).is_err());
}

#[test]
fn what_is_the_meshs_own_is_refused_by_name() {
    let remove = |name: &str| {
        Filter::request_headers(&api::RequestHeaderModifier {
            remove: vec![name.into()],
            ..Default::default()
        })
    };

    for name in [
        "l5d-client-id",
        "L5D-Dst-Override",
        "tulle-reason",
        "upgrade",
    ] {
        let error = remove(name).unwrap_err().to_string();
        assert!(error.contains(&name.to_ascii_lowercase()), "{error}");
    }
    assert_eq!(
        remove("host").unwrap_err().to_string(),
        "request_header_modifier \"host\" can only be set"
    );
}
