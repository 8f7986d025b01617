//! What a request asks for itself: Linkerd's `l5d-retry-*` and `l5d-*timeout` headers, where its rule allows them.
//!
//! Formats are Linkerd's: durations are an integer and a unit (`ms`, `s`, `m`, `h`, `d`), statuses a list of codes,
//! ranges, `5xx` and `gateway-error`, gRPC statuses a list of names. A header that cannot be read is as good as absent.

use std::time::Duration;

use crate::outbound::{Retry, RetryConditions, Statuses, Timeouts};
use crate::request::Headers;

/// The headers, as read. Nothing allocates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// `l5d-timeout`; also under the name `l5d-request-timeout`.
    pub request: Option<Duration>,
    /// `l5d-response-timeout`.
    pub response: Option<Duration>,
    /// `l5d-retry-http`.
    pub http: Option<Statuses>,
    /// `l5d-retry-grpc`, as bits.
    pub grpc: Option<u32>,
    /// `l5d-retry-limit`.
    pub limit: Option<u32>,
    /// `l5d-retry-timeout`.
    pub timeout: Option<Duration>,
}

impl Wishes {
    /// Reads the headers of a request.
    #[must_use]
    pub fn read<H: Headers + ?Sized>(headers: &H) -> Self {
        Self {
            request: Self::read_request(headers),
            response: first(headers, "l5d-response-timeout", duration),
            http: first(headers, "l5d-retry-http", |text| Some(statuses(text))),
            grpc: first(headers, "l5d-retry-grpc", |text| Some(grpc_statuses(text))),
            limit: first(headers, "l5d-retry-limit", |text| text.parse().ok()),
            timeout: first(headers, "l5d-retry-timeout", duration),
        }
    }

    /// Reads only how long the request may take.
    pub(crate) fn read_request<H: Headers + ?Sized>(headers: &H) -> Option<Duration> {
        first(headers, "l5d-timeout", duration)
            .or_else(|| first(headers, "l5d-request-timeout", duration))
    }

    /// The rule's timeouts with the request's own over them.
    #[must_use]
    pub fn timeouts(&self, rule: &Timeouts) -> Timeouts {
        Timeouts {
            request: self.request.or(rule.request),
            response: self.response.or(rule.response),
            idle: rule.idle,
        }
    }

    /// The rule's retries with the request's own over them; `None` when neither wants any.
    #[must_use]
    pub fn retry(&self, rule: Option<&Retry>) -> Option<Retry> {
        let silent = self.http.is_none()
            && self.grpc.is_none()
            && self.limit.is_none()
            && self.timeout.is_none();
        if silent {
            return rule.copied();
        }
        let base = rule.copied().unwrap_or_default();
        Some(Retry {
            max_retries: self.limit.unwrap_or(base.max_retries),
            timeout: self.timeout.or(base.timeout),
            conditions: RetryConditions {
                http: self.http.unwrap_or(base.conditions.http),
                grpc: self.grpc.unwrap_or(base.conditions.grpc),
                ..base.conditions
            },
            ..base
        })
    }
}

/// The first value of a header that can be read.
fn first<H: Headers + ?Sized, T>(
    headers: &H,
    name: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Option<T> {
    let mut found = None;
    headers.any(name, &mut |value| {
        found = std::str::from_utf8(value)
            .ok()
            .and_then(|text| read(text.trim()));
        found.is_some()
    });
    found
}

/// `250ms`, `5s`, `1m`, `2h`, `1d`; `0` without a unit. Zero is no limit.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" if number == 0 => 0,
        _ => return None,
    };
    let length = Duration::from_millis(number.checked_mul(millis)?);
    Some(length).filter(|length| !length.is_zero())
}

fn statuses(list: &str) -> Statuses {
    let code = |text: &str| {
        let code = text.trim().parse::<u16>().ok()?;
        (100..=599).contains(&code).then_some(code)
    };
    list.split(',').fold(Statuses::default(), |set, item| {
        let item = item.trim();
        if item.eq_ignore_ascii_case("5xx") {
            return set.with(500..=599);
        }
        if item.eq_ignore_ascii_case("gateway-error") {
            return set.with(502..=504);
        }
        let (start, end) = item.split_once('-').unwrap_or((item, item));
        match (code(start), code(end)) {
            (Some(start), Some(end)) => set.with(start..=end),
            _ => set,
        }
    })
}

