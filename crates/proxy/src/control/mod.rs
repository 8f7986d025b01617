//! The control side: follows the control plane on one thread and publishes what it says.
//!
//! `channel.rs` keeps connections to its services (`connections.rs` shows them), over addresses from `dns.rs`; `watch.rs` keeps a stream open;
//! `identity.rs` gets certificates, or `spire.rs` does; `anchors.rs` follows whom to trust; `inbound.rs`, `outbound.rs`, `destination.rs` and `profiles.rs` are the streams, with
//! `fallback.rs` for what nobody has a policy for; `traces.rs` sends spans to a collector; `readiness.rs` answers `/ready`; `snapshot.rs` shows it all.
//! A target that the data path asks for arrives in [`start`]'s loop and becomes one task.

mod anchors;
mod backoff;
mod channel;
mod connections;
mod destination;
mod dns;
pub mod dns_message;
mod fallback;
mod identity;
mod inbound;
mod interest;
mod outbound;
mod profiles;
mod readiness;
mod snapshot;
mod spire;
pub mod traces;
mod watch;

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use tokio::sync::watch::{self as published, Sender};
use tokio::task::spawn_local;
use tulle_engine::inbound::{DefaultPolicy, DefaultProtocol, Server};

pub use readiness::Readiness;

use crate::config::{Config, ControlService, IdentitySource, ServiceAddr};
use crate::discovery::{Discovery, Forgetter, InboundDefaults, Request, Requests};
use crate::identity::{Epoch, Epochs, TrustAnchors, Wanted};
use crate::metrics::text::Sample;
use crate::metrics::{Labels, Registry, Shard, families};
use crate::net::dial::Dialer;
use channel::{Channel, Security};
use destination::Destinations;
use dns::Resolver;
use inbound::InboundPolicies;
use interest::Interest;
use outbound::OutboundPolicies;
use profiles::Profiles;
use readiness::PortsPending;
use watch::Method;

/// How often series that nobody uses are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// The running control side, as the admin server and the signals see it.
#[derive(Clone, Debug)]
pub struct Control {
    /// What `/ready` says.
    pub readiness: Readiness,
    watches: Rc<Watches>,
    epochs: Epochs,
    discovery: Discovery,
}

#[derive(Debug)]
struct Watches {
    anchors: Method,
    inbound: InboundPolicies,
    outbound: OutboundPolicies,
    destinations: Destinations,
    profiles: Profiles,
    idle_inbound: Duration,
    idle_outbound: Duration,
    forgetter: Forgetter,
}

/// The policies of ports that the controller has not answered for, from the environment.
pub fn inbound_defaults(config: &Config) -> InboundDefaults {
    let detect = config.inbound.connections.detect_timeout;
    let by_default = |protocol| {
        let networks = &config.policy.cluster_networks;
        Arc::new(Server::by_default(
            config.inbound.default_policy,
            protocol,
            networks,
        ))
    };
    InboundDefaults {
        detect: by_default(DefaultProtocol::Detect(detect)),
        opaque: by_default(DefaultProtocol::Opaque),
        opaque_ports: config.inbound.opaque_ports.clone(),
    }
}

