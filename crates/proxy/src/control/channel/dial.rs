//! Makes a connection to a service of the control plane: an address, TLS where the service has an identity, HTTP/2.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::task::spawn_local;
use tokio_rustls::TlsConnector;

use super::{Channel, Connection, Security};
use crate::config::{Config, ControlService, ServiceAddr};
use crate::control::dns::Resolver;
use crate::identity::{self, ClientAlpn};
use crate::metrics::Shard;
use crate::net::dial::Dialer;

/// For one address of the control plane.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// For TLS with it.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);
/// A controller that is gone without a word is noticed after at most the sum of these two.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// See [`KEEP_ALIVE_INTERVAL`]: how long the controller may take to answer a ping.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How every service of the control plane is reached.
#[derive(Clone, Debug)]
pub struct Connector {
    /// Finds the addresses of names.
    pub resolver: Rc<Resolver>,
    /// No new leases on a connection that is older.
    pub lifetime: Duration,
    /// Where connections and calls are counted.
    pub shard: Shard,
    dialer: Dialer,
}

impl Connector {
    /// As the environment says.
    pub fn new(config: &Config, shard: &Shard) -> Self {
        Self {
            resolver: Rc::new(Resolver::new(config.dns.clone(), shard.clone())),
            lifetime: config.control_streams.lifetime,
            shard: shard.clone(),
            dialer: Dialer {
                mark: config.mark,
                ..Dialer::default()
            },
        }
    }

    /// A channel to one service, which has not connected yet.
    pub fn channel(
        &self,
        client: &'static str,
        service: &ControlService,
        security: Security,
    ) -> Channel {
        Channel::new(client, service.clone(), security, self.clone())
    }
}

impl Channel {
    /// Tries the addresses of the service, each once.
    pub(super) async fn dial(&self) -> io::Result<Connection> {
        let inner = &self.inner;
        if let ServiceAddr::Unix(path) = &inner.service.addr {
            return self.dial_unix(path).await;
        }
        let security = self.ready_security().await?;
        let addresses = inner
            .connector
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
            .connector
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
