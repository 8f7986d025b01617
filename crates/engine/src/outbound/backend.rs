//! Where a rule may send traffic, and how the choice among several falls.

use std::sync::Arc;
use std::time::Duration;

use tulle_api::outbound as api;

use super::resilience::FailureAccrual;
use crate::balance::Balance;
use crate::destination::Endpoint;
use crate::invalid::{Invalid, duration};
use crate::meta::Meta;
use crate::random_below;
use crate::route::Filter;

/// A backend of a policy: an index into its `backends`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId(u32);

impl BackendId {
    /// The place in the policy's `backends`; dense from 0, so that a caller may keep a table of its own beside it.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One place to send traffic to; rules that name the same place share it, and with it its load and its queue.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    /// The Service (or other object) behind it.
    pub meta: Arc<Meta>,
    /// One endpoint or many.
    pub kind: BackendKind,
    /// What waits while nothing is ready.
    pub queue: Queue,
}

/// One endpoint or many.
#[derive(Clone, Debug, PartialEq)]
pub enum BackendKind {
    /// This endpoint.
    Forward(Arc<Endpoint>),
    /// The endpoints that `Destination.Get` tells for the path `dst`, balanced.
    Balancer {
        /// `name:port`.
        dst: Arc<str>,
        /// Which of them takes a request.
        balance: Box<Balance>,
        /// When one of them is left alone for a while; `None`: never.
        accrual: Option<Box<FailureAccrual>>,
    },
    /// It does not exist: [`RouteBackend::answer`] always answers instead, so nothing is ever sent here.
    Missing,
}

/// What waits while a backend has no endpoint ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Requests that may wait.
    pub capacity: u32,
    /// After so long without a ready endpoint, what waits fails and what comes fails at once.
    pub failfast: Duration,
}

impl Default for Queue {
    /// Linkerd's: 100 requests, 3 s.
    fn default() -> Self {
        Self {
            capacity: 100,
            failfast: Duration::from_secs(3),
        }
    }
}

/// A backend as one rule uses it.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteBackend {
    /// Which.
    pub backend: BackendId,
    /// Its share among the rule's backends; 1 for the backends of a first-available list.
    pub weight: u32,
    /// Applied after the rule's own.
    pub filters: Vec<Filter>,
    /// A limit for the answer of this backend alone.
    pub response_timeout: Option<Duration>,
}

/// How a rule chooses among its backends.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Distribution {
    /// There is nowhere to go.
    #[default]
    Empty,
    /// The first that is available.
    FirstAvailable(Vec<RouteBackend>),
    /// One at random, by weight, among those available.
    RandomAvailable(Vec<RouteBackend>),
}

impl Distribution {
    /// All backends, also those of weight 0.
    #[must_use]
    pub fn backends(&self) -> &[RouteBackend] {
        match self {
            Self::Empty => &[],
            Self::FirstAvailable(backends) | Self::RandomAvailable(backends) => backends,
        }
    }

    /// Chooses; `None` when none is available or all weights are 0.
    pub fn choose(
        &self,
        random: u64,
        available: impl Fn(BackendId) -> bool,
    ) -> Option<&RouteBackend> {
        match self {
            Self::Empty => None,
            Self::FirstAvailable(backends) => {
                backends.iter().find(|backend| available(backend.backend))
            }
            Self::RandomAvailable(backends) => {
                let total = backends
                    .iter()
                    .filter(|backend| available(backend.backend))
                    .map(|backend| u64::from(backend.weight))
                    .sum();
                let mut point = random_below(random, total);
                backends
                    .iter()
                    .filter(|backend| available(backend.backend))
                    .find(|backend| {
                        let weight = u64::from(backend.weight);
                        let chosen = point < weight;
                        point = point.saturating_sub(weight);
                        chosen
                    })
            }
        }
    }
}

/// Collects the distinct backends of a policy.
#[derive(Default)]
pub(super) struct Backends {
    pub(super) list: Vec<Backend>,
    /// The circuit breaker of the backends that are read now.
    pub(super) accrual: Option<FailureAccrual>,
}

impl Backends {
    /// Reads a backend and gives it, or the equal one that is there already, as an id.
    pub(super) fn add(&mut self, message: Option<&api::Backend>) -> Result<BackendId, Invalid> {
        let message = message.ok_or_else(|| Invalid::missing("backend"))?;
        let backend =
            Backend::compile(message, self.accrual).map_err(|error| error.under("backend"))?;
        let index = self
            .list
            .iter()
            .position(|known| *known == backend)
            .unwrap_or_else(|| {
                self.list.push(backend);
                self.list.len() - 1
            });
        u32::try_from(index)
            .map(BackendId)
            .map_err(|_| Invalid::new("backend", "is one too many"))
    }
}

impl Backends {
    pub(super) fn is_missing(&self, id: BackendId) -> bool {
        self.list
            .get(id.index())
            .is_some_and(|backend| backend.kind == BackendKind::Missing)
    }
}

impl Backend {
    fn compile(message: &api::Backend, accrual: Option<FailureAccrual>) -> Result<Self, Invalid> {
        let kind = match &message.kind {
            None => BackendKind::Missing,
            Some(api::backend::Kind::Forward(addr)) => BackendKind::Forward(Arc::new(
                Endpoint::compile(addr).map_err(|error| error.under("forward"))?,
            )),
            Some(api::backend::Kind::Balancer(balancer)) => {
                balanced(balancer, accrual).map_err(|error| error.under("balancer"))?
            }
        };
        let queue = match &message.queue {
            None => Queue::default(),
            Some(queue) => Queue {
                capacity: queue.capacity,
                failfast: match &queue.failfast_timeout {
                    None => Queue::default().failfast,
                    Some(length) => duration("queue.failfast_timeout", length)?,
                },
            },
        };
        Ok(Self {
            meta: Meta::compile(message.metadata.as_ref()),
            kind,
            queue,
        })
    }
}

fn balanced(
    message: &api::backend::BalanceP2c,
    accrual: Option<FailureAccrual>,
) -> Result<BackendKind, Invalid> {
    use api::backend::endpoint_discovery::Kind;
    let discovery = message
        .discovery
        .as_ref()
        .and_then(|discovery| discovery.kind.as_ref());
    let Some(Kind::Dst(destination)) = discovery else {
        return Err(Invalid::missing("discovery"));
    };
    if destination.path.is_empty() {
        return Err(Invalid::new("discovery.dst.path", "is empty"));
    }
    Ok(BackendKind::Balancer {
        dst: destination.path.as_str().into(),
        balance: Box::new(Balance::compile(message)?),
        accrual: accrual.map(Box::new),
    })
}
