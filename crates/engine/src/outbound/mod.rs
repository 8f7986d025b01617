//! What to do with traffic that the workload sends: the compiled `OutboundPolicy`.
//!
//! A policy owns flat lists of routes, rules and backends; lookups give indexes into them, and callers keep what is
//! theirs (metric handles, balancers) in lists beside.

mod backend;
mod compile;
mod profile;
mod resilience;
mod rule;

use std::sync::Arc;
use std::time::Duration;

pub use self::backend::{Backend, BackendId, BackendKind, Distribution, Queue, RouteBackend};
pub use self::profile::{MAX_CONDITIONS, MAX_PROFILE_RETRIES, ProfileRoutes};
pub use self::resilience::{
    Backoff, FailureAccrual, MAX_REQUEST_BYTES, Retry, RetryConditions, Statuses, SuccessRate,
    Timeouts,
};
pub use crate::route::Answer;

use crate::hedge::Hedge;
use crate::invalid::Invalid;
use crate::meta::Meta;
use crate::request::{Headers, RequestView};
use crate::route::{self, Filter, Matcher, PolicyRule, Recorder, RuleId, RuleName, Table};

/// A compiled policy for one target.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The object the target belongs to; the `parent_*` labels.
    pub meta: Arc<Meta>,
    /// What is spoken to the target.
    pub protocol: Protocol,
    /// Every route, in the order of the message.
    pub routes: Vec<Route>,
    /// Every rule; a route's own stand together.
    pub rules: Vec<Rule>,
    /// Every distinct backend.
    pub backends: Vec<Backend>,
    /// What is not meshed is refused ([`Reason::MeshTlsRequired`](crate::Reason::MeshTlsRequired)) instead of being
    /// spoken to in the clear.
    pub require_mesh_tls: bool,
    /// What could not be read. The routes concerned fail their requests with
    /// [`Reason::RouteInvalid`](crate::Reason::RouteInvalid).
    pub problems: Vec<Invalid>,
}

/// What is spoken to the target.
#[derive(Clone, Debug)]
pub enum Protocol {
    /// The first bytes tell; what has not shown itself as HTTP within `timeout` is opaque.
    Detect {
        /// How long to wait for the first bytes.
        timeout: Duration,
        /// For HTTP/1.
        http1: HttpRoutes,
        /// For HTTP/2.
        http2: HttpRoutes,
        /// For all else.
        opaque: TcpRoutes,
    },
    /// HTTP/1, without detection.
    Http1(HttpRoutes),
    /// HTTP/2, without detection.
    Http2(HttpRoutes),
    /// gRPC over HTTP/2, without detection.
    Grpc(HttpRoutes),
    /// Bytes.
    Opaque(TcpRoutes),
    /// TLS of the application's own, routed by server name.
    Tls(TcpRoutes),
}

/// Which HTTP a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.0 or 1.1.
    Http1,
    /// HTTP/2, gRPC included.
    Http2,
}

/// Routes of requests.
#[derive(Clone, Debug, Default)]
pub struct HttpRoutes {
    /// Finds the rule.
    pub table: Arc<Table>,
    /// The circuit breaker of the backends.
    pub failure_accrual: Option<FailureAccrual>,
    /// Finds the rule instead of the table, where a profile says what to do.
    pub profile: Option<Arc<ProfileRoutes>>,
}

/// Routes of connections.
#[derive(Clone, Debug, Default)]
pub struct TcpRoutes {
    /// Finds the rule by server name.
    pub table: Arc<Table>,
}

/// A route object.
#[derive(Clone, Debug)]
pub struct Route {
    /// The object; the `route_*` labels.
    pub meta: Arc<Meta>,
    /// What it routes.
    pub kind: RouteKind,
}

/// What a route routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// HTTP requests.
    Http,
    /// gRPC calls.
    Grpc,
    /// Connections.
    Opaque,
    /// TLS connections, by server name.
    Tls,
}

/// One rule of a route.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The place of its route in the policy's `routes`.
    pub route: usize,
    /// Its number within the route.
    pub number: usize,
    /// Applied in order.
    pub filters: Vec<Filter>,
    /// Where to.
    pub distribution: Distribution,
    /// How long.
    pub timeouts: Timeouts,
    /// Whether to try again.
    pub retry: Option<Retry>,
    /// Whether a second try is sent beside a first that is slow.
    pub hedge: Option<Hedge>,
    /// Whether `l5d-*` headers of the request may override timeouts and retries.
    pub allow_request_headers: bool,
    /// Why the rule could not be read, when it could not.
    pub invalid: Option<Invalid>,
}

impl PolicyRule for Rule {
    type Route = Route;

    #[inline]
    fn number(&self) -> usize {
        self.number
    }

    #[inline]
    fn filters(&self) -> &[Filter] {
        &self.filters
    }

    #[inline]
    fn meta(route: &Route) -> &Arc<Meta> {
        &route.meta
    }
}

