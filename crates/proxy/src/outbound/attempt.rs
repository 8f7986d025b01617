//! One try to send a request: an endpoint, a connection to it, the head in the form that its end understands.

use std::rc::Rc;

use tulle_engine::Reason;
use tulle_engine::deadline::Deadlines;
use tulle_engine::outbound::ProfileRoutes;
use tulle_engine::retry::Tried;
use tulle_http::h1::BodyKind;
use tulle_http::hop::UpgradeField;
use tulle_http::{Head, Version, hop, l5d, translate};

use crate::clock;
use crate::http::Fault;
use crate::http::answer::Refusal;
use crate::http::exchange::Failure;
use crate::http::side::{Upstream, has_body};
use crate::net::reach::ConnectError;
use crate::outbound::backend::{Backend, Choice, InUse, Unavailable};

/// Why a try did not get as far as the server.
#[derive(Debug)]
pub enum Unsent {
    Connect(ConnectError),
    /// The connection went away, or the server refused before it looked: the request may be sent again.
    Refused,
    /// A deadline has passed.
    Late(Reason),
    Malformed(tulle_http::Error),
}

impl Unsent {
    /// A word of a closed set.
    pub fn label(&self) -> &'static str {
        match self {
            Unsent::Connect(error) => error.reason.code(),
            Unsent::Refused => "refused",
            Unsent::Late(reason) => reason.code(),
            Unsent::Malformed(_) => Reason::BadRequest.code(),
        }
    }
}

impl Unavailable {
    /// What it means for another try.
    pub fn tried(&self) -> Option<Tried> {
        match self.reason {
            Reason::FailFast => Some(Tried::FailFast),
            Reason::TryTimeout => Some(Tried::Late),
            _ => None,
        }
    }
}

impl From<Unavailable> for Refusal {
    fn from(unavailable: Unavailable) -> Self {
        Refusal {
            detail: unavailable.detail,
            ..Refusal::new(unavailable.reason)
        }
    }
}

/// An endpoint; waits for one no longer than the request, or this try of it, may take.
pub async fn pick(
    backend: &Rc<Backend>,
    choice: Choice,
    now: u64,
    deadlines: &Deadlines,
) -> Result<InUse, Unavailable> {
    if let Some(in_use) = backend.pick(now, choice) {
        return Ok(in_use);
    }
    let Some(deadline) = deadlines.next() else {
        return Box::pin(backend.wait(choice)).await;
    };
    let waited = Box::pin(tokio::time::timeout_at(
        clock::instant(deadline),
        backend.wait(choice),
    ))
    .await;
    waited.unwrap_or_else(|_| {
        let reason = deadlines
            .expired(clock::now())
            .unwrap_or(Reason::RequestTimeout);
        Err(Unavailable {
            reason,
            detail: None,
        })
    })
}

/// The same as [`open`], within the time that the request and this try of it have.
pub async fn open_in_time(
    in_use: &InUse,
    head: &mut Head,
    body: BodyKind,
    upgrade: bool,
    deadlines: &Deadlines,
) -> Result<(Upstream, bool), Unsent> {
    let Some(deadline) = deadlines.next() else {
        return open(in_use, head, body, upgrade).await;
    };
    let opened = open(in_use, head, body, upgrade);
    match Box::pin(tokio::time::timeout_at(clock::instant(deadline), opened)).await {
        Ok(opened) => opened,
        Err(_) => {
            let reason = deadlines.expired(clock::now());
            Err(Unsent::Late(reason.unwrap_or(Reason::RequestTimeout)))
        }
    }
}

/// Tells the server's proxy which service a profile has routed: it counts by the same profile. A server outside of the
/// mesh hears nothing of it, and neither does one that is asked in another name.
pub fn name_service(
    head: &mut Head,
    profile: &ProfileRoutes,
    in_use: &InUse,
) -> Result<(), tulle_http::Error> {
    if in_use.is_meshed() && in_use.member.endpoint.authority_override.is_none() {
        return head.set(l5d::DST_CANONICAL, profile.destination());
    }
    head.remove(l5d::DST_CANONICAL);
    Ok(())
}

