//! The destination service: how its two streams are opened, and the endpoints behind a name (`Destination.Get`), folded
//! into a table. `Destination.GetProfile` is followed in `profiles.rs` (by name) and `outbound.rs` (by address).

use std::sync::Arc;

use tokio::sync::watch;
use tonic::{Response, Status, Streaming};
use tulle_api::destination::destination_client::DestinationClient;
use tulle_api::destination::{DestinationProfile, GetDestination, NoEndpoints, Update, update};
use tulle_engine::destination::Endpoints;

use super::channel::{Channel, Lease, MAX_MESSAGE_BYTES};
use super::interest::Interest;
use super::watch::{Event, Flow, Method};

/// What the path of a question is: a name or an address, as Kubernetes knows it.
const SCHEME: &str = "k8s";

/// The destination service, and who asks it.
#[derive(Clone, Debug)]
pub struct DestinationService {
    /// Connections to it.
    pub channel: Channel,
    /// Handed to the service as it is.
    pub context: String,
}

impl DestinationService {
    /// Opens `Destination.Get` for `path`, a `host:port`.
    ///
    /// # Errors
    /// What the service, or the connection to it, ends the call with.
    pub async fn get(
        &self,
        lease: Lease,
        path: &str,
    ) -> Result<Response<Streaming<Update>>, Status> {
        self.client(lease).get(self.question(path)).await
    }

    /// Opens `Destination.GetProfile` for `path`, a `host:port` or `ip:port`.
    ///
    /// # Errors
    /// What the service, or the connection to it, ends the call with.
    pub async fn get_profile(
        &self,
        lease: Lease,
        path: &str,
    ) -> Result<Response<Streaming<DestinationProfile>>, Status> {
        self.client(lease).get_profile(self.question(path)).await
    }

    fn client(&self, lease: Lease) -> DestinationClient<Lease> {
        DestinationClient::with_origin(lease, self.channel.origin())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    fn question(&self, path: &str) -> GetDestination {
        GetDestination {
            scheme: SCHEME.to_owned(),
            path: path.to_owned(),
            context_token: self.context.clone(),
        }
    }
}

/// What all names share.
#[derive(Debug)]
pub struct Destinations {
    /// `None` when there is no such service.
    pub service: Option<DestinationService>,
    /// `Destination.Get`.
    pub method: Method,
}

impl Destinations {
    /// Keeps the endpoints of one name up to date. A change costs what it changes: the table is changed in place
    /// unless a reader keeps the old one.
    pub async fn watch(
        &self,
        path: &str,
        sender: &watch::Sender<Option<Arc<Endpoints>>>,
        mut interest: Interest,
    ) {
        let missing = Update {
            update: Some(update::Update::NoEndpoints(NoEndpoints { exists: false })),
        };
        let apply = |message: &Update, first: bool| {
            sender.send_modify(|known| {
                let endpoints = Arc::make_mut(known.get_or_insert_default());
                for problem in endpoints.apply(message, first).problems {
                    self.method.invalid(path, &problem);
                }
            });
        };
        let Some(service) = &self.service else {
            apply(&missing, true);
            return interest.lost(sender).await;
        };
        let mut first = true;
        let open = async |lease| service.get(lease, path).await;
        let on = |event| {
            match event {
                Event::Opened => first = true,
                Event::Message(message) => apply(&message, std::mem::replace(&mut first, false)),
                Event::Refused(_) => apply(&missing, true),
                Event::Tick => return interest.flow(sender),
            }
            Flow::Continue
        };
        self.method.follow(&service.channel, path, open, on).await;
    }
}
