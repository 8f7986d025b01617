//! A `DestinationProfile` with routes or overrides as a [`Policy`]: Linkerd's older form of the same, which wins over
//! policies where a control plane still sends it.
//!
//! Each of its routes becomes a rule like any other: timeout, retries under the profile's budget, backends. Only how a
//! rule is found differs: the first route whose condition holds, in the order of the message, else all goes on as it is.

use std::sync::Arc;
use std::time::Duration;

use tulle_api::destination as profile;
use tulle_api::http_route as shared;
use tulle_api::meta::{Metadata, Resource, metadata};
use tulle_api::outbound::{self as api, backend, http_route, opaque_route, proxy_protocol};

use super::resilience::Statuses;
use super::{HttpRoutes, Policy, Protocol};
use crate::budget::RetryBudget;
use crate::invalid::Invalid;
use crate::request::{Headers, RequestView};
use crate::route::{Matcher, Method, Pattern, RuleId};

/// The most parts that the conditions of one profile may have.
pub const MAX_CONDITIONS: usize = 4096;
/// Retries of one request under a profile: Linkerd's have a budget and no other limit.
pub const MAX_PROFILE_RETRIES: u32 = 10;
/// The gRPC statuses that are a server's failure: unknown, deadline exceeded, permission denied, internal, unavailable,
/// data loss.
const GRPC_FAILURES: u32 = 1 << 2 | 1 << 4 | 1 << 7 | 1 << 13 | 1 << 14 | 1 << 15;

/// The routes of a profile, in their order.
#[derive(Clone, Debug)]
pub struct ProfileRoutes {
    destination: Box<str>,
    routes: Vec<ProfileRoute>,
    /// For what no route takes.
    default: RuleId,
    /// What the engine says has matched: conditions have no matcher.
    everything: Matcher,
}

#[derive(Clone, Debug)]
struct ProfileRoute {
    condition: Condition,
    rule: RuleId,
    outcomes: Outcomes,
    labels: Vec<(Box<str>, Box<str>)>,
}

/// What the classes of a route say of statuses.
#[derive(Clone, Copy, Debug, Default)]
struct Outcomes {
    /// Those that some class speaks of.
    classified: Statuses,
    failures: Statuses,
}

/// What a request has to be.
#[derive(Clone, Debug)]
enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Not(Box<Condition>),
    Path(Pattern),
    Method(Method),
    /// It could not be read.
    Never,
}

impl Condition {
    fn compile(message: Option<&profile::RequestMatch>, left: &mut usize) -> Result<Self, Invalid> {
        use profile::request_match::Match;
        *left = left
            .checked_sub(1)
            .ok_or_else(|| Invalid::new("", format!("has more than {MAX_CONDITIONS} parts")))?;
        let mut each = |seq: &profile::request_match::Seq| {
            let matches = seq.matches.iter();
            matches
                .map(|message| Self::compile(Some(message), left))
                .collect::<Result<Vec<_>, _>>()
        };
        match message.and_then(|message| message.r#match.as_ref()) {
            None => Err(Invalid::missing("match")),
            Some(Match::All(seq)) => Ok(Self::All(each(seq)?)),
            Some(Match::Any(seq)) => Ok(Self::Any(each(seq)?)),
            Some(Match::Not(message)) => {
                Ok(Self::Not(Box::new(Self::compile(Some(message), left)?)))
            }
            Some(Match::Path(path)) => Ok(Self::Path(Pattern::compile("path.regex", &path.regex)?)),
            Some(Match::Method(method)) => Ok(Self::Method(Method::compile(method)?)),
        }
    }

    fn holds<H: Headers + ?Sized>(&self, request: &RequestView<'_, H>) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.holds(request)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(request)),
            Self::Not(part) => !part.holds(request),
            Self::Path(pattern) => pattern.matches(request.path_only()),
            Self::Method(method) => method.as_str().as_bytes() == request.method,
            Self::Never => false,
        }
    }
}

