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
