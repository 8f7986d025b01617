//! Parameters of a query string, compared without being copied.

/// Whether some parameter has this name and a value that passes. `+` is a space and `%xx` a byte in both.
///
/// Costs no allocation unless a value with an escape is tested.
pub(super) fn any(query: &[u8], name: &[u8], test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
    if query.is_empty() {
        return false;
    }
    query.split(|byte| *byte == b'&').any(|pair| {
        let mut parts = pair.splitn(2, |byte| *byte == b'=');
        let key = parts.next().unwrap_or_default();
        let value = parts.next().unwrap_or_default();
        if !decode(key).eq(name.iter().copied()) {
            return false;
        }
        if value.iter().any(|byte| matches!(byte, b'%' | b'+')) {
            test(&decode(value).collect::<Vec<_>>())
        } else {
            test(value)
        }
    })
}

fn decode(text: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (byte, tail) = match rest {
            [] => return None,
            [b'+', tail @ ..] => (b' ', tail),
            [b'%', high, low, tail @ ..] => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, tail),
                _ => (b'%', rest.get(1..).unwrap_or_default()),
            },
            [byte, tail @ ..] => (*byte, tail),
        };
        rest = tail;
        Some(byte)
    })
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(query: &str, name: &str, value: &str) -> bool {
        any(query.as_bytes(), name.as_bytes(), &mut |found| {
            found == value.as_bytes()
        })
    }

    #[test]
    fn names_and_values_are_decoded() {
        for (query, name, value, expected) in [
            ("a=1", "a", "1", true),
            ("a=1&a=2", "a", "2", true),
            ("a=1", "b", "1", false),
            ("a", "a", "", true),
            ("", "a", "", false),
            ("", "", "", false),
            ("choice=%3Adoughnut%3a", "choice", ":doughnut:", true),
            ("%61=x+y", "a", "x y", true),
            ("a=%zz", "a", "%zz", true),
            ("a=%4", "a", "%4", true),
            ("a=b=c", "a", "b=c", true),
        ] {
            assert_eq!(has(query, name, value), expected, "{query}");
        }
    }
}
