//! What a request had in place of what a match asked for: the other half of a derivation. Only refused and explained
//! requests come here; it may allocate, and what it keeps of a stranger's text is bounded.

use std::fmt::Write as _;

use super::host::HostPattern;
use super::matcher::Mismatch;
use super::query;
use crate::request::{Headers, RequestView};

/// Values of one field or parameter that are shown.
const MOST: usize = 3;
/// Bytes of a value, path or host that are shown.
const LONGEST: usize = 96;
/// What stands for a value that may be a secret.
pub(super) const HIDDEN: &str = "a value that is not shown";

/// Whether what a field or parameter of this name carries lets whoever reads it in somewhere.
#[must_use]
pub fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    [
        "auth",
        "cookie",
        "token",
        "secret",
        "password",
        "passwd",
        "session",
        "credential",
        "signature",
        "key",
    ]
    .iter()
    .any(|word| name.contains(word))
}

impl Mismatch<'_> {
    /// What the request has there: `"/vote"`, `GET`, `"1" and "2"`, `nothing`.
    pub fn saw<H: Headers + ?Sized>(&self, request: &RequestView<'_, H>) -> String {
        match self {
            Self::Path(_) => quoted(request.path_only()),
            Self::Method(_) => quoted(request.method),
            Self::Header(name, _) => values(name, |each| {
                request.headers.any(name, &mut |value| each(value));
            }),
            Self::Query(name, _) => values(name, |each| {
                query::any(request.query(), name.as_bytes(), &mut |value| each(value));
            }),
        }
    }
}

impl HostPattern {
    /// Which host the request is for instead.
    pub fn saw<H: Headers + ?Sized>(&self, request: &RequestView<'_, H>) -> String {
        quoted(request.host())
    }
}

/// Shows what `visit` passes to its argument, which says whether it has seen enough.
fn values(name: &str, visit: impl FnOnce(&mut dyn FnMut(&[u8]) -> bool)) -> String {
    let (mut text, mut count) = (String::new(), 0);
    visit(&mut |value| {
        count += 1;
        if count <= MOST {
            let and = if count > 1 { " and " } else { "" };
            let _infallible = write!(text, "{and}{}", quoted(value));
        }
        false
    });
    match count {
        0 => "nothing".to_owned(),
        _ if is_secret(name) => HIDDEN.to_owned(),
        _ if count > MOST => format!("{text} and {} more", count - MOST),
        _ => text,
    }
}

fn quoted(text: &[u8]) -> String {
    let shown = text.get(..LONGEST).unwrap_or(text);
    let more = if shown.len() < text.len() { "…" } else { "" };
    format!("\"{}\"{more}", shown.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Matcher;
    use tulle_api::http_route as http;

    fn saw(
        matcher: &http::HttpRouteMatch,
        path: &str,
        headers: &[(&str, &str)],
    ) -> (String, String) {
        let headers: Vec<_> = headers.to_vec();
        let request = RequestView {
            method: b"GET",
            authority: b"voting",
            path: path.as_bytes(),
            headers: &headers,
        };
        let matcher = Matcher::http(matcher).expect("a match");
        let mismatch = matcher.check(&request).expect_err("a mismatch");
        (mismatch.to_string(), mismatch.saw(&request))
    }

    fn header(name: &str, value: &str) -> http::HttpRouteMatch {
        http::HttpRouteMatch {
            headers: vec![http::HeaderMatch {
                name: name.to_owned(),
                value: Some(http::header_match::Value::Exact(value.into())),
            }],
            ..Default::default()
        }
    }

    fn parameter(name: &str) -> http::HttpRouteMatch {
        http::HttpRouteMatch {
            query_params: vec![http::QueryParamMatch {
                name: name.to_owned(),
                value: Some(http::query_param_match::Value::Exact("2".to_owned())),
            }],
            ..Default::default()
        }
    }

    fn path(path: &str) -> http::HttpRouteMatch {
        http::HttpRouteMatch {
            path: Some(http::PathMatch {
                kind: Some(http::path_match::Kind::Exact(path.to_owned())),
            }),
            ..Default::default()
        }
    }

    #[test]
    fn each_part_says_what_was_wanted_and_what_was_seen() {
        let v = header("x-v", "2");
        for (matcher, target, headers, wanted, seen) in [
            (&v, "/", &[("x-v", "1")][..], "header x-v is 2", "\"1\""),
            (&v, "/", &[], "header x-v is 2", "nothing"),
            (
                &v,
                "/",
                &[("x-v", "1"), ("x-v", "3")],
                "header x-v is 2",
                "\"1\" and \"3\"",
            ),
            (&path("/a"), "/b?c", &[], "path is /a", "\"/b\""),
            (
                &parameter("v"),
                "/?v=1&w=2",
                &[],
                "query parameter v is 2",
                "\"1\"",
            ),
        ] {
            let expected = (wanted.to_owned(), seen.to_owned());
            assert_eq!(saw(matcher, target, headers), expected);
        }
    }

    #[test]
    fn what_may_be_a_secret_is_not_shown_on_either_side() {
        for name in [
            "authorization",
            "Cookie",
            "x-api-key",
            "proxy-authorization",
            "x-csrf-token",
        ] {
            let lower = name.to_ascii_lowercase();
            let (wanted, seen) = saw(&header(name, "Bearer good"), "/", &[(&lower, "Bearer bad")]);
            assert_eq!(seen, HIDDEN, "{name}");
            assert!(!wanted.contains("good"), "{wanted}");
            assert_eq!(
                saw(&header(name, "x"), "/", &[]).1,
                "nothing",
                "that it is not there is no secret"
            );
        }
        assert_eq!(
            saw(&parameter("access_token"), "/?access_token=1", &[]).1,
            HIDDEN
        );
    }

    #[test]
    fn a_strangers_text_is_bounded_and_printable() {
        let long = "y".repeat(5_000);
        let headers: Vec<_> = (0..100).map(|_| ("x-v", long.as_str())).collect();
        let (_, seen) = saw(&header("x-v", "2"), "/", &headers);
        assert!(seen.ends_with(" and 97 more") && seen.len() < 400, "{seen}");
        let (_, seen) = saw(&header("x-v", "2"), "/", &[("x-v", "\u{1b}[31m\"\u{e9}")]);
        assert!(seen.is_ascii() && !seen.contains('\u{1b}'), "{seen}");
    }
}
