//! The verdicts as Python reads them: the engine's own values, by name.

use std::collections::BTreeMap;

use serde::Serialize;
use tulle_engine::destination;
use tulle_engine::outbound::{Answer, Policy};
use tulle_engine::route::{Filter, Ratio};
use tulle_engine::{Meta, Reason};

/// The object behind a decision.
#[derive(Serialize)]
pub struct Object {
    pub group: String,
    pub kind: String,
    pub name: String,
    pub namespace: String,
    pub section: String,
    pub port: u32,
    /// `file:line`, empty when unknown.
    pub source: String,
}

impl Object {
    pub fn new(meta: &Meta) -> Self {
        Self {
            group: meta.group().into(),
            kind: meta.kind().into(),
            name: meta.name().into(),
            namespace: meta.namespace().into(),
            section: meta.section().into(),
            port: meta.port(),
            source: meta.source().into(),
        }
    }
}

#[derive(Serialize)]
pub struct ReasonVerdict {
    pub code: &'static str,
    pub text: &'static str,
    pub http: u16,
    pub grpc: u8,
    pub hint: &'static str,
}

impl ReasonVerdict {
    pub fn new(reason: Reason) -> Self {
        Self {
            code: reason.code(),
            text: reason.text(),
            http: reason.http_status(),
            grpc: reason.grpc_status(),
            hint: reason.hint(),
        }
    }
}

/// One match of a rule and what became of it.
#[derive(Serialize)]
pub struct CandidateVerdict {
    pub route: Object,
    pub rule: usize,
    /// `null` for a rule without matches.
    #[serde(rename = "match")]
    pub index: Option<usize>,
    pub asks: String,
    /// `matched`, `shadowed`, `wrong-host` or `mismatch`.
    pub outcome: &'static str,
    /// What does not hold.
    pub because: Option<String>,
    /// What the request has there instead.
    pub saw: Option<String>,
}

/// An answer that the proxy gives without asking a backend.
#[derive(Serialize)]
pub struct AnswerVerdict {
    pub reason: ReasonVerdict,
    /// The status of the answer, which a filter may have chosen.
    pub http: Option<u16>,
    pub grpc: Option<u8>,
    pub message: String,
    /// `null` when it cannot be made for this request.
    pub location: Option<String>,
}

impl AnswerVerdict {
    pub fn new(answer: &Answer<'_>, location: Option<String>) -> Self {
        let reason = answer.reason();
        let (http, grpc, message) = match answer {
            Answer::Preflight(_) => (Some(reason.http_status()), None, String::new()),
            Answer::Redirect(redirect) => (Some(redirect.status), None, String::new()),
            Answer::Failure(failure) => (
                failure.http_status,
                failure.grpc_status,
                failure.message.to_string(),
            ),
            Answer::Invalid(error) => (
                Some(reason.http_status()),
                Some(reason.grpc_status()),
                error.to_string(),
            ),
        };
        Self {
            reason: ReasonVerdict::new(reason),
            http,
            grpc,
            message,
            location,
        }
    }
}

/// What filters do, in words.
pub fn filters(policy: Option<&Policy>, filters: &[Filter]) -> Vec<String> {
    let percent = |ratio: Ratio| match ratio.share() {
        1.0 => "all".to_owned(),
        share => format!("{} % of", (share * 10_000.0).round() / 100.0),
    };
    let text = |filter: &Filter| match filter {
        Filter::RequestHeaders(_) => "changes the request's headers".to_owned(),
        Filter::ResponseHeaders(_) => "changes the response's headers".to_owned(),
        Filter::Redirect(_) => "redirects".to_owned(),
        Filter::Failure(failure) => format!("fails {} requests", percent(failure.ratio)),
        Filter::Rewrite(_) => "rewrites the URL".to_owned(),
        Filter::Mirror(mirror) => {
            let backend = policy.and_then(|policy| policy.backends.get(mirror.backend.index()));
            let to = backend.map_or_else(String::new, |backend| format!(" to {}", backend.meta));
            format!("copies {} requests{to}", percent(mirror.ratio))
        }
        Filter::Fault(fault) => {
            let delay = fault.delay.map(|delay| {
                format!(
                    "delays {} requests by {:?}",
                    percent(delay.ratio),
                    delay.length
                )
            });
            let abort = fault
                .abort
                .as_ref()
                .map(|abort| format!("aborts {} requests", percent(abort.ratio)));
            let mut text = [delay, abort]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(" and ");
            for (name, value) in &fault.headers {
                text.push_str(&format!(" whose header {name} {value}"));
            }
            text
        }
        Filter::Cors(_) => "answers browsers' preflight requests (CORS)".to_owned(),
    };
    filters.iter().map(text).collect()
}

