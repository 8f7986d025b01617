//! One span while it is recorded: numbers, and the request's text in one buffer of fixed size.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use tulle_http::Head;
use tulle_http::trace_context::{SpanId, TraceContext};

use super::queue::Queue;
use crate::observe::Direction;

/// Which part the proxy has in the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It takes the request.
    Server,
    /// It sends the request.
    Client,
}

/// What is kept of a request, in this order; each is cut, or for a list of vendors left out, beyond its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text {
    Method,
    Scheme,
    Target,
    Host,
    UserAgent,
    ContentLength,
    ContentType,
    OrigProto,
    TraceState,
}

const TEXTS: usize = Text::TraceState as usize + 1;
/// Most octets of each.
const LONGEST: [usize; TEXTS] = [32, 8, 640, 255, 192, 20, 96, 16, 256];
const ROOM: usize = {
    let (mut sum, mut at) = (0, 0);
    while at < TEXTS {
        sum += LONGEST[at];
        at += 1;
    }
    sum
};

/// A span.
#[derive(Debug)]
pub struct Record {
    /// Where it belongs when it is used no more.
    pub home: Option<Arc<Queue>>,
    /// The present try of the request whose span this is.
    pub attempt: Option<Box<Record>>,
    pub context: TraceContext,
    pub span: SpanId,
    pub kind: Kind,
    pub direction: Direction,
    /// Since 1970.
    pub began: Duration,
    pub took: Duration,
    /// 0: there was no answer.
    pub status: u16,
    pub grpc: Option<u8>,
    /// Empty, or a word of a closed set.
    pub error: &'static str,
    since: Instant,
    text: Vec<u8>,
    ends: [u16; TEXTS],
}

impl Record {
    /// An unused one, with all the room that it will ever need.
    pub fn new() -> Box<Self> {
        Box::new(Record {
            home: None,
            attempt: None,
            context: TraceContext::default(),
            span: SpanId::default(),
            kind: Kind::Server,
            direction: Direction::Inbound,
            began: Duration::ZERO,
            took: Duration::ZERO,
            status: 0,
            grpc: None,
            error: "",
            since: Instant::now(),
            text: Vec::with_capacity(ROOM),
            ends: [0; TEXTS],
        })
    }

    /// Begins a span with a number of its own, which no other has.
    pub fn begin(&mut self, kind: Kind, direction: Direction, context: TraceContext, head: &Head) {
        (self.kind, self.direction, self.context) = (kind, direction, context);
        self.span = fastrand::u64(1..).to_be_bytes();
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        (self.began, self.since) = (now.unwrap_or_default(), Instant::now());
        (self.status, self.grpc, self.error) = (0, None, "");
        self.text.clear();
        let field = |name: &str| head.get(name).unwrap_or_default();
        // As OpenTelemetry orders them: what a proxy before this one says of the host goes first.
        let host = head.get("x-forwarded-host").or(head.authority());
        let state = field("tracestate");
        let texts = [
            head.method(),
            head.scheme(),
            head.path(),
            host.unwrap_or_default(),
            field("user-agent"),
            field("content-length"),
            field("content-type"),
            field("l5d-orig-proto"),
            if state.len() > LONGEST[Text::TraceState as usize] {
                b""
            } else {
                state
            },
        ];
        for ((text, longest), end) in texts.into_iter().zip(LONGEST).zip(&mut self.ends) {
            self.text
                .extend_from_slice(text.get(..longest).unwrap_or(text));
            // At most ROOM, which is far from the limit.
            *end = self.text.len() as u16;
        }
    }

    /// What is kept of the request; empty without.
    pub fn text(&self, text: Text) -> &[u8] {
        let at = text as usize;
        let begin = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        let range = usize::from(begin)..usize::from(self.ends[at]);
        self.text.get(range).unwrap_or_default()
    }

    /// Ends the try that runs, if there is one.
    pub fn end_attempt(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            attempt.finish();
        }
    }

    /// Ends it here, and hands it over to be sent.
    pub fn finish(mut self: Box<Self>) {
        self.took = self.since.elapsed();
        if self.status == 0 && self.error.is_empty() {
            self.error = "cancelled";
        }
        if let Some(home) = self.home.take() {
            home.ended(self);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_kept_apart_and_cut_and_need_no_more_room() {
        let mut head = Head::new();
        head.set_method(b"POST").unwrap();
        let path = format!("/{}", "x".repeat(2_000));
        head.set_path(path.as_bytes()).unwrap();
        head.set_authority(b"voting:80").unwrap();
        head.push("user-agent", "y".repeat(2_000)).unwrap();
        head.push("content-type", "text/plain").unwrap();
        head.push("tracestate", "z".repeat(257)).unwrap();
        let mut record = Record::new();
        for _ in 0..2 {
            let context = TraceContext::default();
            record.begin(Kind::Client, Direction::Outbound, context, &head);
            assert_eq!(record.text(Text::Method), b"POST");
            assert_eq!(record.text(Text::Scheme), b"");
            assert_eq!(record.text(Text::Target), &path.as_bytes()[..640]);
            assert_eq!(record.text(Text::Host), b"voting:80");
            assert_eq!(record.text(Text::UserAgent), "y".repeat(192).as_bytes());
            assert_eq!(record.text(Text::ContentType), b"text/plain");
            assert_eq!(
                record.text(Text::TraceState),
                b"",
                "a list is whole or not there"
            );
            assert_eq!(record.text.capacity(), ROOM);
        }
    }
}
