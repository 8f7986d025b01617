//! Is the peer still there? A PING after a quiet interval, and a verdict when it is not answered.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep};

use crate::http::h2::Settings;

pub struct Keepalive(Option<Active>);

struct Active {
    pings: PingPong,
    interval: Duration,
    timeout: Duration,
    /// When to ask, or when to give up.
    timer: Pin<Box<Sleep>>,
    asked: bool,
}

impl Keepalive {
    pub fn new(pings: Option<PingPong>, settings: Settings) -> Self {
        Keepalive(
            pings
                .zip(settings.keepalive_interval)
                .map(|(pings, interval)| Active {
                    pings,
                    interval,
                    timeout: settings.keepalive_timeout,
                    timer: Box::pin(sleep(interval)),
                    asked: false,
                }),
        )
    }

    /// Ready when the peer has not answered in time. To be polled whenever the connection is.
    pub fn poll_dead(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(active) = &mut self.0 else {
            return Poll::Pending;
        };
        loop {
            if active.asked && active.pings.poll_pong(cx).is_ready() {
                active.asked = false;
                active
                    .timer
                    .as_mut()
                    .reset(Instant::now() + active.interval);
            }
            ready!(active.timer.as_mut().poll(cx));
            if active.asked || active.pings.send_ping(Ping::opaque()).is_err() {
                return Poll::Ready(());
            }
            active.asked = true;
            active.timer.as_mut().reset(Instant::now() + active.timeout);
        }
    }
}
