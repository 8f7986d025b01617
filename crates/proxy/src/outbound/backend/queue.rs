//! What waits while a backend has no endpoint ready: bounded in number and in time.

use std::rc::Rc;

use tokio::time::Instant;
use tulle_engine::Reason;
use tulle_engine::balance::Unready;
use tulle_engine::destination::State as Known;
use tulle_engine::outbound::Queue;

use super::affinity::Traffic;
use super::{Backend, Choice, InUse, State, Unavailable};
use crate::clock;

impl Backend {
    /// An endpoint as soon as one is ready: at once when it is known that there is none, or when all have as many
    /// requests as they may; else within the fail-fast time, which runs from when the last one became unready.
    pub async fn wait(self: &Rc<Self>, choice: Choice) -> Result<InUse, Unavailable> {
        let queue = self.policy.queue;
        if self.waiting.get() >= self.capacity(queue) {
            return Err(Unavailable {
                reason: Reason::LoadShed,
                detail: None,
            });
        }
        let begun = Instant::now();
        let place = InQueue::new(self, choice.traffic);
        let waited = self.wait_in_queue(queue, choice).await;
        drop(place);
        if let Some(meters) = self.metered(choice.traffic) {
            meters.waited(begun.elapsed());
        }
        waited
    }

    /// How many may wait. Before discovery has answered, waiting is no sign of overload: the configured bound holds then.
    fn capacity(&self, queue: Queue) -> u32 {
        let configured = match self.outbound.upgrade() {
            Some(outbound) if self.state.borrow().known == Known::Unknown => {
                outbound.config.outbound.queue_capacity
            }
            _ => 1,
        };
        queue
            .capacity
            .max(u32::try_from(configured).unwrap_or(u32::MAX))
    }

    async fn wait_in_queue(
        self: &Rc<Self>,
        queue: Queue,
        choice: Choice,
    ) -> Result<InUse, Unavailable> {
        loop {
            let ready = self.became_ready.notified();
            let why = match self.try_pick(clock::now(), choice) {
                Ok(in_use) => return Ok(in_use),
                Err(why) => why,
            };
            let (deadline, due) = {
                let mut state = self.state.borrow_mut();
                match why {
                    Unready::Full => return Err(self.full()),
                    Unready::Empty if state.known != Known::Unknown => {
                        return Err(Unavailable {
                            reason: Reason::NoEndpoints,
                            detail: Some(self.authority.as_str().into()),
                        });
                    }
                    Unready::Unreachable if state.unmeshed == state.balancer.len() => {
                        return Err(Unavailable {
                            reason: Reason::MeshTlsRequired,
                            detail: Some(self.authority.as_str().into()),
                        });
                    }
                    _ => {}
                }
                let since = *state.unready_since.get_or_insert_with(Instant::now);
                // An ejected endpoint that has become due takes a request as its probe.
                let due = state.balancer.next_due().map(clock::instant);
                (since + queue.failfast, due)
            };
            let mut endpoints = self
                .endpoints
                .as_ref()
                .map(|endpoints| endpoints.borrow().clone());
            let changed = async {
                let changed = match &mut endpoints {
                    Some(endpoints) => endpoints.changed().await.is_ok(),
                    None => false,
                };
                if !changed {
                    // Its sender is gone: nothing will change any more.
                    std::future::pending::<()>().await;
                }
            };
            let probe = due.filter(|due| *due <= deadline);
            tokio::select! {
                () = ready => {}
                () = changed => {}
                () = tokio::time::sleep_until(probe.unwrap_or(deadline)) => {
                    if probe.is_none() || Instant::now() >= deadline {
                        return Err(self.state.borrow().failed_fast(why));
                    }
                }
            }
        }
    }

    fn full(&self) -> Unavailable {
        let limit = self.balance().and_then(|balance| balance.max_in_flight);
        let detail = limit.map(|limit| format!("{}: {limit} each", self.authority).into());
        Unavailable {
            reason: Reason::EndpointsFull,
            detail,
        }
    }
}

impl State {
    fn failed_fast(&self, why: Unready) -> Unavailable {
        let reason = match self.known {
            Known::Unknown => Reason::DiscoveryTimeout,
            Known::Missing | Known::Exists => Reason::FailFast,
        };
        let (all, ejected) = (self.balancer.len(), self.balancer.ejected_len());
        let detail = match why {
            Unready::Ejected => Some(format!(
                "the circuit breaker has ejected {ejected} of {all} endpoints for failing"
            )),
            _ => self.last_error.as_ref().map(ToString::to_string),
        };
        Unavailable {
            reason,
            detail: detail.map(Into::into),
        }
    }
}

/// A place in the queue.
struct InQueue<'b>(&'b Backend, Traffic);

impl<'b> InQueue<'b> {
    fn new(backend: &'b Backend, traffic: Traffic) -> Self {
        backend.waiting.set(backend.waiting.get() + 1);
        if let Some(meters) = backend.metered(traffic) {
            meters.queue_length.inc();
            meters.queue_requests.inc();
        }
        InQueue(backend, traffic)
    }
}

impl Drop for InQueue<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
        if let Some(meters) = self.0.metered(self.1) {
            meters.queue_length.dec();
        }
    }
}
