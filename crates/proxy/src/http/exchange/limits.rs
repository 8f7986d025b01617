//! The deadlines of an exchange that has some, and their timer. Most have none and pay nothing for them.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};
use tulle_engine::Reason;
use tulle_engine::deadline::Deadlines;

use crate::clock;

/// A timer that nobody waits for.
const FAR: Duration = Duration::from_secs(86_400);

pub(super) struct Limits {
    pub deadlines: Deadlines,
    timer: Pin<Box<Sleep>>,
}

impl Limits {
    pub fn new(deadlines: Deadlines) -> Option<Box<Self>> {
        deadlines.any().then(|| {
            // A limit whose time has not begun sets the timer when it does.
            let first = deadlines
                .next()
                .map_or_else(|| Instant::now() + FAR, clock::instant);
            Box::new(Limits {
                deadlines,
                timer: Box::pin(tokio::time::sleep_until(first)),
            })
        })
    }

    /// `moved`: something has passed this turn.
    pub fn poll(&mut self, cx: &mut Context<'_>, moved: bool, request_sent: bool) -> Poll<Reason> {
        let now = clock::now();
        if moved {
            self.deadlines.progress(now);
        }
        if request_sent {
            self.deadlines.request_sent(now);
        }
        if let Some(reason) = self.deadlines.expired(now) {
            return Poll::Ready(reason);
        }
        let next = self
            .deadlines
            .next()
            .map_or(self.timer.deadline(), clock::instant);
        if next != self.timer.deadline() {
            self.timer.as_mut().reset(next);
        }
        if self.timer.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}
