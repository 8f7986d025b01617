//! The policy of one of the pod's ports: `InboundServerPolicies.WatchPort`, compiled.
//!
//! Inbound never falls open: while the controller is away the last policy holds, a message that cannot be compiled
//! changes nothing, and when there is none before it the port is closed. Only a controller that says it does not know
//! the port brings the default policy back.

use std::sync::Arc;

use tokio::sync::watch;
use tulle_api::inbound::PortSpec;
use tulle_api::inbound::inbound_server_policies_client::InboundServerPoliciesClient;
use tulle_engine::inbound::Server;

use super::channel::{Channel, MAX_MESSAGE_BYTES};
use super::interest::Interest;
use super::readiness::PortsPending;
use super::watch::{Event, Flow, Method};

/// What all ports share.
#[derive(Debug)]
pub struct InboundPolicies {
    /// The policy service; `None` when there is none.
    pub channel: Option<Channel>,
    /// `InboundServerPolicies.WatchPort`.
    pub method: Method,
    /// This workload, as the policy service knows it.
    pub workload: String,
    /// The policy of a port whose first policy cannot be read.
    pub closed: Arc<Server>,
    /// Ports that count for readiness.
    pub pending: PortsPending,
}

impl InboundPolicies {
    /// Keeps one port's policy up to date. `default` is what the sender holds at first.
    pub async fn watch(
        &self,
        port: u16,
        default: Arc<Server>,
        sender: &watch::Sender<Arc<Server>>,
        mut interest: Interest,
    ) {
        let Some(channel) = &self.channel else {
            self.pending.answered(port);
            return interest.lost(sender).await;
        };
        let target = port.to_string();
        let mut known = false;
        let open = async |lease| {
            let request = PortSpec {
                workload: self.workload.clone(),
                port: u32::from(port),
            };
            let client = InboundServerPoliciesClient::with_origin(lease, channel.origin());
            client
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .watch_port(request)
                .await
        };
        let on = |event| {
            match event {
                Event::Opened => {}
                Event::Message(message) => {
                    match Server::compile(&message) {
                        Ok(server) => {
                            for problem in &server.problems {
                                tracing::warn!(port, %problem, "part of an inbound policy cannot be carried out");
                            }
                            known = true;
                            sender.send_replace(Arc::new(server));
                        }
                        Err(error) => {
                            self.method.invalid(&target, &error);
                            if !known {
                                sender.send_replace(self.closed.clone());
                            }
                        }
                    }
                    self.pending.answered(port);
                }
                Event::Refused(status) => {
                    tracing::info!(
                        port,
                        why = status.message(),
                        "no policy for this port; the default holds"
                    );
                    known = false;
                    sender.send_replace(default.clone());
                    self.pending.answered(port);
                }
                Event::Tick => return interest.flow(sender),
            }
            Flow::Continue
        };
        self.method.follow(channel, &target, open, on).await;
    }
}
