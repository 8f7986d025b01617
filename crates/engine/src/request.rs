//! What the engine is told of a request: borrowed views, never copies.

/// A request's head as the routes see it. All of it is borrowed; the path is matched as the bytes that go on.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a, H: Headers + ?Sized> {
    /// As in the request line: `GET`.
    pub method: &'a [u8],
    /// `Host` or `:authority`, with or without a port; empty when there is none.
    pub authority: &'a [u8],
    /// Path and query: `/api/vote?choice=:doughnut:`.
    pub path: &'a [u8],
    /// The header fields.
    pub headers: &'a H,
}

/// Header fields by name.
pub trait Headers {
    /// Whether some field named `name` (in lower case) has a value that passes. Each value is tested by itself: values
    /// are never joined, so that nobody can hide one value behind another.
    fn any(&self, name: &str, test: &mut dyn FnMut(&[u8]) -> bool) -> bool;
}

/// No headers at all.
impl Headers for () {
    fn any(&self, _name: &str, _test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        false
    }
}

/// A list of fields, in order.
impl<N: AsRef<[u8]>, V: AsRef<[u8]>> Headers for [(N, V)] {
    fn any(&self, name: &str, test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.iter().any(|(field, value)| {
            field.as_ref().eq_ignore_ascii_case(name.as_bytes()) && test(value.as_ref())
        })
    }
}

impl<N: AsRef<[u8]>, V: AsRef<[u8]>> Headers for Vec<(N, V)> {
    fn any(&self, name: &str, test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.as_slice().any(name, test)
    }
}

impl<'a> RequestView<'a, ()> {
    /// A connection that is not looked into: all that is known of it is the server name of its TLS hello, if any.
    #[must_use]
    pub fn connection(server_name: &'a [u8]) -> Self {
        Self {
            method: b"",
            authority: server_name,
            path: b"",
            headers: &(),
        }
    }
}

impl<'a, H: Headers + ?Sized> RequestView<'a, H> {
    /// The authority without its port and without a dot at the end.
    #[must_use]
    pub fn host(&self) -> &'a [u8] {
        host_of(self.authority)
    }

    /// The path without the query.
    #[must_use]
    pub fn path_only(&self) -> &'a [u8] {
        self.split_path().0
    }

    /// What follows the first `?`; empty when there is none.
    #[must_use]
    pub fn query(&self) -> &'a [u8] {
        self.split_path().1
    }

    fn split_path(&self) -> (&'a [u8], &'a [u8]) {
        let mut parts = self.path.splitn(2, |byte| *byte == b'?');
        (
            parts.next().unwrap_or_default(),
            parts.next().unwrap_or_default(),
        )
    }
}

/// `[::1]:80` → `::1`, `Voting.default.:80` → `Voting.default`.
pub(crate) fn host_of(authority: &[u8]) -> &[u8] {
    if let Some(rest) = authority.strip_prefix(b"[") {
        return rest.split(|byte| *byte == b']').next().unwrap_or_default();
    }
    let host = authority
        .split(|byte| *byte == b':')
        .next()
        .unwrap_or_default();
    host.strip_suffix(b".").unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_comes_without_port_brackets_and_root_dot() {
        for (authority, host) in [
            ("voting", "voting"),
            ("voting:80", "voting"),
            ("voting.default.:80", "voting.default"),
            ("[::1]:80", "::1"),
            ("[::1", "::1"),
            ("", ""),
            (":80", ""),
        ] {
            assert_eq!(
                host_of(authority.as_bytes()),
                host.as_bytes(),
                "{authority}"
            );
        }
    }

    #[test]
    fn the_query_begins_at_the_first_question_mark() {
        let view = |path: &'static str| RequestView {
            method: b"GET",
            authority: b"",
            path: path.as_bytes(),
            headers: &(),
        };

        assert_eq!(view("/a?b?c").path_only(), b"/a");
        assert_eq!(view("/a?b?c").query(), b"b?c");
        assert_eq!(view("/a").query(), b"");
    }

    #[test]
    fn every_value_of_a_repeated_header_is_tested_by_itself() {
        let headers = vec![("x", "1"), ("X", "2"), ("y", "3")];
        let has = |name, value: &str| headers.any(name, &mut |found| found == value.as_bytes());

        assert!(has("x", "1") && has("x", "2"));
        assert!(!has("x", "1,2") && !has("x", "3"));
    }
}
