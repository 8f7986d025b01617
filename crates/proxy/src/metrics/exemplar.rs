//! Exemplars: for each bucket of a latency histogram, one request that fell into it, named by its trace or its id.
//!
//! They are kept only while somebody asks for them (OpenMetrics; [`Registry::exemplars_wanted`]). Then a worker takes
//! note of at most [`PER_SECOND`] requests a second, of those that carry a name; all others cost one comparison.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use tulle_http::trace_context::{SpanId, TraceId};

use super::families::Family;
use super::labels::Labels;

/// Most requests a second that a worker takes note of.
pub const PER_SECOND: u32 = 1_000;
/// How long after the last page with exemplars they are still kept.
pub const WANTED_FOR: Duration = Duration::from_secs(300);
/// Most histograms that have exemplars.
const MAX_HISTOGRAMS: usize = 1_024;
/// Longest name of a request in an exemplar, in bytes.
const LONGEST: usize = 64;

/// What a request is called elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    label: &'static str,
    value: Box<str>,
    /// The span of the trace, where it is one of ours.
    span: Option<SpanId>,
}

impl Name {
    /// A trace, by its id in hexadecimal digits.
    pub fn trace(id: &[u8]) -> Option<Self> {
        let is_id = id.iter().all(u8::is_ascii_hexdigit) && id.iter().any(|digit| *digit != b'0');
        is_id.then(|| Self::new("trace_id", id))?
    }

    /// A span of ours, by the trace that it belongs to and its own number.
    pub fn span(trace: TraceId, span: SpanId) -> Self {
        Name {
            label: "trace_id",
            value: format!("{:032x}", u128::from_be_bytes(trace)).into(),
            span: Some(span),
        }
    }

    /// A request, by the id that its caller gave it.
    pub fn request(id: &[u8]) -> Option<Self> {
        Self::new("request_id", id)
    }

    fn new(label: &'static str, value: &[u8]) -> Option<Self> {
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:+/=@".contains(byte);
        let sane = !value.is_empty() && value.len() <= LONGEST && value.iter().all(allowed);
        let value = std::str::from_utf8(value).ok().filter(|_| sane)?;
        Some(Name {
            label,
            value: value.into(),
            span: None,
        })
    }
}

/// One request in a bucket.
#[derive(Clone, Debug)]
pub(super) struct Exemplar {
    name: Name,
    /// In the histogram's unit.
    value: u64,
    at: SystemTime,
}

impl Exemplar {
    /// As it stands behind a bucket's count. `per_shown`: recorded units in one of the family's.
    pub(super) fn write(&self, per_shown: u64, page: &mut String) {
        use std::fmt::Write as _;
        let at = self.at.duration_since(SystemTime::UNIX_EPOCH);
        let _ = write!(page, " # {{{}=\"{}\"", self.name.label, self.name.value);
        if let Some(span) = self.name.span {
            let _ = write!(page, ",span_id=\"{:016x}\"", u64::from_be_bytes(span));
        }
        let _ = write!(
            page,
            "}} {} {:.3}",
            self.value as f64 / per_shown as f64,
            at.unwrap_or_default().as_secs_f64()
        );
    }
}

/// The exemplars of one histogram, by bucket.
#[derive(Debug, Default)]
pub struct Exemplars(Mutex<Vec<Option<Exemplar>>>);

impl Exemplars {
    /// The request is the bucket's newest.
    pub(super) fn put(&self, bucket: usize, value: u64, name: &Name) {
        let exemplar = Exemplar {
            name: name.clone(),
            value,
            at: SystemTime::now(),
        };
        let mut buckets = lock(&self.0);
        if buckets.len() <= bucket {
            buckets.resize_with(bucket + 1, || None);
        }
        buckets[bucket] = Some(exemplar);
    }

    pub(super) fn get(&self, bucket: usize) -> Option<Exemplar> {
        lock(&self.0).get(bucket).cloned().flatten()
    }
}

/// The exemplars of the process. They go with the handles of their histograms.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<BTreeMap<(&'static str, Labels), Weak<Exemplars>>>);

impl Kept {
    /// Those of a histogram, for who records into it; nobody sees them when there are too many.
    pub(super) fn of(&self, family: &'static Family, labels: &Labels) -> Arc<Exemplars> {
        let mut kept = lock(&self.0);
        let key = (family.name, labels.clone());
        if let Some(known) = kept.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        kept.retain(|_, exemplars| exemplars.strong_count() > 0);
        let fresh = Arc::default();
        if kept.len() < MAX_HISTOGRAMS {
            kept.insert(key, Arc::downgrade(&fresh));
        }
        fresh
    }

    pub(super) fn find(&self, family: &Family, labels: &Labels) -> Option<Arc<Exemplars>> {
        let kept = lock(&self.0);
        if kept.is_empty() {
            return None;
        }
        kept.get(&(family.name, labels.clone()))?.upgrade()
    }
}

/// A worker's measure of how many requests it has taken note of.
#[derive(Debug, Default)]
pub struct Pace(Cell<Option<Instant>>);

impl Pace {
    /// Whether one more may be.
    pub fn admits(&self, now: Instant) -> bool {
        let pause = Duration::from_secs(1) / PER_SECOND;
        let due = self
            .0
            .get()
            .is_none_or(|last| now.saturating_duration_since(last) >= pause);
        if due {
            self.0.set(Some(now));
        }
        due
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic under these locks leaves whole values behind.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_trace_or_a_sane_token() {
        let shown = |name: Option<Name>| name.map(|name| (name.label, name.value.to_string()));
        assert_eq!(
            shown(Name::trace(b"0af7")),
            Some(("trace_id", "0af7".to_owned()))
        );
        assert_eq!(
            shown(Name::request(b"req-7")),
            Some(("request_id", "req-7".to_owned()))
        );
        for bad in [&b""[..], b"a\"b", b"a\nb", &[b'x'; LONGEST + 1]] {
            assert_eq!((Name::trace(bad), Name::request(bad)), (None, None));
        }
        assert_eq!((Name::trace(b"xyz"), Name::trace(b"0000")), (None, None));
    }

    #[test]
    fn a_worker_takes_note_of_a_thousand_a_second() {
        let (pace, start) = (Pace::default(), Instant::now());
        let admitted = (0..20_000).filter(|n| pace.admits(start + Duration::from_micros(50 * n)));
        assert_eq!(admitted.count(), 1_000);
    }
}
