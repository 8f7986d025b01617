//! Collects values from the environment and every problem on the way, so that one start reports them all.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::table::{NOT_CARRIED_OUT, Variable, WITHOUT_EFFECT};
use super::values::{self, Parsed};

/// The environment: names and values.
pub type Environment = BTreeMap<String, String>;

/// One value that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The variable.
    pub name: String,
    /// What was found; `None` when it is missing.
    pub found: Option<String>,
    /// Why it cannot be used.
    pub why: String,
    /// What to set instead.
    pub accepted: String,
}

/// All values that cannot be used. Its text is what the operator reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        writeln!(
            f,
            "tulle-proxy cannot start: {count} environment variable{} cannot be used.",
            if count == 1 { "" } else { "s" }
        )?;
        for problem in &self.0 {
            match &problem.found {
                Some(found) => writeln!(f, "  {} is {found:?}: {}.", problem.name, problem.why)?,
                None => writeln!(f, "  {} is not set: {}.", problem.name, problem.why)?,
            }
            writeln!(f, "    accepted: {}", problem.accepted)?;
        }
        write!(f, "`tulle-proxy --help` explains every variable.")
    }
}

impl std::error::Error for Problems {}

/// Longest part of a bad value that is shown.
const SHOWN: usize = 80;

/// Reads variables. Typed getters return a harmless placeholder for a bad value and note the problem; the caller
/// checks [`Reader::finish`] before it uses anything.
#[derive(Debug)]
pub struct Reader<'a> {
    environment: &'a Environment,
    problems: RefCell<Vec<Problem>>,
    read: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Reader<'a> {
    /// A reader of this environment.
    pub fn new(environment: &'a Environment) -> Self {
        Self {
            environment,
            problems: RefCell::default(),
            read: RefCell::default(),
        }
    }

    /// The value as set; an empty one counts as unset, since injectors template empty strings.
    pub fn raw(&self, name: &str) -> Option<&'a str> {
        self.environment
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.trim().is_empty())
    }

    /// Reads a variable, or its default from the table, or `None` when it has neither.
    pub fn get<T>(&self, variable: &Variable, parse: impl Fn(&str) -> Parsed<T>) -> Option<T> {
        self.read.borrow_mut().insert(variable.name);
        let set = self.raw(variable.name);
        let text = set.or(Some(variable.default).filter(|text| !text.is_empty()))?;
        match parse(text) {
            Ok(value) => Some(value),
            Err(why) => {
                self.problem(variable, Some(text), &why);
                None
            }
        }
    }

    /// As [`Self::get`], but the variable must be set; `instead` stands in after the problem was noted.
    pub fn require<T>(
        &self,
        variable: &Variable,
        parse: impl Fn(&str) -> Parsed<T>,
        instead: T,
    ) -> T {
        if self.raw(variable.name).is_none() && variable.default.is_empty() {
            self.read.borrow_mut().insert(variable.name);
            self.problem(variable, None, "it is required");
            return instead;
        }
        self.get(variable, parse).unwrap_or(instead)
    }

    /// A duration with a default.
    pub fn duration(&self, variable: &Variable) -> Duration {
        self.get(variable, values::duration).unwrap_or_default()
    }

    /// A duration where 0 means off.
    pub fn duration_unless_zero(&self, variable: &Variable) -> Option<Duration> {
        self.get(variable, values::duration)
            .filter(|duration| !duration.is_zero())
    }

    /// A flag with a default.
    pub fn flag(&self, variable: &Variable) -> bool {
        self.get(variable, values::flag).unwrap_or_default()
    }

    /// A number with a default.
    pub fn number<T: TryFrom<u64> + Default>(&self, variable: &Variable) -> T {
        self.get(variable, values::number).unwrap_or_default()
    }

    /// Notes a problem that only shows when several values are seen together.
    pub fn problem(&self, variable: &Variable, found: Option<&str>, why: &str) {
        let shown = found.map(|text| {
            let cut: String = text.chars().take(SHOWN).collect();
            if cut.len() < text.len() {
                format!("{cut}…")
            } else {
                cut
            }
        });
        self.problems.borrow_mut().push(Problem {
            name: variable.name.to_owned(),
            found: shown,
            why: why.to_owned(),
            accepted: variable.form.accepts().to_owned(),
        });
    }

    /// Names that were asked for so far.
    pub fn names_read(&self) -> BTreeSet<&'static str> {
        self.read.borrow().clone()
    }

    /// The problems, if any; else warnings: names nobody knows, and wishes that are not carried out.
    ///
    /// # Errors
    /// Every value that could not be used.
    pub fn finish(self, known: impl Fn(&str) -> bool) -> Result<Vec<String>, Problems> {
        let problems = self.problems.into_inner();
        if !problems.is_empty() {
            return Err(Problems(problems));
        }
        let mut warnings = Vec::new();
        for (name, value) in self.environment {
            let ours = name.starts_with("LINKERD2_PROXY_") || name.starts_with("TULLE_PROXY_");
            if !ours
                || value.trim().is_empty()
                || known(name)
                || listed(WITHOUT_EFFECT, name).is_some()
            {
                continue;
            }
            warnings.push(match listed(NOT_CARRIED_OUT, name) {
                Some(why) => format!("{name} is set but not carried out: {why}"),
                None => format!("{name} is not a variable of this proxy; it has no effect"),
            });
        }
        Ok(warnings)
    }
}

fn listed(table: &[(&str, &'static str)], name: &str) -> Option<&'static str> {
    table
        .iter()
        .find(|(pattern, _)| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => *pattern == name,
        })
        .map(|(_, why)| *why)
}
