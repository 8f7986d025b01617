//! Whether anybody still wants what a watch publishes.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::watch::Flow;
use crate::discovery::is_unheld;

/// For how long nobody has held a target.
#[derive(Clone, Copy, Debug)]
pub struct Interest {
    idle: Option<Duration>,
    unheld_since: Option<Instant>,
}

impl Interest {
    /// Lost when nobody has held the target for `idle`; never with `None`.
    pub fn new(idle: Option<Duration>) -> Self {
        Self {
            idle,
            unheld_since: None,
        }
    }

    /// Looks: stop once the interest is lost.
    pub fn flow<V>(&mut self, sender: &watch::Sender<V>) -> Flow {
        let Some(idle) = self.idle else {
            return Flow::Continue;
        };
        if !is_unheld(sender) {
            self.unheld_since = None;
            return Flow::Continue;
        }
        let since = *self.unheld_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= idle {
            Flow::Stop
        } else {
            Flow::Continue
        }
    }

    /// Waits until the interest is lost, for targets without a stream.
    pub async fn lost<V>(&mut self, sender: &watch::Sender<V>) {
        let every = self
            .idle
            .map_or(Duration::from_secs(60), |idle| idle / 4)
            .max(Duration::from_millis(100));
        while self.flow(sender) == Flow::Continue {
            tokio::time::sleep(every).await;
        }
    }
}
