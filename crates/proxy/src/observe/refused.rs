//! One request that was refused or failed, and the last [`KEPT`] of them.

use std::collections::VecDeque;
use std::time::SystemTime;

use serde_json::{Value, json};
use tulle_engine::Reason;
use tulle_http::Head;

use super::Caller;
use super::derivation::Derivation;
use super::request_id::RequestId;
use super::text::{timestamp, visible};
use crate::http::answer::Refusal;

/// Refused requests that are kept per worker, and shown.
pub const KEPT: usize = 64;
/// Longest method that is kept of a refused request, in bytes.
const LONGEST_METHOD: usize = 32;
/// Longest path that is kept of a refused request, in bytes.
const LONGEST_PATH: usize = 512;
/// Longest of every other text that is kept of a refused request, in bytes.
const LONGEST: usize = 256;

/// Which way the request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the workload.
    Inbound,
    /// From the workload.
    Outbound,
}

impl Direction {
    pub fn as_str(self) -> &'static str {
        match self {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        }
    }
}

/// Its fields are bounded and printable.
#[derive(Clone, Debug)]
pub struct Refused {
    pub at: SystemTime,
    pub id: RequestId,
    direction: Direction,
    method: String,
    authority: String,
    path: String,
    client: String,
    reason: Reason,
    status: u16,
    rule: String,
    detail: String,
    derivation: Derivation,
}

impl Refused {
    pub fn new(
        at: SystemTime,
        id: RequestId,
        caller: Caller<'_>,
        head: &Head,
        refusal: &Refusal,
        derivation: Derivation,
    ) -> Self {
        let text =
            |text: &Option<Box<str>>| visible(text.as_deref().unwrap_or("").as_bytes(), LONGEST);
        Refused {
            at,
            id,
            direction: caller.direction,
            method: visible(head.method(), LONGEST_METHOD),
            authority: visible(head.authority().unwrap_or_default(), LONGEST),
            path: visible(head.path(), LONGEST_PATH),
            client: visible(caller.identity.as_bytes(), LONGEST),
            reason: refusal.reason,
            status: refusal.status,
            rule: text(&refusal.rule),
            detail: text(&refusal.detail),
            derivation,
        }
    }

    /// One line of the log.
    pub fn log(&self, left_out: u64) {
        tracing::info!(
            direction = self.direction.as_str(),
            request_id = self.id.as_str(),
            reason = self.reason.code(),
            status = self.status,
            method = self.method.as_str(),
            authority = self.authority.as_str(),
            path = self.path.as_str(),
            client_id = self.client.as_str(),
            rule = self.rule.as_str(),
            detail = self.detail.as_str(),
            left_out,
            "request refused"
        );
    }

    pub fn json(&self) -> Value {
        json!({
            "time": timestamp(self.at),
            "direction": self.direction.as_str(),
            "request_id": self.id.as_str(),
            "method": self.method,
            "authority": self.authority,
            "path": self.path,
            "client_id": self.client,
            "reason": self.reason.code(),
            "meaning": self.reason.text(),
            "hint": self.reason.hint(),
            "status": self.status,
            "rule": self.rule,
            "detail": self.detail,
            "derivation": self.derivation.json(),
        })
    }
}

/// The last [`KEPT`].
#[derive(Debug, Default)]
pub struct Ring(VecDeque<Refused>);

impl Ring {
    pub fn push(&mut self, refused: Refused) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(refused);
    }

    pub fn iter(&self) -> impl Iterator<Item = &Refused> {
        self.0.iter()
    }
}
