//! Answers that the proxy makes itself.
//!
//! Every one carries Linkerd's `l5d-proxy-error` with a text for people and `tulle-reason` with the stable code; a
//! failure also carries `tulle-request-id`. A gRPC caller gets HTTP 200 and the status in `grpc-status`, since gRPC
//! libraries look at nothing else.

use bytes::Bytes;
use tulle_engine::Reason;
use tulle_http::{Head, MethodKind};

use crate::http::Fault;
use crate::http::side::{Answer, Downstream};
use crate::observe::request_id::{self, RequestId};
use tulle_http::h1::BodyKind;

/// The header with the stable code.
pub const REASON: &str = "tulle-reason";
const PROXY_ERROR: &str = "l5d-proxy-error";

/// An answer instead of the server's: what happened, with a detail where one helps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: Reason,
    pub status: u16,
    /// The `grpc-status`, where it is not the reason's.
    pub grpc_status: Option<u8>,
    pub detail: Option<Box<str>>,
    /// The rule behind the answer.
    pub rule: Option<Box<str>>,
    /// Where a redirect leads to.
    pub location: Option<Box<str>>,
    /// More than most answers have; rare, so one pointer.
    pub more: Option<Box<More>>,
    /// The connection is not to be used again (its framing is not trusted, or the peer proxy should go elsewhere).
    pub close: bool,
}

/// What some answers have beside status and text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct More {
    /// Fields of the answer, by lower-case name.
    pub fields: Vec<(Box<str>, Box<[u8]>)>,
    /// The body, where it is not the proxy's text.
    pub body: Option<Bytes>,
}

impl Refusal {
    pub fn new(reason: Reason) -> Self {
        Refusal {
            reason,
            status: reason.http_status(),
            grpc_status: None,
            detail: None,
            rule: None,
            location: None,
            more: None,
            close: false,
        }
    }

    pub fn because(reason: Reason, detail: impl std::fmt::Display) -> Self {
        Refusal {
            detail: Some(detail.to_string().into()),
            ..Self::new(reason)
        }
    }

    /// Names the rule behind the answer, unless one is named already.
    pub fn of_rule(mut self, rule: impl std::fmt::Display) -> Self {
        self.rule.get_or_insert_with(|| rule.to_string().into());
        self
    }

    /// Adds a field to the answer.
    pub fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let more = self.more.get_or_insert_default();
        more.fields.push((name.into(), value.as_ref().into()));
        self
    }

    /// For a request that breaks a rule of HTTP: the codec knows the status.
    pub fn malformed(error: tulle_http::Error) -> Self {
        let reason = match error.status() {
            431 | 414 => Reason::HeadTooLarge,
            _ => Reason::BadRequest,
        };
        Refusal {
            status: error.status(),
            close: true,
            ..Self::because(reason, error.reason())
        }
    }

    /// For a server that failed before it answered.
    pub fn of_upstream(fault: Fault) -> Self {
        match fault {
            Fault::Reset(code) => Self::because(Reason::StreamReset, code),
            Fault::Refused => Self::because(Reason::StreamReset, "request refused"),
            Fault::Malformed(error) => Self::because(Reason::BadResponse, error),
            Fault::Timeout => Self::new(Reason::ResponseTimeout),
            Fault::Closed => Self::new(Reason::ConnectionClosed),
            Fault::Io(kind) => Self::because(Reason::ConnectionClosed, kind),
        }
    }

    fn text(&self) -> String {
        let mut text = self.reason.text().to_owned();
        if let Some(detail) = &self.detail {
            text.push_str(": ");
            text.push_str(detail);
        }
        if let Some(rule) = &self.rule {
            text.push_str(" (");
            text.push_str(rule);
            text.push(')');
        }
        text
    }
}

/// The `error` label of an answer of the proxy's own: a redirect is none.
pub fn error_label(refusal: &Refusal) -> &'static str {
    if refusal.reason.is_ordinary() {
        ""
    } else {
        refusal.reason.code()
    }
}

/// Is this a gRPC call, whose answer must look like one?
pub fn is_grpc(request: &Head) -> bool {
    request
        .get("content-type")
        .is_some_and(|kind| kind.starts_with(b"application/grpc"))
}

/// Writes the head of the answer into `head`, and its body.
fn compose(
    refusal: &Refusal,
    id: Option<&RequestId>,
    grpc: bool,
    head: &mut Head,
) -> Result<Bytes, tulle_http::Error> {
    let text = refusal.text();
    // A header value is one line of visible text.
    let line: String = text
        .chars()
        .map(|c| {
            if c.is_ascii_graphic() || c == ' ' {
                c
            } else {
                '?'
            }
        })
        .collect();
    head.clear();
    head.set_status(if grpc { 200 } else { refusal.status })?;
    if !refusal.reason.is_ordinary() {
        head.push(PROXY_ERROR, &line)?;
    }
    head.push(REASON, refusal.reason.code())?;
    if let Some(id) = id {
        head.push(request_id::FIELD, id.as_str())?;
    }
    let more = refusal.more.as_deref();
    for (name, value) in more.into_iter().flat_map(|more| &more.fields) {
        // The framing is the proxy's, and gRPC's answer has the type of gRPC.
        if !(grpc && &**name == "content-type") {
            head.push(name.as_bytes(), value)?;
        }
    }
    if grpc {
        head.push("content-type", "application/grpc")?;
        head.push(
            "grpc-status",
            refusal
                .grpc_status
                .unwrap_or(refusal.reason.grpc_status())
                .to_string(),
        )?;
        head.push("grpc-message", percent_encoded(&line))?;
        return Ok(Bytes::new());
    }
    if let Some(location) = &refusal.location {
        head.push("location", &**location)?;
    }
    if refusal.status == 204 {
        return Ok(Bytes::new());
    }
    let body = match more.and_then(|more| more.body.clone()) {
        Some(body) => body,
        None => {
            head.push("content-type", "text/plain; charset=utf-8")?;
            format!("{}\n{}\n", refusal.text(), refusal.reason.hint()).into()
        }
    };
    head.push("content-length", body.len().to_string())?;
    Ok(body)
}

/// Answers `down` with `refusal`, under the id that [`Observer::refused`](crate::observe::Observer::refused) gave it.
/// `head` is the request's and is written over. The error is the caller's, who is gone.
pub fn refuse(
    down: &mut Downstream<'_>,
    head: &mut Head,
    refusal: &Refusal,
    id: Option<&RequestId>,
) -> Result<(), Fault> {
    let (grpc, bodyless) = (is_grpc(head), head.method_kind() == MethodKind::Head);
    let body = compose(refusal, id, grpc, head)?;
    if refusal.close {
        down.close_after();
    }
    if bodyless || body.is_empty() {
        down.send_head(head, Answer::Final(BodyKind::None))?;
        return down.finish(None);
    }
    down.send_head(head, Answer::Final(BodyKind::Length(body.len() as u64)))?;
    down.send(&body)?;
    down.finish(None)
}

/// gRPC's percent encoding of a status message.
pub fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(byte as char),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
