//! The beginning of a body that the service is shown. It is kept as the body of a request that is tried again is, so
//! the exchange with the application begins by sending it.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tulle_engine::retry::Body;
use tulle_http::{Head, Known};

use crate::http::replay::{Replay, Room};
use crate::http::side::{Downstream, expects_continue};
use crate::http::{Event, Fault};

/// How long a client may take for the part of its body that the service is shown.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why it was not read.
pub enum Unread {
    Gone(Fault),
    Slow,
    /// Other bodies take all of the room.
    NoRoom,
}

/// Reads until the end, or until `most` octets are there. A client that waits to be told to go on is told.
pub async fn read(
    down: &mut Downstream<'_>,
    head: &mut Head,
    room: &Rc<Room>,
    most: usize,
) -> Result<Replay, Unread> {
    if expects_continue(head) {
        down.go_on().map_err(Unread::Gone)?;
        // It is met: the application must not be asked again.
        head.remove_known(Known::Expect);
    }
    let mut seen = Replay::beginning(room, most);
    let reading = take(down, &mut seen, most);
    match tokio::time::timeout(PATIENCE, reading).await {
        Ok(Ok(())) if seen.body() == Body::Kept => {
            seen.rewind();
            Ok(seen)
        }
        Ok(Ok(())) => Err(Unread::NoRoom),
        Ok(Err(fault)) => Err(Unread::Gone(fault)),
        Err(_) => Err(Unread::Slow),
    }
}

async fn take(down: &mut Downstream<'_>, seen: &mut Replay, most: usize) -> Result<(), Fault> {
    let mut trailers = Head::new();
    let mut left = most;
    while left > 0 && seen.body() == Body::Kept {
        let event = poll_fn(|cx| {
            // What was written to the client, the word to go on, leaves while we wait.
            if let Poll::Ready(Err(fault)) = down.poll_flush(cx) {
                return Poll::Ready(Err(fault));
            }
            down.poll_event(cx, &mut trailers)
        });
        match event.await? {
            Event::Data => {
                let count = down.chunk().len().min(left);
                seen.passed(&down.chunk()[..count]);
                down.consume(count);
                left -= count;
            }
            Event::Trailers => {
                seen.ended(Some(&trailers));
                // HTTP/1 tells the end after the trailers, and it must be taken.
                poll_fn(|cx| down.poll_event(cx, &mut trailers)).await?;
                return Ok(());
            }
            Event::End => {
                seen.ended(None);
                return Ok(());
            }
        }
    }
    Ok(())
}
