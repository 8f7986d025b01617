//! Detection beside a silent client: is it a protocol in which the server speaks first?
//!
//! A client that has said nothing that decides within [`GRACE`] may be waiting for a greeting (SMTP, MySQL, SSH). So a
//! connection to its server is opened meanwhile, as an opaque one would be, and whichever side speaks first decides:
//! bytes from the server end the wait and are relayed; bytes from the client are detected as ever, and the connection
//! is used if they are opaque, else closed. A server that could not wait but speaks HTTP (a 408, the SETTINGS of
//! HTTP/2) ends no wait: HTTP policy must not be slipped past by being silent.
//!
//! Cost: a client that speaks at once pays for one timer that is never armed. Connections of this kind are bounded per
//! worker and direction and counted by what became of them.

use std::io;
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::detect::{self, Greeting};
use crate::metrics::{Family, Labels, Shard};
use crate::net::io::Io;
use crate::net::sniff::{self, Spoken};
use crate::places::Places;

/// How long a client may be silent before its server is asked. Two sidecars that both look add twice as much.
pub const GRACE: Duration = Duration::from_millis(75);
/// Most servers that one worker asks at once, per direction. Clients beyond it wait for the detection timeout.
pub const MAX_ASKED: usize = 256;

/// What the connections of one direction share.
pub struct Silence {
    asked: Places,
    shard: Shard,
    family: &'static Family,
}

/// What a silent client's server said, for the `result` label.
#[derive(Clone, Copy)]
enum Outcome {
    /// It spoke first.
    Server,
    /// The client did.
    Client,
    /// Neither did, until the detection timeout or the client's end.
    Nobody,
    /// It spoke first, and HTTP.
    Http,
    /// It could not be connected to, or ended without a word.
    Unreachable,
    /// Too many were being asked.
    Limit,
}

impl Outcome {
    fn label(self) -> &'static str {
        match self {
            Outcome::Server => "server",
            Outcome::Client => "client",
            Outcome::Nobody => "nobody",
            Outcome::Http => "http",
            Outcome::Unreachable => "unreachable",
            Outcome::Limit => "limit",
        }
    }
}

impl Silence {
    pub fn new(shard: Shard, family: &'static Family) -> Self {
        Silence {
            asked: Places::new(MAX_ASKED),
            shard,
            family,
        }
    }

    /// Finds out within `timeout` what is spoken. `open` connects to the server; it is called once at most, when the
    /// client has been silent for the grace. The connection is given back when it is of use: the server has spoken
    /// first, or the client speaks nothing that is looked into.
    pub async fn sniff<T, F>(
        &self,
        client: &mut Io,
        timeout: Duration,
        open: impl FnOnce() -> F,
    ) -> (io::Result<Spoken>, Option<(T, Io)>)
    where
        F: Future<Output = Option<(T, Io)>>,
    {
        let mut asked = None;
        let mut outcome = None;
        let asking = async {
            tokio::time::sleep(GRACE.min(timeout)).await;
            let Some(place) = self.asked.enter() else {
                outcome = Some(Outcome::Limit);
                return std::future::pending().await;
            };
            outcome = Some(Outcome::Unreachable);
            // Boxed: it is rare, and a connection's task must not carry its size.
            if let Some((with, server)) = Box::pin(open()).await {
                let (_, server) = asked.insert((with, server));
                outcome = Some(Outcome::Nobody);
                match greeting(server).await {
                    Some(Greeting::Other) => {
                        outcome = Some(Outcome::Server);
                        return;
                    }
                    Some(Greeting::Http) => outcome = Some(Outcome::Http),
                    None => outcome = Some(Outcome::Unreachable),
                }
            }
            asked = None;
            drop(place);
            std::future::pending().await
        };
        let spoken = tokio::select! {
            biased;
            spoken = sniff::sniff(client, timeout) => spoken,
            () = asking => Ok(Spoken::ServerFirst),
        };
        let silent = matches!(spoken, Ok(Spoken::Silent) | Err(_));
        match outcome {
            None => return (spoken, None),
            Some(Outcome::Nobody) if !silent => self.count(Outcome::Client),
            Some(outcome) => self.count(outcome),
        }
        let useful = matches!(
            spoken,
            Ok(Spoken::ServerFirst | Spoken::Silent | Spoken::Known(detect::Protocol::Opaque))
        );
        (spoken, asked.filter(|_| useful))
    }

    fn count(&self, outcome: Outcome) {
        let labels = Labels::builder().add("result", outcome.label()).build();
        self.shard.counter(self.family, &labels).inc();
    }
}

/// What the server says of its own accord; `None`: it ends without a word.
async fn greeting(server: &mut Io) -> Option<Greeting> {
    // A transport header may still be waiting to leave.
    server.flush().await.ok()?;
    loop {
        if server.read_ahead().await.ok()? == 0 {
            return (!server.ahead().is_empty()).then_some(Greeting::Other);
        }
        if let Some(greeting) = detect::greeting(server.ahead()) {
            return Some(greeting);
        }
    }
}
