//! Connections to one service of the control plane: HTTP/2, over mutual TLS unless the service is on loopback.
//!
//! A caller takes a [`Lease`] on a connection and opens its call or stream on it. Connections are dialled when they
//! are needed, one dial at a time, over the resolved addresses in turn, with pauses between failed rounds. A
//! connection whose server no trust anchor in force vouches for any more is cut, and what was open on it begins anew. A
//! connection takes at most [`STREAMS_PER_CONNECTION`] leases, never more than its server admits streams, and no new
//! ones once it is older than its lifetime, so that load spreads over the controllers. `channel/dial.rs` makes one connection.

mod dial;

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::client::conn::http2;
use rustls::pki_types::CertificateDer;
use tokio::sync::{Mutex, watch};
use tonic::body::Body;
use tonic::{Code, Status};

pub use self::dial::Connector;

use super::backoff::Backoff;
use super::connections::Connections;
use crate::config::{ControlService, ServiceAddr};
use crate::identity::{self, Epochs, TrustAnchors};
use crate::metrics::{Counter, Labels, families};

/// Most calls and streams on one connection.
pub const STREAMS_PER_CONNECTION: usize = 500;
/// Largest message that is read from the control plane.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// How a connection is secured.
#[derive(Clone, Debug)]
pub enum Security {
    /// Not at all: the service is on loopback, or identity is disabled.
    Plain,
    /// The server proves its identity, under the anchors of the moment; we show nothing. Only for the identity service.
    ServerOnly(watch::Receiver<TrustAnchors>),
    /// Both sides prove their identity, with the certificate of the moment.
    Mutual(Epochs),
}

impl Security {
    /// Ready when a trust anchor was dropped and those in force do not vouch for the server of this chain.
    async fn distrusted(&self, chain: &[CertificateDer<'static>]) {
        let dropped = match self {
            Security::Plain => false,
            Security::ServerOnly(anchors) => {
                let mut anchors = anchors.clone();
                let dropped = anchors.wait_for(|anchors| !anchors.vouches_for(chain));
                dropped.await.is_ok()
            }
            Security::Mutual(epochs) => {
                let mut epochs = epochs.clone();
                let dropped = epochs.wait_for(|epoch| {
                    let epoch = epoch.as_ref();
                    epoch.is_some_and(|epoch| !epoch.anchors().vouches_for(chain))
                });
                dropped.await.is_ok()
            }
        };
        if !dropped {
            pending::<()>().await;
        }
    }
}

/// A service of the control plane and the connections to it.
#[derive(Clone, Debug)]
pub struct Channel {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// `identity`, `spire`, `destination` or `policy`: for logs and DNS metrics.
    client: &'static str,
    service: ControlService,
    security: Security,
    connector: Connector,
    connections: RefCell<Vec<Connection>>,
    shown: Connections,
    /// Held while dialling: others wait for the outcome instead of dialling too.
    dialling: Mutex<Dialling>,
    /// Where the next round over the addresses begins.
    turn: Cell<usize>,
    last_error: RefCell<Option<String>>,
    last_failure: Cell<Option<(io::ErrorKind, &'static str)>>,
    requests: Counter,
    distrusted: Counter,
    labels: Labels,
}

#[derive(Debug, Default)]
struct Dialling {
    backoff: Backoff,
    not_before: Option<Instant>,
}

#[derive(Debug)]
struct Connection {
    /// `None` on a unix socket.
    to: Option<SocketAddr>,
    send: http2::SendRequest<Body>,
    since: Instant,
    leases: Rc<()>,
    /// Streams that the server admits at once, as it has said last.
    admitted: Rc<Cell<usize>>,
}

impl Connection {
    fn has_room(&self) -> bool {
        let most = self.admitted.get().clamp(1, STREAMS_PER_CONNECTION);
        Rc::strong_count(&self.leases) <= most
    }
}

impl Channel {
    fn new(
        client: &'static str,
        service: ControlService,
        security: Security,
        connector: Connector,
    ) -> Self {
        let shard = &connector.shard;
        let labels = Labels::builder()
            .add("addr", &service.addr.to_string())
            .add_some("server_id", service.identity.as_deref())
            .build();
        let security = if service.identity.is_none() {
            Security::Plain
        } else {
            security
        };
        Self {
            inner: Rc::new(Inner {
                shown: Connections::new(client, &service.addr.to_string(), shard),
                client,
                service,
                security,
                connections: RefCell::default(),
                dialling: Mutex::default(),
                turn: Cell::new(fastrand::usize(..1024)),
                last_error: RefCell::default(),
                last_failure: Cell::default(),
                requests: shard.counter(&families::CONTROL_REQUEST_TOTAL, &labels),
                distrusted: shard.counter(
                    &families::TLS_DISTRUSTED_CONNECTIONS_TOTAL,
                    &Labels::builder()
                        .add("direction", "control")
                        .add("action", "cut")
                        .build(),
                ),
                labels,
                connector,
            }),
        }
    }

