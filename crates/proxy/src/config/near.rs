//! Which variable a misspelt name was meant to be.

use super::table;

/// What the names of this proxy begin with.
pub const PREFIXES: [&str; 2] = ["LINKERD2_PROXY_", "TULLE_PROXY_"];

/// Longest name that is compared: the table's longest has some seventy characters.
const LONGEST: usize = 128;

/// The variable whose name is nearest, if one is near: few letters differ, or only the prefix does.
pub fn nearest(name: &str) -> Option<&'static str> {
    if name.len() > LONGEST {
        return None;
    }
    let meant = without_prefix(name);
    table::all()
        .map(|variable| {
            (
                distance(meant, without_prefix(variable.name)),
                variable.name,
            )
        })
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= meant.len() / 5 + 1)
        .map(|(_, name)| name)
}

fn without_prefix(name: &str) -> &str {
    PREFIXES
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))
        .unwrap_or(name)
}

/// Insertions, deletions and replacements of octets that make one of the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(other.bytes()) {
            let replaced = diagonal + usize::from(a != b);
            diagonal = *cell;
            left = replaced.min(*cell + 1).min(left + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_the_textbook() {
        for (one, other, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("flaw", "lawn", 2),
            ("same", "same", 0),
        ] {
            assert_eq!(distance(one, other), expected, "{one} {other}");
            assert_eq!(distance(other, one), expected, "{other} {one}");
        }
    }

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        for (name, meant) in [
            ("LINKERD2_PROXY_LOGS", "LINKERD2_PROXY_LOG"),
            (
                "LINKERD2_PROXY_INBOUND_PORT",
                "LINKERD2_PROXY_INBOUND_PORTS",
            ),
            ("LINKERD2_PROXY_MARK", "TULLE_PROXY_MARK"),
            (
                "LINKERD2_PROXY_OUTBOUND_CONECT_TIMEOUT",
                "LINKERD2_PROXY_OUTBOUND_CONNECT_TIMEOUT",
            ),
        ] {
            assert_eq!(nearest(name), Some(meant));
        }
        assert_eq!(nearest("LINKERD2_PROXY_WEATHER"), None);
        assert_eq!(nearest(&"LINKERD2_PROXY_LOG".repeat(10_000)), None);
    }
}
