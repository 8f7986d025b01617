//! Who may come in: one authorization, and what a client lacks for it.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use tulle_api::inbound as api;

use super::network::Network;
use crate::invalid::Invalid;
use crate::meta::{Meta, Resource};

/// The other end of a connection, as far as it is known for sure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer<'a> {
    /// Where it comes from.
    pub addr: IpAddr,
    /// Who it is.
    pub tls: PeerTls<'a>,
}

/// Who a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerTls<'a> {
    /// Plain text, or TLS that is not the mesh's.
    None,
    /// The mesh's TLS, without a certificate of the client's.
    Unauthenticated,
    /// The mesh's TLS, with a certificate for this name.
    Identity(&'a str),
}

/// Holds when the address lies in one of the networks and the authentication holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Authorization {
    /// The AuthorizationPolicy (or default) behind it; the `authz_*` labels.
    pub meta: Arc<Meta>,
    /// From where.
    pub networks: Vec<Network>,
    /// Who.
    pub authentication: Authentication,
}

/// Who.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// Anybody, also in plain text.
    Unauthenticated,
    /// Anybody over the mesh's TLS.
    TlsUnauthenticated,
    /// Clients with one of these identities.
    Identities(Identities),
}

/// Names of clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identities {
    /// Whole names, DNS-like or URIs.
    pub exact: BTreeSet<Box<str>>,
    /// Ends of DNS-like names, with the dot in front: `.ns.serviceaccount.identity…`. Never of URIs.
    pub suffixes: Vec<Box<str>>,
    /// Any name at all.
    pub any: bool,
}

/// What a client lacks for an authorization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack<'a> {
    /// Its address lies in none of the networks.
    Network(&'a [Network]),
    /// It does not come over the mesh's TLS.
    Tls,
    /// It comes without a certificate.
    Identity(&'a Identities),
    /// Its certificate is for another name.
    OtherIdentity(&'a Identities),
}

impl Authorization {
    pub(super) fn compile(message: &api::Authz) -> Result<Self, Invalid> {
        if message.networks.is_empty() {
            return Err(Invalid::missing("networks"));
        }
        let networks = message
            .networks
            .iter()
            .enumerate()
            .map(|(index, network)| {
                Network::compile(network).map_err(|error| error.under(format!("networks[{index}]")))
            })
            .collect::<Result<_, _>>()?;
        let permit = message
            .authentication
            .as_ref()
            .and_then(|authn| authn.permit.as_ref());
        let authentication = match permit {
            None => return Err(Invalid::missing("authentication.permit")),
            Some(api::authn::Permit::Unauthenticated(_)) => Authentication::Unauthenticated,
            Some(api::authn::Permit::MeshTls(tls)) => match &tls.clients {
                None => return Err(Invalid::missing("authentication.meshTLS.clients")),
                Some(api::authn::permit_mesh_tls::Clients::Unauthenticated(_)) => {
                    Authentication::TlsUnauthenticated
                }
                Some(api::authn::permit_mesh_tls::Clients::Identities(names)) => {
                    Authentication::Identities(Identities::compile(names))
                }
            },
        };
        Ok(Self {
            meta: meta(message),
            networks,
            authentication,
        })
    }

    /// Says what the client lacks, if it lacks something.
    pub fn check(&self, peer: &Peer<'_>) -> Result<(), Lack<'_>> {
        if !self
            .networks
            .iter()
            .any(|network| network.contains(peer.addr))
        {
            return Err(Lack::Network(&self.networks));
        }
        match (&self.authentication, peer.tls) {
            (Authentication::Unauthenticated, _) => Ok(()),
            (_, PeerTls::None) => Err(Lack::Tls),
            (Authentication::TlsUnauthenticated, _) => Ok(()),
            (Authentication::Identities(names), PeerTls::Unauthenticated) => {
                Err(Lack::Identity(names))
            }
            (Authentication::Identities(names), PeerTls::Identity(name)) => {
                if names.contains(name) {
                    Ok(())
                } else {
                    Err(Lack::OtherIdentity(names))
                }
            }
        }
    }
}

/// The metadata, or Linkerd's older labels.
fn meta(message: &api::Authz) -> Arc<Meta> {
    if message.metadata.is_some() || message.labels.is_empty() {
        return Meta::compile(message.metadata.as_ref());
    }
    let label = |name: &str| message.labels.get(name).map_or("", String::as_str);
    match (label("kind"), label("name")) {
        ("default", name) => Meta::named(name),
        (kind, name) => Arc::new(Meta::Resource(Box::new(Resource {
            group: label("group").into(),
            kind: kind.into(),
            name: name.into(),
            ..Resource::default()
        }))),
    }
}

impl Identities {
    fn compile(message: &api::authn::permit_mesh_tls::PermitClientIdentities) -> Self {
        let mut names = Self::default();
        // An empty name would fit a certificate without one.
        names.exact.extend(
            message
                .identities
                .iter()
                .map(|identity| identity.name.as_str())
                .filter(|name| !name.is_empty())
                .map(Into::into),
        );
        for suffix in &message.suffixes {
            if suffix.parts.is_empty() {
                names.any = true;
            } else {
                names
                    .suffixes
                    .push(format!(".{}", suffix.parts.join(".")).into());
            }
        }
        names
    }

    /// Any name at all.
    #[must_use]
    pub fn everybody() -> Self {
        Self {
            any: true,
            ..Self::default()
        }
    }

    /// Whether a certificate for this name will do.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        if name.is_empty() {
            return false;
        }
        // `spiffe://other/x.ns.identity` must not pass as a DNS name with that end.
        let dns = !name.contains("://");
        self.any
            || self.exact.contains(name)
            || dns
                && self
                    .suffixes
                    .iter()
                    .any(|suffix| name.len() > suffix.len() && name.ends_with(&**suffix))
    }
}

impl fmt::Display for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.any {
            return f.write_str("any identity");
        }
        let names = self.exact.iter().map(|name| (false, name));
        let suffixes = self.suffixes.iter().map(|suffix| (true, suffix));
        for (index, (wild, name)) in names.chain(suffixes).enumerate() {
            let (separator, star) = (
                if index > 0 { " or " } else { "" },
                if wild { "*" } else { "" },
            );
            write!(f, "{separator}{star}{name}")?;
        }
        if self.exact.is_empty() && self.suffixes.is_empty() {
            f.write_str("no identity")?;
        }
        Ok(())
    }
}

impl Lack<'_> {
    /// What the client has instead. Names of clients are what certificates prove, so they are shown.
    #[must_use]
    pub fn saw(&self, peer: &Peer<'_>) -> String {
        match (self, peer.tls) {
            (Self::Network(_), _) => format!("client address {}", peer.addr),
            (_, PeerTls::None) => "no mesh TLS".to_owned(),
            (_, PeerTls::Unauthenticated) => "mesh TLS without a certificate".to_owned(),
            (_, PeerTls::Identity(name)) => format!("client identity {name}"),
        }
    }
}

/// What the client would need.
impl fmt::Display for Lack<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(networks) => {
                f.write_str("client address in ")?;
                for (index, network) in networks.iter().enumerate() {
                    write!(f, "{}{network}", if index > 0 { " or " } else { "" })?;
                }
                Ok(())
            }
            Self::Tls => f.write_str("mesh TLS"),
            Self::Identity(names) | Self::OtherIdentity(names) => {
                write!(f, "client identity {names}")
            }
        }
    }
}
