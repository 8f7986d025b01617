//! Text of strangers, made safe to write: printable ASCII on one line, of bounded length.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// The text with every byte that is not printable ASCII as `%XX`, cut to `most` bytes of the original; what was cut is
/// marked by `…`, which no request can contain.
pub fn visible(text: &[u8], most: usize) -> String {
    let kept = text.get(..most).unwrap_or(text);
    let mut out = String::with_capacity(kept.len());
    for byte in kept {
        match byte {
            b' '..=b'~' => out.push(char::from(*byte)),
            byte => {
                let _infallible = write!(out, "%{byte:02X}");
            }
        }
    }
    if kept.len() < text.len() {
        out.push('…');
    }
    out
}

/// RFC 3339 in UTC with nanoseconds: `2025-01-31T08:15:00.000000001Z`.
pub fn timestamp(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, nanos) = (since.as_secs(), since.subsec_nanos());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{nanos:09}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// The Gregorian date of a day after 1970-01-01, counted in years that begin in March, so that a leap day is the last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    (year + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn nothing_unprintable_is_left() {
        assert_eq!(
            visible(b"/a\n\x1b[31m\"\xc3\xa9", 64),
            "/a%0A%1B[31m\"%C3%A9"
        );
        assert_eq!(visible(b"abcdef", 3), "abc…");
        assert_eq!(visible(b"abc", 3), "abc");
    }

    #[test]
    fn moments_are_written_as_dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000007Z"),
            (951_782_400, "2000-02-29T00:00:00.000000007Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000000007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000007Z"),
        ] {
            let at = UNIX_EPOCH + Duration::new(seconds, 7);
            assert_eq!(timestamp(at), text);
        }
    }
}
