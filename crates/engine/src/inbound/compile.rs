//! From the message to the server. Never panics, whatever the message holds, and never opens what it cannot read.

use std::sync::Arc;

use tulle_api::inbound as api;
use tulle_api::meta;

use super::authz::Authorization;
use super::{AuthorizationId, Protocol, Route, Rule, Server};
use crate::destination::ip_addr;
use crate::invalid::{Invalid, MAX_AUTHORIZATIONS, MAX_ROUTES, MAX_RULES, duration};
use crate::meta::{Meta, Resource};
use crate::route::{BrokenMatch, Filter, HostPattern, Hosts, Matcher, RuleId, Table, TableBuilder};

/// How many requests per second one proxy lets in.
#[derive(Clone, Debug, PartialEq)]
pub struct RateLimit {
    /// The HTTPLocalRateLimitPolicy.
    pub meta: Arc<Meta>,
    /// Of all clients together.
    pub total: Option<u32>,
    /// Of each identity; clients without one share a share.
    pub identity: Option<u32>,
    /// For some identities.
    pub overrides: Vec<RateLimitOverride>,
}

/// A limit for some identities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimitOverride {
    /// Requests per second.
    pub limit: u32,
    /// Whose.
    pub identities: Vec<Box<str>>,
}

impl RateLimit {
    fn compile(message: &api::HttpLocalRateLimit) -> Self {
        let limit = |limit: &Option<api::http_local_rate_limit::Limit>| {
            limit
                .map(|limit| limit.requests_per_second)
                .filter(|limit| *limit != 0)
        };
        let overrides = message.overrides.iter().filter_map(|message| {
            let identities = message
                .clients
                .iter()
                .flat_map(|clients| &clients.identities);
            Some(RateLimitOverride {
                limit: limit(&message.limit)?,
                identities: identities
                    .map(|identity| identity.name.as_str().into())
                    .collect(),
            })
        });
        Self {
            meta: Meta::compile(message.metadata.as_ref()),
            total: limit(&message.total),
            identity: limit(&message.identity),
            overrides: overrides.collect(),
        }
    }
}

impl Server {
    /// Compiles the message.
    ///
    /// # Errors
    /// When there is no protocol, or more than the bounds allow; the port is then to stay closed
    /// ([`crate::Reason::PolicyUnavailable`]) or at the last policy that could be read.
    pub fn compile(message: &api::Server) -> Result<Self, Invalid> {
        let mut compiler = Compiler::default();
        compiler.own = compiler.authorizations("authorizations", &message.authorizations)?;
        let kind = message
            .protocol
            .as_ref()
            .and_then(|protocol| protocol.kind.as_ref());
        let (protocol, limit) = match kind {
            None => return Err(Invalid::missing("protocol.kind")),
            Some(kind) => compiler
                .protocol(kind)
                .map_err(|error| error.under("protocol"))?,
        };
        let mut services: Vec<Box<str>> = message
            .services
            .iter()
            .map(|name| name.as_str().into())
            .collect();
        services.sort();
        services.dedup();
        Ok(Self {
            meta: server_meta(message),
            protocol,
            server_ips: message
                .server_ips
                .iter()
                .filter_map(ip_addr)
                .map(|addr| addr.to_canonical())
                .collect(),
            authorizations: compiler.authorizations,
            own_authorizations: compiler.own,
            routes: compiler.routes,
            rules: compiler.rules,
            rate_limit: limit.map(RateLimit::compile),
            proxy_protocol: message.proxy_protocol,
            labels: message.labels.clone(),
            services,
            problems: compiler.problems,
        })
    }
}

/// The Server object, as its labels name it.
fn server_meta(message: &api::Server) -> Arc<Meta> {
    let label = |name: &str| message.labels.get(name).map_or("", String::as_str);
    match (label("kind"), label("name")) {
        ("", "") => Meta::named("unknown"),
        ("default", name) => Meta::named(name),
        (kind, name) => Arc::new(Meta::Resource(Box::new(Resource {
            group: label("group").into(),
            kind: kind.into(),
            name: name.into(),
            namespace: label("namespace").into(),
            ..Resource::default()
        }))),
    }
}

