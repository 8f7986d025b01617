//! Tokens: found in the head, verified once and then remembered until they end, and what becomes of the head.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use tulle_engine::Reason;
use tulle_engine::inbound::{Claims, Fault, Jwt, MAX_TOKEN, Server, Verified};
use tulle_http::Head;

use super::signature::AwsLc;
use crate::http::answer::Refusal;
use crate::inbound::session::Session;
use crate::inbound::{Inbound, labels};
use crate::metrics::{Counter, Gauge, families};

/// What one worker remembers for one requirement.
pub struct Tokens {
    requirement: Arc<Jwt>,
    verified: Verified<Rc<Claims>>,
    remembered: Gauge,
    fresh: Counter,
    again: Counter,
    /// Claims that no header could carry.
    withheld: Counter,
}

/// Weighs every requirement, and changes the head when all are met.
pub fn meet(
    inbound: &Inbound,
    session: &Session,
    server: &Server,
    known: &mut Vec<Tokens>,
    head: &mut Head,
) -> Result<(), Refusal> {
    known.truncate(server.jwt.len());
    let now = unix_now();
    let mut found = Vec::with_capacity(server.jwt.len());
    for (index, requirement) in server.jwt.iter().enumerate() {
        match known.get_mut(index) {
            Some(tokens) => tokens.follow(inbound, session, server, requirement),
            None => known.push(Tokens::new(inbound, session, server, requirement)),
        }
        let outcome = known[index].weigh(head, now);
        found.push(outcome.map_err(|why| refuse(inbound, session, server, requirement, &why))?);
    }
    drop_claims(server, head);
    for (requirement, claims) in server.jwt.iter().zip(found) {
        let Some(claims) = claims else { continue };
        for (to, value) in requirement.claim_headers.iter().zip(&claims.headers) {
            if let Some(value) = value {
                head.set(to.header.as_bytes(), value.as_bytes())
                    .map_err(Refusal::malformed)?;
            }
        }
        if !requirement.forward {
            head.remove(requirement.header.as_bytes());
        }
    }
    Ok(())
}

/// Removes what a client sends under the names of claims. Also with `_` for `-`: applications that see headers as
/// variables (CGI, WSGI) take the two for one.
pub fn drop_claims(server: &Server, head: &mut Head) {
    let fold = |byte: &u8| if *byte == b'_' { b'-' } else { *byte };
    for to in server.jwt.iter().flat_map(|jwt| &jwt.claim_headers) {
        let name = to.header.as_bytes();
        head.retain(|given, _| !given.iter().map(fold).eq(name.iter().map(fold)));
    }
}

/// Why a request is refused.
enum Why {
    Missing,
    Wrong(Fault),
    /// Nobody can meet the requirement.
    Invalid,
}

impl Tokens {
    fn new(inbound: &Inbound, session: &Session, server: &Server, requirement: &Arc<Jwt>) -> Self {
        let counter = |result| {
            let labels = labels::token(session, server, &requirement.meta, result);
            inbound
                .shard
                .counter(&families::INBOUND_HTTP_JWT_TOTAL, &labels)
        };
        let labels = labels::port(session.port(), server);
        Tokens {
            requirement: requirement.clone(),
            verified: Verified::default(),
            remembered: inbound
                .shard
                .gauge(&families::INBOUND_HTTP_JWT_REMEMBERED, &labels),
            fresh: counter("valid"),
            again: counter("remembered"),
            withheld: inbound.shard.limit("engine::inbound::jwt::MAX_CLAIM"),
        }
    }

    /// Another requirement than before has other keys or other claims: nothing that was verified for the old one counts.
    fn follow(
        &mut self,
        inbound: &Inbound,
        session: &Session,
        server: &Server,
        requirement: &Arc<Jwt>,
    ) {
        if Arc::ptr_eq(&self.requirement, requirement) {
            return;
        }
        if *self.requirement == **requirement {
            self.requirement = requirement.clone();
        } else {
            *self = Self::new(inbound, session, server, requirement);
        }
    }

    fn weigh(&mut self, head: &Head, now: i64) -> Result<Option<Rc<Claims>>, Why> {
        let requirement = &self.requirement;
        if requirement.invalid.is_some() {
            return Err(Why::Invalid);
        }
        let values = head.get_all(requirement.header.as_bytes());
        let token = match requirement.token(values).map_err(Why::Wrong)? {
            Some(token) => token,
            None if requirement.optional => return Ok(None),
            None => return Err(Why::Missing),
        };
        if token.len() > MAX_TOKEN {
            return Err(Why::Wrong(Fault::TooLong));
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, token).as_ref());
        if let Some(claims) = self.verified.get(&hash) {
            return match requirement.holds(&claims, now) {
                Ok(()) => {
                    self.again.inc();
                    Ok(Some(claims))
                }
                Err(fault) => {
                    self.verified.remove(&hash);
                    Err(Why::Wrong(fault))
                }
            };
        }
        let claims = requirement.verify(token, now, &AwsLc).map_err(Why::Wrong)?;
        let claims = Rc::new(claims);
        self.verified.insert(hash, claims.clone());
        self.remembered.set(self.verified.len() as u64);
        self.fresh.inc();
        if claims.withheld > 0 {
            self.withheld.add(claims.withheld.into());
        }
        Ok(Some(claims))
    }
}

fn refuse(
    inbound: &Inbound,
    session: &Session,
    server: &Server,
    requirement: &Jwt,
    why: &Why,
) -> Refusal {
    let meta = &requirement.meta;
    let (result, refusal) = match why {
        Why::Missing => (
            "missing",
            Refusal::because(Reason::TokenMissing, requirement).with("www-authenticate", "Bearer"),
        ),
        Why::Wrong(fault) => (
            fault.name(),
            Refusal::because(Reason::TokenInvalid, fault).with(
                "www-authenticate",
                format!("Bearer error=\"invalid_token\", error_description=\"{fault}\""),
            ),
        ),
        Why::Invalid => {
            let error = requirement.invalid.as_ref();
            let text = error.map_or_else(String::new, ToString::to_string);
            (
                "invalid_requirement",
                Refusal::because(Reason::RequirementInvalid, text),
            )
        }
    };
    let labels = labels::token(session, server, meta, result);
    inbound
        .shard
        .counter(&families::INBOUND_HTTP_JWT_TOTAL, &labels)
        .inc();
    refusal.of_rule(meta)
}

fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}
