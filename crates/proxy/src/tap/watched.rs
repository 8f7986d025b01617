//! A request that somebody watches, from its head to its end.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;
use tulle_api::tap::tap_event::http::{Event, RequestInit, ResponseEnd, ResponseInit, StreamId};
use tulle_api::tap::{Eos, TapEvent, eos};
use tulle_engine::Meta;
use tulle_engine::tap::{Labels, Subject};
use tulle_http::Head;
use tulle_http::h2::Code;

use super::{Tap, Taps, told};
use crate::http::Fault;
use crate::http::exchange::{self, Failure};
use crate::observe::Direction;

/// How one side of a request is secured.
#[derive(Clone, Copy, Debug)]
pub enum Tls<'a> {
    /// By TLS of the mesh with this identity at its end; empty where it showed none.
    Peer(&'a str),
    /// Not, and why.
    None(&'a str),
}

/// What a pipeline knows of a request when it may be watched.
pub struct Seen<'a> {
    pub direction: Direction,
    pub source: Option<SocketAddr>,
    pub source_tls: Tls<'a>,
    /// `None` while there is no endpoint.
    pub destination: Option<SocketAddr>,
    pub destination_tls: Tls<'a>,
    pub destination_labels: Labels<'a>,
    pub route: Option<&'a Meta>,
    pub head: &'a Head,
    /// It is HTTP/1, carried in HTTP/2 by another proxy.
    pub bridged: bool,
}

impl Seen<'_> {
    /// Shows the request to whom may want it.
    pub(super) fn ask<T>(&self, ask: impl FnOnce(&Subject<'_>) -> T) -> T {
        let route = self.route.map(told::route_labels);
        ask(&Subject {
            source: self.source,
            destination: self.destination,
            scheme: self.head.scheme(),
            method: self.head.method(),
            authority: self.head.authority(),
            path: self.head.path(),
            destination_labels: self.destination_labels,
            route_labels: Labels::List(route.as_ref().map_or(&[], |labels| &labels[..])),
        })
    }
}

/// A request that somebody watches.
#[derive(Debug)]
pub struct Watched {
    taps: Arc<Taps>,
    /// Who does, and its number among those that they are told of.
    by: Vec<(Arc<Tap>, u64)>,
    base: TapEvent,
    destination: Option<SocketAddr>,
    begun: Instant,
    answered: Option<Instant>,
    bytes: u64,
    trailers: Option<Head>,
    grpc_status: Option<u8>,
    ended: bool,
}

impl Watched {
    pub(super) fn begin(taps: Arc<Taps>, by: Vec<(Arc<Tap>, u64)>, seen: &Seen<'_>) -> Box<Self> {
        let mut watched = Box::new(Watched {
            taps,
            by,
            base: told::base(seen),
            destination: seen.destination,
            begun: Instant::now(),
            answered: None,
            bytes: 0,
            trailers: None,
            grpc_status: None,
            ended: false,
        });
        watched.tell(|headers, id| {
            Event::RequestInit(RequestInit {
                id: Some(id),
                ..told::request_init(seen.head, headers, seen.bridged)
            })
        });
        watched
    }

    /// The endpoint that has answered, when it may be another than the one at the beginning.
    pub fn answered_by(&mut self, at: SocketAddr, labels: Labels<'_>, proof: Tls<'_>) {
        if self.destination != Some(at) {
            self.destination = Some(at);
            told::destination(&mut self.base, Some(at), labels, proof);
        }
    }

    /// The answer's head is there.
    pub fn answered(&mut self, head: &Head) {
        let now = Instant::now();
        self.answered = Some(now);
        self.grpc_status = exchange::grpc_status(head);
        let since = now - self.begun;
        self.tell(|headers, id| {
            Event::ResponseInit(ResponseInit {
                id: Some(id),
                ..told::response_init(head, headers, since)
            })
        });
    }

    /// So much of the answer has been passed on, and it had these trailers.
    pub fn passed_on(&mut self, bytes: u64, trailers: Option<&Head>) {
        self.bytes = bytes;
        self.trailers = trailers.cloned();
        if let Some(trailers) = trailers {
            self.grpc_status = exchange::grpc_status(trailers);
        }
    }

    /// It has ended; `reset`: not as it should have.
    pub fn end(&mut self, reset: Option<Code>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let end = match reset {
            Some(Code(code)) => Some(eos::End::ResetErrorCode(code)),
            None => self
                .grpc_status
                .map(|status| eos::End::GrpcStatusCode(u32::from(status))),
        };
        let now = Instant::now();
        let since = |moment: Instant| told::duration(now - moment);
        let (bytes, begun, answered) = (self.bytes, self.begun, self.answered);
        let trailers = self.trailers.take();
        self.tell(|headers, id| {
            Event::ResponseEnd(ResponseEnd {
                id: Some(id),
                since_request_init: since(begun),
                since_response_init: answered.and_then(since),
                response_bytes: bytes,
                eos: Some(Eos { end }),
                trailers: trailers.as_ref().filter(|_| headers).map(told::trailers),
            })
        });
    }

    /// It has ended by this.
    pub fn fail(&mut self, failure: Failure) {
        self.end(Some(match failure {
            Failure::Downstream(Fault::Closed | Fault::Io(_)) => Code::CANCEL,
            Failure::Downstream(fault) | Failure::Upstream(fault) => fault.to_code(),
            Failure::Deadline(_) => Code::CANCEL,
        }));
    }

    fn tell(&mut self, event: impl Fn(bool, StreamId) -> Event) {
        for (tap, stream) in &self.by {
            let id = StreamId {
                base: tap.number,
                stream: *stream,
            };
            let event = told::framed(&mut self.base, event(tap.wish.headers, id));
            tap.tell(event, &self.taps.counts);
        }
    }
}

/// Whoever lets go of a request has given it up.
impl Drop for Watched {
    fn drop(&mut self) {
        self.end(Some(Code::CANCEL));
    }
}
