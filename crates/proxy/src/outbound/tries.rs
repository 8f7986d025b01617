//! The tries of one request: when another begins, and what is counted of it. The engine decides
//! ([`tulle_engine::retry`]); this file tells it what has happened and carries the wait out.

use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tulle_engine::deadline::Deadlines;
use tulle_engine::outbound::{Retry, Rule, Timeouts};
use tulle_engine::retry::{self, Body, Hint, Request, Tried, Tries, Verdict, Wishes};
use tulle_http::Head;

use crate::clock;
use crate::http::Fault;
use crate::http::answer::is_grpc;
use crate::http::decision::Fields;
use crate::http::exchange::{Exchange, Failure, grpc_status};
use crate::http::side::{Answer, Downstream};
use crate::outbound::rules::RuleState;

/// Timeouts and retries that a request has asked for itself, over those of its rule.
pub struct Asked {
    pub timeouts: Timeouts,
    pub retry: Option<Retry>,
}

impl Asked {
    /// What the request asks for; `None` when nothing, or when its rule does not allow it.
    pub fn read(rule: &Rule, head: &Head) -> Option<Box<Self>> {
        if !rule.allow_request_headers {
            return None;
        }
        let wishes = Wishes::read(&Fields(head));
        (wishes != Wishes::default()).then(|| {
            Box::new(Asked {
                timeouts: wishes.timeouts(&rule.timeouts),
                retry: wishes.retry(rule.retry.as_ref()),
            })
        })
    }
}

/// The tries of one request.
pub struct Course<'p> {
    pub rule: Option<&'p Retry>,
    pub state: &'p RuleState,
    pub deadlines: Deadlines,
    /// When the present try began.
    pub since: u64,
    pub idempotent: bool,
    tries: Tries,
}

impl<'p> Course<'p> {
    pub fn new(
        state: &'p RuleState,
        rule: Option<&'p Retry>,
        deadlines: Deadlines,
        head: &Head,
        now: u64,
    ) -> Self {
        state.bucket.borrow_mut().deposit(now);
        let mut course = Course {
            rule,
            state,
            deadlines,
            since: now,
            idempotent: retry::is_idempotent(head.method()),
            tries: Tries::default(),
        };
        course.begin(now);
        course
    }

    fn begin(&mut self, now: u64) {
        self.since = now;
        let limit = self.rule.and_then(|rule| rule.timeout);
        self.deadlines.begin_try(limit, now);
    }

    /// How the try with this answer has ended, if a rule may want another. For gRPC that may be in the trailers, which
    /// are waited for as long as no body comes.
    pub async fn judge(
        &self,
        exchange: &mut Exchange<'_, '_>,
        answer: Answer,
        head: &Head,
    ) -> Result<Option<Tried>, Failure> {
        let (Some(rule), Answer::Final(_)) = (self.rule, answer) else {
            return Ok(None);
        };
        let (mut grpc, mut hint) = (grpc_status(head), read_hint(head));
        if rule.conditions.grpc != 0 && grpc.is_none() && is_grpc(head) {
            if let Some(trailers) = Box::pin(exchange.peek()).await? {
                (grpc, hint) = (grpc_status(trailers), read_hint(trailers));
            }
        }
        Ok(Some(Tried::Answer {
            status: head.status(),
            grpc,
            hint,
        }))
    }

    /// Is there another try? The wait before it, in ns.
    pub fn decide(&mut self, tried: Tried, body: Body) -> Option<u64> {
        let request = Request {
            idempotent: self.idempotent,
            body,
            answer_begun: false,
            deadline: self.deadlines.request(),
            now: clock::now(),
            random: fastrand::u64(..),
        };
        let mut bucket = self.state.bucket.borrow_mut();
        match self.tries.decide(self.rule, tried, &request, &mut bucket) {
            Verdict::Done => None,
            Verdict::Skip(why) => {
                self.state.retry_skipped(why);
                None
            }
            Verdict::Retry { after } => {
                self.state.retried();
                Some(after)
            }
        }
    }

    /// Waits, and begins the next try. The error is the caller's, who has left meanwhile.
    pub async fn next(&mut self, after: u64, down: &mut Downstream<'_>) -> Result<(), Fault> {
        if after > 0 {
            Box::pin(pause(Duration::from_nanos(after), down)).await?;
        }
        self.begin(clock::now());
        Ok(())
    }

    /// The last try has this answer.
    pub fn settled(&self, tried: Option<Tried>) {
        let failed = match (self.rule, tried) {
            (Some(rule), Some(tried)) => rule.calls_for(tried),
            _ => false,
        };
        if self.tries.any() && !failed {
            self.state.retry_succeeded();
        }
    }
}

async fn pause(after: Duration, down: &mut Downstream<'_>) -> Result<(), Fault> {
    let mut timer = std::pin::pin!(tokio::time::sleep(after));
    poll_fn(|cx| match down.poll_gone(cx) {
        Poll::Ready(fault) => Poll::Ready(Err(fault)),
        Poll::Pending => timer.as_mut().poll(cx).map(Ok),
    })
    .await
}

/// What the server says about being asked again.
fn read_hint(head: &Head) -> Hint {
    if let Some(value) = head.get("grpc-retry-pushback-ms") {
        return retry::pushback(value);
    }
    let Some(value) = head.get("retry-after") else {
        return Hint::None;
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    retry::retry_after(value, now.unwrap_or_default().as_secs()).map_or(Hint::None, Hint::After)
}
