//! One call of `Tap.Observe`, on a stream of our own HTTP/2: the question is read whole, then events go out as they
//! come until the limit is reached, the caller leaves, or the proxy ends.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use prost::Message as _;
use tulle_api::tap::ObserveRequest;
use tulle_engine::tap::Wish;
use tulle_http::Head;

use super::{MAX_QUESTION, MAX_TAPS, Refused, Registered, Taps};
use crate::drain::Guard;
use crate::http::answer::{is_grpc, percent_encoded};
use crate::http::h2::stream::Stream;
use crate::http::{Event, Fault};

const OBSERVE: &[u8] = b"/io.linkerd.proxy.tap.Tap/Observe";
/// The trailer that says how many events the reader was too slow for.
const LOST: &str = "tulle-tap-events-lost";
/// So much of a condition is logged, in characters.
const LOGGED: usize = 512;
const INVALID_ARGUMENT: u8 = 3;
const RESOURCE_EXHAUSTED: u8 = 8;
const UNIMPLEMENTED: u8 = 12;
const UNAVAILABLE: u8 = 14;
const UNAUTHENTICATED: u8 = 16;
/// How long a tap's caller may take for its question.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Who calls, and whether they may.
#[derive(Clone, Debug)]
pub struct Caller {
    /// What its certificate says; empty without one.
    pub identity: Arc<str>,
    pub permitted: Result<(), Refused>,
}

/// A gRPC status that is not OK.
struct Status {
    code: u8,
    message: String,
}

impl Status {
    fn new(code: u8, message: impl Into<String>) -> Self {
        Status {
            code,
            message: message.into(),
        }
    }

    /// What happened, why, and what to do.
    fn of(why: Refused, wanted: &str, caller: &str) -> Self {
        let (code, message) = match why {
            Refused::NoTls | Refused::Handshake => (
                UNAUTHENTICATED,
                format!(
                    "tap is served over the mesh's mutual TLS only; call with the certificate of {wanted}"
                ),
            ),
            Refused::NoIdentity => (
                UNAUTHENTICATED,
                format!("the connection shows no certificate; call with that of {wanted}"),
            ),
            Refused::OtherIdentity => (
                UNAUTHENTICATED,
                format!(
                    "{caller} may not tap, only {wanted} may; LINKERD2_PROXY_TAP_SVC_NAME says who"
                ),
            ),
            Refused::Taps | Refused::Connections => (
                RESOURCE_EXHAUSTED,
                format!("there are {MAX_TAPS} taps already, which is the most; end one first"),
            ),
            Refused::Question => (
                RESOURCE_EXHAUSTED,
                format!(
                    "the question is longer than {MAX_QUESTION} bytes; ask with fewer conditions"
                ),
            ),
            Refused::Method => (
                UNIMPLEMENTED,
                "there is only io.linkerd.proxy.tap.Tap/Observe; call that".to_owned(),
            ),
        };
        Self::new(code, format!("{}: {message}", why.code()))
    }

    fn write(&self, head: &mut Head) -> Result<(), Fault> {
        head.push("grpc-status", self.code.to_string())?;
        Ok(head.push("grpc-message", percent_encoded(&self.message))?)
    }
}

/// Why there is nothing to watch.
enum Stop {
    Refused(Refused, Status),
    /// The caller has left.
    Gone,
}

impl From<Fault> for Stop {
    fn from(_: Fault) -> Self {
        Stop::Gone
    }
}

/// What all calls of a connection have in common.
#[derive(Clone)]
pub struct Calls {
    pub caller: Caller,
    /// The identity that may call.
    pub wanted: Arc<str>,
    pub taps: Arc<Taps>,
    pub guard: Guard,
}

/// Answers one call.
pub async fn answer(calls: Calls, head: Head, mut stream: Stream) {
    stream.accept();
    let mut guard = calls.guard.clone();
    let begun = tokio::select! {
        begun = calls.begin(&head, &mut stream) => begun,
        () = guard.draining() => return,
    };
    drop(guard);
    // A caller that has left is told nothing.
    let _gone = match begun {
        Ok(tap) => calls.watch(tap, &mut stream).await,
        Err(Stop::Refused(why, status)) => {
            calls.taps.refused(why);
            let (caller, why) = (&*calls.caller.identity, why.code());
            tracing::warn!(caller, why, message = status.message, "tap refused");
            refuse(&head, &mut stream, &status)
        }
        Err(Stop::Gone) => Ok(()),
    };
}

