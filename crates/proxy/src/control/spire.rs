//! SPIFFE's Workload API as the source of the certificate: a stream on a unix socket, which brings the workload's
//! documents and brings them again whenever one has changed (SPIRE's agent does so at half of a document's life).
//!
//! What cannot be used changes nothing: the last good document serves. A stream that ends is opened again with pauses
//! of 100 ms to 10 s, for ever.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status};
use tulle_api::spiffe::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use tulle_api::spiffe::{X509svidRequest, X509svidResponse};

use super::backoff::Backoff;
use super::channel::{Channel, MAX_MESSAGE_BYTES};
use super::identity::Metrics;
use crate::identity::{Epoch, Wanted};
use crate::metrics::{Gauge, Labels, Shard, families};

/// By this the API knows that it is called on purpose, and not by a browser that was led to it.
const HEADER: &str = "workload.spiffe.io";

/// Keeps the certificate fresh.
#[derive(Debug)]
pub struct Workload {
    wanted: Wanted,
    channel: Channel,
    epochs: watch::Sender<Option<Arc<Epoch>>>,
    metrics: Metrics,
    anchors: Gauge,
}

impl Workload {
    /// One that publishes into `epochs`. `channel` leads to the agent's socket.
    pub fn new(
        wanted: Wanted,
        channel: Channel,
        epochs: watch::Sender<Option<Arc<Epoch>>>,
        shard: &Shard,
    ) -> Self {
        Self {
            wanted,
            channel,
            epochs,
            metrics: Metrics::new(shard),
            anchors: shard.gauge(&families::IDENTITY_TRUST_ANCHORS, &Labels::none()),
        }
    }

    /// Follows the documents, for ever.
    pub async fn run(self) {
        let mut backoff = Backoff::default();
        loop {
            let status = self.follow(&mut backoff).await;
            self.channel.ended(status.code());
            self.metrics.failed();
            let pause = backoff.failed(fastrand::f64());
            let (code, why) = (status.code(), status.message());
            let keeps = self.epochs.borrow().is_some();
            tracing::warn!(?code, why, keeps, retry_in = ?pause, hint = hint(code), "the SPIFFE Workload API gives no documents");
            tokio::time::sleep(pause).await;
        }
    }

    /// Takes documents until the stream ends; says how.
    async fn follow(&self, backoff: &mut Backoff) -> Status {
        let lease = self.channel.lease().await;
        let mut client = SpiffeWorkloadApiClient::with_origin(lease, self.channel.origin())
            .max_decoding_message_size(MAX_MESSAGE_BYTES);
        let mut request = Request::new(X509svidRequest {});
        let yes = MetadataValue::from_static("true");
        request.metadata_mut().insert(HEADER, yes);
        let mut stream = match client.fetch_x509svid(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => return status,
        };
        loop {
            match stream.message().await {
                Ok(Some(message)) => {
                    if self.take(&message) {
                        backoff.succeeded();
                    }
                }
                Ok(None) => return Status::ok("the agent has ended the stream"),
                Err(status) => return status,
            }
        }
    }

    /// Puts a message in force. False: it cannot be used, and the last good one stays.
    fn take(&self, message: &X509svidResponse) -> bool {
        let epoch = match self.wanted.epoch(message) {
            Ok(epoch) => epoch,
            Err(error) => {
                self.metrics.failed();
                let keeps = self.epochs.borrow().is_some();
                tracing::warn!(%error, keeps, "a message of the SPIFFE Workload API cannot be used; look at the workload's registration entry");
                return false;
            }
        };
        let same = self
            .epochs
            .borrow()
            .as_ref()
            .is_some_and(|known| known.is_same(&epoch));
        if same {
            // After a reconnection: sessions that can be resumed stay.
            return true;
        }
        let now = SystemTime::now();
        self.metrics.obtained(&epoch, now);
        self.anchors.set(epoch.anchors().count() as u64);
        let valid_for = epoch.not_after().duration_since(now).unwrap_or_default();
        tracing::info!(
            identity = epoch.name(),
            ?valid_for,
            anchors = epoch.anchors().count(),
            "document obtained"
        );
        self.epochs.send_replace(Some(Arc::new(epoch)));
        true
    }
}

/// What to do about it.
fn hint(code: Code) -> &'static str {
    match code {
        Code::PermissionDenied => {
            "the agent knows no document for this process; register the workload"
        }
        Code::Unavailable => "look whether the agent runs",
        _ => "look at the agent's log",
    }
}
