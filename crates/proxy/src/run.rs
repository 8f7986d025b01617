//! One life of the proxy: start the parts in order, wait for the end, drain, leave.
//!
//! The main thread becomes the control thread; each worker is a thread of its own. Listeners are bound before
//! anything else starts, so that a port in use is an error at once and connections that come early wait in the
//! kernel's queue; a worker accepts once there is a certificate (or identity is disabled).

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_local;

use crate::admin::{self, Admin};
use crate::config::{Config, Environment};
use crate::control;
use crate::control::traces::{Exporter, Flush};
use crate::discovery::{self, Discovery};
use crate::drain::{self, Drain};
use crate::identity::{Epochs, Trust};
use crate::inbound::admission::Shared;
use crate::liveness::{Heartbeat, Liveness};
use crate::log::LogLevels;
use crate::metrics::process::Process;
use crate::metrics::{Limits, Registry, Shard};
use crate::net::listen;
use crate::observe::{Observed, access};
use crate::signal::EndSignals;
use crate::tap;
use crate::trace::queue::Traces;
use crate::worker::{self, Listeners, Parts};

/// Runs until asked to end.
///
/// # Errors
/// The proxy could not start, or a worker died; one line that says what and why.
pub fn run(config: Config, environment: Environment, levels: LogLevels) -> Result<(), String> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .thread_name("tulle-control")
        .build_local(LocalOptions::default())
        .map_err(|error| format!("the runtime cannot start: {error}"))?;
    let ended = runtime.block_on(live(Arc::new(config), environment, levels));
    runtime.shutdown_background();
    ended
}

async fn live(
    config: Arc<Config>,
    environment: Environment,
    levels: LogLevels,
) -> Result<(), String> {
    let mut signals =
        EndSignals::catch().map_err(|error| format!("signals cannot be caught: {error}"))?;
    let bound = Bound::all(&config)?;
    let registry = Registry::new(Limits {
        retain_idle: config.metrics_retain_idle,
        ..Limits::default()
    });
    let shard = registry.shard();
    let (discovery, requests) = discovery::channel(control::inbound_defaults(&config));
    let (epochs, received) = watch::channel(None);
    let control = control::start(
        &config,
        discovery.clone(),
        requests,
        epochs,
        &registry,
        &shard,
    )?;
    let spans = export_spans(&config, &received, &shard);
    let trust = Trust::new(received);
    if config.identity.is_some() {
        spawn_local(trust.clone().review(config.shutdown_grace, shard.clone()));
    }
    let (mut inbound, mut outbound) = (Drain::default(), Drain::default());
    let liveness = Liveness::new(config.workers);
    let traces = spans.as_ref().map(|(traces, _)| traces.clone());
    let observed = Observed::new(access_log(&config)?, traces);
    let common = Common {
        config: config.clone(),
        discovery,
        trust: trust.clone(),
        registry: registry.clone(),
        limits: Arc::default(),
        observed: observed.clone(),
    };
    let shares = shares(bound.traffic, &config)?;
    if let Some(listener) = bound.tap {
        serve_tap(listener, &config, trust, &observed, &inbound);
    }
    let mut workers = Workers::start(starts(shares, &liveness, &common, &inbound, &outbound))?;

    let (shutdown, mut asked) = mpsc::channel(1);
    let admin = Rc::new(Admin {
        shard,
        control: control.clone(),
        registry,
        process: Process::new(),
        levels,
        environment,
        liveness,
        observed,
        shutdown: config.shutdown_endpoint.then_some(shutdown),
    });
    spawn_local(admin::serve(bound.admin, admin));
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    tracing::info!(version = env!("CARGO_PKG_VERSION"), admin = %config.admin_listen, inbound = %config.inbound.listen, outbound = ?config.outbound.listen, "tulle-proxy started");

    let (why, accepting) = tokio::select! {
        signal = signals.next() => (signal, config.shutdown_accept),
        // Who asks by POST has nothing more to be called for.
        _ = asked.recv(), if config.shutdown_endpoint => ("POST /shutdown", Duration::ZERO),
        ended = workers.ended() => return Err(ended),
    };
    let grace = config.shutdown_grace;
    tracing::info!(why, ?grace, "ending; waiting for connections");
    control.readiness.drain();
    let finished = drain::finish(&mut inbound, &mut outbound, accepting, grace);
    let_go(finished, grace, &mut signals).await;
    if let Some((_, flush)) = spans {
        flush.now().await;
    }
    Ok(())
}

fn serve_tap(
    listener: TcpListener,
    config: &Config,
    trust: Trust,
    observed: &Observed,
    drain: &Drain,
) {
    if let (Some(tap), Some(guard)) = (&config.tap, drain.guard()) {
        let taps = observed.taps().clone();
        let server = tap::Server::new(&tap.identity, trust, taps, guard);
        spawn_local(server.run(listener));
    }
}

/// Waits for what is under way to end; a second signal does not wait.
async fn let_go(finished: impl Future<Output = bool>, grace: Duration, signals: &mut EndSignals) {
    tokio::select! {
        all = finished => {
            if all {
                tracing::info!("every connection ended");
            } else {
                tracing::warn!(?grace, "the grace period is over; cutting what is left");
            }
        }
        signal = signals.next() => tracing::warn!(signal, "asked again; ending at once"),
    }
}

/// Every listening socket of the process.
struct Bound {
    admin: TcpListener,
    traffic: Listeners,
    tap: Option<TcpListener>,
}

