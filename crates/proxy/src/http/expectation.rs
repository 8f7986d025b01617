//! A caller that waits for leave to send its body (`Expect: 100-continue`), and a server that does not give it.
//!
//! The leave is the server's to give. Yet some servers never do, and linkerd2-proxy at the other end takes interim answers
//! for itself, while a caller may wait for ever. So the server has a while to say something, then the caller is told to
//! go on, as any client may by itself (RFC 9110 §10.1.1). A server that was silent once is not waited for again, until it
//! gives its leave after all.
//!
//! Cost: a timer for each request that asks, nothing for the others.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Sleep;
use tulle_http::Head;

use crate::http::origin::Origin;
use crate::http::side::expects_continue;

/// How long a server may take to give its leave: as long as the usual clients wait by themselves.
pub const PATIENCE: Duration = Duration::from_secs(1);

pub struct Expectation {
    /// Whose leave is waited for.
    origin: Rc<Origin>,
    state: State,
}

enum State {
    Waiting(Pin<Box<Sleep>>),
    /// This server is not worth a wait.
    Hopeless,
    /// We have given leave in the server's place.
    Told,
    /// The server has given leave, or the body has begun without.
    Over,
}

impl Expectation {
    /// `None`: the caller asks for no leave.
    pub fn of(request: &Head, origin: &Rc<Origin>) -> Option<Box<Self>> {
        expects_continue(request).then(|| {
            let state = match origin.gives_no_leave() {
                true => State::Hopeless,
                false => State::Waiting(Box::pin(tokio::time::sleep(PATIENCE))),
            };
            Box::new(Expectation {
                origin: origin.clone(),
                state,
            })
        })
    }

    /// Ready once: the caller is to be told in the server's place.
    pub fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.state {
            State::Waiting(timer) => ready!(timer.as_mut().poll(cx)),
            State::Hopeless => {}
            State::Told | State::Over => return Poll::Pending,
        }
        self.state = State::Told;
        self.origin.has_given_leave(false);
        Poll::Ready(())
    }

    /// The body has begun.
    pub fn begun(&mut self) {
        if !matches!(self.state, State::Told) {
            self.state = State::Over;
        }
    }

    /// The server gives leave. `false`: the caller has it already.
    pub fn given(&mut self) -> bool {
        self.origin.has_given_leave(true);
        let told = matches!(self.state, State::Told);
        self.begun();
        !told
    }
}
