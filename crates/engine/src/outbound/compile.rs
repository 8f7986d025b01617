//! From the message to the policy. Never panics, whatever the message holds.
//!
//! A rule that cannot be read stays in its place and fails what it matches; only a message without any protocol, or
//! beyond the bounds, is refused as a whole.

use std::iter;
use std::sync::Arc;

use tulle_api::meta;
use tulle_api::outbound as api;

use super::backend::Backends;
use super::resilience::FailureAccrual;
use super::rule::RuleParts;
use super::{HttpRoutes, Policy, Protocol, Route, RouteKind, Rule, TcpRoutes};
use crate::invalid::{Invalid, MAX_ROUTES, MAX_RULES, required_duration};
use crate::meta::Meta;
use crate::route::{BrokenMatch, HostPattern, Hosts, Matcher, RuleId, Table, TableBuilder};

impl Policy {
    /// Compiles the message.
    ///
    /// # Errors
    /// When there is no protocol, or more routes or rules than [`MAX_ROUTES`] and [`MAX_RULES`]. What is wrong with a
    /// single route does not fail the policy; it is in [`Policy::problems`].
    pub fn compile(message: &api::OutboundPolicy) -> Result<Self, Invalid> {
        let mut compiler = Compiler::default();
        let kind = message
            .protocol
            .as_ref()
            .and_then(|protocol| protocol.kind.as_ref());
        let protocol = match kind {
            None => return Err(Invalid::missing("protocol.kind")),
            Some(kind) => compiler
                .protocol(kind)
                .map_err(|error| error.under("protocol"))?,
        };
        Ok(Self {
            meta: Meta::compile(message.metadata.as_ref()),
            protocol,
            routes: compiler.routes,
            rules: compiler.rules,
            backends: compiler.backends.list,
            require_mesh_tls: message.require_mesh_tls,
            problems: compiler.problems,
        })
    }
}

#[derive(Default)]
pub(super) struct Compiler {
    routes: Vec<Route>,
    rules: Vec<Rule>,
    pub(super) backends: Backends,
    problems: Vec<Invalid>,
}

/// Where a route stands in the message, and the hosts that it is for.
struct Place {
    field: String,
    hosts: Hosts,
}

impl Place {
    fn new(field: &str, index: usize, hosts: Hosts) -> Self {
        Self {
            field: format!("{field}.routes[{index}]"),
            hosts,
        }
    }

    fn rule(&self, number: usize) -> String {
        format!("{}.rules[{number}]", self.field)
    }
}

/// A route of a message, whichever its kind.
struct RouteFields<'m, Rule> {
    hosts: Hosts,
    metadata: Option<&'m meta::Metadata>,
    rules: &'m [Rule],
}

/// A rule of such a route.
struct RuleFields<Matches> {
    parts: Result<RuleParts, Invalid>,
    matches: Matches,
    allow_request_headers: bool,
}

impl RuleFields<iter::Empty<Result<Matcher, Invalid>>> {
    /// A connection has no more to match than its route's hosts.
    fn of_connections(parts: Result<RuleParts, Invalid>) -> Self {
        Self {
            parts,
            matches: iter::empty(),
            allow_request_headers: false,
        }
    }
}

