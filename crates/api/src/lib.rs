//! The proxy API: messages, and with feature `grpc` clients and servers, generated from `proto/`.
//!
//! Nothing is written by hand here but this tree of modules; `scripts/protos.sh` regenerates `gen/`.
#![allow(clippy::all)]
#![allow(missing_docs)]

/// Where a name leads: endpoints and profiles.
pub mod destination {
    include!("gen/io.linkerd.proxy.destination.rs");
}

/// Matches and filters of gRPC routes.
pub mod grpc_route {
    include!("gen/io.linkerd.proxy.grpc_route.rs");
}

/// Matches, filters and timeouts of HTTP routes.
pub mod http_route {
    include!("gen/io.linkerd.proxy.http_route.rs");
}

/// Methods, schemes and header lists.
pub mod http_types {
    include!("gen/io.linkerd.proxy.http_types.rs");
}

/// How a proxy gets its certificate.
pub mod identity {
    include!("gen/io.linkerd.proxy.identity.rs");
}

/// Who may talk to a port.
pub mod inbound {
    include!("gen/io.linkerd.proxy.inbound.rs");
}

/// Which object a piece of configuration comes from.
pub mod meta {
    include!("gen/io.linkerd.proxy.meta.rs");
}

/// Addresses and networks.
pub mod net {
    include!("gen/io.linkerd.proxy.net.rs");
}

/// Filters of opaque routes.
pub mod opaque_route {
    include!("gen/io.linkerd.proxy.opaque_route.rs");
}

/// What a proxy does with its workload's traffic.
pub mod outbound {
    include!("gen/io.linkerd.proxy.outbound.rs");
}

/// Watching requests as they pass.
pub mod tap {
    include!("gen/io.linkerd.proxy.tap.rs");
}

/// Matches of TLS routes.
pub mod tls_route {
    include!("gen/io.linkerd.proxy.tls_route.rs");
}

/// What this proxy asks a service of Envoy's external authorization.
pub mod envoy {
    /// Addresses and headers.
    pub mod config {
        pub mod core {
            pub mod v3 {
                include!("gen/envoy.config.core.v3.rs");
            }
        }
    }
    /// The question and its answers.
    pub mod service {
        pub mod auth {
            pub mod v3 {
                include!("gen/envoy.service.auth.v3.rs");
            }
        }
    }
    /// The status of an HTTP answer.
    pub mod r#type {
        pub mod v3 {
            include!("gen/envoy.r#type.v3.rs");
        }
    }
}

/// How a workload gets its identity documents from a SPIFFE agent.
pub mod spiffe {
    include!("gen/_.rs");
}

/// What this proxy sends to a collector of OpenTelemetry.
pub mod opentelemetry {
    /// As the packages are called.
    pub mod proto {
        /// Where spans are sent to.
        pub mod collector {
            pub mod trace {
                pub mod v1 {
                    include!("gen/opentelemetry.proto.collector.trace.v1.rs");
                }
            }
        }
        /// Attributes.
        pub mod common {
            pub mod v1 {
                include!("gen/opentelemetry.proto.common.v1.rs");
            }
        }
        /// Who sends the spans.
        pub mod resource {
            pub mod v1 {
                include!("gen/opentelemetry.proto.resource.v1.rs");
            }
        }
        /// Spans.
        pub mod trace {
            pub mod v1 {
                include!("gen/opentelemetry.proto.trace.v1.rs");
            }
        }
    }
}

/// Types of Google's APIs that Envoy's use.
pub mod google {
    /// The outcome of a call.
    pub mod rpc {
        include!("gen/google.rpc.rs");
    }
}
