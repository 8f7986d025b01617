//! The routes of a policy, ordered so that the first hit is the best hit.
//!
//! Cost of a lookup: no allocation; hosts by binary search for exact names, then the few wildcards; paths as `group`
//! says. The tests hold it against the naive way, which weighs every match of every rule.

use super::group::{Entry, Group};
use super::host::HostPattern;
use super::matcher::{Matcher, Mismatch};
use crate::invalid::Invalid;
use crate::request::{Headers, RequestView};

/// A rule of a policy: an index into its `rules`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(u32);

impl RuleId {
    /// The rule at this place of the policy's `rules`.
    #[must_use]
    pub fn new(index: usize) -> Self {
        Self(u32::try_from(index).unwrap_or(u32::MAX))
    }

    /// The place in the policy's `rules`; dense from 0, so that a caller may keep a table of its own beside it.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What matched.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The rule.
    pub rule: RuleId,
    /// The match of it that holds; the length of its prefix is what a redirect replaces.
    pub matcher: &'a Matcher,
    /// Why the match could not be read, when it could not: the request is to be failed.
    pub broken: Option<&'a Invalid>,
}

/// Is told of every match that a lookup weighs. `()` listens to nothing and costs nothing.
pub trait Recorder {
    /// Whether the lookup is to go on after the first hit, so that all matches are told.
    const ALL: bool;

    /// One match, in the order of precedence; those for other hosts come last. What the request has in place of what
    /// a match asks for is told by [`Candidate::saw`].
    fn candidate<H: Headers + ?Sized>(
        &mut self,
        candidate: &Candidate<'_>,
        request: &RequestView<'_, H>,
    );
}

impl Recorder for () {
    const ALL: bool = false;

    #[inline]
    fn candidate<H: Headers + ?Sized>(
        &mut self,
        _candidate: &Candidate<'_>,
        _request: &RequestView<'_, H>,
    ) {
    }
}

/// One match and what became of it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The rule it belongs to.
    pub rule: RuleId,
    /// Its number within the rule's matches; `None` for a rule without matches.
    pub index: Option<usize>,
    /// The host it is for.
    pub host: &'a HostPattern,
    /// What it asks.
    pub matcher: &'a Matcher,
    /// What became of it.
    pub outcome: Outcome<'a>,
}

impl Candidate<'_> {
    /// What does not hold, in words: `header x-v is 2`; `None` when all does.
    #[must_use]
    pub fn because(&self) -> Option<String> {
        match self.outcome {
            Outcome::Matched | Outcome::Shadowed => None,
            Outcome::WrongHost => Some(format!("host is {}", self.host)),
            Outcome::Mismatch(mismatch) => Some(mismatch.to_string()),
        }
    }

    /// What the request has there instead: `"1"`. Bounded, printable, and never what may be a secret.
    pub fn saw<H: Headers + ?Sized>(&self, request: &RequestView<'_, H>) -> Option<String> {
        match self.outcome {
            Outcome::Matched | Outcome::Shadowed => None,
            Outcome::WrongHost => Some(self.host.saw(request)),
            Outcome::Mismatch(mismatch) => Some(mismatch.saw(request)),
        }
    }
}

/// What became of a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// It decides.
    Matched,
    /// It holds, but a more specific or earlier one decided.
    Shadowed,
    /// The request is for another host.
    WrongHost,
    /// This part does not hold.
    Mismatch(Mismatch<'a>),
}

impl Outcome<'_> {
    /// In one word: `matched`, `shadowed`, `wrong-host` or `mismatch`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Matched => "matched",
            Self::Shadowed => "shadowed",
            Self::WrongHost => "wrong-host",
            Self::Mismatch(_) => "mismatch",
        }
    }
}

/// Compiled routes.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Matches that cannot be read and stand before all others.
    before: Vec<Group>,
    /// Exact hosts, sorted by name.
    exact: Vec<Group>,
    /// The other hosts, the most specific first.
    wide: Vec<Group>,
    /// Matches that cannot be read and stand behind all others.
    after: Vec<Group>,
}

