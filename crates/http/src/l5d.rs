//! The hygiene of Linkerd's headers: what each `l5d-*` name is, and what is taken away from whom.
//!
//! Three classes. *Controls* ask the proxy for something (a timeout, a retry, an identity): read where policy allows,
//! then always removed. *Assertions* are what a proxy says to an application or to another proxy: believed from nobody
//! but an authenticated proxy. The *bridge* restores an HTTP/1 message that travelled over HTTP/2 between two proxies:
//! honoured only from an authenticated peer. A name with the prefix that is not in the table is removed from strangers.

use crate::error::Error;
use crate::head::{Head, TargetForm, Version};

/// The role of an `l5d-*` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A request's wish to its own proxy.
    Control,
    /// A proxy's statement.
    Assertion,
    /// Carries an HTTP/1 message through HTTP/2.
    Bridge,
}

/// Who sent the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// An application, or anybody whose identity was not checked.
    Untrusted,
    /// A proxy of the mesh, identified by mutual TLS.
    Meshed,
}

/// Every name that we know, and its class.
pub const TABLE: &[(&str, Class)] = &[
    ("l5d-dst-override", Class::Control),
    ("l5d-require-id", Class::Control),
    ("l5d-timeout", Class::Control),
    ("l5d-request-timeout", Class::Control),
    ("l5d-response-timeout", Class::Control),
    ("l5d-retry-http", Class::Control),
    ("l5d-retry-grpc", Class::Control),
    ("l5d-retry-limit", Class::Control),
    ("l5d-retry-timeout", Class::Control),
    ("l5d-client-id", Class::Assertion),
    ("l5d-dst-canonical", Class::Assertion),
    ("l5d-proxy-error", Class::Assertion),
    ("l5d-proxy-connection", Class::Assertion),
    ("l5d-orig-proto", Class::Bridge),
];

/// The class of a lower-case name; `None` when it is not in the table.
#[must_use]
pub fn class(name: &[u8]) -> Option<Class> {
    TABLE
        .iter()
        .find(|(known, _)| known.as_bytes() == name)
        .map(|&(_, class)| class)
}

/// Removes what `peer` may not say. From an untrusted peer that is every `l5d-*` header but the controls, names outside
/// of the table included; from a meshed one nothing. Controls stay for the caller to read: see [`strip_controls`].
pub fn strip_unbelievable(head: &mut Head, peer: Peer) {
    if peer == Peer::Untrusted && has_any(head) {
        head.retain(|name, _| !is_l5d(name) || class(name) == Some(Class::Control));
    }
}

/// Removes the controls, after they were read: they are never sent on.
pub fn strip_controls(head: &mut Head) {
    strip_class(head, Class::Control);
}

/// Removes one class.
pub fn strip_class(head: &mut Head, gone: Class) {
    if has_any(head) {
        head.retain(|name, _| !is_l5d(name) || class(name) != Some(gone));
    }
}

/// Removes every `l5d-*` header: what leaves the mesh (to an application's client, or to a server outside).
pub fn strip_all(head: &mut Head) {
    if has_any(head) {
        head.retain(|name, _| !is_l5d(name));
    }
}

/// What an HTTP/1 message looked like before it was carried over HTTP/2 (`l5d-orig-proto`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrigProto {
    /// HTTP/1.0 or HTTP/1.1.
    pub version: Version,
    /// The target was in absolute form.
    pub absolute_form: bool,
}

/// In which a client's proxy names the service that a ServiceProfile has routed a request to.
pub const DST_CANONICAL: &str = "l5d-dst-canonical";

/// The name of the bridge header.
pub const ORIG_PROTO: &str = "l5d-orig-proto";

/// Takes the bridge header out of a head that came over HTTP/2 from a meshed peer and puts version and target form
/// back. `None` when there was none: the message is native HTTP/2. An unknown value is treated as `HTTP/1.1`.
///
/// HTTP/1.0 without a Host field gets none here: its `:authority` is only the address where it was sent to.
pub fn unbridge(head: &mut Head) -> Option<OrigProto> {
    let value = head.get(ORIG_PROTO)?;
    let version = if value.starts_with(b"HTTP/1.0") {
        Version::Http10
    } else {
        Version::Http11
    };
    let absolute_form = was_absolute_form(head);
    head.remove(ORIG_PROTO);
    if version == Version::Http10 && !absolute_form && !head.says_host() {
        head.clear_authority();
    }
    head.say_host(false);
    head.set_version(version);
    if absolute_form {
        head.set_target_form(TargetForm::Absolute);
    }
    Some(OrigProto {
        version,
        absolute_form,
    })
}