/// Whether a status fits; conditions on answers ask for nothing else.
fn fits(message: Option<&profile::ResponseMatch>, status: u16) -> bool {
    use profile::response_match::Match;
    match message.and_then(|message| message.r#match.as_ref()) {
        None => false,
        Some(Match::All(seq)) => seq.matches.iter().all(|part| fits(Some(part), status)),
        Some(Match::Any(seq)) => seq.matches.iter().any(|part| fits(Some(part), status)),
        Some(Match::Not(part)) => !fits(Some(part), status),
        Some(Match::Status(range)) => {
            // With only one end given, that status alone.
            let (min, max) = match (range.min, range.max) {
                (0, max) => (max, max),
                (min, 0) => (min, min),
                both => both,
            };
            (min..=max).contains(&u32::from(status))
        }
    }
}

/// What each status is: by the first class that fits; a 5xx that none fits is a failure.
fn outcomes(classes: &[profile::ResponseClass]) -> Outcomes {
    let mut known = Outcomes::default();
    for status in 100..=599 {
        let class = classes
            .iter()
            .find(|class| fits(class.condition.as_ref(), status));
        if class.is_some() {
            known.classified = known.classified.with(status..=status);
        }
        if class.map_or(status >= 500, |class| class.is_failure) {
            known.failures = known.failures.with(status..=status);
        }
    }
    known
}

impl ProfileRoutes {
    /// The routes of a profile alone, as the server's side of it sees them: it counts by them and sends nothing
    /// elsewhere. What is wrong with a single route is added to `problems`, and that route takes no request.
    #[must_use]
    pub fn compile(
        message: &profile::DestinationProfile,
        port: u16,
        problems: &mut Vec<Invalid>,
    ) -> Self {
        let mut left = MAX_CONDITIONS;
        let mut routes = Vec::with_capacity(message.routes.len());
        for (index, route) in message.routes.iter().enumerate() {
            let condition = Condition::compile(route.condition.as_ref(), &mut left);
            routes.push(ProfileRoute {
                condition: condition.unwrap_or_else(|error| {
                    problems.push(error.under(format!("routes[{index}].condition")));
                    Condition::Never
                }),
                rule: RuleId::new(index),
                outcomes: outcomes(&route.response_classes),
                labels: route
                    .metrics_labels
                    .iter()
                    .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
                    .collect::<std::collections::BTreeMap<_, _>>()
                    .into_iter()
                    .collect(),
            });
        }
        ProfileRoutes {
            destination: format!("{}:{port}", message.fully_qualified_name).into(),
            default: RuleId::new(routes.len()),
            routes,
            everything: Matcher::everything(),
        }
    }

    /// The route that takes a request; `None` when none does.
    #[must_use]
    pub fn route<H: Headers + ?Sized>(&self, request: &RequestView<'_, H>) -> Option<RuleId> {
        let (rule, _) = self.find(request);
        (rule != self.default).then_some(rule)
    }

    /// Whether it has no route.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// How many routes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// The rule for a request.
    pub(super) fn find<H: Headers + ?Sized>(
        &self,
        request: &RequestView<'_, H>,
    ) -> (RuleId, &Matcher) {
        let mut routes = self.routes.iter();
        let found = routes.find(|route| route.condition.holds(request));
        (
            found.map_or(self.default, |route| route.rule),
            &self.everything,
        )
    }

    /// What the profile is of, as metrics name it: the service's full name with the port.
    #[must_use]
    pub fn destination(&self) -> &str {
        &self.destination
    }

    /// The labels of the rule's route; none for what no route takes.
    #[must_use]
    pub fn labels(&self, rule: RuleId) -> &[(Box<str>, Box<str>)] {
        self.of(rule).map_or(&[], |route| &route.labels)
    }

    /// Whether an answer counts as a failure of the rule's route. A class that speaks of the HTTP status decides; else a
    /// gRPC status does (`grpc`: it is there, and is a failure), else 5xx is a failure.
    #[must_use]
    pub fn is_failure(&self, rule: RuleId, status: u16, grpc: Option<bool>) -> bool {
        let outcomes = self.of(rule).map(|route| route.outcomes);
        match outcomes.filter(|outcomes| outcomes.classified.contains(status)) {
            Some(outcomes) => outcomes.failures.contains(status),
            None => grpc.unwrap_or(status >= 500),
        }
    }

    fn of(&self, rule: RuleId) -> Option<&ProfileRoute> {
        self.routes.iter().find(|route| route.rule == rule)
    }
}

