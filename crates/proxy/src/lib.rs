//! The sidecar. Two threads: a control thread that follows the control plane and compiles what it says, and a worker
//! that carries connections and only looks things up. `run` starts both and ends them.
//!
//! - Control side: `config`, `discovery`, `identity`, `control`, `metrics`, `admin`, `liveness`, `log`, `signal`.
//! - Watched from outside: `tap` (requests as they pass).
//! - Data path: `worker` (listeners), `detect`, `transport_header`, `net` (sockets, TLS, opaque relay), `http` (the seam
//!   between connections and codecs), `inbound` and `outbound` (the two pipelines, read top to bottom), `observe` (what
//!   is told of single requests), `trace` (their spans), `drain`, `clock`.
//! - Before it all: `init` writes the rules that redirect a pod's traffic here.
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
pub mod places;
pub mod run;
pub mod signal;
pub mod tap;
pub mod trace;
pub mod transport_header;
pub mod worker;
