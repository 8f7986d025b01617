//! SPIFFE IDs, as their standard writes them: `spiffe://trust-domain/path`.

/// Longest SPIFFE ID.
const LONGEST: usize = 2_048;
/// Longest trust domain of a SPIFFE ID.
const LONGEST_DOMAIN: usize = 255;

/// Whether this is a SPIFFE ID of a workload.
///
/// # Errors
/// What is wrong with it.
pub fn spiffe_id(text: &str) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("`{text}` is not a SPIFFE ID: {why}"));
    let Some(rest) = text.strip_prefix("spiffe://") else {
        return wrong("it does not begin with spiffe://");
    };
    if text.len() > LONGEST {
        return Err(format!(
            "this is not a SPIFFE ID: it is longer than {LONGEST} bytes"
        ));
    }
    let (domain, path) = rest.split_once('/').unwrap_or((rest, ""));
    let of_domain =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    if domain.is_empty() || domain.len() > LONGEST_DOMAIN || !domain.bytes().all(of_domain) {
        return wrong("its trust domain is not of lower-case letters, digits, dots, - and _");
    }
    if path.is_empty() {
        return wrong("it has no path, so it names a trust domain and no workload");
    }
    let of_path = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let segment = |segment: &str| {
        !segment.is_empty() && segment != "." && segment != ".." && segment.bytes().all(of_path)
    };
    if !path.split('/').all(segment) {
        return wrong(
            "its path has a segment that is empty, relative or not of letters, digits, dots, - and _",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_trust_domain_and_a_path() {
        for good in [
            "spiffe://cluster.local/ns/a/sa/b",
            "spiffe://1-a_b.example/Web.v1",
            "spiffe://a/...",
        ] {
            assert_eq!(spiffe_id(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("https://a/b", "begin with"),
            ("SPIFFE://a/b", "begin with"),
            ("spiffe:///b", "trust domain"),
            ("spiffe://A/b", "trust domain"),
            ("spiffe://a:1/b", "trust domain"),
            ("spiffe://u@a/b", "trust domain"),
            ("spiffe://a", "no path"),
            ("spiffe://a/", "no path"),
            ("spiffe://a//b", "segment"),
            ("spiffe://a/b/", "segment"),
            ("spiffe://a/./b", "segment"),
            ("spiffe://a/../b", "segment"),
            ("spiffe://a/b?c", "segment"),
            ("spiffe://a/b%20c", "segment"),
        ] {
            let error = spiffe_id(bad).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
        let long = format!("spiffe://a/{}", "x".repeat(LONGEST));
        assert!(spiffe_id(&long).unwrap_err().contains("longer"));
        let domain = format!("spiffe://{}/b", "x".repeat(LONGEST_DOMAIN + 1));
        assert!(spiffe_id(&domain).is_err());
    }
}
