//! JSON Web Tokens (RFC 7519) that requests have to carry: what a port requires ([`Jwt`]), and whether a token meets it.
//!
//! The order is fixed, and each step only sees what the one before let through: size, three parts, header, key,
//! signature, claims. A key tells its algorithm; the token's header may only agree. So `none`, HMAC with a public key,
//! and keys that the token brings along (`jwk`, `jku`, `x5c`) lead nowhere. Nothing of the payload is read before its
//! signature holds. The signature itself is checked by a [`Verifier`], since this crate knows no cryptography; time is
//! handed in.
//!
//! A token without an `exp` is refused: it could never be taken back.

mod base64;
mod json;
mod keys;
mod verified;

use std::fmt;
use std::sync::Arc;

use tulle_api::inbound as api;

use self::json::{Object, Value};
pub use self::keys::{Algorithm, Key, MAX_JWKS, MAX_KEYS, Material};
pub use self::verified::{GENERATION, Verified};
use crate::invalid::{Invalid, duration};
use crate::meta::Meta;

/// The longest token that is looked at, in octets.
pub const MAX_TOKEN: usize = 8 * 1024;
/// The most keys that are tried for one token: those of its `kid`, or of its algorithm when it names none.
pub const MAX_TRIED_KEYS: usize = 4;
/// The most requirements of one port.
pub const MAX_REQUIREMENTS: usize = 16;
/// The most claims that one requirement hands on.
pub const MAX_CLAIM_HEADERS: usize = 32;
/// The longest value of a header made from a claim, in octets.
pub const MAX_CLAIM: usize = 1024;

const DEFAULT_LEEWAY: u64 = 60;

/// A token that requests have to carry.
#[derive(Clone, Debug, PartialEq)]
pub struct Jwt {
    /// The object that asks for it.
    pub meta: Arc<Meta>,
    /// The `iss` claim, exactly.
    pub issuer: Box<str>,
    /// One of them has to be in the `aud` claim; empty: it is not looked at.
    pub audiences: Vec<Box<str>>,
    /// The issuer's keys.
    pub keys: Vec<Key>,
    /// The header that carries it, in lower case. `authorization`: after `Bearer `.
    pub header: Box<str>,
    /// Claims that the application gets as headers.
    pub claim_headers: Vec<ClaimHeader>,
    /// Seconds that `exp` and `nbf` may be off.
    pub leeway: u64,
    /// Whether the token itself goes on to the application.
    pub forward: bool,
    /// Whether requests without any token pass.
    pub optional: bool,
    /// Why nobody can meet the requirement, when it could not be read.
    pub invalid: Option<Invalid>,
}

/// A claim that becomes a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimHeader {
    /// The name of the claim; dots lead into objects, unless a claim has the whole name.
    pub claim: Box<str>,
    /// The header, in lower case.
    pub header: Box<str>,
}

/// Checks signatures.
pub trait Verifier {
    /// Whether `signature` is `key`'s for `message`, by the key's algorithm.
    fn verify(&self, key: &Key, message: &[u8], signature: &[u8]) -> bool;
}

/// What a token that holds says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The `exp` claim, in seconds since 1970.
    pub expires: i64,
    /// The `nbf` claim.
    pub not_before: Option<i64>,
    /// The values of the requirement's `claim_headers`, in their order; `None` for a claim that is not there or that no
    /// header can carry.
    pub headers: Vec<Option<Box<str>>>,
    /// How many of those claims are there, and no header can carry them.
    pub withheld: u32,
}

/// What is wrong with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// More than one was sent: the application might read another than we do.
    Several,
    /// Longer than [`MAX_TOKEN`].
    TooLong,
    /// Not three parts of base64url.
    Malformed,
    /// Its header is no JSON object, or has a name twice.
    Header,
    /// Its header insists (`crit`, `b64`) on an extension; none is known here.
    Critical,
    /// Its algorithm is none of those that public keys sign with.
    Algorithm,
    /// No key of the issuer has its `kid` and its algorithm.
    UnknownKey,
    /// The signature is not that of the key.
    Signature,
    /// Its payload is no JSON object, or has a name twice, or a claim of the wrong type.
    Payload,
    /// From another issuer.
    Issuer,
    /// For other audiences.
    Audience,
    /// It does not say when it ends.
    Endless,
    /// Its time is over.
    Expired,
    /// Its time has not come.
    NotYet,
}

impl Fault {
    /// A word for labels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Several => "several",
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::Header => "header",
            Self::Critical => "critical",
            Self::Algorithm => "algorithm",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::Payload => "payload",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Endless => "endless",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Several => "more than one token was sent",
            Self::TooLong => "it is longer than 8 KiB",
            Self::Malformed => "it is not three parts of base64url",
            Self::Header => "its header is not a JSON object with every name once",
            Self::Critical => "its header insists on an extension that is not known here",
            Self::Algorithm => "its algorithm is not one of signatures with public keys",
            Self::UnknownKey => "the issuer has no key with its kid and algorithm",
            Self::Signature => "its signature does not hold",
            Self::Payload => "its payload is not a JSON object of claims with every name once",
            Self::Issuer => "it is from another issuer",
            Self::Audience => "it is for another audience",
            Self::Endless => "it has no exp",
            Self::Expired => "it has expired",
            Self::NotYet => "its time has not come yet",
        })
    }
}