impl Calls {
    /// Reads the question and puts it in force.
    async fn begin(&self, head: &Head, stream: &mut Stream) -> Result<Registered, Stop> {
        let refused =
            |why| Stop::Refused(why, Status::of(why, &self.wanted, &self.caller.identity));
        let invalid = |why: &str| {
            let message = format!("question: {why}; docs/tap.md says what can be asked");
            Stop::Refused(Refused::Question, Status::new(INVALID_ARGUMENT, message))
        };
        self.caller.permitted.map_err(refused)?;
        if head.method() != b"POST" || head.path() != OBSERVE || !is_grpc(head) {
            return Err(refused(Refused::Method));
        }
        let bytes = match tokio::time::timeout(QUESTION_TIMEOUT, read(stream)).await {
            Ok(Ok(Some(bytes))) => bytes,
            Ok(Ok(None)) => return Err(refused(Refused::Question)),
            Ok(Err(fault)) => return Err(fault.into()),
            Err(_) => return Err(invalid("it did not come in time")),
        };
        let message = unframed(&bytes).ok_or_else(|| invalid("it is not one whole message"))?;
        let question = ObserveRequest::decode(message).map_err(|why| invalid(&why.to_string()))?;
        let wish = Wish::compile(&question).map_err(|why| invalid(&why.to_string()))?;
        let (limit, condition) = (wish.limit, format!("{:?}", wish.condition));
        let condition: String = condition.chars().take(LOGGED).collect();
        let tap = self.taps.register(wish).map_err(refused)?;
        tracing::info!(
            caller = &*self.caller.identity,
            tap = tap.number,
            limit,
            condition,
            "tap begins"
        );
        Ok(tap)
    }

    /// Sends events until the tap has its requests, the caller leaves, or the proxy ends.
    async fn watch(&self, mut tap: Registered, stream: &mut Stream) -> Result<(), Fault> {
        let mut head = Head::new();
        head.set_status(200)?;
        head.push("content-type", "application/grpc")?;
        stream.send_head(&head, false)?;
        let mut guard = self.guard.clone();
        let draining = guard.draining();
        let mut draining = std::pin::pin!(draining);
        let (mut event, mut at, mut sent) = (Vec::new(), 0, 0u64);
        let ended = poll_fn(|cx| {
            loop {
                if let Poll::Ready(fault) = stream.poll_gone(cx) {
                    return Poll::Ready(Err(fault));
                }
                if draining.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Ok(Some(Status::new(UNAVAILABLE, "the proxy is ending"))));
                }
                if at == event.len() {
                    match tap.poll_next(cx) {
                        Poll::Ready(Some(next)) => (event, at) = (next, 0),
                        Poll::Ready(None) => return Poll::Ready(Ok(None)),
                        Poll::Pending => return Poll::Pending,
                    }
                }
                match stream.poll_capacity(cx, event.len() - at) {
                    Poll::Ready(Ok(count)) => {
                        stream.send(&event[at..at + count])?;
                        at += count;
                        sent += u64::from(at == event.len());
                    }
                    Poll::Ready(Err(fault)) => return Poll::Ready(Err(fault)),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
        let lost = tap.lost();
        tracing::info!(
            caller = &*self.caller.identity,
            tap = tap.number,
            sent,
            lost,
            "tap ended"
        );
        let status = ended?;
        let mut trailers = Head::new();
        match &status {
            Some(status) => status.write(&mut trailers)?,
            None => trailers.push("grpc-status", "0")?,
        }
        if lost > 0 {
            trailers.push(LOST, lost.to_string())?;
        }
        stream.finish(Some(&trailers))
    }
}

/// What the caller has to say, to its end; `None`: it is too long.
async fn read(stream: &mut Stream) -> Result<Option<Vec<u8>>, Fault> {
    let (mut bytes, mut trailers) = (Vec::new(), Head::new());
    loop {
        match poll_fn(|cx| stream.poll_event(cx, &mut trailers)).await? {
            Event::Data => {
                let count = stream.chunk().len();
                if bytes.len() + count > MAX_QUESTION {
                    return Ok(None);
                }
                bytes.extend_from_slice(stream.chunk());
                stream.consume(count);
            }
            Event::Trailers => {}
            Event::End => return Ok(Some(bytes)),
        }
    }
}

/// The one message of a call, not compressed.
fn unframed(bytes: &[u8]) -> Option<&[u8]> {
    let (prefix, message) = bytes.split_first_chunk::<5>()?;
    let [0, length @ ..] = *prefix else {
        return None;
    };
    (u32::from_be_bytes(length) as usize == message.len()).then_some(message)
}

/// Ends a call that has not begun.
fn refuse(request: &Head, stream: &mut Stream, status: &Status) -> Result<(), Fault> {
    let mut head = Head::new();
    if is_grpc(request) {
        head.set_status(200)?;
        head.push("content-type", "application/grpc")?;
        status.write(&mut head)?;
    } else {
        head.set_status(415)?;
    }
    stream.send_head(&head, true)
}