impl Compiler {
    fn protocol(&mut self, kind: &api::proxy_protocol::Kind) -> Result<Protocol, Invalid> {
        use api::proxy_protocol::Kind;
        Ok(match kind {
            Kind::Detect(detect) => {
                let timeout = required_duration("detect.timeout", detect.timeout.as_ref())?;
                let (routes1, accrual1) = detect.http1.as_ref().map_or((&[][..], None), |http| {
                    (&http.routes, http.failure_accrual.as_ref())
                });
                let (routes2, accrual2) = detect.http2.as_ref().map_or((&[][..], None), |http| {
                    (&http.routes, http.failure_accrual.as_ref())
                });
                let http1 = self.http_routes("detect.http1", routes1, accrual1)?;
                // Mostly both are the same; then they share rules, and with them metrics and load.
                let http2 = if (routes1, accrual1) == (routes2, accrual2) {
                    http1.clone()
                } else {
                    self.http_routes("detect.http2", routes2, accrual2)?
                };
                let opaque = detect
                    .opaque
                    .as_ref()
                    .map_or(&[][..], |opaque| &opaque.routes);
                let opaque = self.opaque_routes("detect.opaque", opaque)?;
                Protocol::Detect {
                    timeout,
                    http1,
                    http2,
                    opaque,
                }
            }
            Kind::Http1(http) => Protocol::Http1(self.http_routes(
                "http1",
                &http.routes,
                http.failure_accrual.as_ref(),
            )?),
            Kind::Http2(http) => Protocol::Http2(self.http_routes(
                "http2",
                &http.routes,
                http.failure_accrual.as_ref(),
            )?),
            Kind::Grpc(grpc) => Protocol::Grpc(self.grpc_routes(
                "grpc",
                &grpc.routes,
                grpc.failure_accrual.as_ref(),
            )?),
            Kind::Opaque(opaque) => Protocol::Opaque(self.opaque_routes("opaque", &opaque.routes)?),
            Kind::Tls(tls) => Protocol::Tls(self.tls_routes("tls", &tls.routes)?),
        })
    }

    fn http_routes(
        &mut self,
        field: &str,
        messages: &[api::HttpRoute],
        accrual: Option<&api::FailureAccrual>,
    ) -> Result<HttpRoutes, Invalid> {
        self.backends.accrual = self.accrual(field, accrual);
        let table = self.table(
            field,
            RouteKind::Http,
            messages,
            |route| RouteFields {
                hosts: Hosts::compile(route.hosts.iter().map(HostPattern::http)),
                metadata: route.metadata.as_ref(),
                rules: &route.rules,
            },
            |compiler, rule| RuleFields {
                parts: compiler.http_rule(rule),
                matches: rule.matches.iter().map(Matcher::http),
                allow_request_headers: rule.allow_l5d_request_headers,
            },
        )?;
        Ok(self.http_table(table))
    }

    fn grpc_routes(
        &mut self,
        field: &str,
        messages: &[api::GrpcRoute],
        accrual: Option<&api::FailureAccrual>,
    ) -> Result<HttpRoutes, Invalid> {
        self.backends.accrual = self.accrual(field, accrual);
        let table = self.table(
            field,
            RouteKind::Grpc,
            messages,
            |route| RouteFields {
                hosts: Hosts::compile(route.hosts.iter().map(HostPattern::http)),
                metadata: route.metadata.as_ref(),
                rules: &route.rules,
            },
            |compiler, rule| RuleFields {
                parts: compiler.grpc_rule(rule),
                matches: rule.matches.iter().map(Matcher::grpc),
                allow_request_headers: rule.allow_l5d_request_headers,
            },
        )?;
        Ok(self.http_table(table))
    }

    fn opaque_routes(
        &mut self,
        field: &str,
        messages: &[api::OpaqueRoute],
    ) -> Result<TcpRoutes, Invalid> {
        let table = self.table(
            field,
            RouteKind::Opaque,
            messages,
            |route| RouteFields {
                hosts: Hosts::compile(iter::empty()),
                metadata: route.metadata.as_ref(),
                rules: &route.rules,
            },
            |compiler, rule| RuleFields::of_connections(compiler.opaque_rule(rule)),
        )?;
        Ok(TcpRoutes { table })
    }

    fn tls_routes(
        &mut self,
        field: &str,
        messages: &[api::TlsRoute],
    ) -> Result<TcpRoutes, Invalid> {
        let table = self.table(
            field,
            RouteKind::Tls,
            messages,
            |route| RouteFields {
                hosts: Hosts::compile(route.snis.iter().map(HostPattern::sni)),
                metadata: route.metadata.as_ref(),
                rules: &route.rules,
            },
            |compiler, rule| RuleFields::of_connections(compiler.tls_rule(rule)),
        )?;
        Ok(TcpRoutes { table })
    }

