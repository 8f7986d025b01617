//! Cross-origin requests, as the Fetch standard (§3.2) says: which origins a browser may give an answer to.
//!
//! The rule speaks for the application: what that says about origins itself is replaced. Lists are joined when the
//! message is compiled; a request costs the comparison with the origins.

use std::time::Duration;

use tulle_api::http_route as api;

use super::headers::is_value;
use crate::invalid::{Invalid, duration};
use crate::request::{Headers, RequestView};
use crate::route::matcher::is_token;

/// The most entries of each list of a CORS filter.
const MAX_LIST: usize = 256;

/// Who may read answers, and what their requests may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    /// `*`: every origin.
    any_origin: bool,
    origins: Vec<Origin>,
    methods: List,
    headers: List,
    expose: List,
    credentials: bool,
    max_age: Option<Box<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    Exact(Box<str>),
    /// What stands before and behind the labels: `https://`, `.example:8080`.
    Wildcard(Box<str>, Box<str>),
}

/// A list of names as a header value; `*` is all.
#[derive(Clone, Debug, PartialEq, Eq)]
struct List {
    any: bool,
    joined: Box<str>,
}

/// What is granted to the origin of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CorsGrant {
    /// To every origin: the answer is the same for all.
    Any,
    /// To this one, by its name.
    Origin,
    /// Nothing.
    None,
}

impl Cors {
    pub(super) fn compile(message: &api::Cors) -> Result<Self, Invalid> {
        let mut origins = Vec::new();
        let mut any_origin = false;
        if message.allow_origins.is_empty() || message.allow_origins.len() > MAX_LIST {
            let why = format!("has none or more than {MAX_LIST}");
            return Err(Invalid::new("allow_origins", why));
        }
        for (index, origin) in message.allow_origins.iter().enumerate() {
            use api::cors::origin_match::Kind;
            let field = format!("allow_origins[{index}]");
            match &origin.kind {
                None => return Err(Invalid::missing(format!("{field}.kind"))),
                Some(Kind::Exact(exact)) if exact == "*" => any_origin = true,
                Some(Kind::Exact(exact)) => origins.push(Origin::exact(&field, exact)?),
                Some(Kind::Wildcard(text)) => origins.push(Origin::wildcard(&field, text)?),
            }
        }
        let methods = match message.allow_methods.as_slice() {
            [] => List {
                any: false,
                joined: "GET, HEAD, POST".into(),
            },
            methods => List::compile("allow_methods", methods)?,
        };
        let max_age = match &message.max_age {
            None => None,
            Some(length) => {
                let length: Duration = duration("max_age", length)?;
                Some(length.as_secs().to_string().into())
            }
        };
        Ok(Self {
            any_origin,
            origins,
            methods,
            headers: List::compile("allow_headers", &message.allow_headers)?,
            expose: List::compile("expose_headers", &message.expose_headers)?,
            credentials: message.allow_credentials,
            max_age,
        })
    }

    /// Whether a browser asks by this request if it may send another.
    #[must_use]
    pub fn is_preflight<H: Headers + ?Sized>(request: &RequestView<'_, H>) -> bool {
        let has = |name| request.headers.any(name, &mut |_| true);
        request.method == b"OPTIONS" && has("origin") && has("access-control-request-method")
    }

    /// What an origin is granted, by the value of the request's `origin`.
    #[must_use]
    pub fn grant(&self, origin: &[u8]) -> CorsGrant {
        let known = || self.origins.iter().any(|known| known.matches(origin));
        match (self.any_origin, self.credentials) {
            // With credentials a browser takes no `*` (Fetch §3.2.5).
            (true, false) => CorsGrant::Any,
            (true, true) if is_value(origin) && !origin.is_empty() => CorsGrant::Origin,
            _ if known() => CorsGrant::Origin,
            _ => CorsGrant::None,
        }
    }

    /// Whether answers differ by origin, so that a cache has to keep them apart.
    #[must_use]
    pub fn varies(&self) -> bool {
        !self.any_origin || self.credentials
    }