/// The bridge says that the request's target was an absolute URI.
pub(crate) fn was_absolute_form(head: &Head) -> bool {
    head.get(ORIG_PROTO)
        .is_some_and(|value| value.ends_with(b"; absolute-form"))
}

/// Writes the bridge header for an HTTP/1 head that is about to travel over HTTP/2 to a meshed peer. A request says its
/// Host as a field, too: linkerd2-proxy writes none for the application but that.
/// # Errors
/// [`Error::BufferFull`].
pub fn bridge(head: &mut Head) -> Result<(), Error> {
    let absolute = head.target_form() == TargetForm::Absolute;
    let value = match (head.version(), absolute) {
        (Version::Http2, _) => return Ok(()),
        (Version::Http10, false) => "HTTP/1.0",
        (Version::Http10, true) => "HTTP/1.0; absolute-form",
        (Version::Http11, false) => "HTTP/1.1",
        (Version::Http11, true) => "HTTP/1.1; absolute-form",
    };
    head.say_host(head.authority().is_some());
    head.set(ORIG_PROTO, value)
}

fn is_l5d(name: &[u8]) -> bool {
    name.starts_with(b"l5d-")
}

fn has_any(head: &Head) -> bool {
    head.iter().any(|(name, _)| is_l5d(name))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn spoofed() -> Head {
        let mut head = Head::new();
        head.set_method(b"GET").unwrap();
        for (name, _) in TABLE {
            head.push(name, "spoof").unwrap();
        }
        head.push("l5d-identity", "spoof").unwrap();
        head.push("x-kept", "1").unwrap();
        head
    }

    #[test]
    fn nobody_outside_asserts_or_bridges() {
        let mut head = spoofed();
        strip_unbelievable(&mut head, Peer::Untrusted);
        assert!(
            head.iter()
                .all(|(name, _)| name == b"x-kept" || class(name) == Some(Class::Control))
        );
        assert_eq!(head.len(), 10);
        strip_controls(&mut head);
        assert_eq!(head.len(), 1);
    }

    #[test]
    fn a_meshed_peer_keeps_its_say_and_everything_leaves_with_the_mesh() {
        let mut head = spoofed();
        strip_unbelievable(&mut head, Peer::Meshed);
        assert_eq!(head.len(), TABLE.len() + 2);
        strip_all(&mut head);
        assert_eq!(head.len(), 1);
    }

    /// What linkerd2-proxy at the other end writes for its application is what stands in the field, and nothing else.
    #[test]
    fn the_bridge_says_host_in_a_field_and_http10_without_one_arrives_so() {
        let mut head = Head::new();
        head.set_authority(b"voting:80").unwrap();
        bridge(&mut head).unwrap();
        assert!(head.says_host());
        head.set_version(Version::Http2);
        unbridge(&mut head);
        assert_eq!(
            (head.authority(), head.says_host()),
            (Some(&b"voting:80"[..]), false)
        );

        let mut head = Head::new();
        head.set_version(Version::Http10);
        bridge(&mut head).unwrap();
        assert!(!head.says_host());
        head.set_authority(b"10.0.0.1:80").unwrap();
        unbridge(&mut head);
        assert_eq!(head.authority(), None);
    }

    #[test]
    fn the_bridge_restores_version_and_form() {
        for version in [Version::Http10, Version::Http11] {
            for form in [TargetForm::Origin, TargetForm::Absolute] {
                let mut head = Head::new();
                head.set_version(version);
                head.set_target_form(form);
                bridge(&mut head).unwrap();
                head.set_version(Version::Http2);
                head.set_target_form(TargetForm::Origin);
                let absolute_form = form == TargetForm::Absolute;
                assert_eq!(
                    unbridge(&mut head),
                    Some(OrigProto {
                        version,
                        absolute_form
                    })
                );
                assert_eq!(
                    (head.version(), head.target_form(), head.len()),
                    (version, form, 0)
                );
            }
        }
        assert_eq!(unbridge(&mut Head::new()), None);
    }
}