/// Which claims are told to the application, and in which headers; `fail` hears of each that cannot be.
fn claim_headers(
    messages: &[api::jwt::ClaimHeader],
    mut fail: impl FnMut(Invalid),
) -> Vec<ClaimHeader> {
    if messages.len() > MAX_CLAIM_HEADERS {
        let why = format!("goes beyond {MAX_CLAIM_HEADERS} headers");
        fail(Invalid::new("claim_headers", why));
    }
    let mut headers = Vec::new();
    for (index, message) in messages.iter().take(MAX_CLAIM_HEADERS).enumerate() {
        let header = message.header.to_ascii_lowercase();
        if message.claim.is_empty() {
            fail(Invalid::missing(format!("claim_headers[{index}].claim")));
        }
        if !is_field_name(&header) || is_reserved(&header) || header == "authorization" {
            let field = format!("claim_headers[{index}].header");
            let why = "is not a header that a claim can become";
            fail(Invalid::new(field, why));
        }
        headers.push(ClaimHeader {
            claim: message.claim.as_str().into(),
            header: header.into(),
        });
    }
    headers
}

impl Jwt {
    /// Reads the message. What cannot be read makes a requirement that nobody meets.
    pub(super) fn compile(message: &api::Jwt, problems: &mut Vec<Invalid>, field: &str) -> Self {
        let header = match message.header.as_str() {
            "" => "authorization".into(),
            name => name.to_ascii_lowercase(),
        };
        let mut invalid = None;
        let mut fail = |error: Invalid| {
            let error = error.under(field);
            problems.push(error.clone());
            invalid.get_or_insert(error);
        };
        if message.issuer.is_empty() {
            fail(Invalid::missing("issuer"));
        }
        if !is_field_name(&header) || is_reserved(&header) {
            fail(Invalid::new(
                "header",
                "is not a header that can carry a token",
            ));
        }
        let claim_headers = claim_headers(&message.claim_headers, &mut fail);
        let leeway = match &message.leeway {
            None => DEFAULT_LEEWAY,
            Some(leeway) => match duration("leeway", leeway) {
                Ok(leeway) => leeway.as_secs(),
                Err(error) => {
                    fail(error);
                    0
                }
            },
        };
        let keys = match keys::compile(&message.jwks) {
            Ok((keys, left_out)) => {
                problems.extend(left_out.into_iter().map(|error| error.under(field)));
                keys
            }
            Err(error) => {
                fail(error);
                Vec::new()
            }
        };
        Self {
            meta: Meta::compile(message.metadata.as_ref()),
            issuer: message.issuer.as_str().into(),
            audiences: message
                .audiences
                .iter()
                .map(|name| name.as_str().into())
                .collect(),
            keys,
            header: header.into(),
            claim_headers,
            leeway,
            forward: message.forward,
            optional: message.optional,
            invalid,
        }
    }

