//! Delays that a route injects.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use crate::http::Fault;
use crate::http::side::Downstream;

/// Holds a request back, unless the caller leaves: then there is nothing to wait for.
pub async fn hold(down: &mut Downstream<'_>, length: Duration) -> Result<(), Fault> {
    let mut timer = pin!(tokio::time::sleep(length));
    poll_fn(|cx| match down.poll_left(cx) {
        Poll::Ready(fault) => Poll::Ready(Err(fault)),
        Poll::Pending => timer.as_mut().poll(cx).map(Ok),
    })
    .await
}