    /// Tells the fields of the answer to a preflight request. `method` and `headers` are what it asks for.
    pub fn preflight(
        &self,
        origin: &[u8],
        method: &[u8],
        headers: &[u8],
        field: &mut dyn FnMut(&'static str, &[u8]),
    ) {
        if !self.origin(origin, field) {
            return;
        }
        field("access-control-allow-methods", self.methods.told(method));
        let allowed = self.headers.told(headers);
        if !allowed.is_empty() {
            field("access-control-allow-headers", allowed);
        }
        if let Some(max_age) = &self.max_age {
            field("access-control-max-age", max_age.as_bytes());
        }
    }

    /// Tells the fields that are added to the answer of a request from this origin.
    pub fn decorate(&self, origin: &[u8], field: &mut dyn FnMut(&'static str, &[u8])) {
        if self.origin(origin, field) && !self.expose.joined.is_empty() {
            field(
                "access-control-expose-headers",
                self.expose.joined.as_bytes(),
            );
        }
    }

    fn origin(&self, origin: &[u8], field: &mut dyn FnMut(&'static str, &[u8])) -> bool {
        let allowed = match self.grant(origin) {
            CorsGrant::None => return false,
            CorsGrant::Any => b"*",
            CorsGrant::Origin => origin,
        };
        field("access-control-allow-origin", allowed);
        if self.credentials {
            field("access-control-allow-credentials", b"true");
        }
        true
    }
}

impl List {
    fn compile(field: &str, names: &[String]) -> Result<Self, Invalid> {
        if names.len() > MAX_LIST {
            let why = format!("has more than {MAX_LIST} entries");
            return Err(Invalid::new(field, why));
        }
        for (index, name) in names.iter().enumerate() {
            if !is_token(name) {
                let why = format!("{name:?} is not a name");
                return Err(Invalid::new(format!("{field}[{index}]"), why));
            }
        }
        Ok(Self {
            any: names.iter().any(|name| name == "*"),
            joined: names.join(", ").into(),
        })
    }

    /// The list; where all is allowed, what was asked for, since `*` means nothing beside credentials.
    fn told<'a>(&'a self, asked: &'a [u8]) -> &'a [u8] {
        if self.any {
            asked
        } else {
            self.joined.as_bytes()
        }
    }
}

impl Origin {
    fn exact(field: &str, text: &str) -> Result<Self, Invalid> {
        let name = text.split_once("://").map(|(_, rest)| rest);
        let sound = text == "null" || name.is_some_and(is_host);
        if !sound || text.contains('*') {
            let why = format!("{text:?} is not an origin such as https://shop.example");
            return Err(Invalid::new(format!("{field}.exact"), why));
        }
        Ok(Self::Exact(text.to_ascii_lowercase().into()))
    }

    fn wildcard(field: &str, text: &str) -> Result<Self, Invalid> {
        let sound = text.split_once('*').filter(|(before, behind)| {
            before.len() > "://".len()
                && before.ends_with("://")
                && behind.strip_prefix('.').is_some_and(is_host)
                && !behind.contains('*')
        });
        match sound {
            Some((before, behind)) => Ok(Self::Wildcard(
                before.to_ascii_lowercase().into(),
                behind.to_ascii_lowercase().into(),
            )),
            None => {
                let why = format!("{text:?} is not a wildcard such as https://*.example");
                Err(Invalid::new(format!("{field}.wildcard"), why))
            }
        }
    }

    fn matches(&self, origin: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => origin.eq_ignore_ascii_case(exact.as_bytes()),
            Self::Wildcard(before, behind) => {
                let Some(end) = origin.len().checked_sub(behind.len()) else {
                    return false;
                };
                let (Some(scheme), Some(labels), Some(rest)) = (
                    origin.get(..before.len()),
                    origin.get(before.len()..end),
                    origin.get(end..),
                ) else {
                    return false;
                };
                let label = |label: &[u8]| {
                    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
                    !label.is_empty() && label.iter().all(plain)
                };
                scheme.eq_ignore_ascii_case(before.as_bytes())
                    && rest.eq_ignore_ascii_case(behind.as_bytes())
                    && labels.split(|byte| *byte == b'.').all(label)
            }
        }
    }
}

/// A host with or without a port, and nothing behind it.
fn is_host(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte);
    !text.is_empty() && text.bytes().all(plain)
}
