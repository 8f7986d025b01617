//! Every watch there is: what each kind of them shares, a task per target that the data path asks for, and their
//! metrics.
//!
//! A target becomes a task, which ends when nobody has used the target for long enough.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::task::spawn_local;
use tulle_engine::inbound::{DefaultPolicy, DefaultProtocol, Server};

use super::channel::{Connector, Security};
use super::destination::{DestinationService, Destinations};
use super::inbound::InboundPolicies;
use super::interest::Interest;
use super::outbound::OutboundPolicies;
use super::profiles::Profiles;
use super::readiness::PortsPending;
use super::watch::Method;
use crate::config::{Config, ControlService};
use crate::discovery::{Forgetter, Request, Requests};
use crate::identity::Epochs;
use crate::metrics::text::Sample;
use crate::metrics::{Family, Labels, families};

/// What the watches of each kind share.
#[derive(Debug)]
pub struct Watches {
    /// `Identity.WatchTrustAnchors`.
    pub anchors: Method,
    /// Of the pod's ports.
    pub inbound: InboundPolicies,
    /// Of what the workload sends to.
    pub outbound: OutboundPolicies,
    /// Of the endpoints of backends.
    pub destinations: Destinations,
    /// Of the names that requests come in by.
    pub profiles: Profiles,
    idle_inbound: Duration,
    idle_outbound: Duration,
    forgetter: Forgetter,
}

impl Watches {
    /// No target is watched yet. `epochs` has the certificate that the services ask for.
    pub fn new(
        config: &Config,
        connector: &Connector,
        epochs: &Epochs,
        pending: PortsPending,
        forgetter: Forgetter,
    ) -> Self {
        let channel = |client, service: &ControlService| {
            connector.channel(client, service, Security::Mutual(epochs.clone()))
        };
        let policies = config.policy.service.as_ref();
        let policies = policies.map(|service| channel("policy", service));
        let destinations = config.destination.service.as_ref();
        let destinations = destinations.map(|service| DestinationService {
            channel: channel("destination", service),
            context: config.destination.context.clone(),
        });
        let idle_inbound = config.inbound.connections.discovery_idle;
        let idle_outbound = config.outbound.connections.discovery_idle;
        let method = |name, idle| Method::new(name, config.control_streams, idle, &connector.shard);
        let profile_method = method("Destination.GetProfile", idle_outbound);
        Self {
            anchors: method("Identity.WatchTrustAnchors", idle_outbound),
            inbound: InboundPolicies {
                channel: policies.clone(),
                method: method("InboundServerPolicies.WatchPort", idle_inbound),
                workload: config.policy.workload.clone(),
                closed: Arc::new(Server::by_default(
                    DefaultPolicy::Deny,
                    DefaultProtocol::Opaque,
                    &[],
                )),
                pending,
            },
            outbound: OutboundPolicies {
                policies,
                policy_method: method("OutboundPolicies.Watch", idle_outbound),
                destinations: destinations.clone(),
                profile_method: profile_method.clone(),
                workload: config.policy.workload.clone(),
                profile_networks: config.destination.profile_networks.clone(),
                detect: config.outbound.connections.detect_timeout,
                resolver: connector.resolver.clone(),
                listening: config.outbound.listen.clone(),
            },
            profiles: Profiles {
                service: destinations.clone(),
                method: profile_method,
            },
            destinations: Destinations {
                service: destinations,
                method: method("Destination.Get", idle_outbound),
            },
            idle_inbound,
            idle_outbound,
            forgetter,
        }
    }

    fn methods(&self) -> [&Method; 5] {
        [
            &self.anchors,
            &self.inbound.method,
            &self.outbound.policy_method,
            &self.outbound.profile_method,
            &self.destinations.method,
        ]
    }

    /// How many watches there are by method, and how fresh what they say is.
    pub fn samples(&self) -> Vec<Sample> {
        let now = Instant::now();
        let sample = |family: &'static Family, labels: Labels, value| Sample {
            family,
            labels,
            value,
        };
        let labels = |method: &Method| Labels::builder().add("method", method.name()).build();
        let mut samples = Vec::new();
        // Samples of one family stand together on the page.
        for method in self.methods() {
            let (watches, _) = method.summary(now);
            let family = &families::CONTROL_WATCHES;
            samples.push(sample(family, labels(method), watches as f64));
        }
        for method in self.methods() {
            let (_, away) = method.summary(now);
            let family = &families::CONTROL_WATCH_OLDEST_CONTACT_SECONDS;
            samples.push(sample(family, labels(method), away.as_secs_f64()));
        }
        for method in self.methods() {
            let Some((oldest, newest)) = method.last_updates() else {
                continue;
            };
            for (stream, at) in [("oldest", oldest), ("newest", newest)] {
                let family = &families::CONTROL_STREAM_LAST_UPDATE_TIMESTAMP_SECONDS;
                let labels = labels(method).extend().add("stream", stream).build();
                samples.push(sample(family, labels, unix_seconds(at)));
            }
        }
        let refused = self.forgetter.refused() as f64;
        let family = &families::CONTROL_WATCHES_REFUSED_TOTAL;
        samples.push(sample(family, Labels::none(), refused));
        samples
    }
}

fn unix_seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

/// One task per target, for ever where the port is declared; a target that is taken up again while it is being forgotten is simply watched again.
pub async fn serve(watches: Rc<Watches>, mut requests: Requests, declared: BTreeSet<u16>) {
    while let Some(request) = requests.next().await {
        let watches = watches.clone();
        match request {
            Request::Inbound(port, sender) => {
                let idle = (!declared.contains(&port)).then_some(watches.idle_inbound);
                let default = sender.borrow().clone();
                spawn_local(async move {
                    loop {
                        watches
                            .inbound
                            .watch(port, default.clone(), &sender, Interest::new(idle))
                            .await;
                        if watches.forgetter.inbound(port, &sender) {
                            return;
                        }
                    }
                });
            }
            Request::Outbound(target, sender) => {
                spawn_local(async move {
                    loop {
                        let interest = Interest::new(Some(watches.idle_outbound));
                        watches.outbound.watch(&target, &sender, interest).await;
                        if watches.forgetter.outbound(&target, &sender) {
                            return;
                        }
                    }
                });
            }
            Request::Endpoints(path, sender) => {
                spawn_local(async move {
                    loop {
                        let interest = Interest::new(Some(watches.idle_outbound));
                        watches.destinations.watch(&path, &sender, interest).await;
                        if watches.forgetter.endpoints(&path, &sender) {
                            return;
                        }
                    }
                });
            }
            Request::Profile(path, sender) => {
                spawn_local(async move {
                    loop {
                        let interest = Interest::new(Some(watches.idle_inbound));
                        watches.profiles.watch(&path, &sender, interest).await;
                        if watches.forgetter.profile(&path, &sender) {
                            return;
                        }
                    }
                });
            }
        }
    }
}
