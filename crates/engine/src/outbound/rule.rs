//! What a rule does, from its message: filters, backends, timeouts, retries.

use tulle_api::http_route;
use tulle_api::outbound as api;

use super::backend::{Distribution, RouteBackend};
use super::compile::Compiler;
use super::resilience::{Retry, Timeouts};
use crate::hedge::Hedge;
use crate::invalid::{Invalid, limit};
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
            filters: each("filters", &rule.filters, http_filter)?,
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
            filters: each("filters", &rule.filters, grpc_filter)?,
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
            filters: each("filters", &rule.filters, opaque_filter)?,
            distribution: self.opaque_distribution(rule.backends.as_ref())?,
            ..RuleParts::failed()
        })
    }

    pub(super) fn tls_rule(&mut self, rule: &api::tls_route::Rule) -> Result<RuleParts, Invalid> {
        Ok(RuleParts {
            filters: each("filters", &rule.filters, tls_filter)?,
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
    ($name:ident, $module:ident, $filter:path, $timeout:expr) => {
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
                let filters = each("filters", &message.filters, $filter)?;
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
    http_filter,
    |message: &api::http_route::RouteBackend| {
        #[allow(deprecated, reason = "older control planes send the older form")]
        limit("request_timeout", message.request_timeout.as_ref())
    }
);
distribution!(
    grpc_distribution,
    grpc_route,
    grpc_filter,
    |message: &api::grpc_route::RouteBackend| {
        #[allow(deprecated, reason = "older control planes send the older form")]
        limit("request_timeout", message.request_timeout.as_ref())
    }
);
distribution!(
    opaque_distribution,
    opaque_route,
    opaque_filter,
    |_: &_| Ok::<_, Invalid>(None)
);
distribution!(tls_distribution, tls_route, tls_filter, |_: &_| Ok::<
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

fn each<M>(
    field: &str,
    messages: &[M],
    compile: impl Fn(&M) -> Result<Filter, Invalid>,
) -> Result<Vec<Filter>, Invalid> {
    messages
        .iter()
        .enumerate()
        .map(|(index, message)| {
            compile(message).map_err(|error| error.under(format!("{field}[{index}]")))
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
        Some(_) => Err(Invalid::new("kind", "is not known to this proxy")),
    }
}

fn grpc_filter(message: &api::grpc_route::Filter) -> Result<Filter, Invalid> {
    use api::grpc_route::filter::Kind;
    match &message.kind {
        None => Err(Invalid::missing("kind")),
        Some(Kind::FailureInjector(failure)) => Filter::grpc_failure(failure),
        Some(Kind::RequestHeaderModifier(modifier)) => Filter::request_headers(modifier),
        Some(_) => Err(Invalid::new("kind", "is not known to this proxy")),
    }
}

fn opaque_filter(message: &api::opaque_route::Filter) -> Result<Filter, Invalid> {
    use api::opaque_route::filter::Kind;
    match &message.kind {
        None => Err(Invalid::missing("kind")),
        Some(Kind::Invalid(invalid)) => Ok(Filter::fail(Reason::BackendInvalid, &invalid.message)),
        Some(Kind::Forbidden(_)) => Ok(Filter::fail(Reason::Forbidden, Reason::Forbidden.text())),
    }
}

fn tls_filter(message: &api::tls_route::Filter) -> Result<Filter, Invalid> {
    use api::tls_route::filter::Kind;
    match &message.kind {
        None => Err(Invalid::missing("kind")),
        Some(Kind::Invalid(invalid)) => Ok(Filter::fail(Reason::BackendInvalid, &invalid.message)),
        Some(Kind::Forbidden(_)) => Ok(Filter::fail(Reason::Forbidden, Reason::Forbidden.text())),
    }
}