#[derive(Default)]
struct Compiler {
    authorizations: Vec<Authorization>,
    own: Vec<AuthorizationId>,
    routes: Vec<Route>,
    rules: Vec<Rule>,
    problems: Vec<Invalid>,
}

impl Compiler {
    fn protocol<'m>(
        &mut self,
        kind: &'m api::proxy_protocol::Kind,
    ) -> Result<(Protocol, Option<&'m api::HttpLocalRateLimit>), Invalid> {
        use api::proxy_protocol::Kind;
        Ok(match kind {
            Kind::Detect(detect) => {
                let timeout = detect
                    .timeout
                    .as_ref()
                    .ok_or_else(|| Invalid::missing("detect.timeout"))?;
                let timeout = duration("detect.timeout", timeout)?;
                let http = self.http_routes("detect.http_routes", &detect.http_routes)?;
                (
                    Protocol::Detect { timeout, http },
                    detect.http_local_rate_limit.as_ref(),
                )
            }
            Kind::Http1(http) => (
                Protocol::Http1(self.http_routes("http1.routes", &http.routes)?),
                http.local_rate_limit.as_ref(),
            ),
            Kind::Http2(http) => (
                Protocol::Http2(self.http_routes("http2.routes", &http.routes)?),
                http.local_rate_limit.as_ref(),
            ),
            Kind::Grpc(grpc) => (
                Protocol::Grpc(self.grpc_routes("grpc.routes", &grpc.routes)?),
                None,
            ),
            Kind::Opaque(_) => (Protocol::Opaque, None),
            Kind::Tls(_) => (Protocol::Tls, None),
        })
    }

    /// Reads each and gives it, or the equal one that is there already, as an id. One that cannot be read never holds.
    fn authorizations(
        &mut self,
        field: &str,
        messages: &[api::Authz],
    ) -> Result<Vec<AuthorizationId>, Invalid> {
        let mut ids = Vec::with_capacity(messages.len());
        for (index, message) in messages.iter().enumerate() {
            let authorization = match Authorization::compile(message) {
                Ok(authorization) => authorization,
                Err(error) => {
                    self.problems.push(error.under(format!("{field}[{index}]")));
                    continue;
                }
            };
            let known = self
                .authorizations
                .iter()
                .position(|known| *known == authorization);
            let place = known.unwrap_or(self.authorizations.len());
            if known.is_none() {
                if place >= MAX_AUTHORIZATIONS {
                    let why = format!("goes beyond {MAX_AUTHORIZATIONS} authorizations");
                    return Err(Invalid::new(field, why));
                }
                self.authorizations.push(authorization);
            }
            let id = AuthorizationId(u32::try_from(place).unwrap_or(u32::MAX));
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        Ok(ids)
    }

    fn http_routes(
        &mut self,
        field: &str,
        messages: &[api::HttpRoute],
    ) -> Result<Arc<Table>, Invalid> {
        let mut table = TableBuilder::new(BrokenMatch::First);
        for (index, message) in messages.iter().enumerate() {
            let field = format!("{field}[{index}]");
            let hosts = Hosts::compile(message.hosts.iter().map(HostPattern::http));
            let route = self.route(
                &field,
                message.metadata.as_ref(),
                &message.authorizations,
                &hosts,
                message.rules.len(),
            )?;
            for (number, rule) in message.rules.iter().enumerate() {
                let field = format!("{field}.rules[{number}]");
                let id = self.rule(&field, route, number, each(&rule.filters, http_filter));
                let broken = table.rule(&hosts, id, rule.matches.iter().map(Matcher::http));
                self.problems
                    .extend(broken.into_iter().map(|error| error.under(&field)));
            }
        }
        Ok(Arc::new(table.build()))
    }

    fn grpc_routes(
        &mut self,
        field: &str,
        messages: &[api::GrpcRoute],
    ) -> Result<Arc<Table>, Invalid> {
        let mut table = TableBuilder::new(BrokenMatch::First);
        for (index, message) in messages.iter().enumerate() {
            let field = format!("{field}[{index}]");
            let hosts = Hosts::compile(message.hosts.iter().map(HostPattern::http));
            let route = self.route(
                &field,
                message.metadata.as_ref(),
                &message.authorizations,
                &hosts,
                message.rules.len(),
            )?;
            for (number, rule) in message.rules.iter().enumerate() {
                let field = format!("{field}.rules[{number}]");
                let id = self.rule(&field, route, number, each(&rule.filters, grpc_filter));
                let broken = table.rule(&hosts, id, rule.matches.iter().map(Matcher::grpc));
                self.problems
                    .extend(broken.into_iter().map(|error| error.under(&field)));
            }
        }
        Ok(Arc::new(table.build()))
    }

    fn route(
        &mut self,
        field: &str,
        metadata: Option<&meta::Metadata>,
        authorizations: &[api::Authz],
        hosts: &Hosts,
        rules: usize,
    ) -> Result<usize, Invalid> {
        if self.routes.len() >= MAX_ROUTES || self.rules.len() + rules > MAX_RULES {
            let why = format!("goes beyond {MAX_ROUTES} routes or {MAX_RULES} rules");
            return Err(Invalid::new(field, why));
        }
        if let Some(error) = hosts.broken() {
            self.problems.push(error.clone().under(field));
        }
        let mut ids = self.authorizations(&format!("{field}.authorizations"), authorizations)?;
        // What the server allows, it allows on all its routes.
        for id in &self.own {
            if !ids.contains(id) {
                ids.push(*id);
            }
        }
        self.routes.push(Route {
            meta: Meta::compile(metadata),
            authorizations: ids,
        });
        Ok(self.routes.len() - 1)
    }

    fn rule(
        &mut self,
        field: &str,
        route: usize,
        number: usize,
        filters: Result<Vec<Filter>, Invalid>,
    ) -> RuleId {
        let id = RuleId::new(self.rules.len());
        let (filters, invalid) = match filters {
            Ok(filters) => (filters, None),
            Err(error) => {
                self.problems.push(error.clone().under(field));
                (Vec::new(), Some(error))
            }
        };
        self.rules.push(Rule {
            route,
            number,
            filters,
            invalid,
        });
        id
    }
}

