//! Second tries beside a first that is slower than most: whichever answers first is the answer, the others are
//! cancelled. Only for requests that may be repeated, and only when all of the request is there to be sent again.

use std::future::{pending, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::time::Instant;
use tulle_engine::hedge::Hedge;
use tulle_http::Head;
use tulle_http::h1::BodyKind;
use tulle_http::h2::Code;

use crate::clock;
use crate::http::Fault;
use crate::http::account::{Account, error_label};
use crate::http::exchange::{Exchange, Failure, grpc_status};
use crate::http::side::{Answer, Upstream};
use crate::http::time_left;
use crate::outbound::attempt::{open, restore};
use crate::outbound::backend::{Backend, Choice, InUse};
use crate::outbound::tries::Course;
use crate::trace::{Trace, Tracer};

/// What a second try needs to know of the first.
pub struct Slow<'s> {
    pub hedge: &'s Hedge,
    /// How long a try may take before the next is sent, in ns.
    pub delay: u64,
    pub course: &'s Course<'s>,
    pub backend: &'s Rc<Backend>,
    pub choice: Choice,
    pub required_id: Option<&'s str>,
    /// See [`restore`].
    pub authority: Option<&'s [u8]>,
    pub body: BodyKind,
    pub account: &'s mut Account,
    pub tracer: Option<&'s Tracer>,
}

/// The rule's wish, and the delay in ns, of a request that may have second tries once enough is known of the rule's
/// latencies.
pub fn wanted<'h>(course: &Course<'_>, hedge: &'h Option<Hedge>) -> Option<(&'h Hedge, u64)> {
    let hedge = hedge.as_ref()?;
    // Calls of a GRPCRoute are all POST: a rule of one that asks for hedging means those.
    if !course.idempotent && !course.state.is_grpc() {
        return None;
    }
    let latencies = course.state.latencies.as_ref()?.borrow();
    latencies.delay(hedge).map(|delay| (hedge, delay))
}

/// The answer's head, from whichever try has it first; afterwards `exchange` and `in_use` are those of that try.
pub async fn head(
    exchange: &mut Exchange<'_, '_>,
    in_use: &mut InUse,
    request: &Head,
    answer: &mut Head,
    slow: Slow<'_>,
) -> Result<Answer, Failure> {
    let mut others = Vec::new();
    let mut choice = slow.choice;
    choice.exclude(in_use);
    let mut left = slow.hedge.max_hedges;
    let mut due = slow.course.since.saturating_add(slow.delay);
    // Why the first try is out of the race.
    let mut failed: Option<Failure> = None;
    loop {
        let first = async {
            match failed {
                None => exchange.head(answer).await,
                Some(_) => Err(exchange.wait().await),
            }
        };
        let event = race(first, &mut others, (left > 0).then_some(due)).await;
        match event {
            Race::First(Err(failure @ Failure::Upstream(_)))
                if failed.is_none() && !others.is_empty() =>
            {
                in_use.broke(clock::now());
                failed = Some(failure);
            }
            Race::First(ended) => return ended,
            Race::Other(Some(won)) => {
                slow.course.state.hedge_won();
                in_use.begun(clock::now());
                let metrics = &in_use.member.metrics;
                slow.account.tried(metrics, since(&slow), None, "hedged");
                let (up, ended, span) = won.into_parts(answer, in_use);
                slow.account.trace.adopt(span);
                exchange.switch(up);
                return Ok(ended);
            }
            Race::Other(None) => {
                if let (Some(failure), true) = (failed, others.is_empty()) {
                    return Err(failure);
                }
            }
            Race::Due => {
                left -= 1;
                due = clock::now().saturating_add(slow.delay);
                match second(exchange, in_use, request, &slow, choice) {
                    Ok((other, mut head)) => {
                        choice.exclude(&other);
                        let span = slow.account.trace.beside(slow.tracer, &mut head);
                        let bytes = exchange.replay.bytes().to_vec();
                        let trailers = exchange.replay.trailers().cloned();
                        others.push(Box::pin(contend(
                            other, head, slow.body, bytes, trailers, span,
                        )));
                    }
                    Err(why) => {
                        slow.course.state.hedge_skipped(why);
                        left = 0;
                    }
                }
            }
        }
    }
}

enum Race {
    First(Result<Answer, Failure>),
    Other(Option<Won>),
    Due,
}

/// Waits for whatever is first: the first try's end, another's, or the time for one more.
async fn race<F: Future<Output = Option<Won>> + Unpin>(
    first: impl Future<Output = Result<Answer, Failure>>,
    others: &mut Vec<F>,
    due: Option<u64>,
) -> Race {
    let mut first = pin!(first);
    let mut timer = pin!(async {
        match due {
            Some(due) => tokio::time::sleep_until(clock::instant(due)).await,
            None => pending().await,
        }
    });
    poll_fn(|cx| {
        if let Poll::Ready(ended) = first.as_mut().poll(cx) {
            return Poll::Ready(Race::First(ended));
        }
        if let Poll::Ready(other) = poll_any(others, cx) {
            return Poll::Ready(Race::Other(other));
        }
        timer.as_mut().poll(cx).map(|()| Race::Due)
    })
    .await
}

