//! The HTTP connections to one server, shared by all exchanges with it.
//!
//! HTTP/2: one connection, dialled by a task of its own so that a request that gives up does not take the dial with it;
//! those that come meanwhile wait for the same dial. While it has as many streams as the server takes, there are
//! further ones, at most [`MAX_H2`]: otherwise the clients of a server that takes few would wait for each other.
//! HTTP/1: idle connections, the youngest first (an old one is more likely to be closed by the server just now), at
//! most `Limits::idle` or as many as were lately in use at once, each no longer than `Limits::idle_time`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock;
use crate::http::h1;
use crate::http::h2::{self, client};
use crate::identity::Trust;
use crate::net::dial::Dialer;
use crate::net::io::{Io, Meter};
use crate::net::reach::{ConnectError, Reach};
use crate::net::tls::Handshakes;
use crate::transport_header::SessionProtocol;

/// HTTP/2 connections to one server.
pub const MAX_H2: usize = 8;

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub connect_timeout: Duration,
    pub idle: usize,
    pub idle_time: Duration,
    pub h1: tulle_http::Limits,
    pub h2: h2::Settings,
}

pub struct Origin {
    reach: Reach,
    dialer: Dialer,
    trust: Trust,
    limits: Limits,
    meter: Meter,
    handshakes: Option<Rc<Handshakes>>,
    idle: RefCell<Vec<Idle>>,
    sweeping: Cell<bool>,
    /// Held by every HTTP/1 connection: tells how many there are.
    lease: Rc<()>,
    /// The most there were at once since the last sweep. So many may be idle whatever the limit: with more requests at
    /// once than the limit, each would otherwise make and close a connection of its own.
    peak: Cell<usize>,
    h2: RefCell<H2>,
    /// Told when a dial has ended, well or not.
    dialled: Notify,
    /// The server has let a caller wait in vain for leave to send its body.
    gives_no_leave: Cell<bool>,
}

struct Idle {
    connection: Box<h1::Connection>,
    /// By [`crate::clock`].
    since: u64,
}

#[derive(Default)]
struct H2 {
    /// The first that has room is used, so that the others fall idle when there is less to do.
    open: Vec<client::Connection>,
    dialling: bool,
    /// How the last dial ended.
    failed: Option<ConnectError>,
    sweeping: bool,
}

impl Origin {
    pub fn new(
        reach: Reach,
        dialer: Dialer,
        trust: Trust,
        limits: Limits,
        meter: Meter,
        handshakes: Option<Rc<Handshakes>>,
    ) -> Rc<Self> {
        Rc::new(Origin {
            reach,
            dialer,
            trust,
            limits,
            meter,
            handshakes,
            idle: RefCell::new(Vec::new()),
            sweeping: Cell::new(false),
            lease: Rc::new(()),
            peak: Cell::new(0),
            h2: RefCell::default(),
            dialled: Notify::new(),
            gives_no_leave: Cell::new(false),
        })
    }

    pub fn reach(&self) -> &Reach {
        &self.reach
    }

    /// Who waits here for `100 Continue` waits in vain, as it seems.
    pub fn gives_no_leave(&self) -> bool {
        self.gives_no_leave.get()
    }

    /// The server has said `100 Continue`, or has not.
    pub fn has_given_leave(&self, given: bool) {
        self.gives_no_leave.set(!given);
    }

    /// A connection of its own, for bytes or for an HTTP/1 exchange.
    pub async fn connect(&self, session: Option<SessionProtocol>) -> Result<Io, ConnectError> {
        let mut io = self
            .reach
            .connect(
                &self.dialer,
                &self.trust,
                self.limits.connect_timeout,
                session,
            )
            .await?;
        if let Some(handshakes) = &self.handshakes {
            handshakes.count(&io);
        }
        io.measure(self.meter.clone());
        Ok(io)
    }

    /// An idle HTTP/1 connection that is still good. `now`: by [`crate::clock`], as the request's start was read.
    pub fn take_idle(&self, now: u64) -> Option<Box<h1::Connection>> {
        let mut idle = self.idle.borrow_mut();
        while let Some(Idle { connection, since }) = idle.pop() {
            if self.is_young(since, now) && !connection.is_stale() {
                return Some(connection);
            }
        }
        None
    }

    /// A new HTTP/1 connection. Boxed: a dial is rare, and its state is large.
    pub async fn dial_h1(&self) -> Result<Box<h1::Connection>, ConnectError> {
        let io = Box::pin(self.connect(Some(SessionProtocol::Http1))).await?;
        let connection = h1::Connection::client(io, self.limits.h1, self.lease.clone());
        self.peak.set(self.peak.get().max(self.open_h1()));
        Ok(Box::new(connection))
    }

    fn open_h1(&self) -> usize {
        Rc::strong_count(&self.lease) - 1
    }

    /// Can it be connected to? What was dialled for the question is kept for the next request.
    pub async fn probe(self: &Rc<Self>, h2: bool) -> Result<(), ConnectError> {
        if h2 {
            return self.dial_h2().await.map(|_| ());
        }
        let connection = self.dial_h1().await?;
        self.give_back(connection, clock::now());
        Ok(())
    }