impl Table {
    /// The rule for the request.
    #[inline]
    pub fn find<H: Headers + ?Sized>(&self, request: &RequestView<'_, H>) -> Option<Found<'_>> {
        let host = request.host();
        let named = self
            .exact
            .binary_search_by(|group| group.host.compare(host))
            .ok();
        let meant = |group: &&Group| group.host.matches(host);
        self.before
            .iter()
            .filter(meant)
            .chain(named.and_then(|index| self.exact.get(index)))
            .chain(self.wide.iter().filter(meant))
            .chain(self.after.iter().filter(meant))
            .find_map(|group| group.find(request))
    }

    /// The same, telling a recorder of what was weighed.
    pub fn find_with<H: Headers + ?Sized, R: Recorder>(
        &self,
        request: &RequestView<'_, H>,
        recorder: &mut R,
    ) -> Option<Found<'_>> {
        let found = self.find(request);
        if !R::ALL {
            return found;
        }
        let host = request.host();
        let of_host = |is_meant| {
            let groups = self.groups();
            groups.filter(move |group: &&Group| group.host.matches(host) == is_meant)
        };
        for (is_meant, group) in of_host(true)
            .map(|group| (true, group))
            .chain(of_host(false).map(|group| (false, group)))
        {
            for entry in group.by_precedence() {
                let outcome = if !is_meant {
                    Outcome::WrongHost
                } else {
                    match entry.matcher.check(request) {
                        Err(mismatch) => Outcome::Mismatch(mismatch),
                        Ok(())
                            if found.is_some_and(|found| {
                                std::ptr::eq(found.matcher, &entry.matcher)
                            }) =>
                        {
                            Outcome::Matched
                        }
                        Ok(()) => Outcome::Shadowed,
                    }
                };
                let candidate = Candidate {
                    rule: entry.rule,
                    index: entry.index,
                    host: &group.host,
                    matcher: &entry.matcher,
                    outcome,
                };
                recorder.candidate(&candidate, request);
            }
        }
        found
    }

    /// Whether there is no route at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups().next().is_none()
    }

    fn groups(&self) -> impl Iterator<Item = &Group> {
        [&self.before, &self.exact, &self.wide, &self.after]
            .into_iter()
            .flatten()
    }
}

/// Where a match that cannot be read stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BrokenMatch {
    /// Behind all others: it fails what nothing else takes, and harms no other route. For outbound traffic.
    Last,
    /// Before all others: what it was to protect stays closed. For inbound traffic.
    First,
}

/// The hosts of one route.
#[derive(Clone, Debug)]
pub(crate) struct Hosts {
    patterns: Vec<HostPattern>,
    broken: Option<Invalid>,
}

impl Hosts {
    pub(crate) fn broken(&self) -> Option<&Invalid> {
        self.broken.as_ref()
    }

    /// Reads each; none at all means any host.
    pub(crate) fn compile(
        patterns: impl ExactSizeIterator<Item = Result<HostPattern, Invalid>>,
    ) -> Self {
        if patterns.len() == 0 {
            return Self {
                patterns: vec![HostPattern::Any],
                broken: None,
            };
        }
        let mut hosts = Self {
            patterns: Vec::new(),
            broken: None,
        };
        for (index, pattern) in patterns.enumerate() {
            match pattern {
                Ok(pattern) => hosts.patterns.push(pattern),
                Err(error) => hosts.broken = Some(error.under(format!("hosts[{index}]"))),
            }
        }
        hosts
    }
}

/// Collects matches, in the order in which rules are preferred when all else is equal.
pub(crate) struct TableBuilder {
    place: BrokenMatch,
    sound: Vec<(HostPattern, Entry)>,
    broken: Vec<(HostPattern, Entry)>,
}

impl TableBuilder {
    pub(crate) fn new(place: BrokenMatch) -> Self {
        Self {
            place,
            sound: Vec::new(),
            broken: Vec::new(),
        }
    }

    /// Adds a rule under each of the hosts; without any match it takes everything. What cannot be read is returned.
    pub(crate) fn rule(
        &mut self,
        hosts: &Hosts,
        rule: RuleId,
        matches: impl ExactSizeIterator<Item = Result<Matcher, Invalid>>,
    ) -> Vec<Invalid> {
        let mut errors = Vec::new();
        if matches.len() == 0 {
            self.add(
                hosts,
                Entry {
                    matcher: Matcher::everything(),
                    rule,
                    index: None,
                    broken: None,
                },
            );
        }
        for (index, matcher) in matches.enumerate() {
            let (matcher, broken) = match matcher {
                Ok(matcher) => (matcher, None),
                Err(error) => {
                    let error = error.under(format!("matches[{index}]"));
                    errors.push(error.clone());
                    (Matcher::everything(), Some(Box::new(error)))
                }
            };
            self.add(
                hosts,
                Entry {
                    matcher,
                    rule,
                    index: Some(index),
                    broken,
                },
            );
        }
        errors
    }

    fn add(&mut self, hosts: &Hosts, entry: Entry) {
        let list = if entry.broken.is_some() {
            &mut self.broken
        } else {
            &mut self.sound
        };
        list.extend(
            hosts
                .patterns
                .iter()
                .map(|host| (host.clone(), entry.clone())),
        );
        if let Some(error) = &hosts.broken {
            let broken = Some(entry.broken.unwrap_or_else(|| Box::new(error.clone())));
            self.broken
                .push((HostPattern::Any, Entry { broken, ..entry }));
        }
    }

    pub(crate) fn build(self) -> Table {
        let mut exact = Group::by_host(self.sound);
        let wide = exact
            .split_off(exact.partition_point(|group| matches!(group.host, HostPattern::Exact(_))));
        let broken = Group::by_host(self.broken);
        let (before, after) = match self.place {
            BrokenMatch::First => (broken, Vec::new()),
            BrokenMatch::Last => (Vec::new(), broken),
        };
        Table {
            before,
            exact,
            wide,
            after,
        }
    }
}