    fn http_table(&mut self, table: Arc<Table>) -> HttpRoutes {
        HttpRoutes {
            table,
            failure_accrual: self.backends.accrual.take(),
            profile: None,
        }
    }

    /// The routes of one kind: `route` and `rule` read the messages of that kind.
    fn table<'m, Route, Rule: 'm, Matches>(
        &mut self,
        field: &str,
        kind: RouteKind,
        messages: &'m [Route],
        route: impl Fn(&'m Route) -> RouteFields<'m, Rule>,
        rule: impl Fn(&mut Self, &'m Rule) -> RuleFields<Matches>,
    ) -> Result<Arc<Table>, Invalid>
    where
        Matches: ExactSizeIterator<Item = Result<Matcher, Invalid>>,
    {
        let mut table = TableBuilder::new(BrokenMatch::Last);
        for (index, message) in messages.iter().enumerate() {
            let fields = route(message);
            let place = Place::new(field, index, fields.hosts);
            let route = self.route(&place, fields.metadata, kind, fields.rules.len())?;
            for (number, message) in fields.rules.iter().enumerate() {
                let fields = rule(self, message);
                let allow_request_headers = fields.allow_request_headers;
                let id = self.rule(&place, route, number, allow_request_headers, fields.parts);
                self.enter(&mut table, &place, number, id, fields.matches);
            }
        }
        Ok(Arc::new(table.build()))
    }

    /// A route, and room for its rules.
    fn route(
        &mut self,
        place: &Place,
        metadata: Option<&meta::Metadata>,
        kind: RouteKind,
        rules: usize,
    ) -> Result<usize, Invalid> {
        if let Some(error) = place.hosts.broken() {
            self.problems.push(error.clone().under(&place.field));
        }
        if self.routes.len() >= MAX_ROUTES || self.rules.len() + rules > MAX_RULES {
            let why = format!("goes beyond {MAX_ROUTES} routes or {MAX_RULES} rules");
            return Err(Invalid::new(&place.field, why));
        }
        self.routes.push(Route {
            meta: Meta::compile(metadata),
            kind,
        });
        Ok(self.routes.len() - 1)
    }

    fn rule(
        &mut self,
        place: &Place,
        route: usize,
        number: usize,
        allow_request_headers: bool,
        parts: Result<RuleParts, Invalid>,
    ) -> RuleId {
        let id = RuleId::new(self.rules.len());
        let (parts, invalid) = match parts {
            Ok(parts) => (parts, None),
            Err(error) => {
                self.problems.push(error.clone().under(place.rule(number)));
                (RuleParts::failed(), Some(error))
            }
        };
        self.rules.push(Rule {
            route,
            number,
            filters: parts.filters,
            distribution: parts.distribution,
            timeouts: parts.timeouts,
            retry: parts.retry,
            hedge: parts.hedge,
            allow_request_headers,
            invalid,
        });
        id
    }

    /// Enters a rule into the table under its route's hosts.
    fn enter(
        &mut self,
        table: &mut TableBuilder,
        place: &Place,
        number: usize,
        id: RuleId,
        matches: impl ExactSizeIterator<Item = Result<Matcher, Invalid>>,
    ) {
        let broken = table.rule(&place.hosts, id, matches);
        let rule = || place.rule(number);
        self.problems
            .extend(broken.into_iter().map(|error| error.under(rule())));
    }

    /// A breaker that cannot be read is left out: it is there to help, and traffic goes on without it.
    fn accrual(
        &mut self,
        field: &str,
        message: Option<&api::FailureAccrual>,
    ) -> Option<FailureAccrual> {
        match FailureAccrual::compile(message?) {
            Ok(accrual) => Some(accrual),
            Err(error) => {
                self.problems
                    .push(error.under(format!("{field}.failure_accrual")));
                None
            }
        }
    }
}
