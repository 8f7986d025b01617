//! Is the peer still there? After a quiet interval it is asked, and given up when nothing at all comes in time.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use crate::http::h2::Settings;

pub struct Keepalive(Option<Active>);

struct Active {
    interval: Duration,
    timeout: Duration,
    /// When to look again.
    timer: Pin<Box<Sleep>>,
    /// The timer has to be polled to wake anybody.
    unset: bool,
    /// Something has come since the timer was set.
    heard: bool,
    asked: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    Ping,
    /// The peer is gone.
    GiveUp,
}

impl Keepalive {
    pub fn new(settings: Settings) -> Self {
        Keepalive(settings.keepalive_interval.map(|interval| Active {
            interval,
            timeout: settings.keepalive_timeout,
            timer: Box::pin(sleep(interval)),
            unset: true,
            heard: false,
            asked: false,
        }))
    }

    /// Something has come from the peer.
    pub fn heard(&mut self) {
        if let Some(active) = &mut self.0 {
            active.heard = true;
        }
    }

    /// To be called in every round of the connection; costs one test while the time has not come.
    pub fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<Due> {
        let Some(active) = &mut self.0 else {
            return Poll::Pending;
        };
        while active.unset || active.timer.is_elapsed() {
            active.unset = false;
            if active.timer.as_mut().poll(cx).is_pending() {
                break;
            }
            let due = match (std::mem::take(&mut active.heard), active.asked) {
                (true, _) => None,
                (false, false) => Some(Due::Ping),
                (false, true) => return Poll::Ready(Due::GiveUp),
            };
            active.asked = due.is_some();
            let pause = if active.asked {
                active.timeout
            } else {
                active.interval
            };
            active.timer.as_mut().reset(Instant::now() + pause);
            active.unset = true;
            if let Some(due) = due {
                cx.waker().wake_by_ref();
                return Poll::Ready(due);
            }
        }
        Poll::Pending
    }
}
