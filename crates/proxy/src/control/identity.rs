//! Getting and renewing the certificate: a fresh key and request each time, the token file read each time,
//! `Identity.Certify` over TLS that only the server proves, so that it also works after our certificate has expired.
//!
//! While a renewal fails the old certificate serves; attempts go on with pauses of 100 ms to 10 s, for ever.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use tonic::Code;
use tulle_api::identity::CertifyRequest;
use tulle_api::identity::identity_client::IdentityClient;

use super::backoff::Backoff;
use super::channel::{Channel, MAX_MESSAGE_BYTES};
use crate::config;
use crate::identity::{self, Epoch, TrustAnchors};
use crate::metrics::{Counter, Gauge, Labels, Shard, families};

/// How long one attempt at a certificate may take, the connection included.
const ATTEMPT: Duration = Duration::from_secs(10);
/// Largest token that is sent; Kubernetes' are about 1 KB.
const MAX_TOKEN_BYTES: u64 = 64 << 10;
/// How often the wall clock is looked at while waiting: a machine that slept must not wait on with an old certificate.
const CLOCK_CHECK: Duration = Duration::from_secs(30);

/// Keeps the certificate fresh.
#[derive(Debug)]
pub struct Certifier {
    name: String,
    config: config::Certify,
    anchors: watch::Receiver<TrustAnchors>,
    channel: Channel,
    epochs: watch::Sender<Option<Arc<Epoch>>>,
    metrics: Metrics,
}

/// How it went, whoever the certificates come from.
#[derive(Debug)]
pub struct Metrics {
    refreshes: Counter,
    ok: Counter,
    failed: Counter,
    expiration: [Gauge; 2],
    refreshed_at: Gauge,
}

impl Metrics {
    /// The series, at 0.
    pub fn new(shard: &Shard) -> Self {
        let none = Labels::none();
        let result = |result| {
            let labels = Labels::builder().add("result", result).build();
            shard.counter(&families::CONTROL_IDENTITY_CERT_REFRESHES_TOTAL, &labels)
        };
        Self {
            refreshes: shard.counter(&families::IDENTITY_CERT_REFRESH_COUNT, &none),
            ok: result("ok"),
            failed: result("error"),
            expiration: [
                shard.gauge(&families::IDENTITY_CERT_EXPIRATION_TIMESTAMP_SECONDS, &none),
                shard.gauge(
                    &families::CONTROL_IDENTITY_CERT_EXPIRATION_TIMESTAMP_SECONDS,
                    &none,
                ),
            ],
            refreshed_at: shard.gauge(
                &families::CONTROL_IDENTITY_CERT_REFRESH_TIMESTAMP_SECONDS,
                &none,
            ),
        }
    }

    /// There is no new certificate although there should be.
    pub fn failed(&self) {
        self.failed.inc();
    }

    /// There is a new certificate.
    pub fn obtained(&self, epoch: &Epoch, now: SystemTime) {
        self.refreshes.inc();
        self.ok.inc();
        for gauge in &self.expiration {
            gauge.set(unix_seconds(epoch.not_after()));
        }
        self.refreshed_at.set(unix_seconds(now));
    }
}

fn unix_seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// A certificate and until when it is to be used.
struct Obtained {
    epoch: Epoch,
    valid_until: SystemTime,
}

impl Certifier {
    /// A certifier that publishes into `epochs`.
    pub fn new(
        name: String,
        config: config::Certify,
        anchors: watch::Receiver<TrustAnchors>,
        channel: Channel,
        epochs: watch::Sender<Option<Arc<Epoch>>>,
        shard: &Shard,
    ) -> Self {
        Self {
            name,
            config,
            anchors,
            channel,
            epochs,
            metrics: Metrics::new(shard),
        }
    }

