//! The endpoints behind a name: `Destination.Get`, folded into a table.

use std::sync::Arc;

use tokio::sync::watch;
use tulle_api::destination::destination_client::DestinationClient;
use tulle_api::destination::{GetDestination, NoEndpoints, Update, update};
use tulle_engine::destination::Endpoints;

use super::channel::{Channel, MAX_MESSAGE_BYTES};
use super::interest::Interest;
use super::watch::{Event, Flow, Method};

/// What all names share.
#[derive(Debug)]
pub struct Destinations {
    /// The destination service; `None` when there is none.
    pub channel: Option<Channel>,
    /// `Destination.Get`.
    pub method: Method,
    /// Handed to the service as it is.
    pub context: String,
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
        let Some(channel) = &self.channel else {
            apply(&missing, true);
            return interest.lost(sender).await;
        };
        let mut first = true;
        let open = async |lease| {
            let request = GetDestination {
                scheme: "k8s".to_owned(),
                path: path.to_owned(),
                context_token: self.context.clone(),
            };
            let client = DestinationClient::with_origin(lease, channel.origin());
            client
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .get(request)
                .await
        };
        let on = |event| {
            match event {
                Event::Opened => first = true,
                Event::Message(message) => apply(&message, std::mem::replace(&mut first, false)),
                Event::Refused(_) => apply(&missing, true),
                Event::Tick => return interest.flow(sender),
            }
            Flow::Continue
        };
        self.method.follow(channel, path, open, on).await;
    }
}
