//! Rewrites of a request's URL, and what becomes of a path in a rewrite or redirect.

use tulle_api::http_route as api;

use crate::invalid::Invalid;

/// Changes the request's URL before it goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// The authority; an endpoint's own override comes after it and wins.
    pub host: Option<Box<str>>,
    /// What becomes of the path; the query stays.
    pub path: Option<PathChange>,
}

/// What becomes of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathChange {
    /// This instead of all of it.
    Full(Box<str>),
    /// This instead of the prefix that matched.
    Prefix(Box<str>),
}

impl Rewrite {
    pub(super) fn compile(message: &api::UrlRewrite) -> Result<Self, Invalid> {
        let rewrite = Self {
            host: host("host", &message.host)?,
            path: PathChange::compile(message.path.as_ref())?,
        };
        if rewrite.host.is_none() && rewrite.path.is_none() {
            return Err(Invalid::new("", "has neither a host nor a path"));
        }
        Ok(rewrite)
    }
}

impl PathChange {
    pub(super) fn compile(message: Option<&api::PathModifier>) -> Result<Option<Self>, Invalid> {
        use api::path_modifier::Replace;
        match message.map(|path| path.replace.as_ref()) {
            None => Ok(None),
            Some(None) => Err(Invalid::missing("path.replace")),
            Some(Some(Replace::Full(path))) => Ok(Some(Self::Full(absolute("path.full", path)?))),
            // Nothing instead of the prefix: it is taken away.
            Some(Some(Replace::Prefix(path))) if path.is_empty() => {
                Ok(Some(Self::Prefix("".into())))
            }
            Some(Some(Replace::Prefix(path))) => {
                Ok(Some(Self::Prefix(absolute("path.prefix", path)?)))
            }
        }
    }

    /// Appends the new path and the query of the old one to `out`.
    ///
    /// `path` comes with its query; `prefix` is how many bytes of it a prefix match has matched, slashes at its end not
    /// counted. Returns how many bytes that prefix has now, so that another change may follow; `None`, and `out` as it
    /// was, when a prefix is to be replaced and none has matched.
    pub fn apply(&self, path: &[u8], prefix: Option<usize>, out: &mut Vec<u8>) -> Option<usize> {
        let end = path.iter().position(|byte| *byte == b'?');
        let (path, query) = path.split_at_checked(end.unwrap_or(path.len()))?;
        let start = out.len();
        let replaced = match self {
            Self::Full(full) => {
                out.extend_from_slice(full.as_bytes());
                full.len()
            }
            Self::Prefix(replacement) => {
                let rest = path.get(prefix?..)?;
                let replacement = replacement.trim_end_matches('/');
                out.extend_from_slice(replacement.as_bytes());
                if !rest.is_empty() && !rest.starts_with(b"/") {
                    out.push(b'/');
                }
                out.extend_from_slice(rest);
                if out.len() == start {
                    out.push(b'/');
                }
                replacement.len()
            }
        };
        out.extend_from_slice(query);
        Some(replaced)
    }
}

fn absolute(field: &str, path: &str) -> Result<Box<str>, Invalid> {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'#' && byte != b'?';
    if path.starts_with('/') && path.bytes().all(plain) {
        Ok(path.into())
    } else {
        let why = format!("{path:?} is not an absolute path without a query");
        Err(Invalid::new(field, why))
    }
}

/// A host with or without a port; empty is none.
pub(super) fn host(field: &str, text: &str) -> Result<Option<Box<str>>, Invalid> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte);
    if !text.bytes().all(plain) {
        return Err(Invalid::new(field, format!("{text:?} is not a host")));
    }
    Ok((!text.is_empty()).then(|| text.into()))
}
