//! From the message to the server. Never panics, whatever the message holds, and never opens what it cannot read.

use std::sync::Arc;

use tulle_api::inbound as api;
use tulle_api::meta;

use super::authz::Authorization;
use super::external::External;
use super::jwt::{Jwt, MAX_REQUIREMENTS};
use super::rate::RateLimit;
use super::{AuthorizationId, Protocol, Route, Rule, Server};
use crate::destination::ip_addr;
use crate::invalid::{Invalid, MAX_AUTHORIZATIONS, MAX_ROUTES, MAX_RULES, each, required_duration};
use crate::meta::{Meta, Resource};
use crate::route::{BrokenMatch, Filter, HostPattern, Hosts, Matcher, RuleId, Table, TableBuilder};

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
        if message.jwt.len() > MAX_REQUIREMENTS {
            let why = format!("goes beyond {MAX_REQUIREMENTS} requirements");
            return Err(Invalid::new("jwt", why));
        }
        let problems = &mut compiler.problems;
        let rate_limit = limit.and_then(|limit| RateLimit::compile(limit, problems));
        let jwt = message.jwt.iter().enumerate();
        let jwt = jwt
            .map(|(index, jwt)| Arc::new(Jwt::compile(jwt, problems, &format!("jwt[{index}]"))))
            .collect();
        let external = message
            .external_authorization
            .as_ref()
            .map(|external| Arc::new(External::compile(external, problems)));
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
            probes: compiler.probes.map(|probes| Arc::new(probes.build())),
            rate_limit: rate_limit.map(Arc::new),
            max_in_flight: usize::try_from(message.max_in_flight).unwrap_or(usize::MAX),
            jwt,
            external,
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
    /// The rules of routes that are for probes, once more and by themselves.
    probes: Option<TableBuilder>,
    problems: Vec<Invalid>,
}

/// A route of a message, whichever its kind.
struct RouteFields<'m, Rule> {
    hosts: Hosts,
    metadata: Option<&'m meta::Metadata>,
    authorizations: &'m [api::Authz],
    rules: &'m [Rule],
}

/// A rule of such a route.
struct RuleFields<Matches> {
    filters: Result<Vec<Filter>, Invalid>,
    matches: Matches,
}

impl Compiler {
    fn protocol<'m>(
        &mut self,
        kind: &'m api::proxy_protocol::Kind,
    ) -> Result<(Protocol, Option<&'m api::HttpLocalRateLimit>), Invalid> {
        use api::proxy_protocol::Kind;
        Ok(match kind {
            Kind::Detect(detect) => {
                let timeout = required_duration("detect.timeout", detect.timeout.as_ref())?;
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
                grpc.local_rate_limit.as_ref(),
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
        self.table(
            field,
            messages,
            |route| RouteFields {
                hosts: Hosts::compile(route.hosts.iter().map(HostPattern::http)),
                metadata: route.metadata.as_ref(),
                authorizations: &route.authorizations,
                rules: &route.rules,
            },
            |rule| RuleFields {
                filters: each("filters", &rule.filters, http_filter),
                matches: rule.matches.iter().map(Matcher::http),
            },
        )
    }

    fn grpc_routes(
        &mut self,
        field: &str,
        messages: &[api::GrpcRoute],
    ) -> Result<Arc<Table>, Invalid> {
        self.table(
            field,
            messages,
            |route| RouteFields {
                hosts: Hosts::compile(route.hosts.iter().map(HostPattern::http)),
                metadata: route.metadata.as_ref(),
                authorizations: &route.authorizations,
                rules: &route.rules,
            },
            |rule| RuleFields {
                filters: each("filters", &rule.filters, grpc_filter),
                matches: rule.matches.iter().map(Matcher::grpc),
            },
        )
    }

    /// The routes of one kind: `route` and `rule` read the messages of that kind.
    fn table<'m, Route, Rule: 'm, Matches>(
        &mut self,
        field: &str,
        messages: &'m [Route],
        route: impl Fn(&'m Route) -> RouteFields<'m, Rule>,
        rule: impl Fn(&'m Rule) -> RuleFields<Matches>,
    ) -> Result<Arc<Table>, Invalid>
    where
        Matches: ExactSizeIterator<Item = Result<Matcher, Invalid>> + Clone,
    {
        let mut table = TableBuilder::new(BrokenMatch::First);
        for (index, message) in messages.iter().enumerate() {
            let field = format!("{field}[{index}]");
            let fields = route(message);
            let route = self.route(&field, &fields)?;
            for (number, message) in fields.rules.iter().enumerate() {
                let field = format!("{field}.rules[{number}]");
                let RuleFields { filters, matches } = rule(message);
                let id = self.rule(&field, route, number, filters);
                self.enter(&mut table, &fields.hosts, &field, id, matches);
            }
        }
        Ok(Arc::new(table.build()))
    }

    fn route<Rule>(
        &mut self,
        field: &str,
        fields: &RouteFields<'_, Rule>,
    ) -> Result<usize, Invalid> {
        if self.routes.len() >= MAX_ROUTES || self.rules.len() + fields.rules.len() > MAX_RULES {
            let why = format!("goes beyond {MAX_ROUTES} routes or {MAX_RULES} rules");
            return Err(Invalid::new(field, why));
        }
        if let Some(error) = fields.hosts.broken() {
            self.problems.push(error.clone().under(field));
        }
        let mut ids =
            self.authorizations(&format!("{field}.authorizations"), fields.authorizations)?;
        // What the server allows, it allows on all its routes.
        for id in &self.own {
            if !ids.contains(id) {
                ids.push(*id);
            }
        }
        self.routes.push(Route {
            meta: Meta::compile(fields.metadata),
            authorizations: ids,
        });
        Ok(self.routes.len() - 1)
    }

    /// Enters a rule into the table under its route's hosts, and into that of the probes when its route is for them.
    fn enter(
        &mut self,
        table: &mut TableBuilder,
        hosts: &Hosts,
        field: &str,
        id: RuleId,
        matches: impl ExactSizeIterator<Item = Result<Matcher, Invalid>> + Clone,
    ) {
        if self.is_for_probes(id) {
            let probes = self
                .probes
                .get_or_insert_with(|| TableBuilder::new(BrokenMatch::First));
            probes.rule(hosts, id, matches.clone());
        }
        let broken = table.rule(hosts, id, matches);
        self.problems
            .extend(broken.into_iter().map(|error| error.under(field)));
    }

    fn is_for_probes(&self, id: RuleId) -> bool {
        let rule = self.rules.get(id.index());
        rule.and_then(|rule| self.routes.get(rule.route))
            .is_some_and(Route::is_for_probes)
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