/// Starts the control side on this thread, which must run a `LocalRuntime` or a `LocalSet`.
///
/// # Errors
/// The trust anchors cannot be used.
pub fn start(
    config: &Config,
    discovery: Discovery,
    requests: Requests,
    epochs: Sender<Option<Arc<Epoch>>>,
    registry: &Registry,
    shard: &Shard,
) -> Result<Control, String> {
    let resolver = Rc::new(Resolver::new(config.dns.clone(), shard.clone()));
    let dialer = Dialer {
        mark: config.mark,
        ..Dialer::default()
    };
    let received = epochs.subscribe();
    let lifetime = config.control_streams.lifetime;
    let channel = |client, service: &ControlService, security| {
        Channel::new(
            client,
            service.clone(),
            security,
            resolver.clone(),
            dialer,
            lifetime,
            shard,
        )
    };
    let mutual = || Security::Mutual(received.clone());
    let policies = config
        .policy
        .service
        .as_ref()
        .map(|service| channel("policy", service, mutual()));
    let destinations = config
        .destination
        .service
        .as_ref()
        .map(|service| channel("destination", service, mutual()));

    let mut ports = config.inbound.ports.clone();
    ports.extend(config.inbound.extra_listeners.iter().map(|(_, port)| *port));
    let pending = PortsPending::new(ports.clone());
    let (idle_inbound, idle_outbound) = (
        config.inbound.connections.discovery_idle,
        config.outbound.connections.discovery_idle,
    );
    let method = |name, idle| Method::new(name, config.control_streams, idle, shard);
    let profile_method = method("Destination.GetProfile", idle_outbound);
    let watches = Rc::new(Watches {
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
            pending: pending.clone(),
        },
        outbound: OutboundPolicies {
            policies,
            policy_method: method("OutboundPolicies.Watch", idle_outbound),
            destinations: destinations.clone(),
            profile_method: profile_method.clone(),
            workload: config.policy.workload.clone(),
            context: config.destination.context.clone(),
            profile_networks: config.destination.profile_networks.clone(),
            detect: config.outbound.connections.detect_timeout,
            resolver: resolver.clone(),
        },
        profiles: Profiles {
            channel: destinations.clone(),
            method: profile_method,
            context: config.destination.context.clone(),
        },
        destinations: Destinations {
            channel: destinations,
            method: method("Destination.Get", idle_outbound),
            context: config.destination.context.clone(),
        },
        idle_inbound,
        idle_outbound,
        forgetter: requests.forgetter(),
    });

    let identity = match &config.identity {
        None => None,
        Some(identity) => {
            let anchors = match identity.trust_anchors.as_str() {
                "" => None,
                pem => Some(TrustAnchors::from_pem(pem)?),
            };
            match &identity.source {
                IdentitySource::Service(certify) => {
                    let anchors = anchors.ok_or("there is no trust anchor")?;
                    let (followed, anchors) = published::channel(anchors);
                    let security = Security::ServerOnly(anchors.clone());
                    let channel = channel("identity", &certify.service, security);
                    spawn_local(anchors::follow(
                        channel.clone(),
                        watches.anchors.clone(),
                        followed,
                        shard.clone(),
                    ));
                    let name = identity.local_name.clone();
                    let certifier = identity::Certifier::new(
                        name,
                        certify.clone(),
                        anchors,
                        channel,
                        epochs,
                        shard,
                    );
                    spawn_local(certifier.run());
                }
                IdentitySource::Spire(socket) => {
                    let service = ControlService {
                        addr: ServiceAddr::Unix(socket.clone()),
                        identity: None,
                    };
                    let channel = channel("spire", &service, Security::Plain);
                    let wanted = Wanted {
                        id: identity.local_name.clone(),
                        server_name: identity.server_name.clone(),
                        anchors,
                    };
                    spawn_local(spire::Workload::new(wanted, channel, epochs, shard).run());
                }
            }
            Some(received.clone())
        }
    };

    for port in &ports {
        let _watched = discovery.inbound(*port);
    }
    spawn_local(serve(watches.clone(), requests, ports));
    spawn_local(sweep(registry.clone()));
    let readiness = Readiness::new(identity, pending);
    Ok(Control {
        readiness,
        watches,
        epochs: received,
        discovery,
    })
}

/// One task per target; a target that is taken up again while it is being forgotten is simply watched again.
async fn serve(
    watches: Rc<Watches>,
    mut requests: Requests,
    declared: std::collections::BTreeSet<u16>,
) {
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

async fn sweep(registry: Registry) {
    let every = SWEEP_EVERY.min(registry.retain_idle());
    let every = every.max(Duration::from_secs(1));
    loop {
        tokio::time::sleep(every).await;
        registry.sweep(Instant::now());
    }
}

impl Control {
    /// The watches as metrics.
    pub fn samples(&self) -> Vec<Sample> {
        let now = Instant::now();
        let methods = self.watches.methods();
        let labels = |method: &Method| Labels::builder().add("method", method.name()).build();
        let mut samples = Vec::new();
        for method in methods {
            let value = method.summary(now).0 as f64;
            samples.push(Sample {
                family: &families::CONTROL_WATCHES,
                labels: labels(method),
                value,
            });
        }
        for method in methods {
            let value = method.summary(now).1.as_secs_f64();
            let family = &families::CONTROL_WATCH_OLDEST_CONTACT_SECONDS;
            samples.push(Sample {
                family,
                labels: labels(method),
                value,
            });
        }
        for method in methods {
            let Some((oldest, newest)) = method.last_updates() else {
                continue;
            };
            for (stream, at) in [("oldest", oldest), ("newest", newest)] {
                let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
                samples.push(Sample {
                    family: &families::CONTROL_STREAM_LAST_UPDATE_TIMESTAMP_SECONDS,
                    labels: labels(method).extend().add("stream", stream).build(),
                    value: since.as_secs_f64(),
                });
            }
        }
        let value = self.watches.forgetter.refused() as f64;
        let family = &families::CONTROL_WATCHES_REFUSED_TOTAL;
        samples.push(Sample {
            family,
            labels: Labels::none(),
            value,
        });
        samples
    }
}

impl Watches {
    fn methods(&self) -> [&Method; 5] {
        [
            &self.anchors,
            &self.inbound.method,
            &self.outbound.policy_method,
            &self.outbound.profile_method,
            &self.destinations.method,
        ]
    }
}
