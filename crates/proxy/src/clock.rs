//! Monotonic time as the engine wants it: nanoseconds since the process began.

use std::sync::LazyLock;
use std::time::Duration;

use tokio::time::Instant;

static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Nanoseconds since the first call; one clock read.
pub fn now() -> u64 {
    nanos(Instant::now())
}

/// The same for a moment that was read already.
pub fn nanos(moment: Instant) -> u64 {
    u64::try_from(moment.saturating_duration_since(*ORIGIN).as_nanos()).unwrap_or(u64::MAX)
}

/// Back to a moment of the runtime's.
pub fn instant(nanos: u64) -> Instant {
    *ORIGIN + Duration::from_nanos(nanos)
}
