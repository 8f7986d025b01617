//! Fields that concern one hop only (RFC 9110 §7.6.1): which of them a proxy takes away before it sends a head on.

use crate::grammar;
use crate::head::{Head, MethodKind};
use crate::known::{Known, KnownSet};

/// Whether the `Upgrade` of this message goes on to the next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpgradeField {
    /// The next hop is HTTP/1 and the upgrade is carried through: keep `upgrade`.
    Keep,
    /// Anything else: h2 has no Upgrade, and h2c is never passed on.
    Drop,
}

impl UpgradeField {
    /// `carried`: the message is part of an upgrade that the next hop is asked for, or has taken.
    #[inline]
    #[must_use]
    pub fn of(carried: bool) -> Self {
        if carried { Self::Keep } else { Self::Drop }
    }
}

const HOP: KnownSet = KnownSet::of(&[
    Known::Connection,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::Te,
    Known::TransferEncoding,
    Known::Upgrade,
    Known::Http2Settings,
]);

/// Removes the fields of this hop: those that `Connection` names, `connection` itself, `keep-alive`,
/// `proxy-connection`, `transfer-encoding`, `http2-settings`, `te` unless it says `trailers` (which it then says alone),
/// and `upgrade` unless kept. Framing and routing are not the peer's to name: `host` and `content-length` stay whatever
/// `Connection` lists. Call it before setting headers of our own, so that no peer can name those either.
///
/// A head without any such field costs one test.
pub fn strip(head: &mut Head, upgrade: UpgradeField) {
    if !head.has_any(HOP) {
        return;
    }
    let trailers = head.lists(Known::Te, b"trailers");
    strip_named(head);
    head.retain_known(|_, _, known| match known {
        Some(Known::Upgrade) => upgrade == UpgradeField::Keep,
        Some(
            Known::Connection
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::TransferEncoding
            | Known::Http2Settings
            | Known::Te,
        ) => false,
        _ => true,
    });
    if trailers {
        // Cannot fail: constant and valid; were the buffer full, the peer merely gets no trailers.
        let _ = head.push("te", "trailers");
    }
}

/// The protocol switch that a request asks for, if it is one that we carry.
/// True for HTTP/1.1 with `Connection: upgrade` and an `Upgrade` that does not offer `h2c` (smuggling, CVE-2022-41721).
#[must_use]
pub fn asks_upgrade(head: &Head) -> bool {
    head.has(Known::Upgrade)
        && head.version() == crate::Version::Http11
        && head.method_kind() != MethodKind::Connect
        && head.lists(Known::Connection, b"upgrade")
        && head
            .known_all(Known::Upgrade)
            .flat_map(grammar::list)
            .next()
            .is_some()
        && !head
            .known_all(Known::Upgrade)
            .flat_map(grammar::list)
            .any(|p| {
                let name = p.split(|&b| b == b'/').next().unwrap_or(p);
                name.eq_ignore_ascii_case(b"h2c")
                    || name.eq_ignore_ascii_case(b"h2")
                    || name.eq_ignore_ascii_case(b"http")
            })
}

/// Removes what may not stand in a trailer section (RFC 9110 §6.5.1): fields that would change framing, routing,
/// authentication or the meaning of the body already gone by, and everything of a proxy's own (`l5d-*`).
pub fn strip_trailers(trailers: &mut Head) {
    trailers.retain(|name, _| may_trail(name));
}

/// True for a lower-case name that may stand in a trailer section.
#[must_use]
pub fn may_trail(name: &[u8]) -> bool {
    const FORBIDDEN: [&str; 24] = [
        "age",
        "authorization",
        "cache-control",
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "cookie",
        "expect",
        "host",
        "keep-alive",
        "max-forwards",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "range",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "vary",
        "www-authenticate",
    ];
    !name.starts_with(b"l5d-")
        && !FORBIDDEN
            .iter()
            .any(|forbidden| forbidden.as_bytes() == name)
}

fn strip_named(head: &mut Head) {
    // The names point into the head that is being edited, so they are copied; only messages whose Connection says more
    // than close, keep-alive, upgrade or te come this far.
    let ordinary = |name: &[u8]| {
        [
            &b"close"[..],
            b"keep-alive",
            b"upgrade",
            b"te",
            b"host",
            b"content-length",
        ]
        .iter()
        .any(|o| name.eq_ignore_ascii_case(o))
    };
    let named: Vec<Vec<u8>> = head
        .known_all(Known::Connection)
        .flat_map(grammar::list)
        .filter(|name| !ordinary(name))
        .map(<[u8]>::to_ascii_lowercase)
        .collect();
    if !named.is_empty() {
        head.retain(|name, _| !named.iter().any(|n| n == name));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn head(fields: &[(&str, &str)]) -> Head {
        let mut head = Head::new();
        head.set_method(b"GET").unwrap();
        for (name, value) in fields {
            head.push(name, value).unwrap();
        }
        head
    }

    fn names(head: &Head) -> Vec<String> {
        head.iter()
            .map(|(name, _)| String::from_utf8_lossy(name).into_owned())
            .collect()
    }

    #[test]
    fn removes_what_connection_names_and_the_classics() {
        let mut h = head(&[
            ("host", "a"),
            ("x-one", "1"),
            ("connection", "X-One, close, Content-Length"),
            ("connection", "x-two,host"),
            ("x-two", "2"),
            ("content-length", "3"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("http2-settings", "AAMAAABk"),
            ("upgrade", "websocket"),
            ("x-three", "3"),
        ]);
        strip(&mut h, UpgradeField::Drop);
        assert_eq!(names(&h), ["content-length", "x-three"]);
        assert_eq!(h.authority(), Some(&b"a"[..]));
    }

    #[test]
    fn te_keeps_only_trailers() {
        let mut h = head(&[("te", "gzip;q=1, trailers"), ("connection", "te")]);
        strip(&mut h, UpgradeField::Drop);
        assert_eq!(h.get("te"), Some(&b"trailers"[..]));
        let mut h = head(&[("te", "gzip")]);
        strip(&mut h, UpgradeField::Drop);
        assert_eq!(h.get("te"), None);
    }

    #[test]
    fn upgrade_is_kept_on_demand_and_h2c_never_counts() {
        let mut h = head(&[("connection", "Upgrade"), ("upgrade", "websocket")]);
        assert!(asks_upgrade(&h));
        strip(&mut h, UpgradeField::Keep);
        assert_eq!(names(&h), ["upgrade"]);
        assert!(!asks_upgrade(&head(&[
            ("connection", "upgrade, http2-settings"),
            ("upgrade", "h2c")
        ])));
        assert!(!asks_upgrade(&head(&[
            ("connection", "upgrade"),
            ("upgrade", "websocket, h2c")
        ])));
        assert!(!asks_upgrade(&head(&[
            ("connection", "upgrade"),
            ("upgrade", "HTTP/2.0")
        ])));
        assert!(!asks_upgrade(&head(&[("upgrade", "websocket")])));
    }
}