impl Bound {
    fn all(config: &Config) -> Result<Self, String> {
        let admin = listen::bind(config.admin_listen, listen::SocketOptions::default())
            .and_then(TcpListener::from_std)
            .map_err(|error| format!("the admin server: {error}"))?;
        let traffic = Listeners::bind(config).map_err(|error| error.to_string())?;
        let tap = tap::bind(config)
            .and_then(|tap| tap.map(TcpListener::from_std).transpose())
            .map_err(|error| format!("tap: {error}"))?;
        Ok(Bound {
            admin,
            traffic,
            tap,
        })
    }
}

/// The first worker accepts from what was bound, each further one from sockets beside it on the same addresses.
fn shares(traffic: Listeners, config: &Config) -> Result<Vec<Listeners>, String> {
    let mut shares = vec![traffic];
    for _ in 1..config.workers {
        let beside = shares[0].beside(config);
        shares.push(beside.map_err(|error| format!("a listener cannot be shared: {error}"))?);
    }
    Ok(shares)
}

/// Where the workers' spans go and what sends them, where a collector is named.
fn export_spans(config: &Config, epochs: &Epochs, shard: &Shard) -> Option<(Arc<Traces>, Flush)> {
    let tracing = config.tracing.as_ref()?;
    let traces: Arc<Traces> = Arc::default();
    let (exporter, flush) = Exporter::new(config, tracing, epochs.clone(), shard, traces.clone());
    spawn_local(exporter.run());
    Some((traces, flush))
}

fn access_log(config: &Config) -> Result<Option<access::Writer>, String> {
    let started = config
        .access_log
        .map(|format| access::Writer::start(format, io::stderr()));
    started
        .transpose()
        .map_err(|error| format!("the access log's thread cannot start: {error}"))
}

/// What all workers share.
#[derive(Clone)]
struct Common {
    config: Arc<Config>,
    discovery: Discovery,
    trust: Trust,
    registry: Registry,
    limits: Arc<Shared>,
    observed: Arc<Observed>,
}

/// What a worker thread begins with; moved to it.
struct Start {
    number: usize,
    listeners: Listeners,
    inbound: drain::Guard,
    outbound: drain::Guard,
    heartbeat: Heartbeat,
    common: Common,
}

fn starts(
    shares: Vec<Listeners>,
    liveness: &Liveness,
    common: &Common,
    inbound: &Drain,
    outbound: &Drain,
) -> Vec<Start> {
    let workers = shares.into_iter().zip(liveness.heartbeats()).enumerate();
    let start = |(number, (listeners, heartbeat)): (usize, (Listeners, &Heartbeat))| {
        Some(Start {
            number,
            listeners,
            inbound: inbound.guard()?,
            outbound: outbound.guard()?,
            heartbeat: heartbeat.clone(),
            common: common.clone(),
        })
    };
    workers.map_while(start).collect()
}

/// The worker threads.
struct Workers {
    ended: mpsc::Receiver<String>,
}

impl Workers {
    fn start(starts: Vec<Start>) -> Result<Self, String> {
        let (last_words, ended) = mpsc::channel(starts.len().max(1));
        for start in starts {
            let name = format!("tulle-worker-{}", start.number);
            let obituary = Obituary {
                name: name.clone(),
                why: "ended".to_owned(),
                last_words: last_words.clone(),
            };
            std::thread::Builder::new()
                .name(name)
                .spawn(move || work(start, obituary))
                .map_err(|error| format!("a worker thread cannot start: {error}"))?;
        }
        Ok(Self { ended })
    }

    /// Waits for the first worker that ends before it should; says why.
    async fn ended(&mut self) -> String {
        self.ended
            .recv()
            .await
            .unwrap_or_else(|| "the worker threads ended".to_owned())
    }
}

/// Reports the end of a worker thread however it ends, a panic included.
struct Obituary {
    name: String,
    why: String,
    last_words: mpsc::Sender<String>,
}

impl Drop for Obituary {
    fn drop(&mut self) {
        // Nobody listens any more once the proxy is ending.
        let _unheard = self
            .last_words
            .try_send(format!("{} {}", self.name, self.why));
    }
}

/// Tasks polled between two looks at the sockets while there are tasks that can go on. A request is polled four times,
/// two of them to write: with tokio's 61 a round of reads and writes ended after fifteen requests.
const EVENT_INTERVAL: u32 = 256;

fn work(start: Start, mut obituary: Obituary) {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .event_interval(EVENT_INTERVAL)
        .build_local(LocalOptions::default());
    let outcome = runtime.and_then(|runtime| runtime.block_on(worker(start)));
    if let Err(error) = outcome {
        obituary.why = format!("failed: {error}");
    }
}

async fn worker(start: Start) -> io::Result<()> {
    let Start {
        number,
        listeners,
        inbound,
        outbound,
        heartbeat,
        common,
    } = start;
    let Common {
        config,
        discovery,
        mut trust,
        registry,
        limits,
        observed,
    } = common;
    let shard = registry.shard();
    spawn_local(heartbeat.beat(shard.clone()));
    if config.identity.is_some() {
        // Before the first certificate a meshed peer could only be refused: it waits in the kernel's queue instead.
        let mut ending = inbound.clone();
        tokio::select! {
            certified = trust.certified() => {
                if !certified {
                    return Err(io::Error::other("the identity task ended"));
                }
            }
            () = ending.draining() => return Ok(()),
        }
    }
    let parts = Parts {
        number,
        shard,
        config,
        discovery,
        trust,
        limits,
        inbound,
        outbound,
        observed,
    };
    worker::run(listeners, parts).await?;
    // It accepts nothing any more; its connections finish on this runtime, and the control thread waits for them.
    std::future::pending().await
}
