//! What keeps requests together, where a policy hashes: the key of a request, and the cookie of an answer.

use std::net::IpAddr;
use std::num::NonZeroU64;

use tulle_engine::balance::{self, Cookie, HashKey, hash_key};
use tulle_http::Head;

use super::{Backend, InUse};

/// What the choice of an endpoint looks at beside load. The tries of one request share it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice {
    pub(super) balance: balance::Choice,
    /// The request came without the cookie that it is kept by: the answer sets it to this.
    pub(super) cookie: Option<NonZeroU64>,
    /// What asks, for the metrics.
    pub(super) traffic: Traffic,
}

/// What is balanced: each has its own families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Traffic {
    /// Requests.
    #[default]
    Http,
    /// Connections that are not looked into.
    Tcp,
    /// Connections of the application's own TLS.
    Tls,
}

impl Choice {
    /// The next try goes elsewhere if it can.
    pub fn exclude(&mut self, tried: &InUse) {
        self.balance.not = Some(tried.member.id);
    }

    fn by(key: Option<NonZeroU64>) -> Self {
        Choice {
            balance: balance::Choice { key, not: None },
            ..Choice::default()
        }
    }
}

impl Backend {
    /// Which endpoint a request belongs to. `client`: where it came from.
    pub fn choice(&self, head: &Head, client: Option<IpAddr>) -> Choice {
        let hash = self.balance().and_then(|balance| balance.hash.as_ref());
        match hash.map(|hash| &hash.key) {
            None => Choice::default(),
            Some(HashKey::Header(name)) => Choice::by(head.get(&**name).map(hash_key)),
            Some(HashKey::SourceAddress) => by_address(client),
            Some(HashKey::Cookie(cookie)) => match value(head, &cookie.name) {
                Some(value) => Choice::by(Some(hash_key(value))),
                None => {
                    let value = NonZeroU64::MIN | fastrand::u64(..);
                    Choice {
                        cookie: Some(value),
                        ..Choice::by(Some(hash_key(&digits(value.get()))))
                    }
                }
            },
        }
    }

    /// The same for a connection that is not looked into. `tls`: only into its TLS hello.
    pub fn choice_of_connection(&self, client: Option<IpAddr>, tls: bool) -> Choice {
        let traffic = if tls { Traffic::Tls } else { Traffic::Tcp };
        let hash = self.balance().and_then(|balance| balance.hash.as_ref());
        match hash.map(|hash| &hash.key) {
            Some(HashKey::SourceAddress) => Choice {
                traffic,
                ..by_address(client)
            },
            _ => Choice {
                traffic,
                ..Choice::default()
            },
        }
    }
}

impl InUse {
    /// Sets the cookie by which the client's next requests come to the same endpoint, if it has none.
    ///
    /// # Errors
    /// When the head has no room for it.
    pub fn stick(&self, answer: &mut Head) -> Result<(), tulle_http::Error> {
        let (Some(value), Some(balance)) = (self.cookie, self.backend.balance()) else {
            return Ok(());
        };
        match balance.hash.as_ref().map(|hash| &hash.key) {
            Some(HashKey::Cookie(cookie)) => {
                answer.push("set-cookie", set_cookie(cookie, value.get()))
            }
            _ => Ok(()),
        }
    }
}

fn by_address(client: Option<IpAddr>) -> Choice {
    // An IPv4 client is the same client on a socket of both families.
    Choice::by(client.map(|ip| match ip.to_canonical() {
        IpAddr::V4(ip) => hash_key(&ip.octets()),
        IpAddr::V6(ip) => hash_key(&ip.octets()),
    }))
}

/// The value of a cookie (RFC 6265 §4.2); an empty one is none.
fn value<'h>(head: &'h Head, name: &str) -> Option<&'h [u8]> {
    head.get_all(b"cookie")
        .flat_map(|field| field.split(|byte| *byte == b';'))
        .find_map(|pair| {
            let rest = pair.trim_ascii().strip_prefix(name.as_bytes())?;
            rest.trim_ascii_start().strip_prefix(b"=")
        })
        .map(<[u8]>::trim_ascii)
        .filter(|value| !value.is_empty())
}

/// The value that the client will send back.
fn digits(value: u64) -> [u8; 16] {
    let mut digits = [0; 16];
    for (place, digit) in digits.iter_mut().enumerate() {
        let nibble = (value >> (60 - 4 * place)) & 0xf;
        *digit = b"0123456789abcdef"[nibble as usize];
    }
    digits
}

fn set_cookie(cookie: &Cookie, value: u64) -> String {
    let Cookie { name, path, ttl } = cookie;
    let age = ttl.map_or_else(String::new, |ttl| format!("; Max-Age={}", ttl.as_secs()));
    format!("{name}={value:016x}; Path={path}{age}; HttpOnly")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(cookies: &[&str]) -> Head {
        let mut head = Head::new();
        for cookie in cookies {
            head.push("cookie", cookie).unwrap();
        }
        head
    }

    #[test]
    fn a_cookie_is_found_among_others_and_never_as_a_part_of_a_name() {
        for (cookies, found) in [
            (&["tulle=abc"][..], Some("abc")),
            (&["a=b; tulle=abc"], Some("abc")),
            (&["a=b;tulle=abc;c=d"], Some("abc")),
            (&["a=b", "tulle = abc"], Some("abc")),
            (&["xtulle=abc; tullex=abc"], None),
            (&["tulle="], None),
            (&["tulle"], None),
            (&[], None),
        ] {
            let head = head(cookies);
            assert_eq!(
                value(&head, "tulle"),
                found.map(str::as_bytes),
                "{cookies:?}"
            );
        }
    }

    #[test]
    fn the_cookie_that_is_set_has_the_key_of_the_request_that_sends_it_back() {
        let cookie = Cookie {
            name: "tulle".into(),
            path: "/shop".into(),
            ttl: Some(std::time::Duration::from_secs(60)),
        };
        let field = set_cookie(&cookie, 0xab);
        assert_eq!(
            field,
            "tulle=00000000000000ab; Path=/shop; Max-Age=60; HttpOnly"
        );
        let sent = field.split(';').next().unwrap().to_owned();
        assert_eq!(
            value(&head(&[&sent]), "tulle").map(hash_key),
            Some(hash_key(&digits(0xab)))
        );
    }
}