impl Policy {
    /// Compiles a profile for connections to `port`; `None` when it has neither routes nor overrides, and so says
    /// nothing that a policy does not. `detect` is how long the protocol may take to show itself.
    ///
    /// # Errors
    /// When it names an endpoint or service that cannot be read. What is wrong with a single route does not fail the
    /// profile; it is in [`Policy::problems`], and the route takes no request.
    pub fn from_profile(
        message: &profile::DestinationProfile,
        port: u16,
        detect: Duration,
    ) -> Result<Option<Self>, Invalid> {
        if message.routes.is_empty() && message.dst_overrides.is_empty() {
            return Ok(None);
        }
        if message.fully_qualified_name.is_empty() && message.endpoint.is_none() {
            return Err(Invalid::missing("fully_qualified_name"));
        }
        let mut problems = Vec::new();
        let budget = budget(message.retry_budget.as_ref(), &mut problems);
        let backends = backends(message, port);
        let mut policy = Self::compile(&translated(message, &backends, budget.is_some(), detect))?;
        let routes = ProfileRoutes::compile(message, port, &mut problems);
        for (rule, route) in policy.rules.iter_mut().zip(&routes.routes) {
            if let (Some(retry), Some(budget)) = (&mut rule.retry, budget) {
                retry.budget = budget;
                retry.conditions.http = route.outcomes.failures;
                retry.conditions.grpc = GRPC_FAILURES;
                retry.conditions.non_idempotent = true;
            }
        }
        policy.problems.extend(problems);
        let routes = Arc::new(routes);
        if let Protocol::Detect { http1, http2, .. } = &mut policy.protocol {
            for version in [http1, http2] {
                *version = HttpRoutes {
                    profile: Some(routes.clone()),
                    ..std::mem::take(version)
                };
            }
        }
        Ok(Some(policy))
    }
}

/// Without a budget, or with one that cannot be read, nothing is tried again.
fn budget(
    message: Option<&profile::RetryBudget>,
    problems: &mut Vec<Invalid>,
) -> Option<RetryBudget> {
    let message = message?;
    let compiled = RetryBudget::compile(Some(&shared::RetryBudget {
        retry_ratio: message.retry_ratio,
        min_retries_per_second: message.min_retries_per_second,
        ttl: message.ttl,
    }));
    compiled
        .map_err(|error| problems.push(error.under("retry_budget")))
        .ok()
}

/// The backends and their weights: the overrides unless all weigh nothing, else the endpoint or the service itself.
fn backends(message: &profile::DestinationProfile, port: u16) -> Vec<(api::Backend, u32)> {
    let total: u64 = message
        .dst_overrides
        .iter()
        .map(|to| u64::from(to.weight))
        .sum();
    if let (Some(endpoint), 0) = (&message.endpoint, total) {
        let forward = api::Backend {
            metadata: message.parent_ref.clone(),
            kind: Some(backend::Kind::Forward(endpoint.clone())),
            queue: None,
        };
        return vec![(forward, 1)];
    }
    if total == 0 {
        let own = format!("{}:{port}", message.fully_qualified_name);
        return vec![(balanced(&own, message.parent_ref.clone()), 1)];
    }
    let overrides = message.dst_overrides.iter();
    overrides
        .map(|to| (balanced(&to.authority, to.backend_ref.clone()), to.weight))
        .collect()
}

fn balanced(authority: &str, metadata: Option<Metadata>) -> api::Backend {
    let balancer = backend::BalanceP2c {
        discovery: Some(backend::EndpointDiscovery {
            kind: Some(backend::endpoint_discovery::Kind::Dst(
                backend::endpoint_discovery::DestinationGet {
                    path: authority.to_owned(),
                },
            )),
        }),
        load: Some(backend::balance_p2c::Load::PeakEwma(
            backend::balance_p2c::PeakEwma {
                default_rtt: Some(seconds(Duration::from_millis(30))),
                decay: Some(seconds(Duration::from_secs(10))),
            },
        )),
        ..Default::default()
    };
    api::Backend {
        metadata: metadata.or_else(|| {
            Some(Metadata {
                kind: Some(metadata::Kind::Default(authority.to_owned())),
            })
        }),
        kind: Some(backend::Kind::Balancer(balancer)),
        queue: None,
    }
}

fn seconds(length: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(length.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(length.subsec_nanos()).unwrap_or(0),
    }
}

