//! The policy of a port for which the control plane has said nothing (yet): Linkerd's names.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::authz::{Authentication, Authorization, Identities};
use super::network::{Cidr, Network};
use super::{AuthorizationId, Protocol, Route, Rule, Server};
use crate::meta::Meta;
use crate::route::{BrokenMatch, Hosts, RuleId, TableBuilder};

/// Who is let in by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DefaultPolicy {
    /// Everybody.
    AllUnauthenticated,
    /// Everybody with a certificate of the mesh.
    AllAuthenticated,
    /// Everybody from the cluster's networks.
    ClusterUnauthenticated,
    /// Everybody from the cluster's networks with a certificate of the mesh.
    ClusterAuthenticated,
    /// Nobody.
    Deny,
    /// Everybody, and each request that no policy allows is logged.
    Audit,
}

/// What is spoken on the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultProtocol {
    /// The first bytes tell, within this time.
    Detect(Duration),
    /// Bytes.
    Opaque,
}

/// A word that is not the name of a default policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownPolicy(pub String);

impl fmt::Display for UnknownPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a default policy; it is one of ", self.0)?;
        for (index, policy) in DefaultPolicy::ALL.iter().enumerate() {
            write!(f, "{}{}", if index > 0 { ", " } else { "" }, policy.name())?;
        }
        Ok(())
    }
}

impl std::error::Error for UnknownPolicy {}

impl DefaultPolicy {
    /// Each of them.
    pub const ALL: [Self; 6] = [
        Self::AllUnauthenticated,
        Self::AllAuthenticated,
        Self::ClusterUnauthenticated,
        Self::ClusterAuthenticated,
        Self::Deny,
        Self::Audit,
    ];

    /// As in `config.linkerd.io/default-inbound-policy`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AllUnauthenticated => "all-unauthenticated",
            Self::AllAuthenticated => "all-authenticated",
            Self::ClusterUnauthenticated => "cluster-unauthenticated",
            Self::ClusterAuthenticated => "cluster-authenticated",
            Self::Deny => "deny",
            Self::Audit => "audit",
        }
    }

    fn authorization(self, cluster: &[Cidr]) -> Option<Authorization> {
        let networks = match self {
            Self::ClusterUnauthenticated | Self::ClusterAuthenticated => {
                cluster.iter().map(|cidr| Network::from(*cidr)).collect()
            }
            _ => Network::everywhere(),
        };
        let authentication = match self {
            Self::Deny => return None,
            Self::AllUnauthenticated | Self::ClusterUnauthenticated | Self::Audit => {
                Authentication::Unauthenticated
            }
            Self::AllAuthenticated | Self::ClusterAuthenticated => {
                Authentication::Identities(Identities::everybody())
            }
        };
        Some(Authorization {
            meta: Meta::named(self.name()),
            networks,
            authentication,
        })
    }
}

impl FromStr for DefaultPolicy {
    type Err = UnknownPolicy;

    fn from_str(name: &str) -> Result<Self, UnknownPolicy> {
        Self::ALL
            .into_iter()
            .find(|policy| policy.name() == name)
            .ok_or_else(|| UnknownPolicy(name.into()))
    }
}

impl Server {
    /// The server of a port without a policy of its own. `cluster` are the cluster's networks; without any, the
    /// `cluster-*` policies let nobody in.
    #[must_use]
    pub fn by_default(policy: DefaultPolicy, protocol: DefaultProtocol, cluster: &[Cidr]) -> Self {
        let authorizations: Vec<_> = policy.authorization(cluster).into_iter().collect();
        let own: Vec<_> = authorizations.iter().map(|_| AuthorizationId(0)).collect();
        let mut table = TableBuilder::new(BrokenMatch::First);
        table.rule(
            &Hosts::compile(std::iter::empty()),
            RuleId::new(0),
            std::iter::empty(),
        );
        let labels = [("group", ""), ("kind", "default"), ("name", policy.name())];
        Self {
            meta: Meta::named(policy.name()),
            protocol: match protocol {
                DefaultProtocol::Detect(timeout) => Protocol::Detect {
                    timeout,
                    http: Arc::new(table.build()),
                },
                DefaultProtocol::Opaque => Protocol::Opaque,
            },
            server_ips: Vec::new(),
            authorizations,
            routes: vec![Route {
                meta: Meta::named("default"),
                authorizations: own.clone(),
            }],
            own_authorizations: own,
            rules: vec![Rule {
                route: 0,
                number: 0,
                filters: Vec::new(),
                invalid: None,
            }],
            probes: None,
            rate_limit: None,
            max_in_flight: 0,
            jwt: Vec::new(),
            external: None,
            proxy_protocol: false,
            labels: labels
                .into_iter()
                .map(|(key, value)| (key.into(), value.into()))
                .collect::<BTreeMap<_, _>>(),
            services: Vec::new(),
            problems: Vec::new(),
        }
    }
}
