//! Who may talk to a port of the workload, and about what: the compiled `Server`.
//!
//! A connection is weighed once ([`Server::grants`]); each of its requests then costs a route lookup and a few bits.
//! Inbound never falls open: an authorization that cannot be read never holds, a route match that cannot be read stands
//! before all others and refuses.
//!
//! ```
//! use std::{net::Ipv4Addr, time::Duration};
//! use tulle_engine::{RequestView, inbound::{DefaultPolicy, DefaultProtocol, Peer, PeerTls, Server}};
//!
//! let protocol = DefaultProtocol::Detect(Duration::from_secs(10));
//! let server = Server::by_default(DefaultPolicy::AllAuthenticated, protocol, &[]);
//! let request = RequestView { method: b"GET", authority: b"voting", path: b"/", headers: &() };
//! let route = server.route(&request).expect("the default route takes everything");
//!
//! let plain = Peer { addr: Ipv4Addr::LOCALHOST.into(), tls: PeerTls::None };
//! let denial = server.authorize(&server.grants(&plain), &route).unwrap_err();
//! assert_eq!(denial.reason.code(), "unauthorized");
//!
//! let web = Peer { tls: PeerTls::Identity("web.default.serviceaccount.identity.linkerd.cluster.local"), ..plain };
//! assert!(server.authorize(&server.grants(&web), &route).is_ok());
//! ```

mod authz;
mod compile;
mod default;
mod external;
mod jwt;
mod network;
mod rate;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

pub use self::authz::{Authentication, Authorization, Identities, Lack, Peer, PeerTls};
pub use self::default::{DefaultPolicy, DefaultProtocol, UnknownPolicy};
pub use self::external::{External, MAX_SHOWN_BODY};
pub use self::jwt::{
    Algorithm, ClaimHeader, Claims, Fault, GENERATION, Jwt, Key, MAX_JWKS, MAX_KEYS, MAX_TOKEN,
    Material, Verified, Verifier, is_reserved,
};
pub use self::network::{Cidr, Network};
pub use self::rate::{Limited, MAX_BUCKETS, RateLimit, RateLimitOverride, RateLimiter, Scope};

use crate::invalid::Invalid;
use crate::meta::Meta;
use crate::reason::Reason;
use crate::request::{Headers, RequestView};
use crate::route::{self, Filter, Found, PolicyRule, Recorder, RuleId, RuleName, Table};

/// A compiled policy for one port.
#[derive(Clone, Debug)]
pub struct Server {
    /// The Server object (or default); the `srv_*` labels.
    pub meta: Arc<Meta>,
    /// What is spoken on the port.
    pub protocol: Protocol,
    /// Connections to other addresses are refused; empty: any address.
    pub server_ips: Vec<IpAddr>,
    /// Every distinct authorization, of the server and of its routes.
    pub authorizations: Vec<Authorization>,
    /// Those that hold for the port as a whole, in order.
    pub own_authorizations: Vec<AuthorizationId>,
    /// Every route, in the order of the message.
    pub routes: Vec<Route>,
    /// Every rule.
    pub rules: Vec<Rule>,
    /// The rules of routes for probes by themselves: another route may be closer to a request and must not stand in a
    /// probe's way.
    pub probes: Option<Arc<Table>>,
    /// How many requests per second are let in.
    pub rate_limit: Option<Arc<RateLimit>>,
    /// How many requests are let in at once; 0: no limit.
    pub max_in_flight: usize,
    /// Tokens that requests have to carry, all of them.
    pub jwt: Vec<Arc<Jwt>>,
    /// The service that has the last word.
    pub external: Option<Arc<External>>,
    /// Connections begin with the PROXY protocol; its source address is the client's.
    pub proxy_protocol: bool,
    /// As the message has them.
    pub labels: BTreeMap<String, String>,
    /// Names of the Services that lead here, sorted.
    pub services: Vec<Box<str>>,
    /// What could not be read.
    pub problems: Vec<Invalid>,
}

