//! What to do with traffic to one target: a profile of `Destination.GetProfile` that has routes or overrides, else
//! `OutboundPolicies.Watch`, and when nobody has a policy for it, what else
//! is known: the endpoint of `Destination.GetProfile` (the target is a single pod), an address that the name has in
//! DNS (a request that named a host outside the mesh), or the original destination as it is.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tulle_api::destination::DestinationProfile;
use tulle_api::outbound::outbound_policies_client::OutboundPoliciesClient;
use tulle_api::outbound::{OutboundPolicy, TrafficSpec, traffic_spec};
use tulle_engine::destination::Profile;
use tulle_engine::outbound::Policy;

use super::channel::{Channel, MAX_MESSAGE_BYTES};
use super::destination::DestinationService;
use super::dns::Resolver;
use super::fallback;
use super::interest::Interest;
use super::watch::{ASK_AGAIN, Event, Flow, Method};
use crate::config::{Cidr, ServiceAddr, values};
use crate::discovery::{OutboundView, Source, Target};
use crate::net::listen;

/// What all targets share.
#[derive(Debug)]
pub struct OutboundPolicies {
    /// The policy service; `None` when there is none.
    pub policies: Option<Channel>,
    /// `OutboundPolicies.Watch`.
    pub policy_method: Method,
    /// `None` when there is no such service.
    pub destinations: Option<DestinationService>,
    /// `Destination.GetProfile`.
    pub profile_method: Method,
    /// This workload, as the policy service knows it.
    pub workload: String,
    /// Networks the destination service is asked about; empty is all.
    pub profile_networks: Vec<Cidr>,
    /// Protocol detection of what has no policy.
    pub detect: Duration,
    /// For names outside the mesh.
    pub resolver: Rc<Resolver>,
    /// The sidecar's own outbound listeners, to which no name may lead: its requests would go round for ever.
    pub listening: Vec<SocketAddr>,
}

type Views = watch::Sender<Option<Arc<OutboundView>>>;

/// What one source says about a target.
#[derive(Debug)]
enum Said<T> {
    /// Nothing yet.
    Pending,
    /// This.
    Known(T),
    /// That it does not know the target.
    Absent,
}

/// What the services have said about a target so far.
#[derive(Debug)]
struct Heard {
    policy: RefCell<Option<OutboundPolicy>>,
    /// Of an address; names have none.
    profile: RefCell<Said<DestinationProfile>>,
    /// Whether the policy service knows nothing of the target.
    absent: watch::Sender<bool>,
}

impl Heard {
    fn profile_rules(&self) -> bool {
        matches!(&*self.profile.borrow(), Said::Known(profile) if rules(profile))
    }
}

/// Whether a profile says what to do with requests, and so wins over a policy.
fn rules(profile: &DestinationProfile) -> bool {
    !profile.routes.is_empty() || !profile.dst_overrides.is_empty()
}

impl OutboundPolicies {
    /// Keeps the view of one target up to date until nobody is interested any more.
    pub async fn watch(&self, target: &Target, sender: &Views, interest: Interest) {
        let heard = Heard {
            policy: RefCell::new(None),
            profile: RefCell::new(Said::Pending),
            absent: watch::channel(self.policies.is_none()).0,
        };
        let policy = self.follow_policy(target, sender, interest, &heard);
        let otherwise = async {
            match target {
                Target::Addr(address) => self.follow_profile(*address, sender, &heard).await,
                Target::Authority(authority) => {
                    let mut is_absent = heard.absent.subscribe();
                    while is_absent.wait_for(|absent| *absent).await.is_ok() {
                        let mut known_again = is_absent.clone();
                        tokio::select! {
                            () = self.follow_dns(authority, sender) => {}
                            _ = known_again.wait_for(|absent| !*absent) => {}
                        }
                    }
                }
            }
        };
        tokio::select! {
            () = policy => {}
            () = otherwise => {}
        }
    }

    /// Publishes what holds by all that has been said: a profile that rules, else the policy, else what the profile
    /// knows of the address, else the address itself.
    fn settle(&self, target: &Target, sender: &Views, heard: &Heard) {
        let name = target.to_string();
        if let (Target::Addr(address), Said::Known(profile)) = (target, &*heard.profile.borrow()) {
            match Policy::from_profile(profile, address.port(), self.detect) {
                Ok(None) => {}
                Ok(Some(policy)) => return show(&name, sender, policy, Source::Profile),
                Err(error) => self.profile_method.invalid(&name, &error),
            }
        }
        if let Some(policy) = &*heard.policy.borrow() {
            return self.publish(&name, sender, policy, Source::Policy, &self.policy_method);
        }
        let Target::Addr(address) = target else {
            return;
        };
        if *heard.absent.borrow() {
            let (message, source) = match &*heard.profile.borrow() {
                Said::Pending => return,
                Said::Known(profile) => self.profiled(*address, profile),
                Said::Absent => (self.original(*address, false), Source::Original),
            };
            self.publish(&name, sender, &message, source, &self.profile_method);
        }
    }

