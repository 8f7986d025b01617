//! One match of a rule: what it asks of a request, and how specific it is.
//!
//! A mismatch names the part that failed, by reference: the live path throws it away, `tulle explain` prints it.

use std::cmp::{Ordering, Reverse};
use std::fmt;

use tulle_api::grpc_route as grpc;
use tulle_api::http_route as http;
use tulle_api::http_types;

use super::pattern::Pattern;
use super::query;
use super::seen::{HIDDEN, is_secret};
use crate::invalid::Invalid;
use crate::request::{Headers, RequestView};

/// All parts that are given must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matcher {
    /// What the path must be.
    pub path: PathMatcher,
    /// The method, when only one is meant.
    pub method: Option<Method>,
    /// Names in lower case, with what a value must be.
    pub headers: Vec<(Box<str>, ValueMatcher)>,
    /// Names of parameters, with what a value must be.
    pub query: Vec<(Box<str>, ValueMatcher)>,
}

/// A method token, such as `GET`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Method(Box<str>);

/// What a path, without its query, must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatcher {
    /// This path.
    Exact(Box<str>),
    /// A path that the expression matches as a whole.
    Regex(Pattern),
    /// This path or one below it; kept without a slash at the end, so `/` is empty.
    Prefix(Box<str>),
    /// A call of any method of this gRPC service.
    RpcService(Box<str>),
    /// A call of this method of any gRPC service.
    RpcMethod(Box<str>),
}

/// What a value must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueMatcher {
    /// These bytes.
    Exact(Box<[u8]>),
    /// Bytes that the expression matches as a whole.
    Regex(Pattern),
}

/// The part of a match that a request does not fulfil.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch<'a> {
    /// The path is another.
    Path(&'a PathMatcher),
    /// The method is another.
    Method(&'a Method),
    /// No value of the header fits.
    Header(&'a str, &'a ValueMatcher),
    /// No value of the parameter fits.
    Query(&'a str, &'a ValueMatcher),
}

impl Matcher {
    /// What a rule without matches asks: nothing. Ranks as the prefix `/`, as the Gateway API says.
    pub(crate) fn everything() -> Self {
        Self {
            path: PathMatcher::Prefix("".into()),
            method: None,
            headers: Vec::new(),
            query: Vec::new(),
        }
    }

    pub(crate) fn http(message: &http::HttpRouteMatch) -> Result<Self, Invalid> {
        let path = match &message.path {
            None => PathMatcher::Prefix("".into()),
            Some(path) => PathMatcher::http(path).map_err(|error| error.under("path"))?,
        };
        let method = match &message.method {
            None => None,
            Some(method) => Some(Method::compile(method)?),
        };
        let mut query = Vec::with_capacity(message.query_params.len());
        for (index, param) in message.query_params.iter().enumerate() {
            let field = format!("query_params[{index}]");
            let value = match &param.value {
                None => return Err(Invalid::missing(format!("{field}.value"))),
                Some(http::query_param_match::Value::Exact(value)) => {
                    ValueMatcher::exact(value.as_bytes())
                }
                Some(http::query_param_match::Value::Regex(text)) => {
                    ValueMatcher::Regex(Pattern::compile(&format!("{field}.regex"), text)?)
                }
            };
            query.push((param.name.as_str().into(), value));
        }
        Ok(Self {
            path,
            method,
            headers: headers(&message.headers)?,
            query,
        })
    }

    pub(crate) fn grpc(message: &grpc::GrpcRouteMatch) -> Result<Self, Invalid> {
        let (service, method) = message
            .rpc
            .as_ref()
            .map_or(("", ""), |rpc| (rpc.service.as_str(), rpc.method.as_str()));
        if service.contains('/') || method.contains('/') {
            return Err(Invalid::new("rpc", "has a slash in its service or method"));
        }
        let path = match (service, method) {
            ("", "") => PathMatcher::Prefix("".into()),
            (service, "") => PathMatcher::RpcService(service.into()),
            ("", method) => PathMatcher::RpcMethod(method.into()),
            (service, method) => PathMatcher::Exact(format!("/{service}/{method}").into()),
        };
        // Every gRPC call is a POST.
        let method = Some(Method("POST".into()));
        Ok(Self {
            path,
            method,
            headers: headers(&message.headers)?,
            query: Vec::new(),
        })
    }

    /// How many bytes of a path that it matches are its prefix; `None` when it does not match by prefix.
    #[must_use]
    pub fn prefix(&self) -> Option<usize> {
        match &self.path {
            PathMatcher::Prefix(prefix) => Some(prefix.len()),
            _ => None,
        }
    }

    /// Says which part does not hold, if one does not.
    pub fn check<H: Headers + ?Sized>(
        &self,
        request: &RequestView<'_, H>,
    ) -> Result<(), Mismatch<'_>> {
        if !self.path.matches(request.path_only()) {
            return Err(Mismatch::Path(&self.path));
        }
        match &self.method {
            Some(method) if method.0.as_bytes() != request.method => {
                return Err(Mismatch::Method(method));
            }
            _ => {}
        }
        for (name, value) in &self.headers {
            if !request.headers.any(name, &mut |found| value.matches(found)) {
                return Err(Mismatch::Header(name, value));
            }
        }
        for (name, value) in &self.query {
            if !query::any(request.query(), name.as_bytes(), &mut |found| {
                value.matches(found)
            }) {
                return Err(Mismatch::Query(name, value));
            }
        }
        Ok(())
    }

    /// The more specific match is the lesser.
    ///
    /// The Gateway API leaves regular expressions to the implementation. One that matches has matched the whole path,
    /// which is more than a prefix has: so it stands before prefixes, as with Linkerd. Below them, a rule for `/` would
    /// make every expression dead.
    pub(crate) fn precedence(&self, other: &Self) -> Ordering {
        let key = |matcher: &Self| {
            (
                matcher.path.rank(),
                Reverse(matcher.method.is_some()),
                Reverse(matcher.headers.len()),
                Reverse(matcher.query.len()),
            )
        };
        key(self).cmp(&key(other))
    }
}