/// What is spoken on a port.
#[derive(Clone, Debug)]
pub enum Protocol {
    /// The first bytes tell; what has not shown itself as HTTP within `timeout` is opaque.
    Detect {
        /// How long to wait for the first bytes.
        timeout: Duration,
        /// For HTTP.
        http: Arc<Table>,
    },
    /// HTTP/1; other proxies may carry it in HTTP/2.
    Http1(Arc<Table>),
    /// HTTP/2.
    Http2(Arc<Table>),
    /// gRPC over HTTP/2.
    Grpc(Arc<Table>),
    /// Bytes.
    Opaque,
    /// TLS of the application's own.
    Tls,
}

/// An authorization of a server: an index into its `authorizations`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AuthorizationId(u32);

impl AuthorizationId {
    /// The place in the server's `authorizations`; dense from 0.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A route object.
#[derive(Clone, Debug)]
pub struct Route {
    /// The object (or default); the `route_*` labels.
    pub meta: Arc<Meta>,
    /// Its own authorizations and then the server's; the first that holds is named in metrics.
    pub authorizations: Vec<AuthorizationId>,
}

impl Route {
    /// Whether it lets in the kubelet's probes. The control plane makes such a route and calls it `probe`; no object can,
    /// since an object is no default.
    #[must_use]
    pub fn is_for_probes(&self) -> bool {
        matches!(&*self.meta, Meta::Default(name) if &**name == "probe")
    }
}

/// One rule of a route.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The place of its route in the server's `routes`.
    pub route: usize,
    /// Its number within the route.
    pub number: usize,
    /// Applied in order.
    pub filters: Vec<Filter>,
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

/// What matched a request.
pub type RouteRef<'a> = route::RouteRef<'a, Rule>;

/// Which authorizations hold for a connection: one bit each. Belongs to one server and one peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    first: u64,
    /// Beyond 64; mostly empty, which needs no memory.
    more: Vec<u64>,
}

impl Grants {
    fn set(&mut self, id: usize) {
        match id.checked_sub(64) {
            None => self.first |= 1 << id,
            Some(id) => {
                if self.more.len() <= id / 64 {
                    self.more.resize(id / 64 + 1, 0);
                }
                if let Some(word) = self.more.get_mut(id / 64) {
                    *word |= 1 << (id % 64);
                }
            }
        }
    }

    /// Whether this authorization holds.
    #[must_use]
    pub fn holds(&self, id: AuthorizationId) -> bool {
        let id = id.index();
        match id.checked_sub(64) {
            None => self.first >> id & 1 == 1,
            Some(id) => self
                .more
                .get(id / 64)
                .is_some_and(|word| word >> (id % 64) & 1 == 1),
        }
    }
}

/// Leave to come in.
#[derive(Clone, Copy, Debug)]
pub struct Permit<'a> {
    /// The place of the authorization in the server's `authorizations`.
    pub id: AuthorizationId,
    /// The authorization that holds; the `authz_*` labels.
    pub authorization: &'a Authorization,
}

impl Permit<'_> {
    /// Whether this is let in only to be watched, and is to be logged.
    #[must_use]
    pub fn is_audit(&self) -> bool {
        self.authorization.meta.is_audit()
    }
}

/// A refusal, with the rule behind it.
#[derive(Clone, Copy, Debug)]
pub struct Denial<'a> {
    /// What the answer says.
    pub reason: Reason,
    /// The Server (or default).
    pub server: &'a Meta,
    /// The route, for a request.
    pub route: Option<&'a Meta>,
    /// The authorizations that do not hold, by their place in the server's `authorizations`.
    pub tried: &'a [AuthorizationId],
}

/// The rule that the refusal rests on: `HTTPRoute default/voting of Server default/voting-http`.
impl fmt::Display for Denial<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.route {
            Some(route) if !matches!(route, Meta::Default(_)) => {
                write!(f, "{route} of {}", self.server)
            }
            _ => self.server.fmt(f),
        }
    }
}

impl Server {
    /// Weighs every authorization for a peer; once per connection, and again when the policy changes.
    #[must_use]
    pub fn grants(&self, peer: &Peer<'_>) -> Grants {
        let mut grants = Grants::default();
        for (id, authorization) in self.authorizations.iter().enumerate() {
            if authorization.check(peer).is_ok() {
                grants.set(id);
            }
        }
        grants
    }