    async fn follow_policy(
        &self,
        target: &Target,
        sender: &Views,
        mut interest: Interest,
        heard: &Heard,
    ) {
        let Some(channel) = &self.policies else {
            return interest.lost(sender).await;
        };
        let open = async |lease| {
            let request = TrafficSpec {
                source_workload: self.workload.clone(),
                target: Some(match target {
                    Target::Addr(address) => {
                        traffic_spec::Target::Addr(fallback::tcp_address(*address))
                    }
                    Target::Authority(authority) => {
                        traffic_spec::Target::Authority(authority.clone())
                    }
                }),
            };
            let client = OutboundPoliciesClient::with_origin(lease, channel.origin());
            client
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .watch(request)
                .await
        };
        let name = target.to_string();
        let on = |event| {
            match event {
                Event::Opened => {}
                Event::Message(message) => {
                    heard.absent.send_replace(false);
                    heard.policy.replace(Some(message));
                    if !heard.profile_rules() {
                        self.settle(target, sender, heard);
                    }
                }
                Event::Refused(status) => {
                    tracing::debug!(
                        target = name,
                        why = status.message(),
                        "no policy; looking elsewhere"
                    );
                    heard.policy.replace(None);
                    let newly = heard
                        .absent
                        .send_if_modified(|absent| !std::mem::replace(absent, true));
                    if newly && !heard.profile_rules() {
                        self.settle(target, sender, heard);
                    }
                }
                Event::Tick => return interest.flow(sender),
            }
            Flow::Continue
        };
        self.policy_method.follow(channel, &name, open, on).await;
    }

    async fn follow_profile(&self, address: SocketAddr, sender: &Views, heard: &Heard) {
        let asked = self.profile_networks.is_empty()
            || self
                .profile_networks
                .iter()
                .any(|network| network.contains(address.ip()));
        let name = address.to_string();
        let target = Target::Addr(address);
        // A profile that does not rule changes nothing while there is a policy.
        let said = |profile: Said<DestinationProfile>| {
            let ruled = heard.profile_rules();
            heard.profile.replace(profile);
            if ruled || heard.profile_rules() || heard.policy.borrow().is_none() {
                self.settle(&target, sender, heard);
            }
        };
        let Some(service) = self.destinations.as_ref().filter(|_| asked) else {
            said(Said::Absent);
            return std::future::pending().await;
        };
        let open = async |lease| service.get_profile(lease, &name).await;
        let on = |event| {
            match event {
                Event::Opened | Event::Tick => return Flow::Continue,
                Event::Message(message) => match Profile::compile(&message) {
                    Ok(_) => said(Said::Known(message)),
                    Err(error) => self.profile_method.invalid(&name, &error),
                },
                Event::Refused(_) => said(Said::Absent),
            }
            Flow::Continue
        };
        self.profile_method
            .follow(&service.channel, &name, open, on)
            .await;
    }

    fn profiled(
        &self,
        address: SocketAddr,
        profile: &DestinationProfile,
    ) -> (OutboundPolicy, Source) {
        match &profile.endpoint {
            Some(endpoint) => {
                let message = fallback::forward(
                    "endpoint",
                    endpoint.clone(),
                    profile.opaque_protocol,
                    self.detect,
                );
                (message, Source::Profile)
            }
            None => (
                self.original(address, profile.opaque_protocol),
                Source::Original,
            ),
        }
    }

    fn original(&self, address: SocketAddr, opaque: bool) -> OutboundPolicy {
        fallback::forward(
            "original-dst",
            fallback::plain(address),
            opaque,
            self.detect,
        )
    }

    /// A host that is not of the mesh: to where DNS says it is, looked up again from time to time.
    async fn follow_dns(&self, authority: &str, sender: &Views) {
        loop {
            let message = match self.address_of(authority).await {
                Ok(address) => self.original(address, false),
                Err(why) => {
                    let why = format!("no service and no host answers to {authority}: {why}");
                    fallback::failing("unknown-host", 404, &why)
                }
            };
            self.publish(
                authority,
                sender,
                &message,
                Source::Original,
                &self.policy_method,
            );
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    async fn address_of(&self, authority: &str) -> Result<SocketAddr, String> {
        let (host, port) =
            fallback::host_and_port(authority).ok_or("it is not a host with a port")?;
        if let Ok(ip) = host.parse() {
            return Ok(SocketAddr::new(ip, port));
        }
        let name = values::dns_name(host)?;
        let addresses = self
            .resolver
            .resolve(&ServiceAddr::Name(name, port), "outbound")
            .await;
        let addresses = addresses.map_err(|error| error.to_string())?;
        let known = addresses.len();
        let elsewhere = |address: &SocketAddr| !listen::arrives_at(*address, &self.listening);
        addresses
            .into_iter()
            .find(elsewhere)
            .ok_or_else(|| match known {
                0 => "it has no address".to_owned(),
                _ => "its address is this sidecar's own listener".to_owned(),
            })
    }

    fn publish(
        &self,
        target: &str,
        sender: &Views,
        message: &OutboundPolicy,
        source: Source,
        method: &Method,
    ) {
        match Policy::compile(message) {
            Ok(policy) => show(target, sender, policy, source),
            Err(error) => {
                method.invalid(target, &error);
                if sender.borrow().is_some() {
                    return; // The last known policy stays in force.
                }
                let why = format!("the policy for {target} cannot be read: {error}");
                if let Ok(policy) = Policy::compile(&fallback::failing("invalid-policy", 500, &why))
                {
                    sender.send_replace(Some(Arc::new(OutboundView { policy, source })));
                }
            }
        }
    }
}

fn show(target: &str, sender: &Views, policy: Policy, source: Source) {
    for problem in &policy.problems {
        tracing::warn!(target, %problem, "part of an outbound policy cannot be carried out");
    }
    sender.send_replace(Some(Arc::new(OutboundView { policy, source })));
}
