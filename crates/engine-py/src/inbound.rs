//! Asks the engine about inbound traffic and writes down what it says.

use std::net::IpAddr;

use tulle_api::inbound as api;
use tulle_engine::inbound::{AuthorizationId, Peer, PeerTls, Protocol, Server};
use tulle_engine::{Meta, Reason};

use crate::facts::{Notes, Request};
use crate::verdict::{
    AnswerVerdict, AuthorizationVerdict, InboundVerdict, Object, ReasonVerdict, RequirementVerdict,
};

pub fn decide(
    message: &api::Server,
    addr: IpAddr,
    identity: Option<&str>,
    tls: bool,
    request: &Request<'_>,
) -> InboundVerdict {
    let peer = Peer {
        addr,
        tls: match (identity, tls) {
            (Some(name), _) => PeerTls::Identity(name),
            (None, true) => PeerTls::Unauthenticated,
            (None, false) => PeerTls::None,
        },
    };
    match Server::compile(message) {
        Ok(server) => decided(&server, &peer, request),
        Err(error) => InboundVerdict {
            server: Object::new(&Meta::compile(None)),
            protocol: "unknown",
            candidates: Vec::new(),
            route: None,
            rule: None,
            answer: None,
            authorizations: Vec::new(),
            permit: None,
            also: Vec::new(),
            reason: Some(ReasonVerdict::new(Reason::PolicyUnavailable)),
            problems: vec![error.to_string()],
        },
    }
}

fn decided(server: &Server, peer: &Peer<'_>, request: &Request<'_>) -> InboundVerdict {
    let grants = server.grants(peer);
    let mut notes = Notes::default();
    let found = server.route_with(&request.view(), &mut notes);
    let http = server.http().is_some();
    let decision = match &found {
        Some(found) => Some(server.authorize(&grants, found)),
        None if http => None,
        None => Some(server.authorize_connection(&grants)),
    };
    let (permit, reason) = match decision {
        None => (None, Some(Reason::RouteNotFound)),
        Some(Ok(permit)) => (Some(Object::new(&permit.authorization.meta)), None),
        Some(Err(denial)) => (None, Some(denial.reason)),
    };
    let answer = found
        .as_ref()
        .and_then(|found| found.answer(&request.view(), 0));
    let may_hold: &[AuthorizationId] = match &found {
        Some(found) => &found.route.authorizations,
        None => &server.own_authorizations,
    };
    InboundVerdict {
        server: Object::new(&server.meta),
        protocol: match server.protocol {
            Protocol::Detect { .. } => "detect",
            Protocol::Http1(_) => "http1",
            Protocol::Http2(_) => "http2",
            Protocol::Grpc(_) => "grpc",
            Protocol::Opaque => "opaque",
            Protocol::Tls => "tls",
        },
        candidates: notes.verdicts(|id| server.rule_name(id)),
        route: found.as_ref().map(|found| Object::new(&found.route.meta)),
        rule: found.as_ref().map(|found| found.rule.number),
        authorizations: may_hold
            .iter()
            .filter_map(|id| server.authorizations.get(id.index()))
            .map(|authorization| {
                let lack = authorization.check(peer).err();
                AuthorizationVerdict {
                    object: Object::new(&authorization.meta),
                    lacks: lack.map(|lack| lack.to_string()),
                    saw: lack.map(|lack| lack.saw(peer)),
                }
            })
            .collect(),
        // A refusal comes before what the route would answer.
        reason: reason
            .or(answer.as_ref().map(|answer| answer.reason()))
            .map(ReasonVerdict::new),
        answer: answer
            .as_ref()
            .map(|answer| AnswerVerdict::new(answer, None)),
        also: match &permit {
            Some(_) if found.is_some() && server.probe(&grants, &request.view()).is_none() => {
                requirements(server)
            }
            _ => Vec::new(),
        },
        permit,
        problems: server.problems.iter().map(ToString::to_string).collect(),
    }
}

/// In the order in which the sidecar asks.
fn requirements(server: &Server) -> Vec<RequirementVerdict> {
    let requirement = |kind, meta: &Meta, needs: String| RequirementVerdict {
        kind,
        object: Object::new(meta),
        needs,
    };
    let mut all: Vec<_> = server
        .jwt
        .iter()
        .map(|jwt| requirement("token", &jwt.meta, jwt.to_string()))
        .collect();
    if let Some(limit) = &server.rate_limit {
        all.push(requirement("rate-limit", &limit.meta, limit.to_string()));
    }
    if server.max_in_flight != 0 {
        let needs = format!("one of {} places at once", server.max_in_flight);
        all.push(requirement("concurrency-limit", &server.meta, needs));
    }
    if let Some(external) = &server.external {
        let needs = external.to_string();
        all.push(requirement("external-authorization", &external.meta, needs));
    }
    all
}