/// The policy that says the same, a route for each of the profile's and one for the rest; conditions come beside it.
fn translated(
    message: &profile::DestinationProfile,
    backends: &[(api::Backend, u32)],
    retries: bool,
    detect: Duration,
) -> api::OutboundPolicy {
    let http = || {
        let backends = backends.iter();
        let weighted = backends.map(|(backend, weight)| http_route::WeightedRouteBackend {
            backend: Some(http_route::RouteBackend {
                backend: Some(backend.clone()),
                ..Default::default()
            }),
            weight: *weight,
        });
        http_route::Distribution {
            kind: Some(http_route::distribution::Kind::RandomAvailable(
                http_route::distribution::RandomAvailable {
                    backends: weighted.collect(),
                },
            )),
        }
    };
    let mut routes: Vec<_> = message
        .routes
        .iter()
        .map(|route| {
            let rule = http_route::Rule {
                backends: Some(http()),
                timeouts: route.timeout.as_ref().map(|timeout| shared::Timeouts {
                    request: Some(*timeout),
                    ..Default::default()
                }),
                retry: (route.is_retryable && retries).then(|| http_route::Retry {
                    max_retries: MAX_PROFILE_RETRIES,
                    ..Default::default()
                }),
                ..Default::default()
            };
            http_of(named(message, Some(route)), rule)
        })
        .collect();
    let rest = http_route::Rule {
        backends: Some(http()),
        ..Default::default()
    };
    routes.push(http_of(named(message, None), rest));
    let opaque = proxy_protocol::Opaque {
        routes: vec![opaque(named(message, None), backends)],
    };
    let kind = if message.opaque_protocol {
        proxy_protocol::Kind::Opaque(opaque)
    } else {
        proxy_protocol::Kind::Detect(proxy_protocol::Detect {
            timeout: Some(seconds(detect)),
            opaque: Some(opaque),
            http1: Some(proxy_protocol::Http1 {
                routes: routes.clone(),
                failure_accrual: None,
            }),
            http2: Some(proxy_protocol::Http2 {
                routes,
                failure_accrual: None,
            }),
        })
    };
    api::OutboundPolicy {
        protocol: Some(api::ProxyProtocol { kind: Some(kind) }),
        metadata: message.parent_ref.clone(),
        ..Default::default()
    }
}

/// The profile, with the route's name (its label `route`) as the section.
fn named(
    message: &profile::DestinationProfile,
    route: Option<&profile::Route>,
) -> Option<Metadata> {
    let section = route.and_then(|route| route.metrics_labels.get("route"));
    let known = message
        .profile_ref
        .as_ref()
        .and_then(|meta| meta.kind.as_ref());
    let resource = match known {
        Some(metadata::Kind::Resource(resource)) => resource.clone(),
        _ => Resource {
            group: "linkerd.io".into(),
            kind: "ServiceProfile".into(),
            name: message.fully_qualified_name.clone(),
            ..Resource::default()
        },
    };
    let resource = Resource {
        section: section.cloned().unwrap_or_default(),
        ..resource
    };
    Some(Metadata {
        kind: Some(metadata::Kind::Resource(resource)),
    })
}

fn http_of(metadata: Option<Metadata>, rule: http_route::Rule) -> api::HttpRoute {
    api::HttpRoute {
        metadata,
        hosts: Vec::new(),
        rules: vec![rule],
    }
}

fn opaque(metadata: Option<Metadata>, backends: &[(api::Backend, u32)]) -> api::OpaqueRoute {
    let weighted = backends
        .iter()
        .map(|(backend, weight)| opaque_route::WeightedRouteBackend {
            backend: Some(opaque_route::RouteBackend {
                backend: Some(backend.clone()),
                ..Default::default()
            }),
            weight: *weight,
        });
    api::OpaqueRoute {
        metadata,
        rules: vec![opaque_route::Rule {
            backends: Some(opaque_route::Distribution {
                kind: Some(opaque_route::distribution::Kind::RandomAvailable(
                    opaque_route::distribution::RandomAvailable {
                        backends: weighted.collect(),
                    },
                )),
            }),
            ..Default::default()
        }],
    }
}

#[cfg(test)]
#[path = "profile_tests.rs"]
mod tests;
