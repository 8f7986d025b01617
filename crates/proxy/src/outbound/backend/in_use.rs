//! One try with an endpoint: counts as load until dropped, and tells the breaker and the balancer how it went.

use std::cell::Cell;
use std::num::NonZeroU64;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tulle_engine::Reason;
use tulle_engine::balance::Picked;
use tulle_engine::breaker::Outcome;
use tulle_engine::retry::{self, Hint};
use tulle_http::Head;

use super::{Backend, Member};
use crate::clock;
use crate::http::answer::REASON;
use crate::http::exchange::grpc_status;
use crate::net::reach::ConnectError;

/// An endpoint while a request or connection is with it. How the try went is told once, by the first of
/// [`Self::answered`] (if the head tells), [`Self::ended`], [`Self::broke`] and [`Self::failed`]; a try that is dropped
/// without (the caller has left) tells nothing about the endpoint.
pub struct InUse {
    pub(super) backend: Rc<Backend>,
    pub member: Rc<Member>,
    started: u64,
    /// Of what was picked: the rest of it is the member's.
    probe: u32,
    told: Cell<bool>,
    /// When the answer was complete.
    over: Cell<Option<u64>>,
    /// The value of the cookie that the answer sets.
    pub(super) cookie: Option<NonZeroU64>,
}

impl InUse {
    pub(super) fn new(
        backend: Rc<Backend>,
        member: Rc<Member>,
        picked: Picked,
        started: u64,
        cookie: Option<NonZeroU64>,
    ) -> Self {
        InUse {
            backend,
            member,
            started,
            probe: picked.probe,
            told: Cell::new(false),
            over: Cell::new(None),
            cookie,
        }
    }

    /// The answer's head has come, as the server sent it. A gRPC call may still fail at its end; all else has its
    /// result now.
    pub fn answered(&self, now: u64, head: &Head) {
        self.begun(now);
        if !self.backend.judges {
            return;
        }
        let code = grpc_status(head);
        let open = code.is_none() && head.status() == 200 && is_grpc(head);
        if !open {
            let outcome = Outcome::of_answer(head.status(), code, wish(head));
            self.tell(now, &outcome);
        }
    }

    /// The answer is complete. `grpc_status`: of its trailers, if it had one there.
    pub fn ended(&self, now: u64, grpc_status: Option<u8>) {
        self.over.set(Some(now));
        self.tell(now, &Outcome::of_answer(200, grpc_status, None));
    }

    /// When the request took it, or began to wait for it.
    pub fn started(&self) -> u64 {
        self.started
    }

    /// When its answer was complete, once it is.
    pub fn over(&self) -> Option<u64> {
        self.over.get()
    }

    /// The connection or stream broke, or the server took too long: the try failed, and not by the caller.
    pub fn broke(&self, now: u64) {
        self.tell(now, &Outcome::broken());
    }

    /// There is a proxy at the other end, identified by mutual TLS.
    pub fn is_meshed(&self) -> bool {
        self.member.origin.reach().is_meshed()
    }

    /// It could not be connected to: others are used until it can.
    pub fn failed(&self, error: ConnectError) {
        self.tell(clock::now(), &Outcome::broken());
        self.backend.retire(&self.member, error);
    }

    /// The first bytes are there, or a connection that is not looked into stands.
    pub fn begun(&self, now: u64) {
        let mut state = self.backend.state.borrow_mut();
        state
            .balancer
            .on_first_response(self.picked(), self.started, now);
    }

    /// Has the endpoint's proxy answered that it could not reach its application? Then no application has seen the
    /// request. The endpoint leaves the draw for a moment, if there are others.
    pub fn declined(&self, answer: &Head) -> bool {
        let declined = self.member.origin.reach().is_meshed()
            && answer.get(REASON).is_some_and(|reason| {
                DECLINED
                    .iter()
                    .any(|known| known.code().as_bytes() == reason)
            });
        let others = self.backend.state.borrow().balancer.ready_len() > 1;
        if declined && others {
            self.failed(ConnectError::new(
                Reason::ConnectFailed,
                "its application does not listen",
            ));
        }
        declined && others
    }

    fn picked(&self) -> Picked {
        Picked {
            id: self.member.id,
            probe: self.probe,
        }
    }

    fn tell(&self, now: u64, outcome: &Outcome) {
        if !self.backend.judges || self.told.replace(true) {
            return;
        }
        let mut state = self.backend.state.borrow_mut();
        let before = (state.balancer.ready_len(), state.balancer.tally());
        let random = fastrand::u64(..);
        state
            .balancer
            .on_result(self.picked(), self.started, now, random, outcome);
        if before != (state.balancer.ready_len(), state.balancer.tally()) {
            self.backend.settle(&mut state);
        }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let now = self.over.get().unwrap_or_else(clock::now);
        let mut state = self.backend.state.borrow_mut();
        let before = state.balancer.ready_len();
        state.balancer.on_end(self.picked(), now);
        // It was full, and is no longer.
        if before == 0 && state.balancer.ready_len() > 0 {
            self.backend.settle(&mut state);
        }
    }
}

/// What a proxy says for an application that has not seen the request.
const DECLINED: [Reason; 2] = [Reason::ConnectFailed, Reason::ShuttingDown];

fn is_grpc(head: &Head) -> bool {
    head.get("content-type")
        .is_some_and(|value| value.starts_with(b"application/grpc"))
}

/// How long the server asks to be left alone. Read from failures only.
fn wish(head: &Head) -> Option<Duration> {
    if let Some(Hint::After(pause)) = head.get("grpc-retry-pushback-ms").map(retry::pushback) {
        return Some(pause);
    }
    let value = head.get("retry-after")?;
    let unix_now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    retry::retry_after(value, unix_now.as_secs())
}