fn each<M>(
    messages: &[M],
    compile: impl Fn(&M) -> Result<Filter, Invalid>,
) -> Result<Vec<Filter>, Invalid> {
    messages
        .iter()
        .enumerate()
        .map(|(index, message)| {
            compile(message).map_err(|error| error.under(format!("filters[{index}]")))
        })
        .collect()
}

fn http_filter(message: &api::http_route::Filter) -> Result<Filter, Invalid> {
    use api::http_route::filter::Kind;
    match &message.kind {
        None => Err(Invalid::missing("kind")),
        Some(Kind::FailureInjector(failure)) => Filter::http_failure(failure),
        Some(Kind::RequestHeaderModifier(modifier)) => Filter::request_headers(modifier),
        Some(Kind::Redirect(redirect)) => Filter::redirect(redirect),
        Some(Kind::ResponseHeaderModifier(modifier)) => Filter::response_headers(modifier),
        Some(Kind::UrlRewrite(rewrite)) => Filter::rewrite(rewrite),
        Some(Kind::Fault(fault)) => Filter::fault(fault),
        Some(Kind::Cors(cors)) => Filter::cors(cors),
    }
}

fn grpc_filter(message: &api::grpc_route::Filter) -> Result<Filter, Invalid> {
    use api::grpc_route::filter::Kind;
    match &message.kind {
        None => Err(Invalid::missing("kind")),
        Some(Kind::FailureInjector(failure)) => Filter::grpc_failure(failure),
        Some(Kind::RequestHeaderModifier(modifier)) => Filter::request_headers(modifier),
        Some(Kind::ResponseHeaderModifier(modifier)) => Filter::response_headers(modifier),
        Some(Kind::Fault(fault)) => Filter::fault(fault),
    }
}