/// What matched a request or connection.
pub type RouteRef<'a> = route::RouteRef<'a, Rule>;

impl Policy {
    /// The rule for a request; `None` is answered with [`Reason::RouteNotFound`](crate::Reason::RouteNotFound).
    #[inline]
    pub fn route<H: Headers + ?Sized>(
        &self,
        version: HttpVersion,
        request: &RequestView<'_, H>,
    ) -> Option<RouteRef<'_>> {
        self.route_with(version, request, &mut ())
    }

    /// The same, telling a recorder of every match that was weighed.
    pub fn route_with<H: Headers + ?Sized, R: Recorder>(
        &self,
        version: HttpVersion,
        request: &RequestView<'_, H>,
        recorder: &mut R,
    ) -> Option<RouteRef<'_>> {
        let routes = self.http(version)?;
        if let Some(profile) = &routes.profile {
            let (id, matcher) = profile.find(request);
            return self.referred(id, matcher, None);
        }
        self.found(&routes.table, request, recorder)
    }

    /// The rule for a connection that is not looked into; `server_name` is what its TLS hello asks for, else empty.
    pub fn route_connection(&self, server_name: &[u8]) -> Option<RouteRef<'_>> {
        let routes = match &self.protocol {
            Protocol::Detect { opaque, .. } | Protocol::Opaque(opaque) | Protocol::Tls(opaque) => {
                opaque
            }
            Protocol::Http1(_) | Protocol::Http2(_) | Protocol::Grpc(_) => return None,
        };
        self.found(
            &routes.table,
            &RequestView::connection(server_name),
            &mut (),
        )
    }

    /// The routes for this version of HTTP; `None` when the target does not speak it.
    #[must_use]
    pub fn http(&self, version: HttpVersion) -> Option<&HttpRoutes> {
        match (&self.protocol, version) {
            (Protocol::Detect { http1, .. } | Protocol::Http1(http1), HttpVersion::Http1) => {
                Some(http1)
            }
            (Protocol::Detect { http2, .. } | Protocol::Http2(http2), HttpVersion::Http2) => {
                Some(http2)
            }
            // A client may speak either version to a Service that is declared with one: the proxies in between carry
            // it in the other.
            (Protocol::Http1(routes) | Protocol::Http2(routes) | Protocol::Grpc(routes), _) => {
                Some(routes)
            }
            (Protocol::Opaque(_) | Protocol::Tls(_), _) => None,
        }
    }

    /// The profile that finds the rules of this policy's requests, where one does.
    #[must_use]
    pub fn profile(&self) -> Option<&Arc<ProfileRoutes>> {
        self.http(HttpVersion::Http1)?.profile.as_ref()
    }

    /// What a rule is called; `None` for a place where there is none.
    #[must_use]
    pub fn rule_name(&self, id: RuleId) -> Option<RuleName<'_>> {
        let rule = self.rules.get(id.index())?;
        Some(RuleName {
            route: &self.routes.get(rule.route)?.meta,
            number: rule.number,
        })
    }

    #[inline]
    fn found<'a, H: Headers + ?Sized, R: Recorder>(
        &'a self,
        table: &'a Table,
        request: &RequestView<'_, H>,
        recorder: &mut R,
    ) -> Option<RouteRef<'a>> {
        let found = table.find_with(request, recorder)?;
        self.referred(found.rule, found.matcher, found.broken)
    }

    #[inline]
    fn referred<'a>(
        &'a self,
        id: RuleId,
        matcher: &'a Matcher,
        broken: Option<&'a Invalid>,
    ) -> Option<RouteRef<'a>> {
        let rule = self.rules.get(id.index())?;
        Some(RouteRef {
            id,
            route: self.routes.get(rule.route)?,
            rule,
            matcher,
            invalid: broken.or(rule.invalid.as_ref()),
        })
    }
}

impl Rule {
    /// The backend to ask; `None` is answered with [`Reason::NoBackend`](crate::Reason::NoBackend). Its own filters may
    /// answer instead of it ([`RouteBackend::answer`]).
    pub fn backend(
        &self,
        random: u64,
        available: impl Fn(BackendId) -> bool,
    ) -> Option<&RouteBackend> {
        self.distribution.choose(random, available)
    }
}

impl RouteBackend {
    /// What the backend's filters answer instead of it, if they do: so a backend that does not exist fails its share.
    #[must_use]
    pub fn answer<H: Headers + ?Sized>(
        &self,
        request: &RequestView<'_, H>,
        random: u64,
    ) -> Option<Answer<'_>> {
        route::answer(&self.filters, request, random)
    }

    /// How long the backend's filters hold the request back.
    #[must_use]
    pub fn delay<H: Headers + ?Sized>(
        &self,
        request: &RequestView<'_, H>,
        random: u64,
    ) -> Option<Duration> {
        route::delay(&self.filters, request, random)
    }
}

#[cfg(test)]
mod tests;
