//! Collects values from the environment and every problem on the way, so that one start reports them all.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::near;
use super::table::{self, NOT_CARRIED_OUT, Variable, WITHOUT_EFFECT};
use super::values::{self, Parsed};

/// The environment: names and values.
pub type Environment = BTreeMap<String, String>;

/// What stands in for each octet of a value that is not UTF-8 (U+FFFD, as [`String::from_utf8_lossy`] has it).
const NOT_TEXT: char = char::REPLACEMENT_CHARACTER;

/// The process's environment. Names that are not text cannot be ours and are left out; of values that are not, enough
/// is kept for [`Reader`] to refuse them.
pub fn of_process() -> Environment {
    std::env::vars_os()
        .filter_map(|(name, value)| {
            Some((
                name.into_string().ok()?,
                value.to_string_lossy().into_owned(),
            ))
        })
        .collect()
}

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
pub struct Problems {
    /// At least one.
    pub values: Vec<Problem>,
    /// What is odd beside: a name that nobody knows may be why another is missing.
    pub warnings: Vec<String>,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.values.len();
        writeln!(
            f,
            "tulle-proxy cannot start: {count} environment variable{} cannot be used.",
            if count == 1 { "" } else { "s" }
        )?;
        for problem in &self.values {
            match &problem.found {
                Some(found) => writeln!(f, "  {} is {found:?}: {}.", problem.name, problem.why)?,
                None => writeln!(f, "  {} is not set: {}.", problem.name, problem.why)?,
            }
            writeln!(f, "    accepted: {}", problem.accepted)?;
        }
        for warning in &self.warnings {
            writeln!(f, "  {warning}")?;
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
    warnings: RefCell<Vec<String>>,
}

impl<'a> Reader<'a> {
    /// A reader of this environment.
    pub fn new(environment: &'a Environment) -> Self {
        Self {
            environment,
            problems: RefCell::default(),
            read: RefCell::default(),
            warnings: RefCell::default(),
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
        let parsed = match text.contains(NOT_TEXT) {
            true => Err("it is not text in UTF-8".to_owned()),
            false => parse(text),
        };
        match parsed {
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

    /// A number with a default, within the range of the variable's form.
    pub fn number<T: TryFrom<u64> + Default>(&self, variable: &Variable) -> T {
        self.number_if_set(variable).unwrap_or_default()
    }

    /// The same; `None` where there is neither value nor default.
    pub fn number_if_set<T: TryFrom<u64>>(&self, variable: &Variable) -> Option<T> {
        let (least, most) = variable.form.range().unwrap_or((0, u64::MAX));
        self.get(variable, |text| match values::number::<u64>(text)? {
            number if number < least => Err("it is too small".to_owned()),
            number if number > most => Err("it is too large".to_owned()),
            number => T::try_from(number).map_err(|_| "it is too large".to_owned()),
        })
    }

    /// Of two durations the first may not be longer; where one of them cannot be read, that is said elsewhere.
    pub fn ordered(&self, min: &Variable, max: &Variable) {
        let text = |variable: &Variable| self.raw(variable.name).unwrap_or(variable.default);
        let (shortest, longest) = (text(min), text(max));
        if let (Ok(least), Ok(most)) = (values::duration(shortest), values::duration(longest)) {
            if least > most {
                let why = format!("it is longer than {}, which is {longest}", max.name);
                self.problem(min, Some(shortest), &why);
            }
        }
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
        let problem = Problem {
            name: variable.name.to_owned(),
            found: shown,
            why: why.to_owned(),
            accepted: variable.form.accepts().to_owned(),
        };
        // What holds for both directions is read by both.
        let mut problems = self.problems.borrow_mut();
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }

    /// Notes what is to be said once logging works.
    pub fn warn(&self, warning: &str) {
        self.warnings.borrow_mut().push(warning.to_owned());
    }

    /// Names that were asked for so far.
    pub fn names_read(&self) -> BTreeSet<&'static str> {
        self.read.borrow().clone()
    }

    /// Warnings: names that nobody knows, and wishes that are not carried out.
    ///
    /// # Errors
    /// Every value that could not be used, and the warnings.
    pub fn finish(self) -> Result<Vec<String>, Problems> {
        let mut warnings = self.warnings.into_inner();
        for (name, value) in self.environment {
            let ours = near::PREFIXES.iter().any(|prefix| name.starts_with(prefix));
            if !ours
                || value.trim().is_empty()
                || table::is_known(name)
                || listed(WITHOUT_EFFECT, name).is_some()
            {
                continue;
            }
            warnings.push(match listed(NOT_CARRIED_OUT, name) {
                Some(why) => format!("{name} is set but not carried out: {why}"),
                None => match near::nearest(name) {
                    Some(near) => format!(
                        "{name} is not a variable of this proxy and has no effect; is {near} meant?"
                    ),
                    None => format!("{name} is not a variable of this proxy and has no effect"),
                },
            });
        }
        match self.problems.into_inner() {
            values if values.is_empty() => Ok(warnings),
            values => Err(Problems { values, warnings }),
        }
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