    /// The token among the values of the header; `None` when there is none. Credentials of another scheme than `Bearer`
    /// are none.
    pub fn token<'h>(
        &self,
        values: impl Iterator<Item = &'h [u8]>,
    ) -> Result<Option<&'h [u8]>, Fault> {
        let bearer = &*self.header == "authorization";
        let mut found = None;
        for (index, value) in values.enumerate() {
            // Also beside another scheme: who reads which of them is anybody's guess.
            if index > 0 {
                return Err(Fault::Several);
            }
            found = if bearer {
                after_bearer(value)
            } else {
                Some(value)
            };
        }
        Ok(found.map(<[u8]>::trim_ascii))
    }

    /// Whether the token meets the requirement at this moment (seconds since 1970).
    pub fn verify(
        &self,
        token: &[u8],
        now: i64,
        verifier: &impl Verifier,
    ) -> Result<Claims, Fault> {
        if token.len() > MAX_TOKEN {
            return Err(Fault::TooLong);
        }
        let mut parts = token.split(|byte| *byte == b'.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Fault::Malformed);
        };
        let signed = token
            .get(..header.len() + 1 + payload.len())
            .ok_or(Fault::Malformed)?;
        let header = base64::decode(header).ok_or(Fault::Malformed)?;
        let signature = base64::decode(signature).ok_or(Fault::Malformed)?;
        let header = json::object(&header).ok_or(Fault::Header)?;
        if header.contains_key("crit") || header.contains_key("b64") {
            return Err(Fault::Critical);
        }
        let algorithm = header
            .get("alg")
            .and_then(Value::text)
            .and_then(Algorithm::named)
            .ok_or(Fault::Algorithm)?;
        let id = match header.get("kid") {
            None => None,
            Some(id) => Some(id.text().ok_or(Fault::Header)?),
        };
        let mut tried = self
            .keys
            .iter()
            .filter(|key| key.algorithm == algorithm && (id.is_none() || key.id.as_deref() == id))
            .take(MAX_TRIED_KEYS)
            .peekable();
        if tried.peek().is_none() {
            return Err(Fault::UnknownKey);
        }
        if !tried.any(|key| verifier.verify(key, signed, &signature)) {
            return Err(Fault::Signature);
        }
        let payload = base64::decode(payload).ok_or(Fault::Malformed)?;
        let claims = json::object(&payload).ok_or(Fault::Payload)?;
        let claims = self.read(&claims)?;
        self.holds(&claims, now)?;
        Ok(claims)
    }

    /// Whether claims that were verified once still hold at this moment.
    pub fn holds(&self, claims: &Claims, now: i64) -> Result<(), Fault> {
        let leeway = i64::try_from(self.leeway).unwrap_or(i64::MAX);
        if now >= claims.expires.saturating_add(leeway) {
            return Err(Fault::Expired);
        }
        if claims
            .not_before
            .is_some_and(|begin| now.saturating_add(leeway) < begin)
        {
            return Err(Fault::NotYet);
        }
        Ok(())
    }

    fn read(&self, claims: &Object) -> Result<Claims, Fault> {
        match claims.get("iss").map(Value::text) {
            Some(Some(issuer)) if issuer == &*self.issuer => {}
            Some(None) => return Err(Fault::Payload),
            _ => return Err(Fault::Issuer),
        }
        if !self.audiences.is_empty() {
            let named = |value: &Value| {
                value
                    .text()
                    .is_some_and(|text| self.audiences.iter().any(|audience| **audience == *text))
            };
            let found = match claims.get("aud") {
                Some(Value::Array(all)) => all.iter().any(named),
                Some(one) => named(one),
                None => false,
            };
            if !found {
                return Err(Fault::Audience);
            }
        }
        let expires = claims.get("exp").ok_or(Fault::Endless)?;
        let mut withheld = 0;
        let headers = self.claim_headers.iter().map(|wanted| {
            let claim = find(claims, &wanted.claim)?;
            let value = header_value(claim);
            withheld += u32::from(value.is_none());
            value
        });
        let headers = headers.collect();
        Ok(Claims {
            expires: seconds(expires).ok_or(Fault::Payload)?,
            not_before: match claims.get("nbf") {
                None => None,
                Some(begin) => Some(seconds(begin).ok_or(Fault::Payload)?),
            },
            headers,
            withheld,
        })
    }
}

/// What a client would need.
impl fmt::Display for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let must = if self.optional {
            "if it carries a token, one"
        } else {
            "a token"
        };
        write!(f, "{must} of issuer {}", self.issuer)?;
        for (index, audience) in self.audiences.iter().enumerate() {
            write!(f, "{}{audience}", if index > 0 { " or " } else { " for " })?;
        }
        match &*self.header {
            "authorization" => Ok(()),
            header => write!(f, " in the header {header}"),
        }
    }
}

fn after_bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.trim_ascii().split_at_checked(6)?;
    let bearer = scheme.eq_ignore_ascii_case(b"bearer");
    (bearer && rest.first().is_none_or(|byte| *byte == b' ')).then_some(rest)
}

/// A NumericDate, in whole seconds.
fn seconds(value: &Value) -> Option<i64> {
    let Value::Number(text) = value else {
        return None;
    };
    let number: f64 = text.parse().ok()?;
    // Beyond 2^53 seconds are not told apart any more, and no such date is meant.
    (number.abs() < 9e15).then_some(number.floor() as i64)
}

/// The claim of this name, else the one that its dots lead to.
fn find<'c>(claims: &'c Object, name: &str) -> Option<&'c Value> {
    if let Some(found) = claims.get(name) {
        return Some(found);
    }
    name.match_indices('.').find_map(|(dot, _)| {
        let (outer, inner) = (name.get(..dot)?, name.get(dot + 1..)?);
        match claims.get(outer)? {
            Value::Object(members) => find(members, inner),
            _ => None,
        }
    })
}

/// The claim as a header carries it: strings, numbers and truth as they are, lists of them with commas between.
fn header_value(claim: &Value) -> Option<Box<str>> {
    let value = match claim {
        Value::Array(elements) => {
            let texts: Option<Vec<&str>> = elements.iter().map(scalar).collect();
            let texts = texts?;
            // Two elements must not look like three.
            if texts.iter().any(|text| text.contains(',')) {
                return None;
            }
            texts.join(",")
        }
        one => scalar(one)?.to_owned(),
    };
    let sendable = value.len() <= MAX_CLAIM
        && value.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        && value.trim_ascii() == value;
    sendable.then_some(value.into())
}

fn scalar(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) | Value::Number(text) => Some(text),
        Value::Bool(true) => Some("true"),
        Value::Bool(false) => Some("false"),
        _ => None,
    }
}

/// Whether this, in lower case, is the name of a header.
pub(super) fn is_field_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 256
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// Headers that frame the message, route it, or are the mesh's own: nobody from outside of the proxy sets them.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    const NAMES: [&str; 15] = [
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "tulle-reason",
        "upgrade",
        "grpc-status",
        "grpc-message",
    ];
    NAMES.contains(&name) || name.starts_with("l5d-") || name.starts_with(':')
}

#[cfg(test)]
mod tests;
