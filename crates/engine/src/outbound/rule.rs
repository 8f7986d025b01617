//! What a rule does, from its message: filters, backends, timeouts, retries.

use tulle_api::http_route;
use tulle_api::outbound as api;

use super::backend::{Distribution, RouteBackend};
use super::compile::Compiler;
use super::resilience::{Retry, Timeouts};
use crate::hedge::Hedge;
use crate::invalid::{Invalid, each, limit};
use crate::reason::Reason;
use crate::route::Filter;

/// The parts of a rule that may be wrong without harm to others.
pub(super) struct RuleParts {
    pub(super) filters: Vec<Filter>,
    pub(super) distribution: Distribution,
    pub(super) timeouts: Timeouts,
    pub(super) retry: Option<Retry>,
    pub(super) hedge: Option<Hedge>,
}

impl Compiler {
    pub(super) fn http_rule(&mut self, rule: &api::http_route::Rule) -> Result<RuleParts, Invalid> {
        #[allow(deprecated, reason = "older control planes send the older form")]
        let timeouts = Timeouts::compile(rule.timeouts.as_ref(), rule.request_timeout.as_ref())?;
        Ok(RuleParts {
            filters: self.http_filters("filters", &rule.filters)?,
            distribution: self.http_distribution(rule.backends.as_ref())?,
            timeouts,
            retry: rule.retry.as_ref().map(Retry::http).transpose()?,
            hedge: hedge(rule.hedge.as_ref())?,
        })
    }

    pub(super) fn grpc_rule(&mut self, rule: &api::grpc_route::Rule) -> Result<RuleParts, Invalid> {
        #[allow(deprecated, reason = "older control planes send the older form")]
        let timeouts = Timeouts::compile(rule.timeouts.as_ref(), rule.request_timeout.as_ref())?;
        Ok(RuleParts {
            filters: self.grpc_filters("filters", &rule.filters)?,
            distribution: self.grpc_distribution(rule.backends.as_ref())?,
            timeouts,
            retry: rule.retry.as_ref().map(Retry::grpc).transpose()?,
            hedge: hedge(rule.hedge.as_ref())?,
        })
    }

    pub(super) fn opaque_rule(
        &mut self,
        rule: &api::opaque_route::Rule,
    ) -> Result<RuleParts, Invalid> {
        Ok(RuleParts {
            filters: self.opaque_filters("filters", &rule.filters)?,
            distribution: self.opaque_distribution(rule.backends.as_ref())?,
            ..RuleParts::failed()
        })
    }

    pub(super) fn tls_rule(&mut self, rule: &api::tls_route::Rule) -> Result<RuleParts, Invalid> {
        Ok(RuleParts {
            filters: self.tls_filters("filters", &rule.filters)?,
            distribution: self.tls_distribution(rule.backends.as_ref())?,
            ..RuleParts::failed()
        })
    }
}

impl RuleParts {
    pub(super) fn failed() -> Self {
        Self {
            filters: Vec::new(),
            distribution: Distribution::Empty,
            timeouts: Timeouts::default(),
            retry: None,
            hedge: None,
        }
    }
}

fn hedge(message: Option<&http_route::Hedge>) -> Result<Option<Hedge>, Invalid> {
    message
        .map(|hedge| Hedge::compile(hedge).map_err(|error| error.under("hedge")))
        .transpose()
}

/// The four kinds of routes have messages of their own for the same thing.
macro_rules! distribution {
    ($name:ident, $module:ident, $filters:ident, $timeout:expr) => {
        impl Compiler {
            fn $name(
                &mut self,
                message: Option<&api::$module::Distribution>,
            ) -> Result<Distribution, Invalid> {
                use api::$module::distribution::Kind;
                let kind = message.and_then(|distribution| distribution.kind.as_ref());
                match kind {
                    // A rule whose filters always answer needs none.
                    None | Some(Kind::Empty(_)) => Ok(Distribution::Empty),
                    Some(Kind::FirstAvailable(first)) => {
                        let mut backends = Vec::with_capacity(first.backends.len());
                        for (index, message) in first.backends.iter().enumerate() {
                            let field = format!("backends.first_available.backends[{index}]");
                            let compiled = self
                                .$module(message, 1)
                                .map_err(|error| error.under(field))?;
                            backends.push(compiled);
                        }
                        Ok(Distribution::FirstAvailable(backends))
                    }
                    Some(Kind::RandomAvailable(random)) => {
                        let mut backends = Vec::with_capacity(random.backends.len());
                        for (index, weighted) in random.backends.iter().enumerate() {
                            let field = format!("backends.random_available.backends[{index}]");
                            let compiled = match &weighted.backend {
                                None => Err(Invalid::missing("backend")),
                                Some(message) => self.$module(message, weighted.weight),
                            };
                            backends.push(compiled.map_err(|error| error.under(field))?);
                        }
                        Ok(Distribution::RandomAvailable(backends))
                    }
                }
            }

            fn $module(
                &mut self,
                message: &api::$module::RouteBackend,
                weight: u32,
            ) -> Result<RouteBackend, Invalid> {
                let filters = self.$filters("filters", &message.filters)?;
                let backend = self.backends.add(message.backend.as_ref())?;
                let missing = self.backends.is_missing(backend);
                Ok(RouteBackend {
                    filters: if missing { failing(filters) } else { filters },
                    backend,
                    weight,
                    response_timeout: $timeout(message)?,
                })
            }
        }
    };
}

