//! The first half of an exchange: until the answer's final head, and what comes with it.

use std::future::poll_fn;
use std::task::{Context, Poll};

use tulle_http::hop::UpgradeField;
use tulle_http::{Head, hop};

use super::{Exchange, Failure, grpc_status};
use crate::http::Event;
use crate::http::side::Answer;
use crate::http::stall::Way;

impl Exchange<'_, '_> {
    /// Waits for the answer's final head while the request's body flows; interim heads are passed on.
    pub async fn head(&mut self, head: &mut Head) -> Result<Answer, Failure> {
        poll_fn(|cx| {
            let turn = self.poll_request(cx)?;
            if self.up.defers(cx) {
                return Poll::Pending;
            }
            loop {
                match self.up.poll_head(cx, head) {
                    Poll::Ready(Ok(Answer::Interim)) => self.interim(cx, head)?,
                    Poll::Ready(Ok(answer)) => {
                        // A server that answers before it has the whole request has its reason to wait for the rest.
                        self.sender_due = false;
                        self.waits.end(Way::Request);
                        if let Some(limits) = &mut self.limits {
                            limits.deadlines.answered();
                        }
                        return Poll::Ready(Ok(answer));
                    }
                    Poll::Ready(Err(fault)) => return Poll::Ready(Err(Failure::Upstream(fault))),
                    Poll::Pending => break,
                }
            }
            if self.expectation.is_some() {
                self.poll_expectation(cx)?;
            }
            self.rest(cx, turn)
        })
        .await
    }

    /// Passes an interim head on.
    fn interim(&mut self, cx: &Context<'_>, head: &mut Head) -> Result<(), Failure> {
        let known = head.status() == 100
            && self
                .expectation
                .as_mut()
                .is_some_and(|expectation| !expectation.given());
        if !known {
            tulle_http::l5d::strip_all(head);
            hop::strip(head, UpgradeField::Drop);
            self.down
                .send_head(head, Answer::Interim)
                .map_err(Failure::Downstream)?;
        }
        self.sender_is_due(cx);
        Ok(())
    }

    /// Tells the caller to go on if the server has been silent for too long.
    #[cold]
    fn poll_expectation(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        let over = self
            .expectation
            .as_mut()
            .is_some_and(|expectation| expectation.poll_over(cx).is_ready());
        if over {
            self.down.go_on().map_err(Failure::Downstream)?;
            self.sender_is_due(cx);
        }
        Ok(())
    }

    fn sender_is_due(&mut self, cx: &Context<'_>) {
        if self.sender_timed && !self.sender_due {
            // The request is looked at again, for now it is waited for.
            self.sender_due = true;
            cx.waker().wake_by_ref();
        }
    }

    /// Waits for what follows the answer's head. Trailers that come at once belong to the answer's outcome: their
    /// `grpc-status` is known afterwards, and they are kept for [`Exchange::bodies`].
    pub async fn peek(&mut self) -> Result<Option<&Head>, Failure> {
        let mut trailers = Head::new();
        let event = poll_fn(|cx| {
            let turn = self.poll_request(cx)?;
            match self.up.poll_event(cx, &mut trailers) {
                Poll::Ready(event) => Poll::Ready(event.map_err(Failure::Upstream)),
                Poll::Pending => self.rest(cx, turn),
            }
        })
        .await?;
        // Data stay where they are.
        self.peeked = (event != Event::Data).then_some(event);
        if event == Event::Trailers {
            self.grpc_status = grpc_status(&trailers);
            self.peeked_trailers = Some(Box::new(trailers));
        }
        Ok(self.peeked_trailers.as_deref())
    }
}
