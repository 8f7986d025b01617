//! Tables of single matches.

use super::*;

fn path(kind: http::path_match::Kind) -> PathMatcher {
    PathMatcher::http(&http::PathMatch { kind: Some(kind) }).unwrap()
}

#[test]
fn a_prefix_matches_whole_elements() {
    for (prefix, request, expected) in [
        ("/", "/", true),
        ("/", "/a", true),
        ("/", "*", true),
        ("/a", "/a", true),
        ("/a", "/a/", true),
        ("/a", "/a/b", true),
        ("/a", "/ab", false),
        ("/a", "/", false),
        ("/a/", "/a", true),
        ("/a/", "/a/b", true),
        ("/a/", "/ab", false),
    ] {
        let matcher = path(http::path_match::Kind::Prefix(prefix.into()));
        assert_eq!(
            matcher.matches(request.as_bytes()),
            expected,
            "{prefix} {request}"
        );
    }
}

#[test]
fn an_exact_path_is_compared_byte_for_byte() {
    let matcher = path(http::path_match::Kind::Exact("/a/b".into()));

    assert!(matcher.matches(b"/a/b"));
    for other in ["/a/b/", "/a/%62", "/a//b", "/A/b", "/a/./b"] {
        assert!(!matcher.matches(other.as_bytes()), "{other}");
    }
}

#[test]
fn a_path_in_utf8_is_its_octets_and_neither_their_encoding_nor_another_form_of_the_text() {
    use http::path_match::Kind::{Exact, Prefix, Regex};
    let forms = ["/caf\u{e9}", "/caf%C3%A9", "/cafe\u{301}", "/CAF\u{c9}"];
    for (at, form) in forms.iter().enumerate() {
        for kind in [
            Exact(form.to_string()),
            Prefix(form.to_string()),
            Regex(form.to_string()),
        ] {
            let found = forms.map(|other| path(kind.clone()).matches(other.as_bytes()));
            let mut only = [false; 4];
            only[at] = true;
            assert_eq!(found, only, "{kind:?}");
        }
    }
}

#[test]
fn a_regular_expression_matches_the_whole_path_without_the_query() {
    let message = http::HttpRouteMatch {
        path: Some(http::PathMatch {
            kind: Some(http::path_match::Kind::Regex(r"/v\d+".into())),
        }),
        ..Default::default()
    };
    let matcher = Matcher::http(&message).unwrap();
    let check = |path: &str| {
        let view = RequestView {
            method: b"GET",
            authority: b"",
            path: path.as_bytes(),
            headers: &(),
        };
        matcher.check(&view).is_ok()
    };

    assert!(check("/v12") && check("/v1?x=/v"));
    assert!(!check("/v1/") && !check("/v"));
}

#[test]
fn grpc_calls_are_matched_by_service_and_method() {
    let matcher = |service: &str, method: &str| {
        let rpc = Some(grpc::GrpcRpcMatch {
            service: service.into(),
            method: method.into(),
        });
        Matcher::grpc(&grpc::GrpcRouteMatch {
            rpc,
            headers: Vec::new(),
        })
        .unwrap()
    };
    let check = |matcher: &Matcher, verb: &str, path: &str| {
        let view = RequestView {
            method: verb.as_bytes(),
            authority: b"",
            path: path.as_bytes(),
            headers: &(),
        };
        matcher.check(&view).is_ok()
    };

    for (service, method, path, expected) in [
        ("p.S", "M", "/p.S/M", true),
        ("p.S", "M", "/p.S/N", false),
        ("p.S", "", "/p.S/N", true),
        ("p.S", "", "/p.S", false),
        ("p.S", "", "/p.S/", false),
        ("", "M", "/q.T/M", true),
        ("", "M", "/q.T/M/x", false),
        ("", "", "/q.T/M", true),
    ] {
        assert_eq!(
            check(&matcher(service, method), "POST", path),
            expected,
            "{service}/{method} {path}"
        );
    }
    assert!(
        !check(&matcher("p.S", "M"), "GET", "/p.S/M"),
        "a gRPC call is a POST"
    );
}

#[test]
fn the_first_part_that_fails_is_named() {
    let message = http::HttpRouteMatch {
        path: Some(http::PathMatch {
            kind: Some(http::path_match::Kind::Prefix("/a".into())),
        }),
        method: Some(http_types::HttpMethod {
            r#type: Some(http_types::http_method::Type::Registered(0)),
        }),
        headers: vec![http::HeaderMatch {
            name: "X-User".into(),
            value: Some(http::header_match::Value::Exact(b"anna".to_vec())),
        }],
        query_params: vec![http::QueryParamMatch {
            name: "q".into(),
            value: Some(http::query_param_match::Value::Regex("[0-9]+".into())),
        }],
    };
    let matcher = Matcher::http(&message).unwrap();
    let check = |method: &str, path: &str, user: &str| {
        let headers = [("x-user", user)];
        let view = RequestView {
            method: method.as_bytes(),
            authority: b"",
            path: path.as_bytes(),
            headers: headers.as_slice(),
        };
        matcher
            .check(&view)
            .map_err(|mismatch| mismatch.to_string())
    };

    assert_eq!(check("GET", "/a?q=12", "anna"), Ok(()));
    assert_eq!(
        check("GET", "/b?q=12", "anna").unwrap_err(),
        "path is at or below /a"
    );
    assert_eq!(
        check("PUT", "/a?q=12", "anna").unwrap_err(),
        "method is GET"
    );
    assert_eq!(
        check("GET", "/a?q=12", "bert").unwrap_err(),
        "header x-user is anna"
    );
    assert_eq!(
        check("GET", "/a?q=1b", "anna").unwrap_err(),
        "query parameter q matches [0-9]+"
    );
    assert_eq!(
        matcher.to_string(),
        "path is at or below /a, method is GET, header x-user is anna, query parameter q matches [0-9]+"
    );
}

#[test]
fn what_is_incomplete_or_malformed_is_refused_by_name() {
    let with_path = |kind| http::HttpRouteMatch {
        path: Some(http::PathMatch { kind }),
        ..Default::default()
    };
    let with_header = |name: &str, value| http::HttpRouteMatch {
        headers: vec![http::HeaderMatch {
            name: name.into(),
            value,
        }],
        ..Default::default()
    };
    let with_method = |kind| http::HttpRouteMatch {
        method: Some(http_types::HttpMethod { r#type: kind }),
        ..Default::default()
    };
    use http::path_match::Kind;
    use http_types::http_method::Type;

    for (message, expected) in [
        (with_path(None), "path.kind is missing"),
        (
            with_path(Some(Kind::Exact("a".into()))),
            "path.exact \"a\" does not begin with a slash",
        ),
        (
            with_path(Some(Kind::Prefix(String::new()))),
            "path.prefix \"\" does not begin with a slash",
        ),
        (with_header("x", None), "headers[0].value is missing"),
        (
            with_header("x y", None),
            "headers[0].name \"x y\" is not a header",
        ),
        (
            with_header(":path", None),
            "headers[0].name \":path\" is not a header",
        ),
        (with_method(None), "method.type is missing"),
        (
            with_method(Some(Type::Registered(99))),
            "method.registered 99 is not a method",
        ),
        (
            with_method(Some(Type::Unregistered("A B".into()))),
            "method.unregistered \"A B\" is not a method",
        ),
    ] {
        assert_eq!(Matcher::http(&message).unwrap_err().to_string(), expected);
    }
}
