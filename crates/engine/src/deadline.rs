//! Until when a request may go on. Three limits run beside each other; the first that is reached ends the request. A
//! fourth ends a single try of it.
//!
//! What is left of a request's time is told to the next hop: in `grpc-timeout` for gRPC ([`grpc_timeout`]), between
//! proxies in Linkerd's `l5d-timeout` ([`l5d_timeout`]). Both are read and written here.
//!
//! Times are nanoseconds since some moment of the caller's.
//!
//! ```
//! use std::time::Duration;
//! use tulle_engine::{Reason, deadline::Deadlines, outbound::Timeouts};
//!
//! let timeouts = Timeouts { response: Some(Duration::from_nanos(50)), ..Timeouts::default() };
//! let mut deadlines = Deadlines::begin(&timeouts, None, 0);
//! deadlines.request_sent(100);
//! assert_eq!(deadlines.next(), Some(150));
//! assert_eq!(deadlines.expired(150), Some(Reason::ResponseTimeout));
//! ```

use std::time::Duration;

use crate::invalid::nanos;
use crate::outbound::Timeouts;
use crate::reason::Reason;
use crate::retry::Wishes;

const NEVER: u64 = u64::MAX;

/// The deadlines of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    request: u64,
    response: u64,
    idle: u64,
    one_try: u64,
    response_limit: u64,
    idle_limit: u64,
}

impl Deadlines {
    /// The request begins. `backend_limit` is the limit of the backend alone ([`crate::outbound::RouteBackend`]).
    #[must_use]
    pub fn begin(timeouts: &Timeouts, backend_limit: Option<Duration>, now: u64) -> Self {
        let length = |limit: Option<Duration>| limit.map_or(NEVER, nanos);
        let idle_limit = length(timeouts.idle);
        Self {
            request: now.saturating_add(length(timeouts.request)),
            response: NEVER,
            idle: now.saturating_add(idle_limit),
            one_try: NEVER,
            response_limit: length(timeouts.response).min(length(backend_limit)),
            idle_limit,
        }
    }

    /// The caller itself leaves after `limit`: the request's time is no longer than that.
    #[must_use]
    pub fn within(mut self, limit: Option<Duration>, now: u64) -> Self {
        if let Some(limit) = limit {
            self.request = self.request.min(now.saturating_add(nanos(limit)));
        }
        self
    }

    /// A try of the request begins; `limit` is its own time, until the answer's head.
    pub fn begin_try(&mut self, limit: Option<Duration>, now: u64) {
        self.one_try = limit.map_or(NEVER, |limit| now.saturating_add(nanos(limit)));
        self.response = NEVER;
    }

    /// The answer's head has come.
    pub fn answered(&mut self) {
        self.one_try = NEVER;
    }

    /// Until when the whole request, all tries of it, may take.
    #[must_use]
    pub fn request(&self) -> Option<u64> {
        Some(self.request).filter(|deadline| *deadline != NEVER)
    }

    /// How long the next hop may work for it; `None`: as long as it likes. `complete`: the request has no body that is
    /// still to be sent, so that the response's time runs from now.
    #[must_use]
    pub fn left(&self, complete: bool, now: u64) -> Option<Duration> {
        let response = match complete {
            true => now.saturating_add(self.response_limit),
            false => NEVER,
        };
        Some(self.request.min(response))
            .filter(|deadline| *deadline != NEVER)
            .map(|deadline| Duration::from_nanos(deadline.saturating_sub(now)))
    }

    /// The request has been sent completely: the response's time begins.
    pub fn request_sent(&mut self, now: u64) {
        if self.response == NEVER {
            self.response = now.saturating_add(self.response_limit);
        }
    }

    /// Data has passed, in either direction.
    pub fn progress(&mut self, now: u64) {
        self.idle = now.saturating_add(self.idle_limit);
    }

    /// Whether there is any limit, also one whose time has not begun.
    #[must_use]
    pub fn any(&self) -> bool {
        self.response_limit != NEVER || self.next().is_some()
    }

    /// The earliest deadline; `None` when there is no limit.
    #[must_use]
    pub fn next(&self) -> Option<u64> {
        let earliest = self.request.min(self.response).min(self.idle);
        Some(earliest.min(self.one_try)).filter(|deadline| *deadline != NEVER)
    }

    /// Which limit has been reached, the earliest first.
    #[must_use]
    pub fn expired(&self, now: u64) -> Option<Reason> {
        [
            (self.request, Reason::RequestTimeout),
            (self.response, Reason::ResponseTimeout),
            (self.idle, Reason::IdleTimeout),
            (self.one_try, Reason::TryTimeout),
        ]
        .into_iter()
        .filter(|(deadline, _)| *deadline != NEVER && *deadline <= now)
        .min_by_key(|(deadline, _)| *deadline)
        .map(|(_, reason)| reason)
    }
}

