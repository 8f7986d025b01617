//! What a rule does to a request or response beside choosing a backend. Filters apply in the order in which they stand.

use std::sync::Arc;

use tulle_api::grpc_route;
use tulle_api::http_route as api;
use tulle_api::http_types;

use super::matcher::{Matcher, PathMatcher, is_token};
use crate::invalid::{Invalid, port};
use crate::reason::Reason;

/// One filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Changes the request's header.
    RequestHeaders(Arc<HeaderModifier>),
    /// Changes the response's header.
    ResponseHeaders(Arc<HeaderModifier>),
    /// Answers with a redirect.
    Redirect(Arc<Redirect>),
    /// Answers with an error.
    Failure(Arc<Failure>),
}

/// A header field: its name in lower case and its value.
pub type Field = (Box<str>, Box<[u8]>);

/// Adds, then sets, then removes. Names are in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderModifier {
    /// Fields that are put beside those of the same name.
    pub add: Vec<Field>,
    /// Fields that take the place of those of the same name.
    pub set: Vec<Field>,
    /// Names of fields that go.
    pub remove: Vec<Box<str>>,
}

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

/// What becomes of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathChange {
    /// This instead of all of it.
    Full(Box<str>),
    /// This instead of the prefix that matched.
    Prefix(Box<str>),
}

/// An answer that fails a share of the requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The HTTP status, for HTTP routes.
    pub http_status: Option<u16>,
    /// The gRPC status, for gRPC routes.
    pub grpc_status: Option<u8>,
    /// Told to the client.
    pub message: Box<str>,
    /// The share of requests.
    pub ratio: Ratio,
    /// What the answer says of itself.
    pub reason: Reason,
}

/// A share of all requests, `numerator/denominator`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ratio {
    numerator: u32,
    denominator: u32,
}

impl Ratio {
    /// Every request.
    pub const ALL: Self = Self {
        numerator: 1,
        denominator: 1,
    };

    fn compile(message: Option<&api::Ratio>) -> Result<Self, Invalid> {
        match message {
            None => Ok(Self::ALL),
            Some(api::Ratio { denominator: 0, .. }) => {
                Err(Invalid::new("ratio.denominator", "is 0"))
            }
            Some(api::Ratio {
                numerator,
                denominator,
            }) if numerator > denominator => Err(Invalid::new(
                "ratio",
                format!("{numerator}/{denominator} is more than 1"),
            )),
            Some(api::Ratio {
                numerator,
                denominator,
            }) => Ok(Self {
                numerator: *numerator,
                denominator: *denominator,
            }),
        }
    }

    /// Whether a request that drew this number belongs to the share.
    #[must_use]
    pub fn includes(self, random: u64) -> bool {
        crate::random_below(random, u64::from(self.denominator)) < u64::from(self.numerator)
    }
}

impl Filter {
    pub(crate) fn request_headers(message: &api::RequestHeaderModifier) -> Result<Self, Invalid> {
        HeaderModifier::compile(message.add.as_ref(), message.set.as_ref(), &message.remove)
            .map(|modifier| Self::RequestHeaders(Arc::new(modifier)))
            .map_err(|error| error.under("request_header_modifier"))
    }

    pub(crate) fn response_headers(message: &api::ResponseHeaderModifier) -> Result<Self, Invalid> {
        HeaderModifier::compile(message.add.as_ref(), message.set.as_ref(), &message.remove)
            .map(|modifier| Self::ResponseHeaders(Arc::new(modifier)))
            .map_err(|error| error.under("response_header_modifier"))
    }

    pub(crate) fn redirect(message: &api::RequestRedirect) -> Result<Self, Invalid> {
        Redirect::compile(message)
            .map(|redirect| Self::Redirect(Arc::new(redirect)))
            .map_err(|error| error.under("redirect"))
    }

    pub(crate) fn http_failure(message: &api::HttpFailureInjector) -> Result<Self, Invalid> {
        let compile = || {
            let status = http_status("status", message.status)?;
            Ok(Failure {
                http_status: Some(status),
                grpc_status: None,
                message: message.message.as_str().into(),
                ratio: Ratio::compile(message.ratio.as_ref())?,
                reason: Reason::FailureInjected,
            })
        };
        compile()
            .map(|failure| Self::Failure(Arc::new(failure)))
            .map_err(|error: Invalid| error.under("failure_injector"))
    }

    pub(crate) fn grpc_failure(message: &grpc_route::GrpcFailureInjector) -> Result<Self, Invalid> {
        let compile = || {
            let code = u8::try_from(message.code)
                .ok()
                .filter(|code| (1..=16).contains(code));
            let Some(code) = code else {
                return Err(Invalid::new(
                    "code",
                    format!("is {}, not a gRPC error", message.code),
                ));
            };
            Ok(Failure {
                http_status: None,
                grpc_status: Some(code),
                message: message.message.as_str().into(),
                ratio: Ratio::compile(message.ratio.as_ref())?,
                reason: Reason::FailureInjected,
            })
        };
        compile()
            .map(|failure| Self::Failure(Arc::new(failure)))
            .map_err(|error| error.under("failure_injector"))
    }

