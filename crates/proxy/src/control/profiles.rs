//! The profile of a name by which requests come in: `Destination.GetProfile`, of which a server counts by the routes.
//!
//! What a profile says of retries, timeouts and backends is for the clients' proxies (`outbound.rs`). Without an answer
//! requests are served all the same, and counted without their profile.

use std::sync::Arc;

use tokio::sync::watch;
use tulle_api::destination::DestinationProfile;
use tulle_engine::outbound::ProfileRoutes;

use super::destination::DestinationService;
use super::interest::Interest;
use super::watch::{Event, Flow, Method};

/// What all names share.
#[derive(Debug)]
pub struct Profiles {
    /// `None` when there is no such service.
    pub service: Option<DestinationService>,
    /// `Destination.GetProfile`, which asks about addresses too.
    pub method: Method,
}

impl Profiles {
    /// Keeps the profile of one name, `host:port`, up to date until nobody is interested any more.
    pub async fn watch(
        &self,
        path: &str,
        sender: &watch::Sender<Option<Arc<ProfileRoutes>>>,
        mut interest: Interest,
    ) {
        let Some(service) = &self.service else {
            return interest.lost(sender).await;
        };
        let port = path
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse().ok());
        let open = async |lease| service.get_profile(lease, path).await;
        let on = |event| {
            match event {
                Event::Opened => {}
                Event::Message(message) => {
                    sender.send_replace(self.compile(path, port.unwrap_or(80), &message));
                }
                Event::Refused(_) => {
                    sender.send_replace(None);
                }
                Event::Tick => return interest.flow(sender),
            }
            Flow::Continue
        };
        self.method.follow(&service.channel, path, open, on).await;
    }

    fn compile(
        &self,
        path: &str,
        port: u16,
        message: &DestinationProfile,
    ) -> Option<Arc<ProfileRoutes>> {
        if message.fully_qualified_name.is_empty() {
            return None;
        }
        let mut problems = Vec::new();
        let routes = ProfileRoutes::compile(message, port, &mut problems);
        for problem in &problems {
            tracing::warn!(path, %problem, "part of a profile cannot be carried out");
        }
        (!routes.is_empty()).then(|| Arc::new(routes))
    }
}
