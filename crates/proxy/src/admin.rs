//! The admin server on 4191: /metrics /live /ready /shutdown /proxy-log-level /env.json /config /explain.
//!
//! Runs on the control thread. What changes something is for loopback only; `/explain`, which shows other people's
//! requests, also for tap's identity over the mesh. What the sidecar's inbound side hands on comes from loopback too:
//! it is told by `l5d-client-id`, which that side puts there. `/shutdown` exists only when the
//! environment asks for it. Requests are small, answered whole, and at most [`MAX_CONNECTIONS`] clients are served.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, ALLOW, CONTENT_ENCODING, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::spawn_local;

use crate::config::{Environment, values};
use crate::control::Control;
use crate::liveness::Liveness;
use crate::log::{LogLevels, MAX_LEVELS};
use crate::metrics::gzip::Gzip;
use crate::metrics::process::Process;
use crate::metrics::text::{self, Format, PIECE};
use crate::metrics::{Registry, Shard};
use crate::observe::{KEPT, Observed};
use crate::places::Places;

/// Whom the sidecar's inbound side has let through to us.
const CLIENT_ID: &str = "l5d-client-id";
/// Most clients of the admin server at once; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;
/// How long a client of the admin server may take for the head of its request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// What the admin server shows and changes.
#[derive(Debug)]
pub struct Admin {
    /// The control side.
    pub control: Control,
    /// All series.
    pub registry: Registry,
    /// The process.
    pub process: Process,
    /// The log levels.
    pub levels: LogLevels,
    /// The environment as it was at start.
    pub environment: Environment,
    /// The worker threads' heartbeats.
    pub liveness: Liveness,
    /// The requests that were refused.
    pub observed: Arc<Observed>,
    /// Counts what the server's own bounds have cost its clients.
    pub shard: Shard,
    /// Where `POST /shutdown` goes; `None` when it is not enabled.
    pub shutdown: Option<mpsc::Sender<()>>,
}

