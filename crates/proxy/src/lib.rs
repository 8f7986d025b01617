//! The sidecar. Two threads: a control thread that follows the control plane and compiles what it says, and a
//! worker that carries connections and only looks things up.
//!
//! Control side: `config`, `discovery`, `identity`, `metrics`, `control`, `admin`, `log`.
//! Watched from outside: `tap` (requests as they pass).
//! Data path: `observe` (what is told of single requests), `trace` (their spans), `worker` (listeners), `detect`, `transport_header`, `net` (sockets, TLS, opaque relay), `http` (the
//! seam between connections and codecs), `inbound` and `outbound` (the two pipelines, read top to bottom), `drain`.
#![forbid(unsafe_code)]

pub mod admin;
pub mod clock;
pub mod config;
pub mod control;
pub mod detect;
pub mod discovery;
pub mod drain;
pub mod http;
pub mod identity;
pub mod inbound;
pub mod init;
pub mod liveness;
pub mod log;
pub mod metrics;
pub mod net;
pub mod observe;
pub mod outbound;
pub mod run;
pub mod signal;
pub mod tap;
pub mod trace;
pub mod transport_header;
pub mod worker;
