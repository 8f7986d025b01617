//! The trust anchors of the mesh, followed while they change: `Identity.WatchTrustAnchors`.
//!
//! Those of the environment hold until the service has named others, and for ever where it does not know the method
//! (Linkerd's does not). It is asked over TLS that the anchors in force verify, so new ones come with the word of old
//! ones. A message that cannot be used changes nothing: the set is never empty.

use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use tonic::{Code, Status};
use tulle_api::identity::identity_client::IdentityClient;
use tulle_api::identity::{TrustAnchors as Message, WatchTrustAnchorsRequest};

use super::channel::{Channel, MAX_MESSAGE_BYTES};
use super::watch::{Event, Flow, Method};
use crate::identity::TrustAnchors;
use crate::metrics::{Gauge, Labels, Shard, families};

/// The one target of the method, as `/config` shows it.
pub const TARGET: &str = "mesh";

/// Follows the anchors, for ever.
pub async fn follow(
    channel: Channel,
    method: Method,
    anchors: watch::Sender<TrustAnchors>,
    shard: Shard,
) {
    let listed: Gauge = shard.gauge(&families::IDENTITY_TRUST_ANCHORS, &Labels::none());
    listed.set(anchors.borrow().count() as u64);
    let origin = channel.origin();
    let open = async |lease| {
        let mut client = IdentityClient::with_origin(lease, origin.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES);
        let answer = client
            .watch_trust_anchors(WatchTrustAnchorsRequest {})
            .await;
        // A service without the method may have it after an upgrade: asked again as what is not found.
        answer.map_err(|status| match status.code() {
            Code::Unimplemented => Status::not_found("the service does not tell trust anchors"),
            _ => status,
        })
    };
    let on = |event| {
        if let Event::Message(message) = event {
            match read(message) {
                Ok(told) if told != *anchors.borrow() => {
                    tracing::info!(count = told.count(), "other trust anchors are in force");
                    listed.set(told.count() as u64);
                    anchors.send_replace(told);
                }
                Ok(_) => {}
                Err(why) => method.invalid(TARGET, &why),
            }
        }
        Flow::Continue
    };
    method.follow(&channel, TARGET, open, on).await;
}

fn read(message: Message) -> Result<TrustAnchors, String> {
    let listed = message.certificates.into_iter().map(CertificateDer::from);
    TrustAnchors::from_der(listed.collect())
}
