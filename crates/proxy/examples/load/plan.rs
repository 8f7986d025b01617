//! What a run is to do, when each request begins, and what was seen.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, mpsc};

use crate::usage;

pub const SETTINGS: &str = "address=IP:PORT [host=NAME] [connections=64] [streams=1] [warm=1] [seconds=3] [rate=0] [bytes=128]";

/// Requests that wait to begin in the open loop; a proxy that is so far behind has failed anyway.
const BACKLOG: usize = 100_000;

pub struct Plan {
    pub address: SocketAddr,
    pub host: String,
    pub connections: usize,
    /// At once on each connection; gRPC only.
    pub streams: usize,
    pub warm: Duration,
    pub measured: Duration,
    /// Requests per second; 0: as many as are answered.
    pub rate: f64,
    pub bytes: usize,
}

pub fn number(text: &str) -> usize {
    text.parse().unwrap_or_else(|_| usage())
}

impl Plan {
    pub fn parse(settings: &[&str]) -> Self {
        let mut plan = Plan {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            host: "app".to_owned(),
            connections: 64,
            streams: 1,
            warm: Duration::from_secs(1),
            measured: Duration::from_secs(3),
            rate: 0.0,
            bytes: 128,
        };
        for setting in settings {
            let (name, value) = setting.split_once('=').unwrap_or_else(|| usage());
            let seconds = || Duration::from_secs_f64(value.parse().unwrap_or_else(|_| usage()));
            match name {
                "address" => plan.address = value.parse().unwrap_or_else(|_| usage()),
                "host" => value.clone_into(&mut plan.host),
                "connections" => plan.connections = number(value),
                "streams" => plan.streams = number(value),
                "warm" => plan.warm = seconds(),
                "seconds" => plan.measured = seconds(),
                "rate" => plan.rate = value.parse().unwrap_or_else(|_| usage()),
                "bytes" => plan.bytes = number(value),
                _ => usage(),
            }
        }
        plan
    }

    /// The run begins now.
    pub fn begin(&self) -> Rc<Work> {
        let from = Instant::now() + self.warm;
        let until = from + self.measured;
        let arrivals = (self.rate > 0.0).then(|| {
            let (tell, told) = mpsc::channel(BACKLOG);
            let rate = self.rate;
            std::thread::spawn(move || arrive(rate, until, &tell));
            Mutex::new(told)
        });
        Rc::new(Work {
            from,
            until,
            arrivals,
            micros: RefCell::new(Vec::with_capacity(1 << 20)),
            errors: Cell::new(0),
            bytes: Cell::new(0),
        })
    }
}

/// Says when requests are meant to begin. A thread of its own: the runtime's timers count milliseconds.
fn arrive(rate: f64, until: Instant, tell: &mpsc::Sender<Instant>) {
    // Without it the kernel may let us sleep 50 µs longer. Where it cannot be written, latencies are that much worse.
    let _ = std::fs::write("/proc/thread-self/timerslack_ns", "1");
    let mut next = Instant::now();
    while next < until {
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        if tell.try_send(next).is_err() {
            return;
        }
        next += Duration::from_secs_f64(-(1.0 - fastrand::f64()).ln() / rate);
    }
}

/// What all clients of a run share.
pub struct Work {
    from: Instant,
    until: Instant,
    arrivals: Option<Mutex<mpsc::Receiver<Instant>>>,
    micros: RefCell<Vec<u32>>,
    errors: Cell<u64>,
    bytes: Cell<u64>,
}

impl Work {
    /// When the next request is meant to begin: now or a little ago. `None`: no more.
    pub async fn next(&self) -> Option<Instant> {
        match &self.arrivals {
            Some(arrivals) => arrivals.lock().await.recv().await,
            None => Some(Instant::now()).filter(|now| *now < self.until),
        }
    }

    pub fn is_open(&self) -> bool {
        self.arrivals.is_some()
    }

    pub fn over(&self) -> bool {
        Instant::now() >= self.until
    }

    /// An answer was right.
    pub fn answered(&self, begun: Instant) {
        let now = Instant::now();
        if begun >= self.from && now <= self.until {
            let micros = u32::try_from((now - begun).as_micros()).unwrap_or(u32::MAX);
            self.micros.borrow_mut().push(micros);
        }
    }

    /// An answer was wrong, or there was none. Warming up counts too: nothing may go wrong at all.
    pub fn failed(&self) {
        self.errors.set(self.errors.get() + 1);
    }

    /// So many octets were taken by the other end.
    pub fn moved(&self, bytes: u64) {
        let now = Instant::now();
        if now >= self.from && now <= self.until {
            self.bytes.set(self.bytes.get() + bytes);
        }
    }

    /// Says `start` when warming up is over and comes back when measuring is.
    pub async fn watch(&self, plan: &Plan) {
        tokio::time::sleep_until(self.from.into()).await;
        println!("start");
        tokio::time::sleep(plan.measured).await;
        println!("stop");
    }

    pub fn report(&self) -> String {
        let mut sorted = self.micros.borrow_mut();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        let at = |share: f64| {
            let index = ((sorted.len() as f64 * share) as usize).min(last);
            sorted.get(index).copied().unwrap_or(0)
        };
        format!(
            "{{\"requests\":{},\"errors\":{},\"bytes\":{},\"seconds\":{:.3},\"p50_us\":{},\"p99_us\":{},\"p999_us\":{}}}",
            sorted.len(),
            self.errors.get(),
            self.bytes.get(),
            (self.until - self.from).as_secs_f64(),
            at(0.5),
            at(0.99),
            at(0.999),
        )
    }
}
