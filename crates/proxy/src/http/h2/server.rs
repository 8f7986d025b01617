//! A connection on which the peer sends HTTP/2 requests: one task that drives it and hands every stream to a task of its
//! own; it drains when the process does.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use tulle_http::{Head, h2};

use crate::drain::Guard;
use crate::http::Fault;
use crate::http::h2::Settings;
use crate::http::h2::driver::{Driver, Over};
use crate::http::h2::link::Link;
use crate::http::h2::stream::Stream;
use crate::net::io::Io;

/// Serves until the peer leaves or draining has finished. `on_stream` is called for every request, with its head; it
/// spawns what answers.
pub async fn serve(
    io: Io,
    settings: Settings,
    mut guard: Guard,
    mut on_stream: impl FnMut(Head, Stream),
) -> Result<(), Fault> {
    let codec = h2::Settings {
        connect_protocol: true,
        ..settings.codec()
    };
    let link = Rc::new(Link::new(h2::Connection::server(codec), io.meter()));
    let mut driver = Driver::new(io, link.clone(), settings);
    let watched = guard.clone();
    let draining = guard.draining();
    let mut draining = std::pin::pin!(draining);
    let (mut watching, mut leaving) = (false, false);
    let over = poll_fn(|cx| {
        if !watching {
            // Once: it keeps this task's waker.
            watching = true;
            let _later = draining.as_mut().poll(cx);
        }
        if !leaving && watched.is_draining() {
            leaving = true;
            link.with(|state| state.codec.shutdown());
        }
        if watched.is_cut() {
            return Poll::Ready(Over::Gone(Fault::Closed));
        }
        let over = driver.poll_round(cx);
        while let Some((key, head)) = link.with(|state| state.opened.pop_front()) {
            on_stream(head, Stream::new(link.clone(), key, false));
        }
        over
    })
    .await;
    Box::pin(driver.end(over)).await
}