    /// Fails everything, for a reason of the proxy's own.
    pub(crate) fn fail(reason: Reason, message: &str) -> Self {
        Self::Failure(Arc::new(Failure {
            http_status: Some(reason.http_status()),
            grpc_status: Some(reason.grpc_status()),
            message: message.into(),
            ratio: Ratio::ALL,
            reason,
        }))
    }
}

impl HeaderModifier {
    fn compile(
        add: Option<&http_types::Headers>,
        set: Option<&http_types::Headers>,
        remove: &[String],
    ) -> Result<Self, Invalid> {
        Ok(Self {
            add: fields("add", add)?,
            set: fields("set", set)?,
            remove: remove
                .iter()
                .enumerate()
                .map(|(index, name)| field_name(&format!("remove[{index}]"), name))
                .collect::<Result<_, _>>()?,
        })
    }
}

fn fields(which: &str, message: Option<&http_types::Headers>) -> Result<Vec<Field>, Invalid> {
    let mut fields = Vec::new();
    for (index, header) in message
        .iter()
        .flat_map(|headers| &headers.headers)
        .enumerate()
    {
        let field = format!("{which}.headers[{index}]");
        let name = field_name(&format!("{field}.name"), &header.name)?;
        let value = &header.value;
        let padded = value.first().is_some_and(u8::is_ascii_whitespace)
            || value.last().is_some_and(u8::is_ascii_whitespace);
        if padded
            || value
                .iter()
                .any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f)
        {
            return Err(Invalid::new(
                format!("{field}.value"),
                "is not a header value",
            ));
        }
        fields.push((name, value.as_slice().into()));
    }
    Ok(fields)
}

/// Fields that frame the message or belong to one connection are the codecs' own: a route that changed them could
/// make two parsers disagree about where a message ends.
const FRAMING: [&str; 8] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

fn field_name(field: &str, name: &str) -> Result<Box<str>, Invalid> {
    if !is_token(name) {
        return Err(Invalid::new(field, format!("{name:?} is not a header")));
    }
    let name = name.to_ascii_lowercase();
    if FRAMING.contains(&name.as_str()) {
        return Err(Invalid::new(
            field,
            format!("{name:?} frames the message and may not be changed"),
        ));
    }
    Ok(name.into())
}

fn http_status(field: &str, status: u32) -> Result<u16, Invalid> {
    u16::try_from(status)
        .ok()
        .filter(|status| (200..=599).contains(status))
        .ok_or_else(|| Invalid::new(field, format!("is {status}, not the status of an answer")))
}

impl Redirect {
    fn compile(message: &api::RequestRedirect) -> Result<Self, Invalid> {
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
        let path = match message.path.as_ref().map(|path| path.replace.as_ref()) {
            None => None,
            Some(None) => return Err(Invalid::missing("path.replace")),
            Some(Some(api::path_modifier::Replace::Full(path))) => {
                Some(PathChange::Full(location_path("path.full", path)?))
            }
            Some(Some(api::path_modifier::Replace::Prefix(path))) => {
                Some(PathChange::Prefix(location_path("path.prefix", path)?))
            }
        };
        let host = message.host.as_str();
        if !host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte))
        {
            return Err(Invalid::new("host", format!("{host:?} is not a host")));
        }
        let host = Some(host).filter(|host| !host.is_empty());
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
            host: host.map(Into::into),
            path,
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
        let (path, query) = match path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path, None),
        };
        let mut location = format!("{scheme}://{host}");
        // A new scheme without a port means that scheme's own port (Gateway API, HTTPRequestRedirectFilter).
        let port = match self.port {
            Some(port) => Some(port),
            None if self.scheme.is_some() || self.host.is_some() => None,
            None => own_port,
        };
        let usual = if scheme == "https" { 443 } else { 80 };
        if let Some(port) = port.filter(|port| *port != usual) {
            location.push_str(&format!(":{port}"));
        }
        match &self.path {
            None => location.push_str(path),
            Some(PathChange::Full(full)) => location.push_str(full),
            Some(PathChange::Prefix(replacement)) => {
                let PathMatcher::Prefix(prefix) = &matched.path else {
                    return None;
                };
                let rest = path.strip_prefix(&**prefix)?;
                location.push_str(replacement.trim_end_matches('/'));
                if !rest.is_empty() && !rest.starts_with('/') {
                    location.push('/');
                }
                location.push_str(rest);
                if location.ends_with(host) {
                    location.push('/');
                }
            }
        }
        if let Some(query) = query {
            location.push('?');
            location.push_str(query);
        }
        Some(location)
    }
}

fn location_path(field: &str, path: &str) -> Result<Box<str>, Invalid> {
    if path.starts_with('/')
        && path
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#')
    {
        Ok(path.into())
    } else {
        Err(Invalid::new(
            field,
            format!("{path:?} is not an absolute path"),
        ))
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

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
