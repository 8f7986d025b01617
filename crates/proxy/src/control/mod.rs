//! The control side: follows the control plane on one thread and publishes what it says.
//!
//! `channel.rs` keeps connections to its services (`connections.rs` shows them), over addresses from `dns.rs`;
//! `watch.rs` keeps a stream open; `watches.rs` holds the streams there are, a task per target that the data path asks
//! for: `inbound.rs`, `outbound.rs`, `destination.rs` and `profiles.rs`, with `fallback.rs` for what nobody has a policy
//! for. `identity.rs` gets certificates, or `spire.rs` does; `anchors.rs` follows whom to trust. `traces.rs` sends spans
//! to a collector; `readiness.rs` answers `/ready`; `snapshot.rs` shows it all.

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
mod watches;

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch::{self as published, Sender};
use tokio::task::spawn_local;
use tulle_engine::inbound::{DefaultProtocol, Server};

pub use readiness::Readiness;

use crate::config::{self, Config, ControlService, IdentitySource, ServiceAddr};
use crate::discovery::{Discovery, InboundDefaults, Requests};
use crate::identity::{Epoch, Epochs, TrustAnchors, Wanted};
use crate::metrics::text::Sample;
use crate::metrics::{Registry, Shard};
use channel::{Connector, Security};
use readiness::PortsPending;
use watch::Method;
use watches::Watches;

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
    let received = epochs.subscribe();
    let connector = Connector::new(config, shard);
    let ports = declared_ports(config);
    let pending = PortsPending::new(ports.clone());
    let watches = Rc::new(Watches::new(
        config,
        &connector,
        &received,
        pending.clone(),
        requests.forgetter(),
    ));
    if let Some(identity) = &config.identity {
        start_identity(identity, &connector, watches.anchors.clone(), epochs)?;
    }
    for port in &ports {
        let _watched = discovery.inbound(*port);
    }
    spawn_local(watches::serve(watches.clone(), requests, ports));
    spawn_local(sweep(registry.clone()));
    let certified = config.identity.is_some().then(|| received.clone());
    Ok(Control {
        readiness: Readiness::new(certified, pending),
        watches,
        epochs: received,
        discovery,
    })
}

/// The ports that the environment names: watched from the start, and for ever.
fn declared_ports(config: &Config) -> BTreeSet<u16> {
    let extra = config.inbound.extra_listeners.iter();
    let declared = config.inbound.ports.iter().copied();
    declared.chain(extra.map(|(_, port)| *port)).collect()
}

/// Starts what gets certificates, and what follows the trust anchors where the identity service tells them.
fn start_identity(
    identity: &config::Identity,
    connector: &Connector,
    anchors_method: Method,
    epochs: Sender<Option<Arc<Epoch>>>,
) -> Result<(), String> {
    let anchors = match identity.trust_anchors.as_str() {
        "" => None,
        pem => Some(TrustAnchors::from_pem(pem)?),
    };
    let shard = &connector.shard;
    match &identity.source {
        IdentitySource::Service(certify) => {
            let anchors = anchors.ok_or("there is no trust anchor")?;
            let (followed, anchors) = published::channel(anchors);
            let security = Security::ServerOnly(anchors.clone());
            let channel = connector.channel("identity", &certify.service, security);
            spawn_local(anchors::follow(
                channel.clone(),
                anchors_method,
                followed,
                shard.clone(),
            ));
            let (name, certify) = (identity.local_name.clone(), certify.clone());
            let certifier =
                identity::Certifier::new(name, certify, anchors, channel, epochs, shard);
            spawn_local(certifier.run());
        }
        IdentitySource::Spire(socket) => {
            let service = ControlService {
                addr: ServiceAddr::Unix(socket.clone()),
                identity: None,
            };
            let channel = connector.channel("spire", &service, Security::Plain);
            let wanted = Wanted {
                id: identity.local_name.clone(),
                server_name: identity.server_name.clone(),
                anchors,
            };
            spawn_local(spire::Workload::new(wanted, channel, epochs, shard).run());
        }
    }
    Ok(())
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
        self.watches.samples()
    }
}
