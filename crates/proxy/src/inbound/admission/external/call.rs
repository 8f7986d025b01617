//! The call itself: one gRPC exchange on a connection that requests travel on too, tried at another endpoint where the
//! first cannot be reached.

use std::future::poll_fn;
use std::rc::Rc;

use prost::Message as _;
use tulle_api::envoy::service::auth::v3::CheckResponse;
use tulle_engine::Reason;
use tulle_http::{Head, Version};

use super::{Service, Silence};
use crate::http::exchange::grpc_status;
use crate::http::origin::Origin;
use crate::http::serve::{keep_head, spare_head};
use crate::http::side::{Answer, Upstream};
use crate::http::{Event, Fault};
use crate::inbound::Inbound;

/// The longest answer.
const MAX_ANSWER: usize = 128 * 1024;
/// Endpoints that are tried for one question, if they cannot be reached.
const TRIES: usize = 2;
const METHOD: &str = "/envoy.service.auth.v3.Authorization/Check";

impl Service {
    pub(super) async fn call(
        &self,
        inbound: &Inbound,
        question: &[u8],
    ) -> Result<CheckResponse, Silence> {
        let origins = self.origins(inbound).await?;
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        let mut last = Silence::Unreachable;
        for attempt in 0..origins.len().min(TRIES) {
            let origin = &origins[turn.wrapping_add(attempt) % origins.len()];
            match self.call_at(origin, question).await {
                Err(silence @ (Silence::Unreachable | Silence::Identity)) => last = silence,
                outcome => return outcome,
            }
        }
        Err(last)
    }

    async fn call_at(
        &self,
        origin: &Rc<Origin>,
        question: &[u8],
    ) -> Result<CheckResponse, Silence> {
        let connection = match origin.open_h2() {
            Some(connection) => connection,
            None => origin.dial_h2().await.map_err(|error| match error.reason {
                Reason::IdentityMismatch | Reason::TlsFailed => Silence::Identity,
                _ => Silence::Unreachable,
            })?,
        };
        let unreachable = |_: Fault| Silence::Unreachable;
        let mut head = spare_head();
        let opened = match self.compose(&mut head, origin) {
            Err(_) => Err(Silence::Invalid),
            Ok(()) => match connection.ready(&head).await {
                Ok(()) => connection.send(&head, false).map_err(unreachable),
                Err(fault) => Err(unreachable(fault)),
            },
        };
        let outcome = match opened {
            Ok(stream) => converse(Upstream::H2(stream), question, &mut head).await,
            Err(silence) => Err(silence),
        };
        keep_head(head);
        outcome
    }

    fn compose(&self, head: &mut Head, origin: &Origin) -> Result<(), tulle_http::Error> {
        let secure = origin.reach().is_meshed();
        head.set_version(Version::Http2);
        head.set_method(b"POST")?;
        head.set_scheme(if secure { b"https" } else { b"http" })?;
        head.set_authority(self.rule.authority.as_bytes())?;
        head.set_path(METHOD.as_bytes())?;
        head.push("content-type", "application/grpc")?;
        head.push("te", "trailers")?;
        head.push(
            "grpc-timeout",
            format!("{}m", self.rule.timeout.as_millis()),
        )
    }
}

/// Sends the question and reads the one answer.
async fn converse(
    mut up: Upstream,
    question: &[u8],
    head: &mut Head,
) -> Result<CheckResponse, Silence> {
    let broken = |_: Fault| Silence::Unreachable;
    let mut left = question;
    while !left.is_empty() {
        let count = poll_fn(|cx| up.poll_capacity(cx, left.len())).await;
        let (now, later) = left.split_at(count.map_err(broken)?);
        up.send(now).map_err(broken)?;
        left = later;
    }
    up.finish(None).map_err(broken)?;
    let mut answer = Answer::Interim;
    while answer == Answer::Interim {
        answer = poll_fn(|cx| up.poll_head(cx, head)).await.map_err(broken)?;
    }
    if head.status() != 200 {
        return Err(Silence::Status(14));
    }
    let mut status = grpc_status(head);
    let mut message = Vec::new();
    let mut trailers = Head::new();
    loop {
        match poll_fn(|cx| up.poll_event(cx, &mut trailers))
            .await
            .map_err(broken)?
        {
            Event::Data => {
                let chunk = up.chunk();
                let count = chunk.len();
                if message.len() + count > MAX_ANSWER {
                    return Err(Silence::BadAnswer("is longer than 128 KiB"));
                }
                message.extend_from_slice(chunk);
                up.consume(count);
            }
            Event::Trailers => {
                status = grpc_status(&trailers);
                break;
            }
            Event::End => break,
        }
    }
    match status {
        Some(0) => {}
        Some(status) => return Err(Silence::Status(status)),
        None => return Err(Silence::BadAnswer("has no gRPC status")),
    }
    let [0, a, b, c, d, message @ ..] = &message[..] else {
        return Err(Silence::BadAnswer("is no plain gRPC message"));
    };
    if u32::from_be_bytes([*a, *b, *c, *d]) as usize != message.len() {
        return Err(Silence::BadAnswer("is not one gRPC message"));
    }
    CheckResponse::decode(message).map_err(|_| Silence::BadAnswer("is no CheckResponse"))
}