/// Reads `grpc-timeout`: at most eight digits and a unit. `None` when it is none.
#[must_use]
pub fn read_grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// What is left, as `grpc-timeout` says it: in the finest unit that eight digits hold, never less than is left.
#[must_use]
pub fn grpc_timeout(left: Duration) -> Written {
    let nanos = left.as_nanos();
    let units: [(u128, &str); 6] = [
        (1, "n"),
        (1_000, "u"),
        (1_000_000, "m"),
        (1_000_000_000, "S"),
        (60_000_000_000, "M"),
        (3_600_000_000_000, "H"),
    ];
    let (number, unit) = units
        .into_iter()
        .map(|(length, unit)| (nanos.div_ceil(length), unit))
        .find(|(number, _)| *number < 100_000_000)
        .unwrap_or((99_999_999, "H"));
    Written::new(number, unit)
}

/// Reads what [`l5d_timeout`] writes: Linkerd's form of a duration.
#[must_use]
pub fn read_l5d_timeout<H: crate::Headers + ?Sized>(headers: &H) -> Option<Duration> {
    Wishes::read_request(headers)
}

/// What is left, as `l5d-timeout` says it: in whole milliseconds, never less than is left and never nothing.
#[must_use]
pub fn l5d_timeout(left: Duration) -> Written {
    Written::new(left.as_nanos().div_ceil(1_000_000).max(1), "ms")
}

/// A number and its unit as text, without an allocation.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    text: [u8; 24],
    start: u8,
}

impl Written {
    fn new(number: u128, unit: &str) -> Self {
        // More milliseconds than that nobody waits for.
        let mut number = u64::try_from(number).unwrap_or(u64::MAX);
        let mut text = [0; 24];
        let mut digits = true;
        let mut start = text.len();
        let mut unit = unit.bytes().rev();
        for place in text.iter_mut().rev() {
            *place = match unit.next() {
                Some(byte) => byte,
                None if digits => {
                    let digit = b'0' + (number % 10) as u8;
                    number /= 10;
                    digits = number > 0;
                    digit
                }
                None => break,
            };
            start -= 1;
        }
        Self {
            text,
            start: start as u8,
        }
    }

    /// The text.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.text.get(usize::from(self.start)..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: u64 = 1_000_000_000;

    fn timeouts(request: u64, response: u64, idle: u64) -> Timeouts {
        let some = |seconds| Some(Duration::from_secs(seconds)).filter(|length| !length.is_zero());
        Timeouts {
            request: some(request),
            response: some(response),
            idle: some(idle),
        }
    }

    #[test]
    fn without_limits_nothing_expires() {
        let mut deadlines = Deadlines::begin(&Timeouts::default(), None, 5);
        deadlines.request_sent(6);
        deadlines.progress(7);

        assert_eq!(deadlines.next(), None);
        assert_eq!(deadlines.expired(u64::MAX), None);
    }

    #[test]
    fn the_response_timeout_runs_from_the_end_of_the_request() {
        let mut deadlines = Deadlines::begin(&timeouts(0, 2, 0), None, 0);
        assert_eq!(
            deadlines.next(),
            None,
            "a slow request is not a slow response"
        );

        assert!(deadlines.any(), "its time is still to begin");

        deadlines.request_sent(10 * S);
        deadlines.request_sent(11 * S);

        assert_eq!(deadlines.next(), Some(12 * S), "its first end counts");
        assert_eq!(deadlines.expired(12 * S - 1), None);
        assert_eq!(deadlines.expired(12 * S), Some(Reason::ResponseTimeout));
    }

    #[test]
    fn progress_moves_only_the_idle_deadline() {
        let mut deadlines = Deadlines::begin(&timeouts(10, 0, 3), None, 0);
        for second in 1..=9 {
            assert_eq!(deadlines.expired(second * S), None);
            deadlines.progress(second * S);
        }

        assert_eq!(deadlines.next(), Some(10 * S));
        assert_eq!(deadlines.expired(10 * S), Some(Reason::RequestTimeout));
        assert_eq!(
            deadlines.expired(13 * S),
            Some(Reason::RequestTimeout),
            "the earliest is the reason"
        );
    }

    #[test]
    fn the_shorter_of_rule_and_backend_counts() {
        let mut deadlines = Deadlines::begin(&timeouts(0, 5, 0), Some(Duration::from_secs(2)), 0);
        deadlines.request_sent(0);

        assert_eq!(deadlines.next(), Some(2 * S));
    }