pub(super) fn headers(
    messages: &[http::HeaderMatch],
) -> Result<Vec<(Box<str>, ValueMatcher)>, Invalid> {
    let mut compiled = Vec::with_capacity(messages.len());
    for (index, header) in messages.iter().enumerate() {
        let field = format!("headers[{index}]");
        if !is_token(&header.name) {
            return Err(Invalid::new(
                format!("{field}.name"),
                format!("{:?} is not a header", header.name),
            ));
        }
        let value = match &header.value {
            None => return Err(Invalid::missing(format!("{field}.value"))),
            Some(http::header_match::Value::Exact(value)) => ValueMatcher::exact(value),
            Some(http::header_match::Value::Regex(text)) => {
                ValueMatcher::Regex(Pattern::compile(&format!("{field}.regex"), text)?)
            }
        };
        compiled.push((header.name.to_ascii_lowercase().into(), value));
    }
    Ok(compiled)
}

/// RFC 9110 §5.6.2.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

impl Method {
    pub(crate) fn compile(message: &http_types::HttpMethod) -> Result<Self, Invalid> {
        use http_types::http_method::{Registered, Type};
        match &message.r#type {
            None => Err(Invalid::missing("method.type")),
            Some(Type::Registered(number)) => match Registered::try_from(*number) {
                Ok(method) => Ok(Self(method.as_str_name().into())),
                Err(_) => Err(Invalid::new(
                    "method.registered",
                    format!("{number} is not a method"),
                )),
            },
            Some(Type::Unregistered(name)) if is_token(name) => Ok(Self(name.as_str().into())),
            Some(Type::Unregistered(name)) => Err(Invalid::new(
                "method.unregistered",
                format!("{name:?} is not a method"),
            )),
        }
    }

    /// The token.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PathMatcher {
    fn http(message: &http::PathMatch) -> Result<Self, Invalid> {
        match &message.kind {
            None => Err(Invalid::missing("kind")),
            Some(http::path_match::Kind::Regex(text)) => {
                Ok(Self::Regex(Pattern::compile("regex", text)?))
            }
            Some(http::path_match::Kind::Exact(path)) => {
                absolute("exact", path)?;
                Ok(Self::Exact(path.as_str().into()))
            }
            Some(http::path_match::Kind::Prefix(path)) => {
                absolute("prefix", path)?;
                Ok(Self::Prefix(path.trim_end_matches('/').into()))
            }
        }
    }

    /// Whether the path, without its query, is meant.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => exact.as_bytes() == path,
            Self::Regex(pattern) => pattern.matches(path),
            Self::Prefix(prefix) if prefix.is_empty() => true,
            Self::Prefix(prefix) => path
                .strip_prefix(prefix.as_bytes())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/")),
            Self::RpcService(service) => {
                rpc(path).is_some_and(|(found, _)| found == service.as_bytes())
            }
            Self::RpcMethod(method) => {
                rpc(path).is_some_and(|(_, found)| found == method.as_bytes())
            }
        }
    }

    /// Whether several paths can match, and how closely they do; the closest is the least.
    fn rank(&self) -> (u8, Reverse<usize>) {
        match self {
            // Two exact paths never match the same request, so they need no order.
            Self::Exact(_) => (0, Reverse(0)),
            Self::Regex(_) => (1, Reverse(0)),
            Self::RpcService(_) => (2, Reverse(0)),
            Self::RpcMethod(_) => (3, Reverse(0)),
            Self::Prefix(prefix) => (4, Reverse(prefix.len())),
        }
    }
}