    /// An idle connection may still be used.
    fn is_young(&self, since: u64, now: u64) -> bool {
        u128::from(now.saturating_sub(since)) < self.limits.idle_time.as_nanos()
    }

    /// Takes a connection back if it may carry another request; otherwise it is closed. `now`: by [`crate::clock`], as
    /// the request's end was read.
    pub fn give_back(self: &Rc<Self>, mut connection: Box<h1::Connection>, now: u64) {
        if !connection.is_reusable() || self.limits.idle == 0 {
            return;
        }
        connection.rest();
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= self.limits.idle.max(self.peak.get()) {
            idle.remove(0);
        }
        idle.push(Idle {
            connection,
            since: now,
        });
        if !self.sweeping.replace(true) {
            tokio::task::spawn_local(sweep(Rc::downgrade(self), self.limits.idle_time));
        }
    }

    /// An HTTP/2 connection that takes another stream, or any if there are as many as there may be: no wait.
    pub fn open_h2(&self) -> Option<client::Connection> {
        let h2 = self.h2.borrow();
        if let Some(connection) = h2.open.iter().find(|connection| connection.has_room()) {
            return Some(connection.clone());
        }
        match h2.open.len() < MAX_H2 {
            true => None,
            false => h2.any_open(),
        }
    }

    /// An HTTP/2 connection, dialled if need be.
    pub async fn dial_h2(self: &Rc<Self>) -> Result<client::Connection, ConnectError> {
        loop {
            if let Some(connection) = self.open_h2() {
                return Ok(connection);
            }
            let dialled = self.dialled.notified();
            if !std::mem::replace(&mut self.h2.borrow_mut().dialling, true) {
                tokio::task::spawn_local(Rc::clone(self).run_dial());
            }
            dialled.await;
            let h2 = self.h2.borrow();
            if let Some(error) = &h2.failed {
                // Where there is one that is full, its next free stream is waited for.
                return h2.any_open().ok_or_else(|| error.clone());
            }
        }
    }

    async fn run_dial(self: Rc<Self>) {
        let dial = async {
            let io = self.connect(Some(SessionProtocol::Http2)).await?;
            let ended = Rc::downgrade(&self);
            let on_end = move || {
                if let Some(origin) = ended.upgrade() {
                    origin.forget_ended();
                }
            };
            let connection = client::connect(io, self.limits.h2, on_end);
            if !self.h2.borrow().open.is_empty() {
                // Those who wait are more than one connection takes: who comes before its limit is known is refused.
                let introduced = connection.introduced();
                let _late = tokio::time::timeout(self.limits.connect_timeout, introduced).await;
            }
            Ok(connection)
        };
        let outcome = dial.await;
        let mut h2 = self.h2.borrow_mut();
        h2.dialling = false;
        match outcome {
            Ok(connection) => {
                h2.failed = None;
                h2.open.retain(client::Connection::is_open);
                h2.open.push(connection);
                if h2.open.len() > 1 && !std::mem::replace(&mut h2.sweeping, true) {
                    let idle_time = self.limits.idle_time;
                    tokio::task::spawn_local(sweep_h2(Rc::downgrade(&self), idle_time));
                }
            }
            Err(error) => h2.failed = Some(error),
        }
        drop(h2);
        self.dialled.notify_waiters();
    }

    fn forget_ended(&self) {
        self.h2
            .borrow_mut()
            .open
            .retain(client::Connection::is_open);
    }
}

impl H2 {
    /// Where the fewest wait.
    fn any_open(&self) -> Option<client::Connection> {
        let open = self.open.iter().filter(|connection| connection.is_open());
        open.min_by_key(|connection| connection.waiting()).cloned()
    }
}

/// Lets go of further HTTP/2 connections that have no streams; ends when one is left.
async fn sweep_h2(origin: std::rc::Weak<Origin>, idle_time: Duration) {
    loop {
        tokio::time::sleep(idle_time.max(Duration::from_millis(10))).await;
        let Some(origin) = origin.upgrade() else {
            return;
        };
        let mut h2 = origin.h2.borrow_mut();
        let mut first = true;
        h2.open.retain(|connection| {
            connection.is_open() && (std::mem::take(&mut first) || !connection.is_idle())
        });
        if h2.open.len() <= 1 {
            h2.sweeping = false;
            return;
        }
    }
}

/// Closes connections that nobody wanted in time; ends with the last one.
async fn sweep(origin: std::rc::Weak<Origin>, idle_time: Duration) {
    loop {
        tokio::time::sleep(idle_time.max(Duration::from_millis(10))).await;
        let Some(origin) = origin.upgrade() else {
            return;
        };
        let mut idle = origin.idle.borrow_mut();
        let now = clock::now();
        idle.retain(|idle| origin.is_young(idle.since, now) && !idle.connection.is_stale());
        origin.peak.set(origin.open_h1());
        if idle.is_empty() {
            *idle = Vec::new();
            origin.sweeping.set(false);
            return;
        }
    }
}
