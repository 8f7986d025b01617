//! The data path's thread: listeners, and a task per accepted connection. A connection, its streams, its timers and
//! the connections made for it stay on this thread, so nothing on the path is `Send` or locked.

use std::hint::black_box;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::config::Config;
use crate::discovery::Discovery;
use crate::drain::Guard;
use crate::identity::Trust;
use crate::inbound::admission::Shared;
use crate::inbound::{self, Inbound};
use crate::metrics::{Counter, Labels, Shard, families};
use crate::net::listen::{self, SocketOptions};
use crate::observe::Observed;
use crate::outbound::{self, Outbound};

/// Bound listening sockets. Bound before the control plane is asked for anything, so that a port in use is known at
/// once; accepted from only when the worker runs.
pub struct Listeners {
    pub inbound: std::net::TcpListener,
    /// Each with the port it stands for.
    pub extra: Vec<(std::net::TcpListener, u16)>,
    pub outbound: Vec<std::net::TcpListener>,
}

impl Listeners {
    /// For the first worker. The error names the address.
    pub fn bind(config: &Config) -> io::Result<Self> {
        let (inbound, outbound) = options(config);
        let extra = config.inbound.extra_listeners.iter();
        Ok(Listeners {
            inbound: listen::bind(config.inbound.listen, inbound)?,
            extra: extra
                .map(|(address, port)| Ok((listen::bind(*address, inbound)?, *port)))
                .collect::<io::Result<_>>()?,
            outbound: config
                .outbound
                .listen
                .iter()
                .map(|address| listen::bind(*address, outbound))
                .collect::<io::Result<_>>()?,
        })
    }

    /// For another worker, on the same addresses.
    pub fn beside(&self, config: &Config) -> io::Result<Self> {
        let (inbound, outbound) = options(config);
        Ok(Listeners {
            inbound: listen::beside(&self.inbound, inbound)?,
            extra: self
                .extra
                .iter()
                .map(|(first, port)| Ok((listen::beside(first, inbound)?, *port)))
                .collect::<io::Result<_>>()?,
            outbound: self
                .outbound
                .iter()
                .map(|first| listen::beside(first, outbound))
                .collect::<io::Result<_>>()?,
        })
    }
}

/// Of inbound and outbound listeners.
fn options(config: &Config) -> (SocketOptions, SocketOptions) {
    let options = |connections: &crate::config::Connections| SocketOptions {
        keepalive: connections.accept_keepalive,
        user_timeout: connections.accept_user_timeout,
        backlog: connections.backlog,
    };
    (
        options(&config.inbound.connections),
        options(&config.outbound.connections),
    )
}

/// What a worker needs beside its listeners.
pub struct Parts {
    /// Which worker it is, from 0.
    pub number: usize,
    pub config: Arc<Config>,
    pub discovery: Discovery,
    pub trust: Trust,
    pub shard: Shard,
    /// The limits that hold for all workers together.
    pub limits: Arc<Shared>,
    pub inbound: Guard,
    pub outbound: Guard,
    pub observed: Arc<Observed>,
}

/// Runs until both drains have let go of every connection. Must be called inside a `LocalRuntime`.
pub async fn run(listeners: Listeners, parts: Parts) -> io::Result<()> {
    let Parts {
        number,
        config,
        discovery,
        trust,
        shard,
        limits,
        inbound: inbound_guard,
        outbound: outbound_guard,
        observed,
    } = parts;
    let listening = listeners
        .outbound
        .iter()
        .map(std::net::TcpListener::local_addr)
        .collect::<io::Result<Vec<SocketAddr>>>()?;
    let observer = observed.worker(&shard);
    let counter = |direction| {
        let labels = Labels::builder().add_number("worker", number as u64);
        let labels = labels.add("direction", direction).build();
        Rc::new(shard.counter(&families::WORKER_ACCEPTED_CONNECTIONS_TOTAL, &labels))
    };
    let (taken_in, taken_out) = (counter("inbound"), counter("outbound"));
    let inbound = Inbound::new(
        config.clone(),
        discovery.clone(),
        trust.clone(),
        shard.clone(),
        limits,
        observer.clone(),
    );
    let outbound = Outbound::new(config, discovery, trust, shard, listening, observer);
    inbound.forward_through(outbound.clone());
    let mut accepting = Vec::new();
    let plain = std::iter::once((listeners.inbound, None)).chain(
        listeners
            .extra
            .into_iter()
            .map(|(socket, port)| (socket, Some(port))),
    );
    for (listener, stands_for) in plain {
        let listener = TcpListener::from_std(listener)?;
        let inbound = inbound.clone();
        accepting.push(tokio::task::spawn_local(accept(
            listener,
            inbound_guard.clone(),
            taken_in.clone(),
            move |accepted, guard| inbound::serve(inbound.clone(), accepted, stands_for, guard),
        )));
    }
    for listener in listeners.outbound {
        let listener = TcpListener::from_std(listener)?;
        let outbound = outbound.clone();
        accepting.push(tokio::task::spawn_local(accept(
            listener,
            outbound_guard.clone(),
            taken_out.clone(),
            move |accepted, guard| outbound::serve(outbound.clone(), accepted, guard),
        )));
    }
    tokio::task::spawn_local(give_memory_back());
    let (mut inbound_guard, mut outbound_guard) = (inbound_guard, outbound_guard);
    inbound_guard.draining().await;
    drop(inbound_guard);
    outbound_guard.draining().await;
    drop(outbound_guard);
    for task in accepting {
        // Each has ended, or ends now; a panic in one was the end of its listener only.
        let _ended = task.await;
    }
    Ok(())
}

/// The allocator returns pages to the system some time after they fell free, but looks for those whose time has come
/// only when more falls free. A thread that carries its requests without allocating would keep what a burst has left
/// behind for ever. What is held here is large enough to be such pages itself, and older when it is let go of than they
/// have to be.
async fn give_memory_back() {
    loop {
        tokio::time::sleep(GIVE_BACK).await;
        let pages = black_box(Vec::<u8>::with_capacity(PAGES));
        tokio::time::sleep(HELD).await;
        drop(pages);
    }
}

/// How often.
const GIVE_BACK: Duration = Duration::from_secs(2);
/// Octets that the allocator has no small block for.
const PAGES: usize = 256 * 1024;
/// Longer than the 10 ms after which the allocator returns free pages.
const HELD: Duration = Duration::from_millis(50);

/// Accepts until the drain closes the door; each connection is a task of its own, made by `serve`.
async fn accept<S: Future<Output = ()> + 'static>(
    listener: TcpListener,
    guard: Guard,
    taken: Rc<Counter>,
    serve: impl Fn(listen::Accepted, Guard) -> S,
) {
    let mut drain = guard.clone();
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = listen::accept(&listener) => accepted,
            () = drain.closed() => return,
        };
        taken.inc();
        tokio::task::spawn_local(serve(accepted, guard.clone()));
    }
}
