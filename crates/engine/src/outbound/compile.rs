//! From the message to the policy. Never panics, whatever the message holds.
//!
//! A rule that cannot be read stays in its place and fails what it matches; only a message without any protocol, or
//! beyond the bounds, is refused as a whole.

use std::sync::Arc;

use tulle_api::meta;
use tulle_api::outbound as api;

use super::backend::Backends;
use super::resilience::FailureAccrual;
use super::rule::RuleParts;
use super::{HttpRoutes, Policy, Protocol, Route, RouteKind, Rule, TcpRoutes};
use crate::invalid::{Invalid, MAX_ROUTES, MAX_RULES, duration};
use crate::meta::Meta;
use crate::route::{BrokenMatch, HostPattern, Hosts, Matcher, RuleId, TableBuilder};

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

impl Compiler {
    fn protocol(&mut self, kind: &api::proxy_protocol::Kind) -> Result<Protocol, Invalid> {
        use api::proxy_protocol::Kind;
        Ok(match kind {
            Kind::Detect(detect) => {
                let timeout = detect
                    .timeout
                    .as_ref()
                    .ok_or_else(|| Invalid::missing("detect.timeout"))?;
                let timeout = duration("detect.timeout", timeout)?;
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
        let mut table = TableBuilder::new(BrokenMatch::Last);
        self.backends.accrual = self.accrual(field, accrual);
        for (index, message) in messages.iter().enumerate() {
            let hosts = Hosts::compile(message.hosts.iter().map(HostPattern::http));
            let metadata = message.metadata.as_ref();
            let place = Place::new(field, index, hosts);
            let route = self.route(&place, metadata, RouteKind::Http, message.rules.len())?;
            for (number, rule) in message.rules.iter().enumerate() {
                let parts = self.http_rule(rule);
                let id = self.rule(&place, route, number, rule.allow_l5d_request_headers, parts);
                self.enter(
                    &mut table,
                    &place,
                    number,
                    id,
                    rule.matches.iter().map(Matcher::http),
                );
            }
        }
        Ok(self.http_table(table))
    }

    fn grpc_routes(
        &mut self,
        field: &str,
        messages: &[api::GrpcRoute],
        accrual: Option<&api::FailureAccrual>,
    ) -> Result<HttpRoutes, Invalid> {
        let mut table = TableBuilder::new(BrokenMatch::Last);
        self.backends.accrual = self.accrual(field, accrual);
        for (index, message) in messages.iter().enumerate() {
            let hosts = Hosts::compile(message.hosts.iter().map(HostPattern::http));
            let metadata = message.metadata.as_ref();
            let place = Place::new(field, index, hosts);
            let route = self.route(&place, metadata, RouteKind::Grpc, message.rules.len())?;
            for (number, rule) in message.rules.iter().enumerate() {
                let parts = self.grpc_rule(rule);
                let id = self.rule(&place, route, number, rule.allow_l5d_request_headers, parts);
                self.enter(
                    &mut table,
                    &place,
                    number,
                    id,
                    rule.matches.iter().map(Matcher::grpc),
                );
            }
        }
        Ok(self.http_table(table))
    }

    fn opaque_routes(
        &mut self,
        field: &str,
        messages: &[api::OpaqueRoute],
    ) -> Result<TcpRoutes, Invalid> {
        let mut table = TableBuilder::new(BrokenMatch::Last);
        for (index, message) in messages.iter().enumerate() {
            let hosts = Hosts::compile(std::iter::empty());
            let metadata = message.metadata.as_ref();
            let place = Place::new(field, index, hosts);
            let route = self.route(&place, metadata, RouteKind::Opaque, message.rules.len())?;
            for (number, rule) in message.rules.iter().enumerate() {
                let parts = self.opaque_rule(rule);
                let id = self.rule(&place, route, number, false, parts);
                self.enter(&mut table, &place, number, id, std::iter::empty());
            }
        }
        Ok(TcpRoutes {
            table: Arc::new(table.build()),
        })
    }

    fn tls_routes(
        &mut self,
        field: &str,
        messages: &[api::TlsRoute],
    ) -> Result<TcpRoutes, Invalid> {
        let mut table = TableBuilder::new(BrokenMatch::Last);
        for (index, message) in messages.iter().enumerate() {
            let hosts = Hosts::compile(message.snis.iter().map(HostPattern::sni));
            let metadata = message.metadata.as_ref();
            let place = Place::new(field, index, hosts);
            let route = self.route(&place, metadata, RouteKind::Tls, message.rules.len())?;
            for (number, rule) in message.rules.iter().enumerate() {
                let parts = self.tls_rule(rule);
                let id = self.rule(&place, route, number, false, parts);
                self.enter(&mut table, &place, number, id, std::iter::empty());
            }
        }
        Ok(TcpRoutes {
            table: Arc::new(table.build()),
        })
    }

    fn http_table(&mut self, table: TableBuilder) -> HttpRoutes {
        HttpRoutes {
            table: Arc::new(table.build()),
            failure_accrual: self.backends.accrual.take(),
            profile: None,
        }
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
