//! What the data path asks of the control side: the policy of a destination, of an own port, the endpoints of a name,
//! the profile of a name by which requests come in.
//!
//! Every answer is a `watch` receiver: it shows the newest state, wakes on change, and keeps the last known state for
//! as long as anybody holds it, connected or not. The first question about a target opens its stream on the control
//! thread; later ones share it. A target that nobody holds is forgotten after the idle time, and never while the
//! control plane is away.
//!
//! [`channel`] makes the two ends; the control thread serves [`Requests`], a test may serve them by hand.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};
use tulle_engine::destination::Endpoints;
use tulle_engine::inbound::Server;
use tulle_engine::outbound::{Policy, ProfileRoutes};

use crate::config::PortSet;

/// Most targets of each kind that are watched at once. A target beyond it gets the answer "unknown" and is counted.
pub const MAX_TARGETS: usize = 10_000;
/// Most names by which requests come in whose profiles are watched at once: clients choose them. A request for one beyond
/// it is counted without its profile.
pub const MAX_PROFILES: usize = 200;

/// Where an outgoing connection or request wants to go.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// The original destination of a captured connection.
    Addr(SocketAddr),
    /// The authority of a request that named its destination itself, lower case, with or without a port.
    Authority(String),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Addr(address) => address.fmt(f),
            Self::Authority(authority) => authority.fmt(f),
        }
    }
}

/// What is to be done with traffic to a target.
#[derive(Debug)]
pub struct OutboundView {
    /// The compiled policy. When no policy exists it forwards to the profile's endpoint or to the target itself.
    pub policy: Policy,
    /// Where the policy comes from.
    pub source: Source,
}

/// Where an outbound policy comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The policy service.
    Policy,
    /// The endpoint of the destination service's profile: the target is a single pod.
    Profile,
    /// Nobody knows the target: forward to it as it is.
    Original,
}

/// The policies of ports that the controller has not answered for.
#[derive(Clone, Debug)]
pub struct InboundDefaults {
    /// With protocol detection.
    pub detect: Arc<Server>,
    /// Opaque.
    pub opaque: Arc<Server>,
    /// Which ports are opaque.
    pub opaque_ports: PortSet,
}

impl InboundDefaults {
    /// The default of one port.
    pub fn of(&self, port: u16) -> Arc<Server> {
        if self.opaque_ports.contains(port) {
            self.opaque.clone()
        } else {
            self.detect.clone()
        }
    }
}

/// The asking end. Cheap to clone; works on any thread.
#[derive(Clone, Debug)]
pub struct Discovery {
    shared: Arc<Shared>,
    open: mpsc::UnboundedSender<Request>,
}

/// A target to be watched; whoever serves it sends states into the sender and drops it when [`Requests::forget`]
/// says so.
#[derive(Debug)]
pub enum Request {
    /// `None` until something is known.
    Outbound(Target, watch::Sender<Option<Arc<OutboundView>>>),
    /// Begins with the default policy.
    Inbound(u16, watch::Sender<Arc<Server>>),
    /// `None` until something is known.
    Endpoints(String, watch::Sender<Option<Arc<Endpoints>>>),
    /// `None` until something is known, and where there is no profile with routes.
    Profile(String, watch::Sender<Option<Arc<ProfileRoutes>>>),
}

/// The serving end.
#[derive(Debug)]
pub struct Requests {
    shared: Arc<Shared>,
    // Unbounded in form, bounded in fact: a target is sent once while it is in the cache, and the cache is bounded.
    opened: mpsc::UnboundedReceiver<Request>,
}

#[derive(Debug)]
struct Shared {
    defaults: InboundDefaults,
    refused: AtomicU64,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    outbound: HashMap<Target, watch::Receiver<Option<Arc<OutboundView>>>>,
    inbound: HashMap<u16, watch::Receiver<Arc<Server>>>,
    endpoints: HashMap<String, watch::Receiver<Option<Arc<Endpoints>>>>,
    profiles: HashMap<String, watch::Receiver<Option<Arc<ProfileRoutes>>>>,
}

/// Makes the two ends.
pub fn channel(defaults: InboundDefaults) -> (Discovery, Requests) {
    let (open, opened) = mpsc::unbounded_channel();
    let shared = Arc::new(Shared {
        defaults,
        refused: AtomicU64::new(0),
        cache: Mutex::default(),
    });
    (
        Discovery {
            shared: shared.clone(),
            open,
        },
        Requests { shared, opened },
    )
}

impl Discovery {
    /// What to do with traffic to a target; `None` until the control plane has answered.
    pub fn outbound(&self, target: Target) -> watch::Receiver<Option<Arc<OutboundView>>> {
        self.look_up(
            |cache| (&mut cache.outbound, MAX_TARGETS),
            target,
            None,
            Request::Outbound,
        )
    }

    /// The policy of one of the pod's ports: the default until the controller has answered.
    pub fn inbound(&self, port: u16) -> watch::Receiver<Arc<Server>> {
        self.look_up(
            |cache| (&mut cache.inbound, MAX_TARGETS),
            port,
            self.shared.defaults.of(port),
            Request::Inbound,
        )
    }