    /// Obtains and renews, for ever.
    pub async fn run(mut self) {
        let mut backoff = Backoff::default();
        loop {
            let attempt = tokio::time::timeout(ATTEMPT, self.certify()).await;
            let outcome = attempt.unwrap_or_else(|_| {
                let reached = self
                    .channel
                    .last_error()
                    .unwrap_or_else(|| "it does not answer".to_owned());
                Err(format!(
                    "no answer from the identity service within {ATTEMPT:?}: {reached}"
                ))
            });
            match outcome {
                Ok(Obtained { epoch, valid_until }) => {
                    let now = SystemTime::now();
                    let remaining = valid_until.duration_since(now).unwrap_or_default();
                    let pause = identity::renew_after(
                        remaining,
                        self.config.min_refresh,
                        self.config.max_refresh,
                        fastrand::f64(),
                    );
                    self.metrics.obtained(&epoch, now);
                    tracing::info!(identity = epoch.name(), valid_for = ?remaining, renew_in = ?pause, "certificate obtained");
                    backoff.succeeded();
                    self.epochs.send_replace(Some(Arc::new(epoch)));
                    self.rest(now + pause, pause).await;
                }
                Err(error) => {
                    self.metrics.failed();
                    let pause = backoff.failed(fastrand::f64());
                    let expired = self
                        .epochs
                        .borrow()
                        .as_ref()
                        .is_some_and(|epoch| epoch.is_expired(SystemTime::now()));
                    tracing::warn!(error, retry_in = ?pause, expired, "no certificate from the identity service");
                    self.rest(SystemTime::now() + pause, pause).await;
                }
            }
        }
    }

    /// Waits until the pause has passed, or until the certificate leads to no anchor any more. New anchors are put in
    /// force at once, with the certificate that there is.
    async fn rest(&mut self, wall: SystemTime, pause: Duration) {
        let pause = sleep_until(wall, pause);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => return,
                Ok(()) = self.anchors.changed() => {
                    if !self.adopt() {
                        return;
                    }
                }
            }
        }
    }

    /// Puts the newest anchors in force. `false`: a certificate under one of them is needed.
    fn adopt(&mut self) -> bool {
        let anchors = self.anchors.borrow_and_update().clone();
        let Some(epoch) = self.epochs.borrow().clone() else {
            return true; // The first certificate is judged by them.
        };
        match epoch.trusting(&anchors) {
            Ok(epoch) => {
                self.epochs.send_replace(Some(Arc::new(epoch)));
            }
            Err(error) => tracing::error!(%error, "new trust anchors cannot be put in force"),
        }
        let good = epoch.is_under(&anchors);
        if !good {
            tracing::info!(
                "the trust anchor of this proxy's certificate was dropped; renewing now"
            );
        }
        good
    }

    async fn certify(&self) -> Result<Obtained, String> {
        let name = &self.name;
        let token = read_token(&self.config.token_file)?;
        let request = identity::request(name).map_err(|_| "no key could be made".to_owned())?;
        let message = CertifyRequest {
            identity: name.clone(),
            token,
            certificate_signing_request: request.der,
        };
        let lease = self.channel.lease().await;
        let mut client = IdentityClient::with_origin(lease, self.channel.origin())
            .max_decoding_message_size(MAX_MESSAGE_BYTES);
        let answer = client.certify(message).await;
        self.channel
            .ended(answer.as_ref().err().map_or(Code::Ok, tonic::Status::code));
        let answer = answer
            .map_err(|status| format!("{:?}: {}", status.code(), status.message()))?
            .into_inner();
        let chain: Vec<CertificateDer<'static>> = std::iter::once(answer.leaf_certificate)
            .chain(answer.intermediate_certificates)
            .map(CertificateDer::from)
            .collect();
        let anchors = self.anchors.borrow().clone();
        let epoch =
            Epoch::new(name, &anchors, chain, &request.key).map_err(|error| error.to_string())?;
        let said = answer.valid_until.and_then(|until| {
            let seconds = u64::try_from(until.seconds).ok()?;
            Some(UNIX_EPOCH + Duration::from_secs(seconds))
        });
        let valid_until = said.map_or(epoch.not_after(), |said| said.min(epoch.not_after()));
        Ok(Obtained { epoch, valid_until })
    }
}

fn read_token(path: &str) -> Result<Vec<u8>, String> {
    let size = std::fs::metadata(path)
        .map_err(|error| format!("the token file {path} cannot be read: {error}"))?
        .len();
    if size > MAX_TOKEN_BYTES {
        return Err(format!(
            "the token file {path} is larger than {MAX_TOKEN_BYTES} bytes"
        ));
    }
    let token = std::fs::read(path)
        .map_err(|error| format!("the token file {path} cannot be read: {error}"))?;
    let token = token.trim_ascii();
    if token.is_empty() {
        Err(format!("the token file {path} is empty"))
    } else {
        Ok(token.to_vec())
    }
}

/// Waits for the pause to pass on either clock.
async fn sleep_until(wall: SystemTime, pause: Duration) {
    let end = Instant::now() + pause;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let wall_left = wall.duration_since(SystemTime::now()).unwrap_or_default();
        if left.is_zero() || wall_left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(wall_left).min(CLOCK_CHECK)).await;
    }
}
