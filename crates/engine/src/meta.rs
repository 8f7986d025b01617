//! Where a piece of configuration comes from: the words of metric labels, logs and explanations.

use std::fmt;
use std::sync::Arc;

use tulle_api::meta as api;

/// The object behind a route, a backend, a server or an authorization.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Meta {
    /// A built-in default that no object stands behind, by its name.
    Default(Box<str>),
    /// An object of the cluster.
    Resource(Box<Resource>),
}

/// An object of the cluster, or a part of one.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource {
    /// Empty for the core group.
    pub group: Box<str>,
    /// As in the manifest, such as `HTTPRoute`.
    pub kind: Box<str>,
    /// The object's name.
    pub name: Box<str>,
    /// Empty when unknown or when the object has none.
    pub namespace: Box<str>,
    /// The part of the object that is meant; mostly empty.
    pub section: Box<str>,
    /// The port that is meant; 0 for none.
    pub port: u32,
    /// `file:line` of the manifest; empty when unknown.
    pub source: Box<str>,
}

impl Meta {
    /// A default with the given name.
    #[must_use]
    pub fn named(name: &str) -> Arc<Self> {
        Arc::new(Self::Default(name.into()))
    }

    /// Reads the message; an absent one is the default `unknown`.
    #[must_use]
    pub fn compile(message: Option<&api::Metadata>) -> Arc<Self> {
        let kind = message.and_then(|metadata| metadata.kind.as_ref());
        Arc::new(match kind {
            None => Self::Default("unknown".into()),
            Some(api::metadata::Kind::Default(name)) => Self::Default(name.as_str().into()),
            Some(api::metadata::Kind::Resource(resource)) => Self::Resource(Box::new(Resource {
                group: resource.group.as_str().into(),
                kind: resource.kind.as_str().into(),
                name: resource.name.as_str().into(),
                namespace: resource.namespace.as_str().into(),
                section: resource.section.as_str().into(),
                port: resource.port,
                source: resource.source.as_str().into(),
            })),
        })
    }

    /// The `*_group` label.
    #[must_use]
    pub fn group(&self) -> &str {
        match self {
            Self::Default(_) => "",
            Self::Resource(resource) => &resource.group,
        }
    }

    /// The `*_kind` label: `default` for a default.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Self::Default(_) => "default",
            Self::Resource(resource) => &resource.kind,
        }
    }

    /// The `*_name` label.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Default(name) => name,
            Self::Resource(resource) => &resource.name,
        }
    }

    /// The `*_namespace` label; empty for a default.
    #[must_use]
    pub fn namespace(&self) -> &str {
        match self {
            Self::Default(_) => "",
            Self::Resource(resource) => &resource.namespace,
        }
    }

    /// The `*_section_name` label; empty for a default.
    #[must_use]
    pub fn section(&self) -> &str {
        match self {
            Self::Default(_) => "",
            Self::Resource(resource) => &resource.section,
        }
    }

    /// The `*_port` label; 0 for none.
    #[must_use]
    pub fn port(&self) -> u32 {
        match self {
            Self::Default(_) => 0,
            Self::Resource(resource) => resource.port,
        }
    }

    /// `file:line` of the manifest; empty when unknown.
    #[must_use]
    pub fn source(&self) -> &str {
        match self {
            Self::Default(_) => "",
            Self::Resource(resource) => &resource.source,
        }
    }

    /// Whether this is the default `audit`: what it allows is to be logged.
    #[must_use]
    pub fn is_audit(&self) -> bool {
        matches!(self, Self::Default(name) if &**name == "audit")
    }
}

/// `HTTPRoute default/voting`, `default all-unauthenticated`.
impl fmt::Display for Meta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default(name) => write!(f, "default {name}"),
            Self::Resource(resource) => {
                write!(f, "{} ", resource.kind)?;
                if !resource.namespace.is_empty() {
                    write!(f, "{}/", resource.namespace)?;
                }
                f.write_str(&resource.name)?;
                if resource.port != 0 {
                    write!(f, ":{}", resource.port)?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_written_as_people_name_it() {
        let message = api::Metadata {
            kind: Some(api::metadata::Kind::Resource(api::Resource {
                group: "core".into(),
                kind: "Service".into(),
                name: "voting".into(),
                namespace: "default".into(),
                port: 80,
                ..Default::default()
            })),
        };

        assert_eq!(
            Meta::compile(Some(&message)).to_string(),
            "Service default/voting:80"
        );
    }

    #[test]
    fn a_default_has_linkerds_labels() {
        let meta = Meta::named("all-unauthenticated");

        assert_eq!(
            (meta.group(), meta.kind(), meta.name()),
            ("", "default", "all-unauthenticated")
        );
        assert!(!meta.is_audit());
        assert!(Meta::named("audit").is_audit());
    }

    #[test]
    fn an_absent_message_is_unknown() {
        assert_eq!(Meta::compile(None).name(), "unknown");
    }
}
