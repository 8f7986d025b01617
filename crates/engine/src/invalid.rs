//! What is wrong with a message, and where in it; and the bounds that messages are held to.

use std::fmt;
use std::time::Duration;

/// The longest regular expression that is compiled, in bytes.
pub const MAX_REGEX: usize = 1024;
/// The largest automaton a regular expression may need, in bytes.
pub const MAX_REGEX_PROGRAM: usize = 128 * 1024;
/// The most routes of one policy.
pub const MAX_ROUTES: usize = 4096;
/// The most rules of one policy.
pub const MAX_RULES: usize = 16_384;
/// The most authorizations of one server.
pub const MAX_AUTHORIZATIONS: usize = 4096;

/// A message, or a part of it, that cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Invalid {
    /// The field, such as `rules[0].matches[1].path.regex`.
    pub field: String,
    /// What is wrong with it.
    pub why: String,
}

impl Invalid {
    pub(crate) fn new(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            why: why.into(),
        }
    }

    pub(crate) fn missing(field: impl Into<String>) -> Self {
        Self::new(field, "is missing")
    }

    /// Puts the field of the surrounding message in front.
    pub(crate) fn under(mut self, outer: impl fmt::Display) -> Self {
        self.field = if self.field.is_empty() {
            outer.to_string()
        } else {
            format!("{outer}.{}", self.field)
        };
        self
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.why)
    }
}

impl std::error::Error for Invalid {}

/// Compiles the messages of a list; the first that cannot be read is named by its place.
pub(crate) fn each<M, T>(
    field: &str,
    messages: &[M],
    mut compile: impl FnMut(&M) -> Result<T, Invalid>,
) -> Result<Vec<T>, Invalid> {
    messages
        .iter()
        .enumerate()
        .map(|(index, message)| {
            compile(message).map_err(|error| error.under(format!("{field}[{index}]")))
        })
        .collect()
}

/// A duration of zero or none means "no limit".
pub(crate) fn limit(
    field: &str,
    message: Option<&prost_types::Duration>,
) -> Result<Option<Duration>, Invalid> {
    match message {
        None => Ok(None),
        Some(message) => Ok(Some(duration(field, message)?).filter(|length| !length.is_zero())),
    }
}

/// A duration that has to be there.
pub(crate) fn required_duration(
    field: &str,
    message: Option<&prost_types::Duration>,
) -> Result<Duration, Invalid> {
    duration(field, message.ok_or_else(|| Invalid::missing(field))?)
}

pub(crate) fn duration(field: &str, message: &prost_types::Duration) -> Result<Duration, Invalid> {
    let (Ok(seconds), Ok(nanos)) = (u64::try_from(message.seconds), u32::try_from(message.nanos))
    else {
        return Err(Invalid::new(field, "is negative"));
    };
    if nanos >= 1_000_000_000 {
        return Err(Invalid::new(field, "has more than a second of nanoseconds"));
    }
    Ok(Duration::new(seconds, nanos))
}

/// In nanoseconds, as the engine counts time; the largest number when it does not fit.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn port(field: &str, number: u32) -> Result<u16, Invalid> {
    match u16::try_from(number) {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(Invalid::new(field, format!("is {number}, not a port"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_and_none_are_no_limit_and_negative_is_refused() {
        let of = |seconds, nanos| limit("t", Some(&prost_types::Duration { seconds, nanos }));

        assert_eq!(limit("t", None), Ok(None));
        assert_eq!(of(0, 0), Ok(None));
        assert_eq!(of(1, 5), Ok(Some(Duration::new(1, 5))));
        assert!(of(-1, 0).is_err());
        assert!(of(1, -1).is_err());
        assert!(of(1, 1_000_000_000).is_err());
    }

    #[test]
    fn an_error_names_the_whole_path_of_its_field() {
        let error = Invalid::missing("regex").under("path").under("matches[1]");

        assert_eq!(error.to_string(), "matches[1].path.regex is missing");
    }
}
