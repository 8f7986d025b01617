//! The sidecar as a process, against a scripted control plane over real TLS: certificates, discovery, the admin
//! server, the environment, the end.

#![allow(clippy::unwrap_used)]

mod admin;
#[path = "../data_path/census.rs"]
mod census;
mod control_anchors;
mod control_discovery;
mod control_environment;
mod control_explain;
mod control_identity;
mod control_init;
mod control_lifecycle;
mod control_metrics;
mod control_plane;
mod control_profiles;
mod control_reference;
mod control_spire;
mod control_tap;
mod control_traces;
mod control_workers;
#[path = "../data_path/documented.rs"]
mod documented;
mod gunzip;
mod mesh;
mod proxy;
mod serving;
mod workload_api;
