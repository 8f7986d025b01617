//! Whole proxies in one process over real loopback sockets: workers, a certificate authority, a scripted discovery and
//! scripted applications. Each test is a conversation; oracles are raw bytes, `hyper` and `h2`.

#![allow(clippy::unwrap_used)]

mod admission;
mod balancing;
mod bounds;
mod census;
mod client;
mod detect;
mod drain;
mod external;
mod families;
mod filters;
mod forms;
mod fronted;
mod gateway;
mod grpc;
mod grpc_retries;
mod http1;
mod ingress;
mod ipv6;
mod linkerd;
mod mesh_conformance;
mod meshed;
mod observe;
mod policy;
mod profiles;
mod resumption;
mod retries;
mod rig;
mod route_kinds;
mod scrape;
mod scripted;
mod slow;
mod stalled;
mod strict;
mod tap;
mod tap_forms;
mod tap_limits;
mod tcp;
mod timeouts;
mod tokens;
mod traces;
mod trouble;
