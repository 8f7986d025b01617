//! What is done with bytes from a fuzzer, one function per part of the sidecar. They live here once: `fuzz_targets`
//! hands them libFuzzer's inputs, `crates/proxy/tests/arbitrary.rs` runs each of them with the stable tests, and
//! `crates/engine/tests/arbitrary.rs` drives those of messages. A driver panics where a promise is broken.

// Each user takes its part of it.
#![allow(dead_code)]

pub mod codecs;
pub mod decisions;
pub mod messages;
pub mod wire;

/// A driver.
pub type Driver = fn(&[u8]);

/// Every driver, by the name of its fuzz target.
pub const ALL: &[(&str, Driver)] = &[
    ("balancer", decisions::balancer),
    ("breaker", decisions::breaker),
    ("client_hello", wire::client_hello),
    ("deadlines", decisions::deadlines),
    ("detection", wire::detection),
    ("discovery", messages::endpoints),
    ("dns_answer", wire::dns_answer),
    ("h1", codecs::h1),
    ("h2_client", codecs::h2_client),
    ("h2_server", codecs::h2_server),
    ("hpack", codecs::hpack),
    ("inbound_policy", messages::inbound),
    ("jwt", messages::token),
    ("outbound_policy", messages::outbound),
    ("proxy_protocol", wire::proxy_protocol),
    ("rate_limit", decisions::rate_limit),
    ("retry", decisions::retry),
    ("routes", messages::routes),
    ("tap", messages::tap),
    ("trace_context", wire::trace_context),
    ("transport_header", wire::transport_header),
];

/// Takes an input apart; what is missing at its end is zero.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    pub fn number(&mut self) -> u64 {
        (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }

    /// So many octets, or what is left.
    pub fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A time that does not go back, in steps from nothing to a minute.
    pub fn later(&mut self, now: u64) -> u64 {
        now.saturating_add(1_000_u64.saturating_mul(1 << (self.byte() % 26)))
    }
}