fn absolute(field: &str, path: &str) -> Result<(), Invalid> {
    if path.starts_with('/') {
        Ok(())
    } else {
        Err(Invalid::new(
            field,
            format!("{path:?} does not begin with a slash"),
        ))
    }
}

/// `/package.Service/Method`.
fn rpc(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = path.strip_prefix(b"/")?;
    let slash = rest.iter().position(|byte| *byte == b'/')?;
    let (service, method) = rest.split_at_checked(slash)?;
    let method = method.strip_prefix(b"/")?;
    (!service.is_empty() && !method.is_empty()).then_some((service, method))
}

impl ValueMatcher {
    fn exact(value: &[u8]) -> Self {
        Self::Exact(value.into())
    }

    /// Whether this value is meant.
    #[must_use]
    pub fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => &**exact == value,
            Self::Regex(pattern) => pattern.matches(value),
        }
    }
}

impl fmt::Display for PathMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => write!(f, "path is {path}"),
            Self::Regex(pattern) => write!(f, "path matches {}", pattern.as_str()),
            Self::Prefix(prefix) if prefix.is_empty() => f.write_str("any path"),
            Self::Prefix(prefix) => write!(f, "path is at or below {prefix}"),
            Self::RpcService(service) => write!(f, "gRPC service is {service}"),
            Self::RpcMethod(method) => write!(f, "gRPC method is {method}"),
        }
    }
}

impl fmt::Display for ValueMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(value) => write!(f, "is {}", value.escape_ascii()),
            Self::Regex(pattern) => write!(f, "matches {}", pattern.as_str()),
        }
    }
}

/// All that is asked: `path is /a, method is GET, header x is 1`.
impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)?;
        if let Some(method) = &self.method {
            write!(f, ", method is {}", method.as_str())?;
        }
        for (name, value) in &self.headers {
            write!(f, ", {}", Mismatch::Header(name, value))?;
        }
        for (name, value) in &self.query {
            write!(f, ", {}", Mismatch::Query(name, value))?;
        }
        Ok(())
    }
}

/// What is not so: `header x is 1`.
impl fmt::Display for Mismatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.fmt(f),
            Self::Method(method) => write!(f, "method is {}", method.as_str()),
            Self::Header(name, _) if is_secret(name) => write!(f, "header {name} is {HIDDEN}"),
            Self::Query(name, _) if is_secret(name) => {
                write!(f, "query parameter {name} is {HIDDEN}")
            }
            Self::Header(name, value) => write!(f, "header {name} {value}"),
            Self::Query(name, value) => write!(f, "query parameter {name} {value}"),
        }
    }
}

#[cfg(test)]
#[path = "matcher_tests.rs"]
mod tests;
