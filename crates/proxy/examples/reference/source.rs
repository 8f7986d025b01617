//! Reads named constants out of this repository's source: what their comment says and what they are worth. So a bound
//! has one home, the constant, and the page cannot say something else.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A constant as it stands in the source.
#[derive(Debug)]
pub struct Constant {
    pub name: String,
    /// Its comment, in one line; empty when there is none.
    pub comment: String,
    /// What stands behind the `=`.
    pub expression: String,
}

/// What a constant is worth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Worth {
    Number(u64),
    Time(Duration),
}

/// The folder that holds `crates` and `docs`.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The constants of a file, up to its tests.
pub fn constants(file: &str) -> Vec<Constant> {
    let text = fs::read_to_string(root().join("crates").join(file))
        .unwrap_or_else(|error| panic!("crates/{file}: {error}"));
    let text = text.split("\nmod tests {").next().unwrap_or_default();
    let mut comment: Vec<&str> = Vec::new();
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let line = line.trim();
        if let Some(said) = line.strip_prefix("///") {
            comment.push(said.trim());
            continue;
        }
        if let Some(rest) = after_const(line) {
            let mut whole = rest.to_owned();
            while !whole.contains(';') {
                let Some(more) = lines.next() else { break };
                whole.push_str(more.trim());
            }
            if let Some((name, expression)) = whole.trim_end_matches(';').split_once('=') {
                let name = name.split(':').next().unwrap_or_default().trim();
                found.push(Constant {
                    name: name.to_owned(),
                    comment: comment.join(" "),
                    expression: expression.trim().to_owned(),
                });
            }
        }
        comment.clear();
    }
    found
}

fn after_const(line: &str) -> Option<&str> {
    let line = match line.strip_prefix("pub") {
        Some(rest) => match rest.strip_prefix('(') {
            Some(rest) => rest.split_once(')')?.1,
            None => rest,
        },
        None => line,
    };
    let rest = line.trim_start().strip_prefix("const ")?;
    (!rest.starts_with("fn ")).then_some(rest)
}

/// Evaluates what bounds are written with: numbers, `*`, `+`, `-`, `<<` (each side of which is a product), and
/// `Duration::from_*`.
pub fn evaluate(expression: &str) -> Option<Worth> {
    let text: String = expression.split_whitespace().collect();
    let text = text.trim_start_matches("std::time::");
    if let Some(call) = text.strip_prefix("Duration::from_") {
        let (unit, argument) = call.strip_suffix(')')?.split_once('(')?;
        let count = number(argument)?;
        return Some(Worth::Time(match unit {
            "secs" => Duration::from_secs(count),
            "millis" => Duration::from_millis(count),
            _ => return None,
        }));
    }
    number(text).map(Worth::Number)
}

fn number(text: &str) -> Option<u64> {
    if let Some((value, shift)) = text.split_once("<<") {
        let (shift, less) = match shift.split_once(")-") {
            Some((shift, less)) => (shift, number(less)?),
            None => (shift, 0),
        };
        let value = number(value.trim_start_matches('('))?;
        return Some((value << number(shift.trim_end_matches(')'))?) - less);
    }
    text.split('*')
        .map(|factor| {
            let digits = factor.replace('_', "");
            let digits = digits.strip_suffix(".0").unwrap_or(&digits);
            digits.parse::<u64>().ok()
        })
        .product()
}
