//! Redirects, with the port rules of the Gateway API.

use tulle_api::http_route as api;
use tulle_api::http_types;

use super::rewrite::{PathChange, host};
use crate::invalid::{Invalid, port};
use crate::route::matcher::Matcher;

/// Parts of the request's URL that the `location` has instead; `None` keeps the request's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<Box<str>>,
    /// A host without a port.
    pub host: Option<Box<str>>,
    /// What becomes of the path; the query stays.
    pub path: Option<PathChange>,
    /// A port.
    pub port: Option<u16>,
    /// 301 when the route says nothing.
    pub status: u16,
}

impl Redirect {
    pub(super) fn compile(message: &api::RequestRedirect) -> Result<Self, Invalid> {
        use http_types::scheme::{Registered, Type};
        let scheme = match message.scheme.as_ref().map(|scheme| scheme.r#type.as_ref()) {
            None => None,
            Some(Some(Type::Registered(number))) if *number == Registered::Http as i32 => {
                Some("http".into())
            }
            Some(Some(Type::Registered(number))) if *number == Registered::Https as i32 => {
                Some("https".into())
            }
            Some(Some(Type::Unregistered(name))) if matches!(name.as_str(), "http" | "https") => {
                Some(name.as_str().into())
            }
            Some(_) => return Err(Invalid::new("scheme", "is neither http nor https")),
        };
        let status = match message.status {
            0 => 301,
            301 | 302 | 303 | 307 | 308 => message.status as u16,
            other => {
                return Err(Invalid::new(
                    "status",
                    format!("is {other}, not a redirect"),
                ));
            }
        };
        let port = match message.port {
            0 => None,
            number => Some(port("port", number)?),
        };
        Ok(Self {
            scheme,
            host: host("host", &message.host)?,
            path: PathChange::compile(message.path.as_ref())?,
            port,
            status,
        })
    }

    /// The value of `location`, or `None` when the redirect replaces a prefix and the rule matched otherwise.
    ///
    /// `scheme` is that of the request, `authority` what the client sent, `path` with its query.
    #[must_use]
    pub fn location(
        &self,
        scheme: &str,
        authority: &str,
        path: &str,
        matched: &Matcher,
    ) -> Option<String> {
        let scheme = self.scheme.as_deref().unwrap_or(scheme);
        let (own_host, own_port) = split_authority(authority);
        let host = self.host.as_deref().unwrap_or(own_host);
        let mut location = format!("{scheme}://{host}");
        // Gateway API, HTTPRequestRedirectFilter: the given port; else a new scheme's well-known one; else the port that
        // the request came to. The well-known port of the scheme is not written.
        let port = match self.port {
            Some(port) => Some(port),
            None if self.scheme.is_some() => None,
            None => own_port,
        };
        let usual = if scheme == "https" { 443 } else { 80 };
        if let Some(port) = port.filter(|port| *port != usual) {
            location.push_str(&format!(":{port}"));
        }
        match &self.path {
            None => location.push_str(path),
            Some(change) => {
                let mut changed = Vec::new();
                change.apply(path.as_bytes(), matched.prefix(), &mut changed)?;
                location.push_str(&String::from_utf8_lossy(&changed));
            }
        }
        Some(location)
    }
}

fn split_authority(authority: &str) -> (&str, Option<u16>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && (!host.contains(':') || host.ends_with(']')) => {
            (host, port.parse().ok())
        }
        _ => (authority, None),
    }
}