#[derive(Serialize)]
pub struct BackendVerdict {
    pub object: Object,
    pub weight: u32,
    /// Of the rule's traffic, between 0 and 1; of a first-available list, all to the first.
    pub share: f64,
    /// `name:port` that endpoints are discovered by; `null` for a single endpoint.
    pub dst: Option<String>,
    /// The single endpoint.
    pub endpoint: Option<Endpoint>,
    pub filters: Vec<String>,
    /// What answers instead of the backend, when its filters do.
    pub answer: Option<AnswerVerdict>,
}

/// Milliseconds; `null` for no limit.
#[derive(Serialize)]
pub struct TimeoutsVerdict {
    pub request: Option<u64>,
    pub response: Option<u64>,
    pub idle: Option<u64>,
}

/// The rule that decides.
#[derive(Serialize)]
pub struct RuleVerdict {
    pub route: Object,
    pub rule: usize,
    pub asks: String,
    pub filters: Vec<String>,
    pub answer: Option<AnswerVerdict>,
    pub backends: Vec<BackendVerdict>,
    pub timeouts: TimeoutsVerdict,
    pub max_retries: u32,
}

#[derive(Serialize)]
pub struct OutboundVerdict {
    pub target: Object,
    /// `detect`, `http1`, `http2`, `grpc`, `opaque` or `tls`.
    pub protocol: &'static str,
    pub candidates: Vec<CandidateVerdict>,
    pub rule: Option<RuleVerdict>,
    /// Why the proxy answers by itself, when it does.
    pub reason: Option<ReasonVerdict>,
    pub problems: Vec<String>,
}

#[derive(Serialize)]
pub struct AuthorizationVerdict {
    pub object: Object,
    /// What the client lacks; `null` when the authorization holds.
    pub lacks: Option<String>,
    /// What the client has instead.
    pub saw: Option<String>,
}

/// What a request needs beside an authorization.
#[derive(Serialize)]
pub struct RequirementVerdict {
    /// `token`, `rate-limit`, `concurrency-limit` or `external-authorization`.
    pub kind: &'static str,
    pub object: Object,
    /// What it asks for, in words.
    pub needs: String,
}

#[derive(Serialize)]
pub struct InboundVerdict {
    pub server: Object,
    /// As in [`OutboundVerdict`].
    pub protocol: &'static str,
    pub candidates: Vec<CandidateVerdict>,
    /// The route that decides; `null` for a port that is not looked into, or when none matches.
    pub route: Option<Object>,
    pub rule: Option<usize>,
    pub answer: Option<AnswerVerdict>,
    /// Every authorization that may let the client in, in order.
    pub authorizations: Vec<AuthorizationVerdict>,
    /// The one that lets it in.
    pub permit: Option<Object>,
    /// What an authorized request would also need, in the order in which it is asked for; nothing for a probe.
    pub also: Vec<RequirementVerdict>,
    pub reason: Option<ReasonVerdict>,
    pub problems: Vec<String>,
}

#[derive(Serialize)]
pub struct Endpoint {
    pub addr: String,
    pub weight: u32,
    pub identity: Option<String>,
    pub transport_port: Option<u16>,
    /// `unknown`, `http2` or `opaque`.
    pub hint: &'static str,
    pub object: Object,
    pub labels: BTreeMap<String, String>,
}

impl Endpoint {
    pub fn new(endpoint: &destination::Endpoint) -> Self {
        Self {
            addr: endpoint.addr.to_string(),
            weight: endpoint.weight,
            identity: endpoint.tls.as_ref().map(|tls| tls.name.to_string()),
            transport_port: endpoint.transport_port,
            hint: match endpoint.hint {
                destination::ProtocolHint::Unknown => "unknown",
                destination::ProtocolHint::Http2 => "http2",
                destination::ProtocolHint::Opaque => "opaque",
            },
            object: Object::new(&endpoint.meta),
            labels: endpoint.labels.clone(),
        }
    }
}

#[derive(Serialize)]
pub struct EndpointsVerdict {
    /// `unknown`, `missing` or `exists`.
    pub state: &'static str,
    pub endpoints: Vec<Endpoint>,
    pub problems: Vec<String>,
}