    /// The `:authority` that calls carry.
    pub fn origin(&self) -> http::Uri {
        if let ServiceAddr::Unix(_) = self.inner.service.addr {
            return http::Uri::from_static("http://localhost/");
        }
        let addr = self.inner.service.addr.to_string();
        let scheme = if matches!(self.inner.security, Security::Plain) {
            "http"
        } else {
            "https"
        };
        let parts = http::Uri::builder()
            .scheme(scheme)
            .authority(addr)
            .path_and_query("/");
        parts
            .build()
            .unwrap_or_else(|_| http::Uri::from_static("http://control-plane/"))
    }

    /// Why the last connection could not be made; `None` while there is one.
    pub fn last_error(&self) -> Option<String> {
        self.inner.last_error.borrow().clone()
    }

    /// A place on a connection. Waits, trying again and again, until there is one: put a deadline around it where
    /// one is needed.
    pub async fn lease(&self) -> Lease {
        if let Some(lease) = self.free() {
            return lease;
        }
        let _waiting = self.inner.shown.wait();
        loop {
            if let Some(lease) = self.free() {
                return lease;
            }
            let mut dialling = self.inner.dialling.lock().await;
            if let Some(lease) = self.free() {
                return lease; // Somebody else's dial has just made room.
            }
            if let Some(until) = dialling.not_before {
                tokio::time::sleep_until(until.into()).await;
            }
            match self.dial().await {
                Ok(connection) => {
                    *dialling = Dialling::default();
                    self.inner.last_error.take();
                    self.inner.connections.borrow_mut().push(connection);
                    self.inner.show();
                }
                Err(error) => {
                    let pause = dialling.backoff.failed(fastrand::f64());
                    dialling.not_before = Some(Instant::now() + pause);
                    self.connect_failed(&error);
                }
            }
        }
    }

    /// Counts how long a call or stream has waited for its answer to begin.
    fn answered(&self, status: u16, took: Duration) {
        let labels = self.inner.labels.extend();
        let labels = labels.add_number("status_code", u64::from(status)).build();
        self.inner
            .connector
            .shard
            .histogram(&families::CONTROL_RESPONSE_LATENCY_MS, &labels)
            .record(took);
    }

    /// Counts a call or stream that has ended.
    pub fn ended(&self, code: Code) {
        let labels = self
            .inner
            .labels
            .extend()
            .add(
                "classification",
                if code == Code::Ok {
                    "success"
                } else {
                    "failure"
                },
            )
            .add_number("grpc_status", code as u64)
            .build();
        self.inner
            .connector
            .shard
            .counter(&families::CONTROL_RESPONSE_TOTAL, &labels)
            .inc();
    }

    fn free(&self) -> Option<Lease> {
        let mut connections = self.inner.connections.borrow_mut();
        let lifetime = self.inner.connector.lifetime;
        connections.retain(|connection| {
            !connection.send.is_closed() && connection.since.elapsed() < lifetime
        });
        let to = connections.iter().map(|connection| connection.to);
        self.inner.shown.open(to);
        let open = connections.iter().find(|known| known.has_room())?;
        Some(Lease {
            send: open.send.clone(),
            channel: self.clone(),
            _held: open.leases.clone(),
        })
    }

    fn connect_failed(&self, error: &io::Error) {
        let reason = identity::failure_reason(error);
        let labels = self.inner.labels.extend().add("reason", reason).build();
        self.inner
            .connector
            .shard
            .counter(&families::CONTROL_CONNECT_FAILURES_TOTAL, &labels)
            .inc();
        let text = error.to_string();
        let known = self.inner.last_error.replace(Some(text.clone()));
        let why = Some((error.kind(), reason));
        // Once per kind of failure: a controller that is away for an hour is one line, not four hundred.
        if self.inner.last_failure.replace(why) != why || known.is_none() {
            let addr = &self.inner.service.addr;
            tracing::warn!(
                client = self.inner.client,
                %addr,
                error = text,
                "cannot reach the control plane; trying on"
            );
        }
    }
}

impl Inner {
    /// Shows which connections there are.
    fn show(&self) {
        let connections = self.connections.borrow();
        let open = connections
            .iter()
            .filter(|connection| !connection.send.is_closed());
        self.shown.open(open.map(|connection| connection.to));
    }
}

/// A place on a connection, kept for as long as the call or stream lasts.
#[derive(Clone, Debug)]
pub struct Lease {
    send: http2::SendRequest<Body>,
    channel: Channel,
    _held: Rc<()>,
}

impl tower_service::Service<http::Request<Body>> for Lease {
    type Response = http::Response<Incoming>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.send
            .poll_ready(context)
            .map_err(|error| broken(&error))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (channel, begun) = (self.channel.clone(), Instant::now());
        channel.inner.requests.inc();
        let answer = self.send.send_request(request);
        Box::pin(async move {
            let answer = answer.await.map_err(|error| broken(&error))?;
            channel.answered(answer.status().as_u16(), begun.elapsed());
            Ok(answer)
        })
    }
}

fn broken(error: &hyper::Error) -> Status {
    Status::unavailable(format!(
        "the connection to the control plane broke: {error}"
    ))
}
