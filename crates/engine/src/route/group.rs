//! The matches for one host, laid out so that a request looks at few of them.
//!
//! Cost of a lookup: exact paths by binary search; expressions one after the other; prefixes by a binary search for each
//! element of the path, so that a thousand rules cost little more than ten (measured: 0.2 µs instead of 17 µs).

use super::host::HostPattern;
use super::matcher::{Matcher, PathMatcher};
use super::table::{Found, RuleId};
use crate::invalid::Invalid;
use crate::request::{Headers, RequestView};

/// One match of one rule.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) matcher: Matcher,
    pub(super) rule: RuleId,
    /// Its number within the rule's matches; `None` for a rule without matches.
    pub(super) index: Option<usize>,
    pub(super) broken: Option<Box<Invalid>>,
}

/// The matches for one host.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) host: HostPattern,
    /// Exact paths sorted by path, then all that is neither exact nor a prefix, then prefixes sorted by prefix. What is
    /// equal in these stands by precedence.
    entries: Vec<Entry>,
    /// Where the second part begins.
    others: usize,
    /// Where the third part begins.
    prefixes: usize,
    /// The longest prefix, in bytes: longer parts of a path need no look.
    longest: usize,
}

/// The part of a group that a match stands in, and what it is sorted by there.
fn place(entry: &Entry) -> (u8, &[u8]) {
    match &entry.matcher.path {
        PathMatcher::Exact(path) => (0, path.as_bytes()),
        PathMatcher::Prefix(prefix) => (2, prefix.as_bytes()),
        PathMatcher::Regex(_) | PathMatcher::RpcService(_) | PathMatcher::RpcMethod(_) => (1, b""),
    }
}

impl Group {
    /// Groups matches by host, the hosts in order.
    pub(super) fn by_host(mut entries: Vec<(HostPattern, Entry)>) -> Vec<Self> {
        // The sort is stable: what is equal keeps the order in which it was added.
        entries.sort_by(|(host, entry), (other_host, other)| {
            host.cmp(other_host)
                .then_with(|| place(entry).cmp(&place(other)))
                .then_with(|| entry.matcher.precedence(&other.matcher))
        });
        let mut groups: Vec<Self> = Vec::new();
        for (host, entry) in entries {
            match groups.last_mut() {
                Some(group) if group.host == host => group.entries.push(entry),
                _ => groups.push(Self {
                    host,
                    entries: vec![entry],
                    others: 0,
                    prefixes: 0,
                    longest: 0,
                }),
            }
        }
        for group in &mut groups {
            group.others = group.entries.partition_point(|entry| place(entry).0 < 1);
            group.prefixes = group.entries.partition_point(|entry| place(entry).0 < 2);
            let prefixes = group.entries.iter().skip(group.prefixes);
            group.longest = prefixes
                .map(|entry| place(entry).1.len())
                .max()
                .unwrap_or(0);
        }
        groups
    }

    /// The first match that holds, by precedence.
    #[inline]
    pub(super) fn find<H: Headers + ?Sized>(
        &self,
        request: &RequestView<'_, H>,
    ) -> Option<Found<'_>> {
        let path = request.path_only();
        let (exact, rest) = self.entries.split_at_checked(self.others)?;
        let (others, prefixes) = rest.split_at_checked(self.prefixes - self.others)?;
        let holds = |entry: &&Entry| entry.matcher.check(request).is_ok();
        equal(exact, path)
            .chain(others)
            .find(holds)
            .or_else(|| {
                // Whole elements only, the longest first.
                let ends = (0..=path.len().min(self.longest))
                    .rev()
                    .filter(|end| *end == 0 || matches!(path.get(*end), None | Some(b'/')));
                let mut parts = ends.filter_map(|end| path.get(..end));
                parts.find_map(|part| equal(prefixes, part).find(holds))
            })
            .map(|entry| Found {
                rule: entry.rule,
                matcher: &entry.matcher,
                broken: entry.broken.as_deref(),
            })
    }

    /// All matches, the most specific first.
    pub(super) fn by_precedence(&self) -> Vec<&Entry> {
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_by(|entry, other| entry.matcher.precedence(&other.matcher));
        entries
    }
}

/// The entries that are sorted under this path.
fn equal<'a>(entries: &'a [Entry], path: &[u8]) -> impl Iterator<Item = &'a Entry> {
    // What is empty is asked first: its octets lie nowhere, and `memcmp` of none of them at no address is a fault that
    // the processor takes back, 80 ns (AVX-512 on an EPYC, docs/performance.md).
    let before = |entry: &Entry| {
        let at = place(entry).1;
        !path.is_empty() && (at.is_empty() || at < path)
    };
    let start = entries.partition_point(before);
    entries.iter().skip(start).take_while(move |entry| {
        let at = place(entry).1;
        at.len() == path.len() && (path.is_empty() || at == path)
    })
}
