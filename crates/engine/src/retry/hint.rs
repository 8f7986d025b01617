//! What a server says about being asked again: `retry-after` (RFC 9110 §10.2.3) and `grpc-retry-pushback-ms` (gRFC A6).

use std::time::Duration;

/// A server's word about the next try.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hint {
    /// It said nothing.
    #[default]
    None,
    /// Not before this time has passed.
    After(Duration),
    /// Not at all.
    Never,
}

/// Reads `retry-after`: seconds, or a date, for which `unix_now` is the time in seconds. `None` when it is neither; a
/// date that has passed is no wait.
#[must_use]
pub fn retry_after(value: &[u8], unix_now: u64) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More seconds than a number holds are for ever.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    Some(Duration::from_secs(
        http_date(text)?.saturating_sub(unix_now),
    ))
}

/// Reads `grpc-retry-pushback-ms`: milliseconds; what is negative or no number forbids another try.
#[must_use]
pub fn pushback(value: &[u8]) -> Hint {
    let text = std::str::from_utf8(value).unwrap_or_default().trim();
    match text.parse::<u64>() {
        Ok(millis) => Hint::After(Duration::from_millis(millis)),
        Err(_) => Hint::Never,
    }
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Seconds since 1970 of an HTTP date in any of its three forms (RFC 9110 §5.6.7). The day of the week is not checked.
fn http_date(text: &str) -> Option<u64> {
    if let Some((_, date)) = text.split_once(", ") {
        let date = date.strip_suffix(" GMT")?;
        let (day, time) = date.rsplit_once(' ')?;
        let mut parts = day.split(['-', ' ']);
        let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let number = year.parse::<u64>().ok()?;
        // Two digits are the older form; what would be far ahead was in the last century.
        let year = match year.len() {
            4 => number,
            2 if number < 70 => 2000 + number,
            2 => 1900 + number,
            _ => return None,
        };
        return moment(year, month, day, time);
    }
    let mut parts = text.split_ascii_whitespace().skip(1);
    let (month, day, time) = (parts.next()?, parts.next()?, parts.next()?);
    let year = parts.next()?.parse().ok()?;
    if parts.next().is_some() {
        return None;
    }
    moment(year, month, day, time)
}

fn moment(year: u64, month: &str, day: &str, time: &str) -> Option<u64> {
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let day: u64 = day.parse().ok()?;
    let mut parts = time.split(':').map(|part| part.parse::<u64>().ok());
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    let sound = (1970..=9999).contains(&year)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60
        && parts.next().is_none();
    sound.then(|| ((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
}

/// Days since 1970-01-01. Years are taken to begin in March, so that the leap day is a year's last.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let in_year = (153 * month + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + in_year - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 1994-11-06 08:49:37, the example of RFC 9110.
    const EXAMPLE: u64 = 784_111_777;

    #[test]
    fn seconds_and_all_three_forms_of_a_date_are_read() {
        let at = |text: &str, now| retry_after(text.as_bytes(), now).map(|after| after.as_secs());

        assert_eq!(at("120", EXAMPLE), Some(120));
        assert_eq!(at("0", 0), Some(0));
        for date in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(at(date, EXAMPLE - 90), Some(90), "{date}");
            assert_eq!(at(date, EXAMPLE + 90), Some(0), "{date}: passed");
        }
        assert_eq!(at("Thu, 01 Jan 1970 00:00:01 GMT", 0), Some(1));
        assert_eq!(at("Tue, 29 Feb 2028 00:00:00 GMT", 0), Some(1_835_395_200));
        assert_eq!(at("99999999999999999999", 0), Some(u64::MAX));
    }

    #[test]
    fn nonsense_is_no_hint() {
        for text in [
            "",
            "-1",
            "1.5",
            "soon",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 32 Nov 1994 08:49:37 GMT",
            "Sun, 06 Foo 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 1994 08:49 GMT",
            "Sun, 06 Nov 19940 08:49:37 GMT",
        ] {
            assert_eq!(retry_after(text.as_bytes(), 0), None, "{text}");
        }
    }

    #[test]
    fn a_negative_pushback_forbids_and_so_does_nonsense() {
        assert_eq!(pushback(b"25"), Hint::After(Duration::from_millis(25)));
        assert_eq!(pushback(b"0"), Hint::After(Duration::ZERO));
        for text in ["-1", "", "soon", "1.5", "99999999999999999999"] {
            assert_eq!(pushback(text.as_bytes()), Hint::Never, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..40), now: u64) {
            let _ = retry_after(&bytes, now);
            let _ = pushback(&bytes);
        }

        #[test]
        fn days_follow_each_other(day in 0_u64..2_900_000) {
            // Walks the calendar by its definition.
            let (mut left, mut year) = (day, 1970);
            let leap = |year: u64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            while left >= 365 + u64::from(leap(year)) {
                left -= 365 + u64::from(leap(year));
                year += 1;
            }
            let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            let mut month = 0;
            while left >= lengths[month] {
                left -= lengths[month];
                month += 1;
            }
            prop_assert_eq!(days(year, month as u64 + 1, left + 1), day);
        }
    }
}