/// Serves for ever.
pub async fn serve(listener: TcpListener, admin: Rc<Admin>) {
    let places = Rc::new(Places::new(MAX_CONNECTIONS));
    let mut full = false;
    loop {
        let place = loop {
            if let Some(place) = places.enter_shared() {
                break place;
            }
            if !std::mem::replace(&mut full, true) {
                admin.shard.limit("proxy::admin::MAX_CONNECTIONS").inc();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        full = false;
        match listener.accept().await {
            Ok((stream, client)) => {
                let admin = admin.clone();
                spawn_local(async move {
                    connection(stream, client, admin).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "admin server cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, client: SocketAddr, admin: Rc<Admin>) {
    let shard = admin.shard.clone();
    let answer = service_fn(move |request| {
        let admin = admin.clone();
        async move { Ok::<_, Infallible>(admin.answer(request, client).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), answer)
        .await;
    if let Err(error) = served {
        if error.is_timeout() {
            shard.limit("proxy::admin::HEADER_TIMEOUT").inc();
        }
        tracing::debug!(%error, %client, "admin connection ended");
    }
}

type Answer = Response<Page>;

/// The body of an answer.
enum Page {
    Text(Full<Bytes>),
    Metrics(Box<Scrape>),
}

/// The metrics, written as fast as the client takes them.
struct Scrape {
    /// The first piece, which had to be written to know whether there is another.
    first: Option<Bytes>,
    page: text::Page,
    gzip: Option<Gzip>,
    ended: bool,
}

impl Scrape {
    fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        while !self.ended {
            let mut piece = String::with_capacity(PIECE + PIECE / 4);
            self.ended = !self.page.piece(&mut piece);
            let Some(gzip) = &mut self.gzip else {
                return (!piece.is_empty()).then(|| piece.into());
            };
            let mut packed = Vec::new();
            gzip.piece(piece.as_bytes(), &mut packed);
            if self.ended {
                gzip.end(&mut packed);
            }
            if !packed.is_empty() {
                return Some(packed.into());
            }
        }
        None
    }
}

impl Body for Page {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Page::Text(text) => Pin::new(text).poll_frame(cx),
            Page::Metrics(scrape) => Poll::Ready(scrape.next().map(|piece| Ok(Frame::data(piece)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Page::Text(text) => text.is_end_stream(),
            Page::Metrics(scrape) => scrape.ended && scrape.first.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Page::Text(text) => text.size_hint(),
            Page::Metrics(_) => SizeHint::default(),
        }
    }
}

impl Admin {
    async fn answer(&self, request: Request<Incoming>, client: SocketAddr) -> Answer {
        let path = request.uri().path().to_owned();
        let method = request.method().clone();
        let read = method == Method::GET || method == Method::HEAD;
        let explain = path.strip_prefix("/explain");
        let explain = explain.filter(|rest| rest.is_empty() || rest.starts_with('/'));
        match path.as_str() {
            "/live" if read => self.live(),
            "/ready" if read => match self.control.readiness.check(SystemTime::now()) {
                Ok(()) => plain(StatusCode::OK, "ready\n"),
                Err(why) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
            },
            "/metrics" if read => self.metrics(&request),
            "/env.json" if read => json(&self.environment()),
            "/config" if read => json(&self.control.snapshot()),
            "/shutdown" | "/proxy-log-level" if !is_local(client, &request) => from_loopback(),
            _ if explain.is_some() && !self.may_explain(client, &request) => from_loopback(),
            _ if explain.is_some() && !read => only("GET"),
            "/shutdown" if self.shutdown.is_none() => plain(
                StatusCode::NOT_FOUND,
                "not enabled; set LINKERD2_PROXY_SHUTDOWN_ENDPOINT_ENABLED=true\n",
            ),
            "/shutdown" if method == Method::POST => self.shut_down(),
            "/shutdown" => only("POST"),
            "/proxy-log-level" if read => {
                plain(StatusCode::OK, format!("{}\n", self.levels.current()))
            }
            "/proxy-log-level" if method == Method::PUT || method == Method::POST => {
                self.change_levels(request).await
            }
            "/proxy-log-level" => only("GET, PUT"),
            "/live" | "/ready" | "/metrics" | "/env.json" | "/config" => only("GET"),
            _ => match explain {
                Some(rest) => self.explain(rest.strip_prefix('/').unwrap_or_default()),
                None => plain(
                    StatusCode::NOT_FOUND,
                    "not found; here are /metrics /live /ready /shutdown /proxy-log-level /env.json /config /explain\n",
                ),
            },
        }
    }

    /// Other people's requests are shown to a process beside us, and to tap's identity through our own inbound side.
    fn may_explain(&self, client: SocketAddr, request: &Request<Incoming>) -> bool {
        let Some(claimed) = request.headers().get(CLIENT_ID) else {
            return is_loopback(client);
        };
        let variable = |name: &str| self.environment.get(name).map_or("", String::as_str);
        let tap = variable("LINKERD2_PROXY_TAP_SVC_NAME");
        // Only our own inbound side is believed about who asks; it connects from this pod.
        let own = values::ips(variable("LINKERD2_PROXY_INBOUND_IPS")).unwrap_or_default();
        let from_here = is_loopback(client) || own.contains(&client.ip().to_canonical());
        from_here && !tap.is_empty() && claimed.as_bytes() == tap.as_bytes()
    }

    /// Why requests were refused: the last ones, or the one with an id.
    fn explain(&self, id: &str) -> Answer {
        if id.is_empty() {
            return json(&self.observed.explain());
        }
        match self.observed.explain_one(id) {
            Some(refused) => json(&refused),
            None => plain(
                StatusCode::NOT_FOUND,
                format!("no such request among the last {KEPT} that were refused or failed\n"),
            ),
        }
    }

    fn live(&self) -> Answer {
        match self.liveness.stalled() {
            None => plain(StatusCode::OK, "live\n"),
            Some(why) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        }
    }

    fn metrics(&self, request: &Request<Incoming>) -> Answer {
        let header = |name| {
            let value = request.headers().get(name);
            value.and_then(|value| value.to_str().ok()).unwrap_or("")
        };
        let format = Format::from_accept(header(ACCEPT));
        if format == Format::OpenMetrics {
            self.registry.want_exemplars();
        }
        let mut computed = self.control.samples();
        computed.extend(self.liveness.samples());
        computed.extend(self.observed.taps().samples());
        computed.extend(self.process.samples(&self.registry));
        let packed = text::wanted(header(ACCEPT_ENCODING), "gzip") > 0.0;
        let mut scrape = Box::new(Scrape {
            first: None,
            page: text::Page::new(&self.registry, computed, format),
            gzip: packed.then(Gzip::default),
            ended: false,
        });
        scrape.first = scrape.next();
        // A small page has a length.
        let mut answer = Response::new(match scrape.ended {
            true => Page::Text(Full::new(scrape.first.take().unwrap_or_default())),
            false => Page::Metrics(scrape),
        });
        let headers = answer.headers_mut();
        let content_type = http::HeaderValue::from_static(format.content_type());
        headers.insert(CONTENT_TYPE, content_type);
        if packed {
            headers.insert(CONTENT_ENCODING, http::HeaderValue::from_static("gzip"));
        }
        answer
    }

    /// The proxy's own variables. Nothing else of the environment leaves the process: it may hold the application's
    /// secrets.
    fn environment(&self) -> serde_json::Value {
        let ours = |name: &str| {
            ["LINKERD2_PROXY_", "TULLE_PROXY_", "_pod_", "_l5d_"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
        };
        let shown = self.environment.iter().filter(|(name, _)| ours(name));
        serde_json::Value::Object(
            shown
                .map(|(name, value)| (name.clone(), value.as_str().into()))
                .collect(),
        )
    }

    fn shut_down(&self) -> Answer {
        let Some(shutdown) = &self.shutdown else {
            return plain(StatusCode::NOT_FOUND, "not enabled\n");
        };
        // A full queue means that one is on its way already.
        let _asked = shutdown.try_send(());
        plain(StatusCode::OK, "shutdown\n")
    }

    async fn change_levels(&self, request: Request<Incoming>) -> Answer {
        let body = Limited::new(request.into_body(), MAX_LEVELS);
        let collected = tokio::time::timeout(HEADER_TIMEOUT, body.collect()).await;
        let Ok(Ok(collected)) = collected else {
            return plain(
                StatusCode::BAD_REQUEST,
                "the body is too long, or did not arrive\n",
            );
        };
        let bytes = collected.to_bytes();
        let Ok(wanted) = std::str::from_utf8(&bytes) else {
            return plain(StatusCode::BAD_REQUEST, "the body is not text\n");
        };
        match self.levels.change(wanted) {
            Ok(()) => {
                tracing::info!(levels = self.levels.current(), "log levels changed");
                plain(StatusCode::NO_CONTENT, "")
            }
            Err(why) => plain(
                StatusCode::BAD_REQUEST,
                format!("{why}; accepted: warn,tulle=info\n"),
            ),
        }
    }
}

/// A process of the pod asks, and not somebody of the mesh through our inbound side.
fn is_local(client: SocketAddr, request: &Request<Incoming>) -> bool {
    is_loopback(client) && !request.headers().contains_key(CLIENT_ID)
}

fn is_loopback(client: SocketAddr) -> bool {
    client.ip().to_canonical().is_loopback()
}

fn from_loopback() -> Answer {
    plain(StatusCode::FORBIDDEN, "only from loopback\n")
}

fn plain(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    with_type(status, "text/plain; charset=utf-8", body)
}

fn json(value: &serde_json::Value) -> Answer {
    with_type(StatusCode::OK, "application/json", format!("{value:#}\n"))
}

fn only(allowed: &'static str) -> Answer {
    let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, format!("only {allowed}\n"));
    answer
        .headers_mut()
        .insert(ALLOW, http::HeaderValue::from_static(allowed));
    answer
}

fn with_type(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Page::Text(Full::new(body.into())));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_told_from_the_rest_of_the_world() {
        for (client, expected) in [
            ("127.0.0.1:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("10.42.0.7:1", false),
            ("[::ffff:10.42.0.7]:1", false),
            ("[fd00::7]:1", false),
        ] {
            assert_eq!(is_loopback(client.parse().unwrap()), expected, "{client}");
        }
    }
}