fn grpc_statuses(list: &str) -> u32 {
    const NAMES: [(&str, u32); 5] = [
        ("cancelled", 1),
        ("deadline-exceeded", 4),
        ("resource-exhausted", 8),
        ("internal", 13),
        ("unavailable", 14),
    ];
    list.split(',').fold(0, |set, item| {
        let known = NAMES
            .iter()
            .find(|(name, _)| item.trim().eq_ignore_ascii_case(name));
        known.map_or(set, |(_, code)| set | 1 << code)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(fields: &[(&str, &str)]) -> Wishes {
        Wishes::read(fields)
    }

    #[test]
    fn every_header_is_read_as_linkerd_does() {
        let wishes = read(&[
            ("l5d-timeout", "10s"),
            ("l5d-response-timeout", "250ms"),
            ("l5d-retry-http", "5XX, 404,418-420, gateway-error"),
            ("l5d-retry-grpc", "Cancelled,unavailable,unknown"),
            ("l5d-retry-limit", "3"),
            ("l5d-retry-timeout", "1m"),
        ]);

        assert_eq!(wishes.request, Some(Duration::from_secs(10)));
        assert_eq!(wishes.response, Some(Duration::from_millis(250)));
        let http = Statuses::default()
            .with(404..=404)
            .with(418..=420)
            .with(500..=599);
        assert_eq!(wishes.http, Some(http));
        assert_eq!(wishes.grpc, Some(1 << 1 | 1 << 14));
        assert_eq!(wishes.limit, Some(3));
        assert_eq!(wishes.timeout, Some(Duration::from_secs(60)));
        assert_eq!(
            read(&[("l5d-request-timeout", "2h")]).request,
            Some(Duration::from_secs(7200))
        );
    }

    #[test]
    fn what_cannot_be_read_is_as_good_as_absent() {
        for value in [
            "",
            "5",
            "1.5s",
            "-1s",
            "s",
            "5 s",
            "5sec",
            "0",
            "0s",
            "99999999999999999999s",
        ] {
            assert_eq!(read(&[("l5d-timeout", value)]).request, None, "{value}");
        }
        assert_eq!(read(&[("l5d-retry-limit", "many")]).limit, None);
        assert_eq!(
            read(&[("l5d-retry-http", "99,600,9-5,x,503-500")]).http,
            Some(Statuses::default())
        );
    }

    #[test]
    fn a_wish_goes_over_the_rule_and_leaves_the_rest_of_it() {
        let rule = Retry {
            max_retries: 5,
            max_request_bytes: 10,
            conditions: RetryConditions {
                http: Statuses::default().with(503..=503),
                reset: true,
                ..Default::default()
            },
            timeout: Some(Duration::from_secs(1)),
            ..Retry::default()
        };

        assert_eq!(Wishes::default().retry(Some(&rule)), Some(rule));
        assert_eq!(Wishes::default().retry(None), None);
        let wishes = read(&[("l5d-retry-limit", "2")]);
        assert_eq!(
            wishes.retry(Some(&rule)),
            Some(Retry {
                max_retries: 2,
                ..rule
            })
        );
        let asked = read(&[("l5d-retry-http", "5xx")]).retry(None).unwrap();
        assert_eq!(asked.max_retries, 1, "as in Linkerd");
        assert!(asked.conditions.http.contains(500));
    }

    proptest! {
        #[test]
        fn any_value_is_read_or_not(value in proptest::collection::vec(any::<u8>(), 0..30)) {
            let names = ["l5d-timeout", "l5d-retry-http", "l5d-retry-grpc", "l5d-retry-limit"];
            let fields: Vec<(&str, &[u8])> = names.iter().map(|name| (*name, &*value)).collect();
            let _ = Wishes::read(&fields[..]);
        }

        #[test]
        fn a_list_of_statuses_is_the_set_a_naive_reading_gives(
            items in proptest::collection::vec((50_u16..650, 50_u16..650), 0..6),
        ) {
            let list: Vec<String> = items.iter().map(|(a, b)| format!("{a}-{b}")).collect();
            let set = statuses(&list.join(","));
            for status in 0..=700 {
                let sound = |(a, b): &&(u16, u16)| (100..=599).contains(a) && (100..=599).contains(b);
                let expected = items.iter().filter(sound).any(|(a, b)| (*a..=*b).contains(&status));
                prop_assert_eq!(set.contains(status), expected, "{}", status);
            }
        }
    }
}
