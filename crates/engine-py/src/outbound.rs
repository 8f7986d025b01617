//! Asks the engine about outbound traffic and writes down what it says.

use tulle_api::outbound as api;
use tulle_engine::outbound::{Answer, Distribution, HttpVersion, Policy, Protocol, RouteRef};
use tulle_engine::outbound::{BackendKind, RouteBackend};
use tulle_engine::{Invalid, Reason};

use crate::facts::{Notes, Request};
use crate::verdict::{
    AnswerVerdict, BackendVerdict, Endpoint, Object, OutboundVerdict, ReasonVerdict, RuleVerdict,
    TimeoutsVerdict, filters,
};

pub fn decide(
    message: &api::OutboundPolicy,
    request: &Request<'_>,
    http2: bool,
) -> OutboundVerdict {
    match Policy::compile(message) {
        Ok(policy) => decided(&policy, request, http2),
        Err(error) => refused(message, &error),
    }
}

fn refused(message: &api::OutboundPolicy, error: &Invalid) -> OutboundVerdict {
    OutboundVerdict {
        target: Object::new(&tulle_engine::Meta::compile(message.metadata.as_ref())),
        protocol: "unknown",
        candidates: Vec::new(),
        rule: None,
        reason: Some(ReasonVerdict::new(Reason::PolicyUnavailable)),
        problems: vec![error.to_string()],
    }
}

fn decided(policy: &Policy, request: &Request<'_>, http2: bool) -> OutboundVerdict {
    let version = if http2 {
        HttpVersion::Http2
    } else {
        HttpVersion::Http1
    };
    let mut notes = Notes::default();
    let found = match policy.http(version) {
        Some(_) => policy.route_with(version, &request.view(), &mut notes),
        None => policy.route_connection(b""),
    };
    let rule = found.as_ref().map(|found| rule(policy, found, request));
    OutboundVerdict {
        target: Object::new(&policy.meta),
        protocol: match policy.protocol {
            Protocol::Detect { .. } => "detect",
            Protocol::Http1(_) => "http1",
            Protocol::Http2(_) => "http2",
            Protocol::Grpc(_) => "grpc",
            Protocol::Opaque(_) => "opaque",
            Protocol::Tls(_) => "tls",
        },
        candidates: notes.verdicts(|id| policy.rule_name(id)),
        reason: reason(found.as_ref(), request).map(ReasonVerdict::new),
        rule,
        problems: policy.problems.iter().map(ToString::to_string).collect(),
    }
}

fn reason(found: Option<&RouteRef<'_>>, request: &Request<'_>) -> Option<Reason> {
    match found {
        None => Some(Reason::RouteNotFound),
        Some(found) => match found.answer(&request.view(), 0) {
            Some(answer) => Some(answer.reason()),
            None => found
                .rule
                .backend(0, |_| true)
                .is_none()
                .then_some(Reason::NoBackend),
        },
    }
}

fn rule(policy: &Policy, found: &RouteRef<'_>, request: &Request<'_>) -> RuleVerdict {
    let backends = found.rule.distribution.backends();
    let total: u64 = backends
        .iter()
        .map(|backend| u64::from(backend.weight))
        .sum();
    let millis = |limit: Option<std::time::Duration>| limit.map(|limit| limit.as_millis() as u64);
    let answer = |answer: Answer<'_>| {
        let location = match &answer {
            Answer::Redirect(redirect) => {
                redirect.location("http", request.authority, request.path, found.matcher)
            }
            _ => None,
        };
        AnswerVerdict::new(&answer, location)
    };
    let share = |place: usize, backend: &RouteBackend| match found.rule.distribution {
        Distribution::FirstAvailable(_) => f64::from(u8::from(place == 0)),
        _ if total == 0 => 0.0,
        _ => f64::from(backend.weight) / total as f64,
    };
    RuleVerdict {
        route: Object::new(&found.route.meta),
        rule: found.rule.number,
        asks: found.matcher.to_string(),
        filters: filters(Some(policy), &found.rule.filters),
        answer: found.answer(&request.view(), 0).map(answer),
        backends: backends
            .iter()
            .enumerate()
            .filter_map(|(place, backend)| {
                let known = policy.backends.get(backend.backend.index())?;
                Some(BackendVerdict {
                    object: Object::new(&known.meta),
                    weight: backend.weight,
                    share: share(place, backend),
                    dst: match &known.kind {
                        BackendKind::Balancer { dst, .. } => Some(dst.to_string()),
                        BackendKind::Forward(_) | BackendKind::Missing => None,
                    },
                    endpoint: match &known.kind {
                        BackendKind::Forward(endpoint) => Some(Endpoint::new(endpoint)),
                        BackendKind::Balancer { .. } | BackendKind::Missing => None,
                    },
                    filters: filters(Some(policy), &backend.filters),
                    answer: backend.answer(&request.view(), 0).map(answer),
                })
            })
            .collect(),
        timeouts: TimeoutsVerdict {
            request: millis(found.rule.timeouts.request),
            response: millis(found.rule.timeouts.response),
            idle: millis(found.rule.timeouts.idle),
        },
        max_retries: found
            .rule
            .retry
            .as_ref()
            .map_or(0, |retry| retry.max_retries),
    }
}
