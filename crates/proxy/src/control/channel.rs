//! Connections to one service of the control plane: HTTP/2, over mutual TLS unless the service is on loopback.
//!
//! A caller takes a [`Lease`] on a connection and opens its call or stream on it. Connections are dialled when they
//! are needed, one dial at a time, over the resolved addresses in turn, with pauses between failed rounds. A
//! connection whose server no trust anchor in force vouches for any more is cut, and what was open on it begins anew. A
//! connection takes at most [`STREAMS_PER_CONNECTION`] leases, never more than its server admits streams, and no new
//! ones once it is older than its lifetime, so that load spreads over the controllers.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::sync::{Mutex, watch};
use tokio::task::spawn_local;
use tokio_rustls::TlsConnector;
use tonic::body::Body;
use tonic::{Code, Status};

use super::backoff::Backoff;
use super::connections::Connections;
use super::dns::Resolver;
use crate::config::{ControlService, ServiceAddr};
use crate::identity::{self, ClientAlpn, Epochs, TrustAnchors};
use crate::metrics::{Counter, Labels, Shard, families};
use crate::net::dial::Dialer;

/// Most calls and streams on one connection.
pub const STREAMS_PER_CONNECTION: usize = 500;
/// Largest message that is read from the control plane.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// For one address of the control plane.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// For TLS with it.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);
/// A controller that is gone without a word is noticed after at most the sum of these two.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// See [`KEEP_ALIVE_INTERVAL`]: how long the controller may take to answer a ping.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

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
    resolver: Rc<Resolver>,
    dialer: Dialer,
    lifetime: Duration,
    connections: RefCell<Vec<Connection>>,
    shown: Connections,
    /// Held while dialling: others wait for the outcome instead of dialling too.
    dialling: Mutex<Dialling>,
    /// Where the next round over the addresses begins.
    turn: Cell<usize>,
    last_error: RefCell<Option<String>>,
    last_failure: Cell<Option<(io::ErrorKind, &'static str)>>,
    shard: Shard,
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
    /// A channel that has not connected yet.
    pub fn new(
        client: &'static str,
        service: ControlService,
        security: Security,
        resolver: Rc<Resolver>,
        dialer: Dialer,
        lifetime: Duration,
        shard: &Shard,
    ) -> Self {
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
                resolver,
                dialer,
                lifetime,
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
                shard: shard.clone(),
                labels,
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
            .shard
            .counter(&families::CONTROL_RESPONSE_TOTAL, &labels)
            .inc();
    }

    fn free(&self) -> Option<Lease> {
        let mut connections = self.inner.connections.borrow_mut();
        let lifetime = self.inner.lifetime;
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

    async fn dial(&self) -> io::Result<Connection> {
        let inner = &self.inner;
        if let ServiceAddr::Unix(path) = &inner.service.addr {
            return self.dial_unix(path).await;
        }
        let security = self.ready_security().await?;
        let addresses = inner
            .resolver
            .resolve(&inner.service.addr, inner.client)
            .await?;
        inner.shown.resolved(&addresses);
        let turn = inner.turn.get();
        inner.turn.set(turn.wrapping_add(1));
        let mut last = io::Error::new(
            io::ErrorKind::NotFound,
            format!("{} has no address", inner.service.addr),
        );
        for at in 0..addresses.len() {
            let address = addresses[(turn.wrapping_add(at)) % addresses.len()];
            match self.dial_address(address, &security).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Who may connect there is for the file system to say.
    async fn dial_unix(&self, path: &Path) -> io::Result<Connection> {
        let within =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, UnixStream::connect(path)).await;
        let late = || io::Error::new(io::ErrorKind::TimedOut, "it does not accept in time");
        let stream = stream.unwrap_or_else(|_| Err(late())).map_err(within)?;
        self.start(stream, None, Vec::new()).await.map_err(within)
    }

    /// The TLS configuration to dial with; waits for the first certificate where one is needed.
    async fn ready_security(&self) -> io::Result<Option<Arc<ClientConfig>>> {
        match &self.inner.security {
            Security::Plain => Ok(None),
            Security::ServerOnly(anchors) => identity::anonymous_client(&anchors.borrow())
                .map(Some)
                .map_err(io::Error::other),
            Security::Mutual(epochs) => {
                let mut epochs = epochs.clone();
                let ready = epochs.wait_for(Option::is_some).await;
                let epoch = ready.ok().and_then(|epoch| epoch.clone());
                let epoch = epoch
                    .ok_or_else(|| io::Error::other("this proxy gets no certificate any more"))?;
                if epoch.is_expired(SystemTime::now()) {
                    return Err(io::Error::other("this proxy's certificate has expired"));
                }
                Ok(Some(epoch.client(ClientAlpn::H2)))
            }
        }
    }

    async fn dial_address(
        &self,
        address: SocketAddr,
        tls: &Option<Arc<ClientConfig>>,
    ) -> io::Result<Connection> {
        let within = |error: io::Error| io::Error::new(error.kind(), format!("{address}: {error}"));
        let stream = self
            .inner
            .dialer
            .connect(address, CONNECT_TIMEOUT)
            .await
            .map_err(within)?;
        match (tls, &self.inner.service.identity) {
            (Some(config), Some(identity)) => {
                let name = identity::server_name(identity).ok_or_else(|| {
                    io::Error::new(
                        io::ErrorKind::InvalidInput,
                        format!("{identity} is not a DNS name"),
                    )
                })?;
                let handshake = TlsConnector::from(config.clone()).connect(name, stream);
                // The error stays as it is: its cause is a metric's label.
                let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake)
                    .await
                    .map_err(|_| {
                        io::Error::new(
                            io::ErrorKind::TimedOut,
                            format!("{address}: no TLS handshake in time"),
                        )
                    })??;
                let chain = stream.get_ref().1.peer_certificates();
                let chain = chain.map(<[_]>::to_vec).unwrap_or_default();
                self.start(stream, Some(address), chain).await
            }
            _ => self.start(stream, Some(address), Vec::new()).await,
        }
    }

    /// `chain`: by which the server has proved itself; none on a connection without TLS.
    async fn start<S>(
        &self,
        stream: S,
        to: Option<SocketAddr>,
        chain: Vec<CertificateDer<'static>>,
    ) -> io::Result<Connection>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        // The kernel tells at once when the other end of a unix socket is gone, and gRPC's servers take pings for abuse.
        let alive = match self.inner.service.addr {
            ServiceAddr::Unix(_) => None,
            _ => Some(KEEP_ALIVE_INTERVAL),
        };
        let handshake = http2::Builder::new(OnThisThread)
            .timer(TokioTimer::new())
            .keep_alive_interval(alive)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .max_header_list_size(16 << 10)
            .handshake(TokioIo::new(stream));
        let (send, connection) = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake)
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no HTTP/2 handshake in time"))?
            .map_err(io::Error::other)?;
        let admitted = Rc::new(Cell::new(connection.current_max_send_streams()));
        let told = admitted.clone();
        let inner = Rc::downgrade(&self.inner);
        let (client, security) = (self.inner.client, self.inner.security.clone());
        let distrusted = self.inner.distrusted.clone();
        spawn_local(async move {
            {
                let mut connection = pin!(connection);
                let ended = poll_fn(|cx| {
                    let ended = connection.as_mut().poll(cx);
                    // A stream beyond would wait in silence, as if the server had nothing to say.
                    told.set(connection.current_max_send_streams());
                    ended
                });
                tokio::select! {
                    ended = ended => if let Err(error) = ended {
                        tracing::debug!(client, %error, "connection to the control plane ended");
                    },
                    () = security.distrusted(&chain) => {
                        tracing::info!(client, "no trust anchor in force vouches for this control plane's certificate: connecting anew");
                        distrusted.inc();
                    }
                }
            }
            if let Some(inner) = inner.upgrade() {
                inner.show();
            }
        });
        Ok(Connection {
            to,
            send,
            since: Instant::now(),
            leases: Rc::new(()),
            admitted,
        })
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

/// Runs hyper's tasks on the control thread.
#[derive(Clone, Copy, Debug)]
struct OnThisThread;

impl<F> hyper::rt::Executor<F> for OnThisThread
where
    F: Future + 'static,
{
    fn execute(&self, task: F) {
        spawn_local(async move {
            task.await;
        });
    }
}