    /// The endpoints behind a name (`web.default.svc.cluster.local:80`, as a policy's balancer names it); `None` until
    /// the control plane has answered.
    pub fn endpoints(&self, path: &str) -> watch::Receiver<Option<Arc<Endpoints>>> {
        self.look_up(
            |cache| (&mut cache.endpoints, MAX_TARGETS),
            path.to_owned(),
            None,
            Request::Endpoints,
        )
    }

    /// The routes of the profile of a name (`web.default.svc.cluster.local:80`) by which requests come in; `None` until
    /// the control plane has answered, and where there is none.
    pub fn profile(&self, path: &str) -> watch::Receiver<Option<Arc<ProfileRoutes>>> {
        self.look_up(
            |cache| (&mut cache.profiles, MAX_PROFILES),
            path.to_owned(),
            None,
            Request::Profile,
        )
    }

    /// Everything that is known now, sorted: for people, not for the data path.
    pub fn snapshot(&self) -> Snapshot {
        let cache = self.shared.lock();
        Snapshot {
            outbound: cache
                .outbound
                .iter()
                .map(|(key, state)| (key.clone(), state.borrow().clone()))
                .collect(),
            inbound: cache
                .inbound
                .iter()
                .map(|(key, state)| (*key, state.borrow().clone()))
                .collect(),
            endpoints: cache
                .endpoints
                .iter()
                .map(|(key, state)| (key.clone(), state.borrow().clone()))
                .collect(),
            profiles: cache
                .profiles
                .iter()
                .map(|(key, state)| (key.clone(), state.borrow().clone()))
                .collect(),
        }
    }

    fn look_up<K: Clone + Eq + Hash, V>(
        &self,
        map: impl FnOnce(&mut Cache) -> (&mut HashMap<K, watch::Receiver<V>>, usize),
        key: K,
        first: V,
        request: impl FnOnce(K, watch::Sender<V>) -> Request,
    ) -> watch::Receiver<V> {
        let mut cache = self.shared.lock();
        let (map, most) = map(&mut cache);
        if let Some(known) = map.get(&key) {
            return known.clone();
        }
        let (sender, receiver) = watch::channel(first);
        if map.len() >= most {
            self.shared.refused.fetch_add(1, Relaxed);
            return receiver; // Its sender is gone: it stays at what it began with.
        }
        map.insert(key.clone(), receiver.clone());
        // The receiving end lives as long as the control thread; after it, nothing is watched any more.
        let _ended = self.open.send(request(key, sender));
        receiver
    }
}

/// Everything that is known at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// What to do with outgoing traffic.
    pub outbound: BTreeMap<Target, Option<Arc<OutboundView>>>,
    /// The policies of the pod's ports.
    pub inbound: BTreeMap<u16, Arc<Server>>,
    /// The endpoints behind names.
    pub endpoints: BTreeMap<String, Option<Arc<Endpoints>>>,
    /// The profiles of names by which requests come in.
    pub profiles: BTreeMap<String, Option<Arc<ProfileRoutes>>>,
}

impl Requests {
    /// The next target to be watched; `None` when every asking end is gone.
    pub async fn next(&mut self) -> Option<Request> {
        self.opened.recv().await
    }

    /// The cache's part, for those who serve single targets.
    pub fn forgetter(&self) -> Forgetter {
        Forgetter {
            shared: self.shared.clone(),
        }
    }
}

/// Takes targets out of the cache.
#[derive(Clone, Debug)]
pub struct Forgetter {
    shared: Arc<Shared>,
}

impl Forgetter {
    /// How many questions were refused since the start, because [`MAX_TARGETS`] or [`MAX_PROFILES`] were watched.
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Relaxed)
    }

    /// Forgets an outbound target unless somebody holds it.
    pub fn outbound(
        &self,
        target: &Target,
        sender: &watch::Sender<Option<Arc<OutboundView>>>,
    ) -> bool {
        remove_unheld(&mut self.shared.lock().outbound, target, sender)
    }

    /// Forgets an inbound port unless somebody holds it.
    pub fn inbound(&self, port: u16, sender: &watch::Sender<Arc<Server>>) -> bool {
        remove_unheld(&mut self.shared.lock().inbound, &port, sender)
    }

    /// Forgets endpoints unless somebody holds them.
    pub fn endpoints(&self, path: &str, sender: &watch::Sender<Option<Arc<Endpoints>>>) -> bool {
        remove_unheld(&mut self.shared.lock().endpoints, path, sender)
    }

    /// Forgets a profile unless somebody holds it.
    pub fn profile(&self, path: &str, sender: &watch::Sender<Option<Arc<ProfileRoutes>>>) -> bool {
        remove_unheld(&mut self.shared.lock().profiles, path, sender)
    }
}

/// Under the cache's lock nobody can take a new copy, so one receiver means that only the cache holds it.
fn remove_unheld<K, Q, V>(
    map: &mut HashMap<K, watch::Receiver<V>>,
    key: &Q,
    sender: &watch::Sender<V>,
) -> bool
where
    K: std::borrow::Borrow<Q> + Eq + Hash,
    Q: Eq + Hash + ?Sized,
{
    let unheld = is_unheld(sender);
    if unheld {
        map.remove(key);
    }
    unheld
}

/// Whether only the cache holds the receiving end.
pub fn is_unheld<V>(sender: &watch::Sender<V>) -> bool {
    sender.receiver_count() <= 1
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Cache> {
        // A panic under this lock leaves whole values behind: every change is one insert or one remove.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
