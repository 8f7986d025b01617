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
    read_bytes: Counter,
    write_bytes: Counter,
    transfer: Option<Transfer>,
}

/// The same bytes by what they may cost, all endpoints together.
#[derive(Debug)]
pub struct Transfer {
    /// Bytes from endpoints.
    pub received: Counter,
    /// Bytes to endpoints.
    pub sent: Counter,
}

impl TcpMetrics {
    /// Resolves the series. `labels` hold `direction`, `peer` and what else is known.
    pub fn new(shard: &Shard, labels: Labels) -> Self {
        Self {
            open_total: shard.counter(&families::TCP_OPEN_TOTAL, &labels),
            open_connections: shard.gauge(&families::TCP_OPEN_CONNECTIONS, &labels),
            read_bytes: shard.counter(&families::TCP_READ_BYTES_TOTAL, &labels),
            write_bytes: shard.counter(&families::TCP_WRITE_BYTES_TOTAL, &labels),
            transfer: None,
            shard: shard.clone(),
            labels,
        }
    }

    /// Counts the bytes in these too.
    #[must_use]
    pub fn with_transfer(self, transfer: Transfer) -> Self {
        TcpMetrics {
            transfer: Some(transfer),
            ..self
        }
    }

    /// So many bytes have come from the peer.
    #[inline]
    pub fn read(&self, bytes: usize) {
        self.read_bytes.add(bytes as u64);
        if let Some(transfer) = &self.transfer {
            transfer.received.add(bytes as u64);
        }
    }

    /// So many bytes have gone to the peer.
    #[inline]
    pub fn wrote(&self, bytes: usize) {
        self.write_bytes.add(bytes as u64);
        if let Some(transfer) = &self.transfer {
            transfer.sent.add(bytes as u64);
        }
    }

    /// A connection was opened; pair it with exactly one [`Self::closed`].
    pub fn opened(&self) {
        self.open_total.inc();
        self.open_connections.inc();
    }

    /// The peer was told over HTTP/2 that it has broken a rule or gone beyond a bound. `code`: the name of an error code,
    /// or the status, so a closed set.
    #[cold]
    pub fn http2_error(&self, code: &'static str) {
        let labels = self.labels.extend().add("code", code).build();
        self.shard
            .counter(&families::HTTP2_ERRORS_TOTAL, &labels)
            .inc();
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