    /// Whether a connection that is not looked into may come in. HTTP is authorized request by request instead.
    ///
    /// Where requests need a token or another service's word, no such connection may: it could carry requests past them.
    pub fn authorize_connection(&self, grants: &Grants) -> Result<Permit<'_>, Denial<'_>> {
        let asks_requests = !self.jwt.is_empty() || self.external.is_some();
        let permit = self.permit(&self.own_authorizations, grants);
        permit.filter(|_| !asks_requests).ok_or(Denial {
            reason: Reason::Unauthorized,
            server: &self.meta,
            route: None,
            tried: &self.own_authorizations,
        })
    }

    /// The rule for a request; `None` is answered with [`Reason::RouteNotFound`].
    #[inline]
    pub fn route<H: Headers + ?Sized>(&self, request: &RequestView<'_, H>) -> Option<RouteRef<'_>> {
        self.route_with(request, &mut ())
    }

    /// The same, telling a recorder of every match that was weighed.
    pub fn route_with<H: Headers + ?Sized, R: Recorder>(
        &self,
        request: &RequestView<'_, H>,
        recorder: &mut R,
    ) -> Option<RouteRef<'_>> {
        self.found(self.http()?.find_with(request, recorder)?)
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

    fn found<'a>(&'a self, found: Found<'a>) -> Option<RouteRef<'a>> {
        let rule = self.rules.get(found.rule.index())?;
        Some(RouteRef {
            id: found.rule,
            route: self.routes.get(rule.route)?,
            rule,
            matcher: found.matcher,
            invalid: found.broken.or(rule.invalid.as_ref()),
        })
    }

    /// Whether the request is a probe that is let in, whatever route is closer to it. Asked when a request would be
    /// refused, or before it is held to more than authorization ([`Server::requires_more`]).
    pub fn probe<H: Headers + ?Sized>(
        &self,
        grants: &Grants,
        request: &RequestView<'_, H>,
    ) -> Option<(RouteRef<'_>, Permit<'_>)> {
        let route = self.found(self.probes.as_ref()?.find(request)?)?;
        let permit = self.authorize(grants, &route).ok()?;
        Some((route, permit))
    }

    /// Whether an authorized request has to meet more: tokens, limits, the word of another service.
    #[inline]
    #[must_use]
    pub fn requires_more(&self) -> bool {
        self.rate_limit.is_some()
            || self.max_in_flight != 0
            || !self.jwt.is_empty()
            || self.external.is_some()
    }

    /// Whether a request on this route may come in.
    pub fn authorize<'a>(
        &'a self,
        grants: &Grants,
        route: &RouteRef<'a>,
    ) -> Result<Permit<'a>, Denial<'a>> {
        self.permit(&route.route.authorizations, grants)
            .ok_or(Denial {
                reason: Reason::Unauthorized,
                server: &self.meta,
                route: Some(&route.route.meta),
                tried: &route.route.authorizations,
            })
    }

    fn permit(&self, authorizations: &[AuthorizationId], grants: &Grants) -> Option<Permit<'_>> {
        let id = *authorizations.iter().find(|id| grants.holds(**id))?;
        Some(Permit {
            id,
            authorization: self.authorizations.get(id.index())?,
        })
    }

    /// The routes of HTTP requests; `None` when the port does not speak HTTP.
    #[must_use]
    pub fn http(&self) -> Option<&Table> {
        match &self.protocol {
            Protocol::Detect { http, .. }
            | Protocol::Http1(http)
            | Protocol::Http2(http)
            | Protocol::Grpc(http) => Some(http),
            Protocol::Opaque | Protocol::Tls => None,
        }
    }

    /// Whether connections to this address of the workload are taken.
    #[must_use]
    pub fn serves(&self, addr: IpAddr) -> bool {
        self.server_ips.is_empty() || self.server_ips.contains(&addr.to_canonical())
    }

    /// The Service that a request's authority names, else the first that leads here, else nothing: `dst_service`.
    #[must_use]
    pub fn service(&self, authority: &[u8]) -> &str {
        let host = crate::request::host_of(authority);
        let name = host.split(|byte| *byte == b'.').next().unwrap_or_default();
        let named = self
            .services
            .iter()
            .find(|service| name.eq_ignore_ascii_case(service.as_bytes()));
        named
            .or_else(|| self.services.first())
            .map_or("", |service| service)
    }
}

#[cfg(test)]
mod tests;
