//! Who a peer is, read from a leaf certificate whose chain has been verified.
//!
//! The name is the SPIFFE URI of the subject alternative names, or without one their one DNS name. Tulle's identity service also
//! writes the pod into the subject, `O=<namespace>, OU=<pod>`; a certificate of Linkerd has neither and the pod is
//! then unknown.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;

use super::der::{Malformed, Reader, tag};
use super::spiffe_id;

/// Most subject alternative names that are looked at; a certificate with more is refused.
const MAX_NAMES: usize = 16;
/// Longest name in a certificate, in bytes: a DNS name has no more.
const MAX_NAME_BYTES: usize = 253;

const SPIFFE: &str = "spiffe://";
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const ORGANIZATION: &[u8] = &[0x55, 0x04, 0x0a];
const ORGANIZATIONAL_UNIT: &[u8] = &[0x55, 0x04, 0x0b];

/// A verified peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The identity, lower case: `web.emojivoto.serviceaccount.identity.linkerd.cluster.local`.
    pub name: String,
    /// The pod's name; empty when the certificate does not say.
    pub pod: String,
    /// The pod's namespace; empty when the certificate does not say.
    pub namespace: String,
}

impl PeerIdentity {
    /// Reads a leaf. Call it only with the certificate of a finished handshake.
    ///
    /// # Errors
    /// The certificate cannot be read, or names no identity or more than one: a SPIFFE ID, whatever DNS names stand
    /// beside it, or without one a single DNS name.
    pub fn from_leaf(leaf: &CertificateDer<'_>) -> Result<Self, Malformed> {
        let fields = Fields::read(leaf)?;
        let mut names = fields.names;
        let (Some(name), true) = (names.pop(), names.is_empty()) else {
            return Err(Malformed("single subject alternative name"));
        };
        Ok(Self {
            name,
            pod: fields.pod,
            namespace: fields.namespace,
        })
    }
}

/// Whether the leaf names exactly this identity among its names. The case of a DNS name is ignored, that of a SPIFFE ID
/// is not; wildcards mean nothing.
pub fn names(leaf: &CertificateDer<'_>, expected: &str) -> Result<bool, Malformed> {
    let is_uri = expected.starts_with(SPIFFE);
    Ok(Fields::read(leaf)?.names.iter().any(|name| match is_uri {
        true => name == expected,
        false => name.eq_ignore_ascii_case(expected),
    }))
}

/// When the leaf expires.
///
/// # Errors
/// The certificate cannot be read.
pub fn not_after(leaf: &CertificateDer<'_>) -> Result<SystemTime, Malformed> {
    Ok(Fields::read(leaf)?.not_after)
}

#[derive(Debug)]
struct Fields {
    names: Vec<String>,
    pod: String,
    namespace: String,
    not_after: SystemTime,
}

impl Fields {
    fn read(leaf: &CertificateDer<'_>) -> Result<Self, Malformed> {
        let mut to_be_signed = Reader::new(leaf, "frame")
            .enter(tag::SEQUENCE)?
            .enter(tag::SEQUENCE)?;
        to_be_signed.optional(tag::context(0))?; // version
        to_be_signed.read(tag::INTEGER)?; // serial number
        to_be_signed.read(tag::SEQUENCE)?; // signature algorithm
        to_be_signed.read(tag::SEQUENCE)?; // issuer
        let not_after = validity_end(to_be_signed.read(tag::SEQUENCE)?)?;
        let (namespace, pod) = subject(to_be_signed.read(tag::SEQUENCE)?)?;
        to_be_signed.read(tag::SEQUENCE)?; // public key
        to_be_signed.optional(tag::context_primitive(1))?;
        to_be_signed.optional(tag::context_primitive(2))?;
        let names = match to_be_signed.optional(tag::context(3))? {
            Some(extensions) => alternative_names(extensions)?,
            None => Vec::new(),
        };
        Ok(Self {
            names,
            pod,
            namespace,
            not_after,
        })
    }
}

fn validity_end(validity: &[u8]) -> Result<SystemTime, Malformed> {
    let mut validity = Reader::new(validity, "validity");
    validity.any()?;
    let (kind, text) = validity.any()?;
    time(kind, text).ok_or(Malformed("expiry"))
}