distribution!(
    http_distribution,
    http_route,
    http_filters,
    |message: &api::http_route::RouteBackend| {
        #[allow(deprecated, reason = "older control planes send the older form")]
        limit("request_timeout", message.request_timeout.as_ref())
    }
);
distribution!(
    grpc_distribution,
    grpc_route,
    grpc_filters,
    |message: &api::grpc_route::RouteBackend| {
        #[allow(deprecated, reason = "older control planes send the older form")]
        limit("request_timeout", message.request_timeout.as_ref())
    }
);
distribution!(
    opaque_distribution,
    opaque_route,
    opaque_filters,
    |_: &_| Ok::<_, Invalid>(None)
);
distribution!(tls_distribution, tls_route, tls_filters, |_: &_| Ok::<
    _,
    Invalid,
>(None));

/// The control plane says why there is no backend by a failure injector; without one, we say so ourselves.
fn failing(filters: Vec<Filter>) -> Vec<Filter> {
    let said = filters.iter().find_map(|filter| match filter {
        Filter::Failure(failure) => Some(&*failure.message),
        _ => None,
    });
    vec![Filter::fail(
        Reason::BackendInvalid,
        said.unwrap_or(Reason::BackendInvalid.text()),
    )]
}

impl Compiler {
    fn http_filters(
        &mut self,
        field: &str,
        messages: &[api::http_route::Filter],
    ) -> Result<Vec<Filter>, Invalid> {
        use api::http_route::filter::Kind;
        each(field, messages, |message| match &message.kind {
            None => Err(Invalid::missing("kind")),
            Some(Kind::FailureInjector(failure)) => Filter::http_failure(failure),
            Some(Kind::RequestHeaderModifier(modifier)) => Filter::request_headers(modifier),
            Some(Kind::Redirect(redirect)) => Filter::redirect(redirect),
            Some(Kind::ResponseHeaderModifier(modifier)) => Filter::response_headers(modifier),
            Some(Kind::UrlRewrite(rewrite)) => Filter::rewrite(rewrite),
            Some(Kind::Mirror(mirror)) => self.mirror(mirror),
            Some(Kind::Fault(fault)) => Filter::fault(fault),
            Some(Kind::Cors(cors)) => Filter::cors(cors),
        })
    }

    fn grpc_filters(
        &mut self,
        field: &str,
        messages: &[api::grpc_route::Filter],
    ) -> Result<Vec<Filter>, Invalid> {
        use api::grpc_route::filter::Kind;
        each(field, messages, |message| match &message.kind {
            None => Err(Invalid::missing("kind")),
            Some(Kind::FailureInjector(failure)) => Filter::grpc_failure(failure),
            Some(Kind::RequestHeaderModifier(modifier)) => Filter::request_headers(modifier),
            Some(Kind::ResponseHeaderModifier(modifier)) => Filter::response_headers(modifier),
            Some(Kind::UrlRewrite(rewrite)) => Filter::rewrite(rewrite),
            Some(Kind::Mirror(mirror)) => self.mirror(mirror),
            Some(Kind::Fault(fault)) => Filter::fault(fault),
            Some(Kind::Cors(cors)) => Filter::cors(cors),
        })
    }

    /// A copy needs a place to go to: a mirror to a backend that does not exist fails the rule.
    fn mirror(&mut self, message: &api::Mirror) -> Result<Filter, Invalid> {
        let backend = self.backends.add(message.backend.as_ref());
        let backend = backend.and_then(|id| {
            if self.backends.is_missing(id) {
                Err(Invalid::new("backend", "does not exist"))
            } else {
                Ok(id)
            }
        });
        Filter::mirror(backend, message.ratio.as_ref())
    }

    fn opaque_filters(
        &mut self,
        field: &str,
        messages: &[api::opaque_route::Filter],
    ) -> Result<Vec<Filter>, Invalid> {
        use api::opaque_route::filter::Kind;
        each(field, messages, |message| match &message.kind {
            None => Err(Invalid::missing("kind")),
            Some(Kind::Invalid(invalid)) => {
                Ok(Filter::fail(Reason::BackendInvalid, &invalid.message))
            }
            Some(Kind::Forbidden(_)) => {
                Ok(Filter::fail(Reason::Forbidden, Reason::Forbidden.text()))
            }
        })
    }

    fn tls_filters(
        &mut self,
        field: &str,
        messages: &[api::tls_route::Filter],
    ) -> Result<Vec<Filter>, Invalid> {
        use api::tls_route::filter::Kind;
        each(field, messages, |message| match &message.kind {
            None => Err(Invalid::missing("kind")),
            Some(Kind::Invalid(invalid)) => {
                Ok(Filter::fail(Reason::BackendInvalid, &invalid.message))
            }
            Some(Kind::Forbidden(_)) => {
                Ok(Filter::fail(Reason::Forbidden, Reason::Forbidden.text()))
            }
        })
    }
}
