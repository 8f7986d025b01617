//! The access log of the inbound side: one line per request, in Apache's format or as JSON, with Linkerd's fields.
//!
//! A line is put together on the worker and written by a thread of its own, so that a standard error that nobody reads
//! holds up no request: when [`WAITING`] lines wait, further ones are dropped and counted. Off, it costs a request one
//! test.

use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime};

use serde_json::json;
use tokio::time::Instant;
use tulle_http::{Head, Version};

use super::Observer;
use super::text::{timestamp, visible};
use crate::metrics::Counter;

/// Most lines of the access log that wait for the writer.
const WAITING: usize = 1_024;
/// Longest URI in a line of the access log, in bytes.
const LONGEST_URI: usize = 2_048;
/// Longest other value in a line of the access log, in bytes.
const LONGEST: usize = 256;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Apache,
    Json,
}

/// Reads `LINKERD2_PROXY_ACCESS_LOG`.
///
/// # Errors
/// It is neither `apache` nor `json`.
pub fn format(text: &str) -> Result<Format, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "apache" => Ok(Format::Apache),
        "json" => Ok(Format::Json),
        _ => Err("there is no such format".to_owned()),
    }
}

/// The way to the thread that writes.
#[derive(Clone, Debug)]
pub struct Writer {
    format: Format,
    lines: SyncSender<String>,
}

impl Writer {
    /// Starts the thread; it ends with the last writer.
    ///
    /// # Errors
    /// There can be no thread.
    pub fn start(format: Format, to: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, waiting) = sync_channel(WAITING);
        std::thread::Builder::new()
            .name("tulle-access-log".to_owned())
            .spawn(move || write(&waiting, BufWriter::new(to)))?;
        Ok(Writer { format, lines })
    }
}

fn write(waiting: &Receiver<String>, mut to: BufWriter<impl Write>) {
    while let Ok(line) = waiting.recv() {
        let next = std::iter::once(line).chain(waiting.try_iter());
        for line in next.take(WAITING) {
            // Where standard error is closed there is nobody to tell.
            let _lost = to.write_all(line.as_bytes());
        }
        let _lost = to.flush();
    }
}

/// A worker's access log.
#[derive(Debug)]
pub struct Log {
    pub(super) writer: Writer,
    pub(super) dropped: Counter,
}

/// The line of a request that is being served.
#[derive(Debug)]
pub struct Line {
    observer: Rc<Observer>,
    at: SystemTime,
    client: SocketAddr,
    identity: String,
    method: String,
    uri: String,
    version: &'static str,
    host: String,
    user_agent: String,
    trace: String,
    request_bytes: String,
    response_bytes: String,
    handed_on: Option<Instant>,
}

impl Line {
    pub(super) fn begin(
        observer: Rc<Observer>,
        head: &Head,
        client: SocketAddr,
        identity: &str,
    ) -> Box<Self> {
        let field = |name: &str| visible(head.get(name).unwrap_or_default(), LONGEST);
        let host = visible(head.authority().unwrap_or_default(), LONGEST);
        let path = visible(head.path(), LONGEST_URI);
        let (version, uri) = match head.version() {
            Version::Http2 => ("HTTP/2.0", format!("http://{host}{path}")),
            Version::Http11 => ("HTTP/1.1", path),
            Version::Http10 => ("HTTP/1.0", path),
        };
        let trace = ["x-b3-traceid", "traceparent", "x-request-id"]
            .into_iter()
            .find(|name| head.get(*name).is_some());
        Box::new(Line {
            observer,
            at: SystemTime::now(),
            client,
            identity: visible(identity.as_bytes(), LONGEST),
            method: visible(head.method(), LONGEST),
            uri,
            version,
            user_agent: field("user-agent"),
            trace: trace.map(field).unwrap_or_default(),
            request_bytes: field("content-length"),
            response_bytes: String::new(),
            handed_on: None,
            host,
        })
    }

    /// The request's head goes to the application.
    pub fn handed_on(&mut self, now: Instant) {
        self.handed_on.get_or_insert(now);
    }

    /// The answer's head is there.
    pub fn answered(&mut self, head: &Head) {
        self.response_bytes = visible(head.get("content-length").unwrap_or_default(), LONGEST);
    }

    /// The request has ended; `status` is 0 when there was no answer.
    pub fn end(&self, status: u16, started: Instant, ended: Instant) {
        let Some(log) = &self.observer.access else {
            return;
        };
        let total = ended - started;
        let processing = self.handed_on.map_or(total, |moment| moment - started);
        let line = match log.writer.format {
            Format::Apache => self.apache(status),
            Format::Json => self.json(status, total, processing),
        };
        if log.writer.lines.try_send(line).is_err() {
            log.dropped.inc();
        }
    }

    fn apache(&self, status: u16) -> String {
        let or_dash = |text: &str| match text {
            "" => "-".to_owned(),
            // Neither a quote nor a space may end a field.
            text => text.replace('\\', "\\\\").replace('"', "\\\""),
        };
        let mut line = format!(
            "{} {} - [{}] \"{} {} {}\" ",
            self.client,
            or_dash(&self.identity),
            timestamp(self.at),
            or_dash(&self.method),
            or_dash(&self.uri),
            self.version,
        );
        let bytes = or_dash(&self.response_bytes);
        let _infallible = match status {
            0 => writeln!(line, "- {bytes}"),
            status => writeln!(line, "{status} {bytes}"),
        };
        line
    }

    fn json(&self, status: u16, total: Duration, processing: Duration) -> String {
        let mut line = json!({
            "client.addr": self.client.to_string(),
            "client.id": self.identity,
            "timestamp": timestamp(self.at),
            "method": self.method,
            "uri": self.uri,
            "version": self.version,
            "trace_id": self.trace,
            "request_bytes": self.request_bytes,
            "status": status,
            "response_bytes": self.response_bytes,
            "total_ns": total.as_nanos().to_string(),
            "processing_ns": processing.as_nanos().to_string(),
            "user_agent": self.user_agent,
            "host": self.host,
        })
        .to_string();
        line.push('\n');
        line
    }
}