/// Opens the endpoint's side of the exchange and sends the head. `true`: on a connection made for it.
pub async fn open(
    in_use: &InUse,
    head: &mut Head,
    body: BodyKind,
    upgrade: bool,
) -> Result<(Upstream, bool), Unsent> {
    let member = &in_use.member;
    if let Some(authority) = &member.endpoint.authority_override {
        head.set_authority(authority.as_bytes())
            .map_err(Unsent::Malformed)?;
    }
    let carried = head.version() == Version::Http2 || (member.bridges() && !upgrade);
    if !carried {
        hop::strip(head, UpgradeField::of(upgrade));
        // A tunnel takes its connection with it, so it gets one of its own.
        let idle = if upgrade {
            None
        } else {
            member.origin.take_idle(in_use.started())
        };
        let (connection, fresh) = match idle {
            Some(connection) => (connection, false),
            None => (
                Box::pin(member.origin.dial_h1())
                    .await
                    .map_err(Unsent::Connect)?,
                true,
            ),
        };
        let up = Upstream::h1(connection, head, body, upgrade)
            .map_err(|_| Unsent::Malformed(tulle_http::Error::RequestLine))?;
        return Ok((up, fresh));
    }
    let connection = match member.origin.open_h2() {
        Some(connection) => connection,
        None => Box::pin(member.origin.dial_h2())
            .await
            .map_err(Unsent::Connect)?,
    };
    if head.version() != Version::Http2 {
        l5d::bridge(head).map_err(Unsent::Malformed)?;
        if head.authority().is_none() {
            // HTTP/1.0 need not say where it goes; HTTP/2 must, and linkerd2-proxy refuses what does not.
            let address = member.endpoint.addr.to_string();
            head.set_authority(address.as_bytes())
                .map_err(Unsent::Malformed)?;
        }
        translate::request_to_h2(head, b"http").map_err(Unsent::Malformed)?;
    }
    connection.ready(head).await.map_err(|fault| match fault {
        Fault::Malformed(error) => Unsent::Malformed(error),
        _ => Unsent::Refused,
    })?;
    let end = !has_body(body);
    match connection.send(head, end) {
        Ok(stream) => Ok((Upstream::H2(stream), false)),
        Err(Fault::Malformed(error)) => Err(Unsent::Malformed(error)),
        Err(_) => Err(Unsent::Refused),
    }
}

/// What a failure before the answer means for another try. `None`: the caller has left, the request's time is up, or the
/// server answers, but not in HTTP.
pub fn tried(failure: Failure, fresh: bool) -> Option<Tried> {
    match failure {
        Failure::Upstream(fault) => match fault {
            Fault::Refused => Some(Tried::Refused),
            Fault::Closed | Fault::Io(_) if !fresh => Some(Tried::Stale),
            Fault::Closed | Fault::Io(_) | Fault::Reset(_) | Fault::Timeout => Some(Tried::Reset),
            Fault::Malformed(_) => None,
        },
        Failure::Deadline(Reason::TryTimeout) => Some(Tried::Late),
        Failure::Deadline(_) | Failure::Downstream(_) => None,
    }
}

/// Takes off a head what its endpoint has put on, before it is sent to another. `authority`: what the caller asked for,
/// where an endpoint goes by another name.
pub fn restore(
    head: &mut Head,
    in_use: &InUse,
    authority: Option<&[u8]>,
) -> Result<(), tulle_http::Error> {
    if in_use.member.bridges() {
        l5d::unbridge(head);
    }
    authority.map_or(Ok(()), |authority| head.set_authority(authority))
}

/// The authority that the caller asked for, kept when this endpoint goes by another name.
pub fn keep_authority(kept: &mut Option<Box<[u8]>>, head: &Head, in_use: &InUse) {
    if kept.is_none() && in_use.member.endpoint.authority_override.is_some() {
        *kept = head.authority().map(Box::from);
    }
}
