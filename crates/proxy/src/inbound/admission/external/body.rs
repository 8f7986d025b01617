//! The beginning of a body that the service is shown, and its way to the application afterwards.

use std::future::poll_fn;
use std::time::Duration;

use tulle_http::{Head, Known};

use crate::http::side::{Answer, Downstream, Upstream, expects_continue};
use crate::http::{Event, Fault};

/// How long a client may take for the part of its body that the service is shown.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was read of a body; the rest still comes from the client.
pub struct Seen {
    pub bytes: Vec<u8>,
    ended: bool,
    trailers: Option<Box<Head>>,
}

/// Why it was not read.
pub enum Unread {
    Gone(Fault),
    Slow,
}

impl Seen {
    /// Reads until the end, or until `most` octets are there. A client that waits to be told to go on is told.
    pub async fn read(
        down: &mut Downstream<'_>,
        head: &mut Head,
        most: usize,
    ) -> Result<Self, Unread> {
        if expects_continue(head) {
            let mut go_on = Head::new();
            go_on
                .set_status(100)
                .map_err(Fault::from)
                .and_then(|()| down.send_head(&go_on, Answer::Interim))
                .map_err(Unread::Gone)?;
            // It is met: the application must not be asked again.
            head.remove_known(Known::Expect);
        }
        let mut seen = Seen {
            bytes: Vec::new(),
            ended: false,
            trailers: None,
        };
        let mut trailers = Head::new();
        let reading = async {
            while seen.bytes.len() < most {
                let event = poll_fn(|cx| {
                    // What was written to the client, the word to go on, leaves while we wait.
                    if let std::task::Poll::Ready(Err(fault)) = down.poll_flush(cx) {
                        return std::task::Poll::Ready(Err(fault));
                    }
                    down.poll_event(cx, &mut trailers)
                });
                match event.await? {
                    Event::Data => {
                        let count = down.chunk().len().min(most - seen.bytes.len());
                        seen.bytes.extend_from_slice(&down.chunk()[..count]);
                        down.consume(count);
                    }
                    Event::Trailers => {
                        seen.ended = true;
                        seen.trailers = Some(Box::new(std::mem::take(&mut trailers)));
                        // HTTP/1 tells the end after the trailers, and it must be taken.
                        poll_fn(|cx| down.poll_event(cx, &mut trailers)).await?;
                        return Ok(());
                    }
                    Event::End => {
                        seen.ended = true;
                        return Ok(());
                    }
                }
            }
            Ok(())
        };
        match tokio::time::timeout(PATIENCE, reading).await {
            Ok(Ok(())) => Ok(seen),
            Ok(Err(fault)) => Err(Unread::Gone(fault)),
            Err(_) => Err(Unread::Slow),
        }
    }

    /// Whether this is all of the body.
    pub fn whole(&self) -> bool {
        self.ended
    }

    /// Hands it on to the application. An application that takes no more may have answered already: what is left is
    /// then nobody's.
    pub async fn replay(&self, up: &mut Upstream) {
        let mut left = &self.bytes[..];
        while !left.is_empty() {
            let Ok(count) = poll_fn(|cx| up.poll_capacity(cx, left.len())).await else {
                return;
            };
            let (now, later) = left.split_at(count);
            if up.send(now).is_err() {
                return;
            }
            left = later;
        }
        if self.ended {
            // As above.
            let _taken = up.finish(self.trailers.as_deref());
        }
    }
}