    #[test]
    fn a_try_has_its_own_time_until_the_head_comes() {
        let mut deadlines = Deadlines::begin(&timeouts(10, 0, 0), None, 0);
        deadlines.begin_try(Some(Duration::from_secs(2)), 0);
        assert_eq!(deadlines.expired(2 * S), Some(Reason::TryTimeout));

        deadlines.begin_try(Some(Duration::from_secs(2)), 2 * S);
        assert_eq!(deadlines.next(), Some(4 * S));
        deadlines.answered();
        assert_eq!(deadlines.next(), Some(10 * S), "all tries together");
        deadlines.begin_try(Some(Duration::from_secs(20)), 2 * S);
        assert_eq!(deadlines.expired(30 * S), Some(Reason::RequestTimeout));
    }

    #[test]
    fn the_response_timeout_begins_anew_with_each_try() {
        let mut deadlines = Deadlines::begin(&timeouts(0, 2, 0), None, 0);
        deadlines.request_sent(S);
        deadlines.begin_try(None, 2 * S);
        assert_eq!(deadlines.next(), None);
        deadlines.request_sent(5 * S);
        assert_eq!(deadlines.next(), Some(7 * S));
    }

    #[test]
    fn the_next_hop_is_told_what_is_left() {
        let deadlines = Deadlines::begin(&timeouts(10, 3, 1), None, 0);
        let left = |complete, now| deadlines.left(complete, now * S).map(|left| left.as_secs());

        assert_eq!((left(false, 4), left(true, 4)), (Some(6), Some(3)));
        assert_eq!((left(true, 9), left(true, 11)), (Some(1), Some(0)));
        assert_eq!(
            Deadlines::begin(&timeouts(0, 0, 1), None, 0).left(true, 0),
            None
        );
        let mine = Deadlines::begin(&timeouts(10, 0, 0), None, 0);
        let caller = mine.within(Some(Duration::from_secs(2)), S);
        assert_eq!(
            (caller.request(), mine.within(None, S)),
            (Some(3 * S), mine)
        );
        assert_eq!(
            mine.within(Some(Duration::from_secs(60)), S).request(),
            Some(10 * S)
        );
    }

    #[test]
    fn a_grpc_timeout_is_digits_and_a_unit() {
        for (text, nanos) in [
            ("100m", 100_000_000),
            ("1S", S),
            ("2M", 120 * S),
            ("1H", 3600 * S),
            ("5u", 5_000),
            ("7n", 7),
            ("0n", 0),
            ("99999H", 99_999 * 3600 * S),
        ] {
            let read = read_grpc_timeout(text.as_bytes());
            assert_eq!(
                read,
                Some(Duration::from_secs(nanos / S) + Duration::from_nanos(nanos % S)),
                "{text}"
            );
        }
        for text in [
            "",
            "S",
            "1",
            "1s",
            "100000000m",
            "-1S",
            "1.5S",
            " 1S",
            "1S ",
        ] {
            assert_eq!(read_grpc_timeout(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn what_is_left_is_written_in_the_finest_unit_that_fits() {
        let grpc = |left| String::from_utf8(grpc_timeout(left).as_bytes().to_vec()).unwrap();
        let l5d = |left| String::from_utf8(l5d_timeout(left).as_bytes().to_vec()).unwrap();

        assert_eq!(grpc(Duration::ZERO), "0n");
        assert_eq!(grpc(Duration::from_millis(99)), "99000000n");
        assert_eq!(grpc(Duration::from_millis(100)), "100000u");
        assert_eq!(grpc(Duration::from_secs(100)), "100000m");
        assert_eq!(grpc(Duration::MAX), "99999999H");
        assert_eq!(l5d(Duration::from_micros(1500)), "2ms");
        assert_eq!(l5d(Duration::ZERO), "1ms");
        assert_eq!(l5d(Duration::MAX), "18446744073709551615ms");
    }

    proptest! {
        #[test]
        fn a_written_timeout_is_read_as_no_less_and_hardly_more(nanos in 0_u64..u64::MAX / 2) {
            let left = Duration::from_nanos(nanos);
            let read = read_grpc_timeout(grpc_timeout(left).as_bytes()).unwrap();
            prop_assert!(read >= left);
            prop_assert!((read - left).as_nanos() <= left.as_nanos() / 50_000 + 1000);

            let fields = [("l5d-timeout", l5d_timeout(left).as_bytes().to_vec())];
            let read = read_l5d_timeout(&fields[..]).unwrap();
            prop_assert!(read >= left && read - left <= Duration::from_millis(1));
        }

        #[test]
        fn any_bytes_are_a_timeout_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let _ = read_grpc_timeout(&bytes);
        }
    }
}