/// `YYMMDDhhmmssZ` (until 2049) or `YYYYMMDDhhmmssZ`, as RFC 5280 §4.1.2.5 wants them.
fn time(kind: u8, text: &[u8]) -> Option<SystemTime> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = match (kind, text.len()) {
        (tag::UTC_TIME, 12) => {
            let year: u64 = text[..2].parse().ok()?;
            (
                if year < 50 { 2000 + year } else { 1900 + year },
                &text[2..],
            )
        }
        (tag::GENERALIZED_TIME, 14) => (text[..4].parse().ok()?, &text[4..]),
        _ => return None,
    };
    let two = |at: usize| rest[at..at + 2].parse::<u64>().ok();
    let (month, day, hour, minute, second) = (two(0)?, two(2)?, two(4)?, two(6)?, two(8)?);
    if year < 1970
        || !(1..=12).contains(&month)
        || !(1..=31).contains(&day)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }
    // Days since 1970-01-01 in the proleptic Gregorian calendar, years beginning in March.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days =
        365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some(UNIX_EPOCH + Duration::from_secs(days * 86_400 + hour * 3_600 + minute * 60 + second))
}

/// Namespace and pod from `O` and `OU`; one that is repeated or is not a Kubernetes name counts as absent.
fn subject(subject: &[u8]) -> Result<(String, String), Malformed> {
    let (mut namespaces, mut pods) = (Vec::new(), Vec::new());
    let mut sets = Reader::new(subject, "subject");
    while !sets.is_empty() {
        let mut pairs = sets.enter(tag::SET)?;
        while !pairs.is_empty() {
            let mut pair = pairs.enter(tag::SEQUENCE)?;
            let attribute = pair.read(tag::OID)?;
            let (kind, text) = pair.any()?;
            let known_kind = matches!(
                kind,
                tag::UTF8_STRING | tag::PRINTABLE_STRING | tag::IA5_STRING
            );
            let of = match attribute {
                ORGANIZATION => &mut namespaces,
                ORGANIZATIONAL_UNIT => &mut pods,
                _ => continue,
            };
            if let (true, Some(name)) = (known_kind, kubernetes_name(text)) {
                of.push(name);
            }
        }
    }
    let only = |mut found: Vec<String>| {
        if found.len() == 1 {
            found.pop().unwrap_or_default()
        } else {
            String::new()
        }
    };
    Ok((only(namespaces), only(pods)))
}

fn kubernetes_name(text: &[u8]) -> Option<String> {
    let fits = (1..=MAX_NAME_BYTES).contains(&text.len())
        && text
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-' || *b == b'.');
    fits.then(|| String::from_utf8_lossy(text).into_owned())
}

fn alternative_names(extensions: &[u8]) -> Result<Vec<String>, Malformed> {
    let mut found = Vec::new();
    let (mut seen, mut uris) = (false, 0);
    let mut extensions = Reader::new(extensions, "extensions").enter(tag::SEQUENCE)?;
    while !extensions.is_empty() {
        let mut extension = extensions.enter(tag::SEQUENCE)?;
        let kind = extension.read(tag::OID)?;
        extension.optional(tag::BOOLEAN)?; // critical
        let content = extension.read(tag::OCTET_STRING)?;
        if kind != SUBJECT_ALT_NAME {
            continue;
        }
        if std::mem::replace(&mut seen, true) {
            return Err(Malformed("subject alternative names (there are two lists)"));
        }
        let mut names = Reader::new(content, "subject alternative names").enter(tag::SEQUENCE)?;
        while !names.is_empty() {
            let (kind, text) = names.any()?;
            uris += usize::from(kind == URI);
            let name = match kind {
                DNS_NAME => dns_name(text),
                URI if text.starts_with(SPIFFE.as_bytes()) => uri(text),
                _ => continue, // e-mail and IP addresses name no workload
            };
            found.push(name.ok_or(Malformed("subject alternative name"))?);
            if found.len() > MAX_NAMES {
                return Err(Malformed("subject alternative names (there are too many)"));
            }
        }
    }
    // An X.509-SVID has no other URI beside its ID. It may have DNS names, for those who look for a server by them
    // (SPIRE's `-dns`); here they name nobody (SPIFFE's X509-SVID, section 2).
    if found.iter().any(|name| name.starts_with(SPIFFE)) {
        if uris > 1 {
            return Err(Malformed(
                "subject alternative names (there are several URIs)",
            ));
        }
        found.retain(|name| name.starts_with(SPIFFE));
    }
    Ok(found)
}

const DNS_NAME: u8 = tag::context_primitive(2);
const URI: u8 = tag::context_primitive(6);

/// A DNS name without wildcard, NUL or trailing dot, in lower case.
fn dns_name(text: &[u8]) -> Option<String> {
    let label = |label: &[u8]| {
        (1..=63).contains(&label.len())
            && label
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || *b == b'-' || *b == b'_')
    };
    let fits = text.len() <= MAX_NAME_BYTES && text.split(|b| *b == b'.').all(label);
    fits.then(|| String::from_utf8_lossy(text).to_ascii_lowercase())
}

fn uri(text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?;
    spiffe_id(text).ok().map(|()| text.to_owned())
}

#[cfg(test)]
#[path = "peer_tests.rs"]
mod tests;