fn since(slow: &Slow<'_>) -> Instant {
    clock::instant(slow.course.since)
}

/// The next of the tries that has ended; it leaves the list.
fn poll_any<F: Future<Output = Option<Won>> + Unpin>(
    others: &mut Vec<F>,
    cx: &mut Context<'_>,
) -> Poll<Option<Won>> {
    for index in 0..others.len() {
        if let Poll::Ready(ended) = std::pin::Pin::new(&mut others[index]).poll(cx) {
            drop(others.swap_remove(index));
            return Poll::Ready(ended);
        }
    }
    Poll::Pending
}

/// An endpoint for one more try and the request's head for it; or why there is none.
fn second(
    exchange: &Exchange<'_, '_>,
    first: &InUse,
    request: &Head,
    slow: &Slow<'_>,
    choice: Choice,
) -> Result<(InUse, Head), &'static str> {
    if !exchange.request_sent() || !exchange.replay.is_whole() {
        return Err("body");
    }
    let now = clock::now();
    let other = slow.backend.pick(now, choice).ok_or("no_endpoint")?;
    let wanted = slow
        .required_id
        .is_none_or(|id| other.member.origin.reach().identity() == Some(id));
    if !wanted {
        return Err("no_endpoint");
    }
    if !slow.course.state.bucket.borrow_mut().withdraw(now) {
        return Err("no_budget");
    }
    slow.course.state.hedged();
    let mut head = request.clone();
    restore(&mut head, first, slow.authority).map_err(|_| "body")?;
    let left = slow.course.deadlines.left(true, now);
    time_left::hand_on(&mut head, other.is_meshed(), left).map_err(|_| "body")?;
    Ok((other, head))
}

/// A try that has an answer.
struct Won {
    up: Racing,
    in_use: InUse,
    head: Head,
    answer: Answer,
    span: Trace,
}

impl Won {
    fn into_parts(mut self, head: &mut Head, in_use: &mut InUse) -> (Upstream, Answer, Trace) {
        std::mem::swap(head, &mut self.head);
        *in_use = self.in_use;
        (self.up.win(), self.answer, self.span)
    }
}

/// A try that is cancelled unless it wins.
struct Racing(Option<Upstream>);

impl Racing {
    fn win(mut self) -> Upstream {
        match self.0.take() {
            Some(up) => up,
            None => unreachable!("taken only here"),
        }
    }
}

impl Drop for Racing {
    fn drop(&mut self) {
        if let Some(up) = &mut self.0 {
            up.cancel(Code::CANCEL);
        }
    }
}

/// One more try, to its answer's head. `None`: it failed, or its answer is an error, which no slow try should lose to.
async fn contend(
    in_use: InUse,
    mut request: Head,
    body: BodyKind,
    bytes: Vec<u8>,
    trailers: Option<Head>,
    mut span: Trace,
) -> Option<Won> {
    let (up, _) = match open(&in_use, &mut request, body, false).await {
        Ok(opened) => opened,
        Err(_) => return None,
    };
    let mut racing = Racing(Some(up));
    let mut rest = Some(&bytes[..]);
    let mut head = Head::new();
    let answered = poll_fn(|cx| {
        let up = racing.0.as_mut().ok_or(Fault::Closed)?;
        while let Some(data) = rest {
            if data.is_empty() {
                up.finish(trailers.as_ref())?;
                rest = None;
                break;
            }
            match up.poll_capacity(cx, data.len())? {
                Poll::Pending => break,
                Poll::Ready(count) => {
                    up.send(&data[..count])?;
                    rest = Some(&data[count..]);
                }
            }
        }
        // An answer may be there although the server does not read on.
        let _later = up.poll_flush(cx);
        loop {
            match up.poll_head(cx, &mut head) {
                Poll::Ready(Ok(Answer::Interim)) => {}
                ended => return ended,
            }
        }
    })
    .await;
    let now = clock::now();
    match &answered {
        Ok(_) => span.answered(head.status(), grpc_status(&head)),
        Err(fault) => span.ended(None, error_label(Failure::Upstream(*fault))),
    }
    match answered {
        Ok(answer) if rest.is_none() && !is_error(&head) => Some(Won {
            up: racing,
            in_use,
            head,
            answer,
            span,
        }),
        Ok(_) => {
            in_use.answered(now, &head);
            None
        }
        Err(_) => {
            in_use.broke(now);
            None
        }
    }
}

fn is_error(head: &Head) -> bool {
    head.status() >= 500 || head.status() == 429 || grpc_status(head).is_some_and(|code| code != 0)
}

/// Records how long an answer took, for the delays of later requests.
pub fn record(course: &Course<'_>) {
    if let Some(latencies) = &course.state.latencies {
        let now = clock::now();
        latencies
            .borrow_mut()
            .record(now.saturating_sub(course.since), now);
    }
}
