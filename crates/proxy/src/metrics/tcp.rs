//! The TCP families of one kind of connection, resolved together.

use super::families;
use super::{Counter, Gauge, Labels, Shard};

/// The TCP series of connections that share their labels (direction, peer, TLS state, target).
#[derive(Debug)]
pub struct TcpMetrics {
    shard: Shard,
    labels: Labels,
    open_total: Counter,
    open_connections: Gauge,
    /// Bytes read from the peer; add as they come.
    pub read_bytes: Counter,
    /// Bytes written to the peer; add as they go.
    pub write_bytes: Counter,
}

impl TcpMetrics {
    /// Resolves the series. `labels` hold `direction`, `peer` and what else is known.
    pub fn new(shard: &Shard, labels: Labels) -> Self {
        Self {
            open_total: shard.counter(&families::TCP_OPEN_TOTAL, &labels),
            open_connections: shard.gauge(&families::TCP_OPEN_CONNECTIONS, &labels),
            read_bytes: shard.counter(&families::TCP_READ_BYTES_TOTAL, &labels),
            write_bytes: shard.counter(&families::TCP_WRITE_BYTES_TOTAL, &labels),
            shard: shard.clone(),
            labels,
        }
    }

    /// A connection was opened; pair it with exactly one [`Self::closed`].
    pub fn opened(&self) {
        self.open_total.inc();
        self.open_connections.inc();
    }

    /// A connection was closed. `errno`: the error that ended it (`ECONNRESET`), empty for an orderly end. Errors are
    /// a closed set of names, so the look-up here is bounded; it is off the request path.
    pub fn closed(&self, errno: &str) {
        self.open_connections.dec();
        let classification = if errno.is_empty() {
            "success"
        } else {
            "failure"
        };
        let labels = self.labels.extend().add("errno", errno);
        let labels = labels.add("classification", classification).build();
        self.shard
            .counter(&families::TCP_CLOSE_TOTAL, &labels)
            .inc();
    }
}
