//! Between HTTP/2 and HTTP/1: what a head must satisfy to cross, and what is changed on the way.
//!
//! The seam fills a [`Head`] by its setters (which refuse CR, LF, NUL and bad names, whatever the h2 codec let through)
//! in the order pseudo headers, then fields by [`Head::push_h2`]; then one of these functions judges the whole.
//! `content-length` against END_STREAM and DATA is the driver's: it counts.

use crate::error::Error;
use crate::grammar;
use crate::head::{Head, MethodKind, TargetForm};
use crate::hop::{self, UpgradeField};
use crate::known::{Known, KnownSet};

pub(crate) const CONNECTION_SPECIFIC: KnownSet = KnownSet::of(&[
    Known::Connection,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::TransferEncoding,
    Known::Upgrade,
    Known::Http2Settings,
]);

/// Judges a request head off an HTTP/2 connection (RFC 9113 §8.2.2, §8.3.1).
/// # Errors
/// [`Error::PseudoHeader`] without method, scheme or path (or with them in CONNECT), `*` outside OPTIONS;
/// [`Error::ConnectionSpecific`]; [`Error::ContentLength`], [`Error::ManyContentLengths`]. A stream error, all of them.
pub fn check_h2_request(head: &Head) -> Result<(), Error> {
    let complete = match head.method_kind() {
        // Extended (RFC 8441 §4): the target is said as for every other method.
        MethodKind::Connect if head.protocol().is_some() => {
            !head.scheme().is_empty()
                && head.path().starts_with(b"/")
                && head
                    .authority()
                    .is_some_and(|authority| !authority.is_empty())
        }
        MethodKind::Connect => {
            head.scheme().is_empty()
                && head.path().is_empty()
                && head
                    .authority()
                    .is_some_and(grammar::is_authority_with_port)
        }
        kind => {
            let path_ok = match head.path() {
                b"*" => kind == MethodKind::Options,
                path => path.starts_with(b"/"),
            };
            head.is_request() && !head.scheme().is_empty() && path_ok && head.protocol().is_none()
        }
    };
    if !complete {
        return Err(Error::PseudoHeader);
    }
    check_h2_fields(head)
}

/// Judges a response head off an HTTP/2 connection.
/// # Errors
/// [`Error::PseudoHeader`] without a status, or for 101, which HTTP/2 does not have; those of the fields as for requests.
pub fn check_h2_response(head: &Head) -> Result<(), Error> {
    if !head.is_response() || head.status() == 101 || head.is_request() {
        return Err(Error::PseudoHeader);
    }
    check_h2_fields(head)
}

pub(crate) fn check_h2_fields(head: &Head) -> Result<(), Error> {
    let te_ok = head
        .known_all(Known::Te)
        .all(|te| te.eq_ignore_ascii_case(b"trailers"));
    if head.has_any(CONNECTION_SPECIFIC) || !te_ok {
        return Err(Error::ConnectionSpecific);
    }
    declared_length(head).map(|_| ())
}

/// The one Content-Length of a head.
/// # Errors
/// [`Error::ContentLength`], [`Error::ManyContentLengths`].
pub fn declared_length(head: &Head) -> Result<Option<u64>, Error> {
    let mut values = head.known_all(Known::ContentLength);
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() || value.contains(&b',') {
        return Err(Error::ManyContentLengths);
    }
    grammar::content_length(value)
        .map(Some)
        .ok_or(Error::ContentLength)
}

/// Prepares a checked HTTP/2 request for an HTTP/1.1 hop: cookie crumbs become one field (RFC 9113 §8.2.3), the target
/// gets its form. The rest is the encoder's.
/// # Errors
/// [`Error::BufferFull`].
pub fn request_to_h1(head: &mut Head) -> Result<(), Error> {
    head.set_target_form(match head.method_kind() {
        MethodKind::Connect => TargetForm::Authority,
        _ if head.path() == b"*" => TargetForm::Asterisk,
        _ => TargetForm::Origin,
    });
    join_cookies(head)
}

/// Prepares an HTTP/1 request for an HTTP/2 hop: fields of the old hop go, the scheme is filled in
/// when the message did not say.
/// # Errors
/// [`Error::PseudoHeader`] for an asterisk or origin form that h2 cannot say; [`Error::BufferFull`].
pub fn request_to_h2(head: &mut Head, scheme: &[u8]) -> Result<(), Error> {
    hop::strip(head, UpgradeField::Drop);
    if head.method_kind() == MethodKind::Connect {
        head.remove_known(Known::ContentLength);
        return Ok(());
    }
    if head.scheme().is_empty() {
        head.set_scheme(scheme)?;
    }
    if head.path().is_empty() {
        Err(Error::PseudoHeader)
    } else {
        Ok(())
    }
}

/// Prepares an HTTP/1 response for an HTTP/2 hop: fields of the old hop go, and so does the Content-Length of a
/// response that must not have one.
pub fn response_to_h2(head: &mut Head) {
    hop::strip(head, UpgradeField::Drop);
    if head.status() < 200 || head.status() == 204 {
        head.remove_known(Known::ContentLength);
    }
}

fn join_cookies(head: &mut Head) -> Result<(), Error> {
    if head.known_all(Known::Cookie).nth(1).is_none() {
        return Ok(());
    }
    let crumbs: Vec<&[u8]> = head.known_all(Known::Cookie).collect();
    let joined = crumbs.join(&b"; "[..]);
    head.set("cookie", joined)
}
