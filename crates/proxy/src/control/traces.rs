//! The workers' spans on their way to a collector: OTLP over gRPC, on a connection like those to the control plane
//! (mutual TLS with the identity that the environment names; plain text only on loopback).
//!
//! A message goes when [`BATCH`] spans wait on a worker, and after each interval. One message at a time: while the
//! collector is away it is kept and tried again, the workers' queues fill, and what does not fit there is counted. So
//! nothing grows, and no request waits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tonic::{Code, Status};
use tulle_api::opentelemetry::proto::collector::trace::v1::ExportTraceServiceRequest;
use tulle_api::opentelemetry::proto::collector::trace::v1::trace_service_client::TraceServiceClient;
use tulle_api::opentelemetry::proto::resource::v1::Resource;

use super::backoff::Backoff;
use super::channel::{Channel, Connector, Security};
use crate::config::{Config, Tracing};
use crate::identity::Epochs;
use crate::metrics::{Counter, Labels, Shard, families};
use crate::trace::otlp;
use crate::trace::queue::{BATCH, Traces};

/// How long a collector may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a message is sent that the collector does not refuse for good: for about half a minute.
const TRIES: usize = 10;
/// Largest answer that is read.
const MAX_ANSWER: usize = 16 << 10;
/// How long the last spans may take when the process ends.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// So much is read of the file with the pod's labels.
const MAX_LABELS_FILE: u64 = 64 << 10;

/// Sends the spans.
#[derive(Debug)]
pub struct Exporter {
    channel: Channel,
    traces: Arc<Traces>,
    resource: Resource,
    interval: Duration,
    streams: Counter,
    requests: Counter,
    spans: Counter,
    rejected: Counter,
    failed: Counter,
    flushes: mpsc::Receiver<oneshot::Sender<()>>,
}

/// Asks for what waits to be sent at once, at the end.
#[derive(Clone, Debug)]
pub struct Flush(mpsc::Sender<oneshot::Sender<()>>);

impl Flush {
    /// Waits until what has ended so far is sent, or [`LAST_WORDS`] have passed.
    pub async fn now(&self) {
        let (done, sent) = oneshot::channel();
        if self.0.try_send(done).is_ok() {
            // Late or never: the process ends all the same.
            let _late = tokio::time::timeout(LAST_WORDS, sent).await;
        }
    }
}

impl Exporter {
    pub fn new(
        config: &Config,
        tracing: &Tracing,
        epochs: Epochs,
        shard: &Shard,
        traces: Arc<Traces>,
    ) -> (Self, Flush) {
        let connector = Connector::new(config, shard);
        let security = Security::Mutual(epochs);
        let channel = connector.channel("opentelemetry", &tracing.collector, security);
        let counter = |family| shard.counter(family, &Labels::none());
        let dropped = |reason| {
            let labels = Labels::builder().add("reason", reason).build();
            shard.counter(&families::TRACE_SPANS_DROPPED_TOTAL, &labels)
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let (ask, flushes) = mpsc::channel(1);
        let exporter = Exporter {
            resource: otlp::resource(&tracing.host, now.unwrap_or_default(), &attributes(tracing)),
            channel,
            traces,
            interval: tracing.interval,
            streams: counter(&families::OPENTELEMETRY_SPAN_EXPORT_STREAMS),
            requests: counter(&families::OPENTELEMETRY_SPAN_EXPORT_REQUESTS),
            spans: counter(&families::OPENTELEMETRY_SPAN_EXPORTS),
            rejected: dropped("rejected"),
            failed: dropped("failed"),
            flushes,
        };
        (exporter, Flush(ask))
    }

    /// Sends for ever.
    pub async fn run(mut self) {
        let mut due = Instant::now() + self.interval;
        loop {
            let mut flush = None;
            tokio::select! {
                () = self.traces.full() => {}
                () = tokio::time::sleep_until(due) => {}
                asked = self.flushes.recv() => match asked {
                    Some(done) => flush = Some(done),
                    None => return,
                },
            }
            due = Instant::now() + self.interval;
            while let Some((count, message)) = self.next() {
                self.send(count, message).await;
            }
            if let Some(done) = flush {
                // Whoever asked may have left.
                let _left = done.send(());
            }
        }
    }

    fn next(&self) -> Option<(u64, ExportTraceServiceRequest)> {
        let mut spans = Vec::new();
        let count = self
            .traces
            .drain(BATCH, |record| spans.push(otlp::span(record)));
        (count > 0).then(|| (count as u64, otlp::request(self.resource.clone(), spans)))
    }

    async fn send(&self, count: u64, message: ExportTraceServiceRequest) {
        let mut backoff = Backoff::default();
        for _ in 0..TRIES {
            match self.export(message.clone()).await {
                Ok(rejected) => {
                    let rejected = rejected.min(count);
                    self.spans.add(count - rejected);
                    self.rejected.add(rejected);
                    return;
                }
                Err(status) if may_be_sent_again(status.code()) => {
                    tracing::debug!(%status, "spans could not be handed over; trying again");
                    tokio::time::sleep(backoff.failed(fastrand::f64())).await;
                }
                Err(status) => {
                    tracing::warn!(
                        %status, spans = count,
                        "the collector refuses spans, which are lost; see its log, and that it speaks OTLP over gRPC"
                    );
                    self.rejected.add(count);
                    return;
                }
            }
        }
        tracing::warn!(
            spans = count,
            tries = TRIES,
            "the collector takes no spans; these are lost"
        );
        self.failed.add(count);
    }

    /// How many spans the collector did not take of those that it got.
    async fn export(&self, message: ExportTraceServiceRequest) -> Result<u64, Status> {
        let lease = self.channel.lease().await;
        self.streams.inc();
        self.requests.inc();
        let mut client = TraceServiceClient::with_origin(lease, self.channel.origin())
            .max_decoding_message_size(MAX_ANSWER);
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, client.export(message)).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
        let code = answer.as_ref().map_or_else(Status::code, |_| Code::Ok);
        self.channel.ended(code);
        let partial = answer?.into_inner().partial_success.unwrap_or_default();
        if partial.rejected_spans > 0 {
            tracing::debug!(
                rejected = partial.rejected_spans,
                why = partial.error_message,
                "the collector took some of the spans"
            );
        }
        Ok(u64::try_from(partial.rejected_spans).unwrap_or_default())
    }
}

/// OTLP's list of failures after which a message may be sent again (OTLP/gRPC "Failures").
fn may_be_sent_again(code: Code) -> bool {
    matches!(
        code,
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss
    )
}

/// As Linkerd orders them: the variables over the pod's labels, and those over the service's name.
fn attributes(tracing: &Tracing) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    if let Some(name) = &tracing.service_name {
        all.insert("service.name".to_owned(), name.clone());
    }
    if let Some(path) = &tracing.labels_path {
        match read(path) {
            Ok(text) => all.extend(crate::config::values::attributes(&text)),
            Err(error) => {
                tracing::warn!(%path, %error, "the labels for spans cannot be read; they go without");
            }
        }
    }
    all.extend(tracing.attributes.clone());
    all
}

fn read(path: &str) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(MAX_LABELS_FILE)
        .read_to_string(&mut text)?;
    Ok(text)
}
