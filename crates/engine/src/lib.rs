//! Every decision of the mesh: which route, which backend, which endpoint, who may come in, how long to wait.
//!
//! Pure. There is no I/O, clock, randomness, thread or Kubernetes in here: time comes in as nanoseconds since some
//! moment of the caller's (`now: u64`), randomness as a `random: u64`, requests as borrowed views. The proxy asks on
//! live requests, `tulle explain` on hypothetical ones, through the same functions.
//!
//! | module | decides | compiled from |
//! |---|---|---|
//! | [`outbound`] | route, filters, backend, timeouts of a request | `outbound.OutboundPolicy` |
//! | [`inbound`] | route and authorization of a request or connection | `inbound.Server`, [`inbound::DefaultPolicy`] |
//! | [`destination`] | which endpoints there are, and what each needs | `destination.Update`, `DestinationProfile` |
//! | [`balance`] | which of the endpoints | [`destination`] |
//! | [`breaker`] | when an endpoint is left alone for a while | [`outbound::FailureAccrual`] |
//! | [`deadline`] | until when | [`outbound::Timeouts`] |
//! | [`retry`] | whether to try again, and when | [`outbound::Retry`] |
//! | [`budget`] | how many further tries there may be | [`budget::RetryBudget`] |
//! | [`hedge`] | when to send a second try beside the first | [`hedge::Hedge`] |
//! | [`route`] | the lookup that outbound and inbound share | |
//! | [`tap`] | which requests somebody who watches is told of | `tap.ObserveRequest` |
//! | [`Reason`] | what an answer of the proxy's own says | |
//!
//! Compiling happens when configuration changes, may allocate, and never panics: a part that is wrong is failed, by
//! name, and the rest works ([`outbound::Policy::problems`]). Deciding happens per request and does not allocate (but
//! for query values with escapes that a rule asks for).
//!
//! ```
//! use tulle_engine::{RequestView, outbound::{HttpVersion, Policy}};
//! # fn message() -> tulle_api::outbound::OutboundPolicy { tulle_engine::doc::policy() }
//!
//! let policy = Policy::compile(&message())?;
//! let request = RequestView { method: b"GET", authority: b"voting", path: b"/api/vote", headers: &() };
//!
//! let found = policy.route(HttpVersion::Http1, &request).expect("the policy has a route for everything");
//! let random = 4; // from the caller's generator
//! let chosen = found.rule.backend(random, |_| true).expect("the rule has a backend");
//! assert_eq!(policy.backends[chosen.backend.index()].meta.to_string(), "Service default/voting:80");
//! # Ok::<(), tulle_engine::Invalid>(())
//! ```
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic
    )
)]

pub mod balance;
pub mod breaker;
pub mod budget;
pub mod deadline;
pub mod destination;
#[doc(hidden)]
pub mod doc;
pub mod hedge;
pub mod inbound;
mod invalid;
mod meta;
pub mod outbound;
mod reason;
mod request;
pub mod retry;
pub mod route;
pub mod tap;

pub use self::invalid::{
    Invalid, MAX_AUTHORIZATIONS, MAX_REGEX, MAX_REGEX_PROGRAM, MAX_ROUTES, MAX_RULES,
};
pub use self::meta::{Meta, Resource};
pub use self::reason::Reason;
pub use self::request::{Headers, RequestView};

/// A number below `bound` that is as likely as any other when `random` is (0 when `bound` is 0).
pub(crate) fn random_below(random: u64, bound: u64) -> u64 {
    // The upper half of the product: no division, and a bias below bound/2^64.
    ((u128::from(random) * u128::from(bound)) >> 64) as u64
}
