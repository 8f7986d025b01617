//! Host names and wildcards, and which of them is more specific.

use std::cmp::Ordering;
use std::fmt;

use tulle_api::http_route as api;
use tulle_api::tls_route;

use crate::invalid::Invalid;

/// Which hosts a route is for. The order is that of precedence: the more specific pattern is the lesser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// This name, in lower case and without a dot at the end.
    Exact(Box<str>),
    /// Names that end so: `.example.com` for `*.example.com`, in lower case.
    Suffix(Box<str>),
    /// Any host, also none.
    Any,
}

impl HostPattern {
    pub(crate) fn http(message: &api::HostMatch) -> Result<Self, Invalid> {
        match &message.r#match {
            None => Err(Invalid::missing("match")),
            Some(api::host_match::Match::Exact(name)) => Self::exact(name),
            Some(api::host_match::Match::Suffix(suffix)) => Self::suffix(&suffix.reverse_labels),
        }
    }

    pub(crate) fn sni(message: &tls_route::SniMatch) -> Result<Self, Invalid> {
        match &message.r#match {
            None => Err(Invalid::missing("match")),
            Some(tls_route::sni_match::Match::Exact(name)) => Self::exact(name),
            Some(tls_route::sni_match::Match::Suffix(suffix)) => {
                Self::suffix(&suffix.reverse_labels)
            }
        }
    }

    fn exact(name: &str) -> Result<Self, Invalid> {
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.is_empty() {
            return Err(Invalid::new("exact", "is empty"));
        }
        Ok(Self::Exact(name.to_ascii_lowercase().into()))
    }

    fn suffix(reverse_labels: &[String]) -> Result<Self, Invalid> {
        // `*.` and the root: a trailing dot is the first, empty label.
        let labels = match reverse_labels.split_first() {
            Some((root, rest)) if root.is_empty() => rest,
            _ => reverse_labels,
        };
        if labels.is_empty() || labels.iter().any(String::is_empty) {
            return Err(Invalid::new(
                "suffix.reverse_labels",
                "has no label or an empty one",
            ));
        }
        let mut suffix = String::new();
        for label in labels.iter().rev() {
            suffix.push('.');
            suffix.push_str(&label.to_ascii_lowercase());
        }
        Ok(Self::Suffix(suffix.into()))
    }

    /// Whether the host (without port and root dot) is meant. A wildcard stands for one label or more.
    #[must_use]
    pub fn matches(&self, host: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => host.eq_ignore_ascii_case(name.as_bytes()),
            Self::Suffix(suffix) => match host.len().checked_sub(suffix.len()) {
                None | Some(0) => false,
                Some(start) => host
                    .get(start..)
                    .is_some_and(|end| end.eq_ignore_ascii_case(suffix.as_bytes())),
            },
        }
    }

    /// How an exact name sorts beside a host; case does not count.
    pub(super) fn compare(&self, host: &[u8]) -> Ordering {
        self.text()
            .bytes()
            .cmp(host.iter().map(u8::to_ascii_lowercase))
    }

    fn rank(&self) -> (u8, usize) {
        match self {
            Self::Exact(_) => (0, 0),
            Self::Suffix(suffix) => (1, usize::MAX - suffix.len()),
            Self::Any => (2, 0),
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Exact(text) | Self::Suffix(text) => text,
            Self::Any => "",
        }
    }
}

/// Exact names by name, then wildcards with the longest first, then any.
impl Ord for HostPattern {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank()
            .cmp(&other.rank())
            .then_with(|| self.text().cmp(other.text()))
    }
}

impl PartialOrd for HostPattern {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
            Self::Any => f.write_str("any host"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suffix(labels: &[&str]) -> HostPattern {
        HostPattern::suffix(&labels.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn a_wildcard_stands_for_at_least_one_label() {
        let pattern = suffix(&["com", "Example"]);

        assert_eq!(pattern.to_string(), "*.example.com");
        for (host, expected) in [
            ("a.example.com", true),
            ("a.b.EXAMPLE.com", true),
            ("example.com", false),
            (".example.com", false),
            ("aexample.com", false),
            ("", false),
        ] {
            assert_eq!(pattern.matches(host.as_bytes()), expected, "{host}");
        }
    }

    #[test]
    fn the_more_specific_pattern_comes_first() {
        let mut patterns = [
            HostPattern::Any,
            suffix(&["com"]),
            suffix(&["com", "a"]),
            HostPattern::exact("z.a.com").unwrap(),
        ];
        patterns.sort();

        let names: Vec<_> = patterns.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["z.a.com", "*.a.com", "*.com", "any host"]);
    }

    #[test]
    fn empty_names_and_labels_are_refused() {
        assert!(HostPattern::exact("").is_err());
        assert!(HostPattern::exact(".").is_err());
        assert!(HostPattern::suffix(&[]).is_err());
        assert!(HostPattern::suffix(&[String::new()]).is_err());
        assert!(HostPattern::http(&api::HostMatch::default()).is_err());
    }
}
