//! Regular expressions that must match the whole text, in time linear in its length.

use std::fmt;

use regex::bytes::{Regex, RegexBuilder};

use crate::invalid::{Invalid, MAX_REGEX, MAX_REGEX_PROGRAM};

/// A regular expression over bytes, anchored at both ends; `\d`, `\w` and `(?i)` know ASCII, as RE2's do.
#[derive(Clone)]
pub struct Pattern {
    regex: Regex,
    text: Box<str>,
}

impl Pattern {
    /// Compiles an expression as routes do.
    ///
    /// # Errors
    /// When it is none, is too long, or would need too much memory.
    pub fn new(text: &str) -> Result<Self, Invalid> {
        Self::compile("regex", text)
    }

    pub(crate) fn compile(field: &str, text: &str) -> Result<Self, Invalid> {
        if text.len() > MAX_REGEX {
            let why = format!(
                "has {} bytes, and at most {MAX_REGEX} are allowed",
                text.len()
            );
            return Err(Invalid::new(field, why));
        }
        // By itself first: `a)|(b` would be sound only inside the group below, and would break out of it.
        build(text).map_err(|error| refused(field, &error))?;
        // The group keeps `a|b` together.
        match build(&format!("^(?:{text})$")) {
            Ok(regex) => Ok(Self {
                regex,
                text: text.into(),
            }),
            Err(error) => Err(refused(field, &error)),
        }
    }

    /// Whether the whole text matches.
    #[must_use]
    pub fn matches(&self, text: &[u8]) -> bool {
        self.regex.is_match(text)
    }

    /// As the user wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

fn build(text: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text)
        .unicode(false)
        .dot_matches_new_line(true)
        .size_limit(MAX_REGEX_PROGRAM)
        .dfa_size_limit(MAX_REGEX_PROGRAM)
        .nest_limit(64)
        .build()
}

/// The last line of the library's error says what is wrong; those before draw the pattern with a caret.
fn refused(field: &str, error: &regex::Error) -> Invalid {
    let text = error.to_string();
    let why = text
        .lines()
        .last()
        .unwrap_or_default()
        .trim()
        .trim_start_matches("error: ");
    Invalid::new(field, format!("is not a regular expression: {why}"))
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/", self.text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_text_must_match() {
        let pattern = Pattern::compile("regex", "a|bc").unwrap();

        assert!(pattern.matches(b"a") && pattern.matches(b"bc"));
        assert!(!pattern.matches(b"ab") && !pattern.matches(b"abc") && !pattern.matches(b"a\n"));
    }

    #[test]
    fn what_cannot_be_compiled_is_named() {
        for (text, why) in [
            ("(", "regex is not a regular expression: unclosed group"),
            ("a)|(b", "regex is not a regular expression: unopened group"),
            (
                &"a".repeat(1025) as &str,
                "regex has 1025 bytes, and at most 1024 are allowed",
            ),
        ] {
            assert_eq!(
                Pattern::compile("regex", text).unwrap_err().to_string(),
                why
            );
        }
    }

    #[test]
    fn a_pattern_that_would_need_much_memory_is_refused() {
        assert!(Pattern::compile("regex", "(a{1000}){1000}").is_err());
    }
}
