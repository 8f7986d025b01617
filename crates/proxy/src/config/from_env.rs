//! From the environment to a [`Config`]: which variable becomes which field, and what several say together.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::table::{self, DirectionVariables};
use super::{
    Backoff, Certify, Config, Connections, ControlService, ControlStreams, DefaultPolicy,
    Destination, Dns, Environment, Http2, Identity, IdentitySource, Inbound, Outbound, Patience,
    Pod, Policy, Problems, Reader, ServiceAddr, Tap, Tracing, values,
};

/// Spans are not sent more often than this.
const SHORTEST_INTERVAL: std::time::Duration = std::time::Duration::from_millis(50);
const UNSPECIFIED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

impl Config {
    /// Reads the environment.
    ///
    /// # Errors
    /// Every value that cannot be used, each with its accepted form.
    pub fn from_env(environment: &Environment) -> Result<Self, Problems> {
        let (mut config, warnings) = {
            let reader = Reader::new(environment);
            let config = Self::read(&reader);
            (config, reader.finish()?)
        };
        config.warnings = warnings;
        Ok(config)
    }

    pub(super) fn read(reader: &Reader<'_>) -> Self {
        let destination = Destination {
            service: control_service(
                reader,
                &table::DESTINATION_SVC_ADDR,
                &table::DESTINATION_SVC_NAME,
            ),
            context: reader
                .get(&table::DESTINATION_CONTEXT, values::text)
                .unwrap_or_default(),
            profile_networks: reader
                .get(&table::DESTINATION_PROFILE_NETWORKS, values::networks)
                .unwrap_or_default(),
        };
        let policy = Policy {
            service: control_service(reader, &table::POLICY_SVC_ADDR, &table::POLICY_SVC_NAME),
            workload: reader
                .get(&table::POLICY_WORKLOAD, values::text)
                .unwrap_or_default(),
            cluster_networks: reader
                .get(&table::POLICY_CLUSTER_NETWORKS, values::networks)
                .unwrap_or_default(),
        };
        reader.ordered(&table::DNS_MIN_TTL, &table::DNS_MAX_TTL);
        Self {
            pod: pod(reader, &policy.workload, &destination.context),
            identity: identity(reader),
            destination,
            policy,
            control_streams: ControlStreams {
                initial: reader.duration(&table::CONTROL_STREAM_INITIAL_TIMEOUT),
                idle: reader.duration(&table::CONTROL_STREAM_IDLE_TIMEOUT),
                lifetime: reader.duration(&table::CONTROL_STREAM_LIFETIME),
            },
            dns: Dns {
                servers: reader
                    .get(&table::DNS_SERVER, values::addresses)
                    .unwrap_or_default(),
                min_ttl: reader.duration(&table::DNS_MIN_TTL),
                max_ttl: reader.duration(&table::DNS_MAX_TTL),
            },
            admin_listen: reader
                .get(&table::ADMIN_LISTEN_ADDR, values::address)
                .unwrap_or(UNSPECIFIED),
            tap: tap(reader),
            inbound: inbound(reader),
            outbound: outbound(reader),
            mark: reader.get(&table::SO_MARK, values::mark),
            http1_head_timeout: reader.duration(&table::HTTP1_HEAD_TIMEOUT),
            http1_idle_timeout: reader.duration_unless_zero(&table::HTTP1_IDLE_TIMEOUT),
            body_idle_timeout: reader.duration_unless_zero(&table::HTTP_BODY_IDLE_TIMEOUT),
            patience: Patience {
                receiver: reader.duration_unless_zero(&table::HTTP_STALL_TIMEOUT),
                paused: reader.duration_unless_zero(&table::GRPC_STALL_TIMEOUT),
                server: reader.duration_unless_zero(&table::HTTP_SERVER_STALL_TIMEOUT),
                sender: reader.duration_unless_zero(&table::HTTP_BODY_TIMEOUT),
            },
            shutdown_grace: reader.duration(&table::SHUTDOWN_GRACE_PERIOD),
            shutdown_accept: reader.duration(&table::SHUTDOWN_ACCEPT),
            shutdown_endpoint: reader.flag(&table::SHUTDOWN_ENDPOINT_ENABLED),
            log_levels: reader
                .get(&table::LOG, crate::log::levels)
                .unwrap_or_default(),
            log_json: reader
                .get(&table::LOG_FORMAT, crate::log::format_is_json)
                .unwrap_or_default(),
            access_log: reader.get(&table::ACCESS_LOG, crate::observe::access::format),
            tracing: tracing(reader),
            metrics_retain_idle: reader.duration(&table::METRICS_RETAIN_IDLE),
            workers: workers(reader),
            warnings: Vec::new(),
        }
    }
}

fn control_service(
    reader: &Reader<'_>,
    addr: &table::Variable,
    name: &table::Variable,
) -> Option<ControlService> {
    let identity = reader.get(name, values::dns_name);
    let addr = reader.get(addr, values::service_addr)?;
    let loopback = addr.is_loopback();
    let disabled = reader.raw(table::IDENTITY_DISABLED.name).is_some();
    if identity.is_none() && !loopback && !disabled {
        reader.problem(
            name,
            None,
            "the service is not on loopback, so it must prove an identity",
        );
    }
    // As Linkerd: a control plane on the pod's own loopback is spoken to in plain text.
    Some(ControlService {
        identity: identity.filter(|_| !loopback && !disabled),
        addr,
    })
}

fn tracing(reader: &Reader<'_>) -> Option<Tracing> {
    let collector = control_service(
        reader,
        &table::TRACE_COLLECTOR_SVC_ADDR,
        &table::TRACE_COLLECTOR_SVC_NAME,
    );
    reader.get(&table::TRACE_PROTOCOL, values::trace_protocol);
    let attributes = [
        &table::TRACE_EXTRA_ATTRIBUTES,
        &table::OTEL_RESOURCE_ATTRIBUTES,
    ];
    let attributes = attributes
        .into_iter()
        .filter_map(|variable| reader.get(variable, |text| Ok(values::attributes(text))))
        .flatten()
        .collect();
    let (service_name, labels_path) = (
        reader.get(&table::TRACE_SERVICE_NAME, values::text),
        reader.get(&table::TRACE_ATTRIBUTES_PATH, values::text),
    );
    let interval = reader.duration(&table::TRACE_EXPORT_INTERVAL);
    collector.map(|collector| Tracing {
        collector,
        service_name,
        labels_path,
        attributes,
        host: reader.raw("HOSTNAME").unwrap_or_default().to_owned(),
        interval: interval.max(SHORTEST_INTERVAL),
    })
}

fn identity(reader: &Reader<'_>) -> Option<Identity> {
    let own = reader.get(&table::IDENTITY_LOCAL_NAME, values::dns_name);
    let id = reader.get(&table::IDENTITY_SERVER_ID, values::identity);
    let server_name = reader.get(&table::IDENTITY_SERVER_NAME, values::dns_name);
    let spire = reader.get(
        &table::IDENTITY_SPIRE_WORKLOAD_API_ADDRESS,
        values::unix_socket,
    );
    let spire = spire.or(reader.get(&table::IDENTITY_SPIRE_SOCKET, values::unix_socket));
    if reader
        .get(&table::IDENTITY_DISABLED, values::text)
        .is_some()
    {
        return None;
    }
    match spire {
        Some(socket) => Some(by_spire(reader, own, id, server_name, socket)),
        None => Some(by_service(reader, own, id, server_name)),
    }
}

/// As Linkerd: the ID names the document, and another name is what peers dial.
fn by_spire(
    reader: &Reader<'_>,
    own: Option<String>,
    id: Option<String>,
    server_name: Option<String>,
    socket: PathBuf,
) -> Identity {
    if own.is_some() {
        reader.warn("LINKERD2_PROXY_IDENTITY_LOCAL_NAME is set but not carried out: with the SPIFFE Workload API, IDENTITY_SERVER_ID is the identity");
    }
    match &id {
        Some(id) if id.starts_with("spiffe://") => {}
        None if reader.raw(table::IDENTITY_SERVER_ID.name).is_some() => {}
        id => {
            let why = "the SPIFFE Workload API knows workloads by their SPIFFE ID";
            reader.problem(&table::IDENTITY_SERVER_ID, id.as_deref(), why);
        }
    }
    if reader.raw(table::IDENTITY_SERVER_NAME.name).is_none() {
        let why = "a SPIFFE ID is no name that peers could dial, so this one is required";
        reader.problem(&table::IDENTITY_SERVER_NAME, None, why);
    }
    Identity {
        trust_anchors: reader
            .get(&table::IDENTITY_TRUST_ANCHORS, values::pem_certificates)
            .unwrap_or_default(),
        local_name: id.unwrap_or_default(),
        server_name: server_name.unwrap_or_default(),
        source: IdentitySource::Spire(socket),
    }
}

fn by_service(
    reader: &Reader<'_>,
    own: Option<String>,
    id: Option<String>,
    server_name: Option<String>,
) -> Identity {
    // As Linkerd: the local name is both, or the two are the same.
    let local_name = match (own, id) {
        (Some(own), _) => own,
        (None, Some(id)) if id.starts_with("spiffe://") => {
            let why = "a SPIFFE ID needs LINKERD2_PROXY_IDENTITY_SPIRE_SOCKET";
            reader.problem(&table::IDENTITY_SERVER_ID, Some(&id), why);
            String::new()
        }
        (None, Some(id)) => {
            if server_name.as_ref() != Some(&id) {
                let why = "it must be the same as LINKERD2_PROXY_IDENTITY_SERVER_ID";
                reader.problem(&table::IDENTITY_SERVER_NAME, server_name.as_deref(), why);
            }
            id
        }
        (None, None) => {
            reader.require(&table::IDENTITY_LOCAL_NAME, values::dns_name, String::new())
        }
    };
    let service =
        match control_service(reader, &table::IDENTITY_SVC_ADDR, &table::IDENTITY_SVC_NAME) {
            Some(service) => service,
            None => {
                reader.require(
                    &table::IDENTITY_SVC_ADDR,
                    values::service_addr,
                    ServiceAddr::Socket(UNSPECIFIED),
                );
                ControlService {
                    addr: ServiceAddr::Socket(UNSPECIFIED),
                    identity: None,
                }
            }
        };
    reader.ordered(&table::IDENTITY_MIN_REFRESH, &table::IDENTITY_MAX_REFRESH);
    Identity {
        trust_anchors: reader.require(
            &table::IDENTITY_TRUST_ANCHORS,
            values::pem_certificates,
            String::new(),
        ),
        server_name: local_name.clone(),
        local_name,
        source: IdentitySource::Service(Certify {
            token_file: reader.require(&table::IDENTITY_TOKEN_FILE, values::text, String::new()),
            service,
            min_refresh: reader.duration(&table::IDENTITY_MIN_REFRESH),
            max_refresh: reader.duration(&table::IDENTITY_MAX_REFRESH),
        }),
    }
}

/// Name and namespace from the workload or the context, whichever has them; both are JSON in Linkerd's chart, the
/// workload may also be `namespace:pod`.
fn pod(reader: &Reader<'_>, workload: &str, context: &str) -> Pod {
    let field = |text: &str, key: &str| {
        let json: serde_json::Value = serde_json::from_str(text).ok()?;
        json.get(key)?.as_str().map(str::to_owned)
    };
    let pair = (!workload.starts_with('{'))
        .then(|| workload.split_once(':'))
        .flatten();
    let name = pair.map(|(_, name)| name.to_owned());
    let namespace = pair.map(|(namespace, _)| namespace.to_owned());
    Pod {
        name: name
            .or_else(|| field(workload, "pod"))
            .or_else(|| field(context, "pod"))
            .or_else(|| reader.raw("_pod_name").map(str::to_owned))
            .unwrap_or_default(),
        namespace: namespace
            .or_else(|| field(workload, "ns"))
            .or_else(|| field(context, "ns"))
            .or_else(|| reader.raw("_pod_ns").map(str::to_owned))
            .unwrap_or_default(),
        node: field(context, "nodeName")
            .or_else(|| reader.raw("_pod_nodeName").map(str::to_owned))
            .unwrap_or_default(),
    }
}

/// As Linkerd: only with a name, and not without an identity of one's own.
fn tap(reader: &Reader<'_>) -> Option<Tap> {
    let listen = reader.get(&table::CONTROL_LISTEN_ADDR, values::address);
    let identity = reader.get(&table::TAP_SVC_NAME, values::identity);
    let (listen, identity) = (listen?, identity?);
    let disabled = reader.raw(table::IDENTITY_DISABLED.name).is_some();
    if disabled {
        reader.warn("LINKERD2_PROXY_TAP_SVC_NAME is set but tap is not served: identity is disabled, and tap needs mutual TLS");
    }
    (!disabled).then_some(Tap { listen, identity })
}

fn inbound(reader: &Reader<'_>) -> Inbound {
    Inbound {
        listen: reader
            .get(&table::INBOUND_LISTEN_ADDR, values::address)
            .unwrap_or(UNSPECIFIED),
        extra_listeners: reader
            .get(&table::INBOUND_EXTRA_LISTENERS, values::extra_listeners)
            .unwrap_or_default(),
        port_map: reader
            .get(&table::INBOUND_PORT_MAP, values::port_map)
            .unwrap_or_default(),
        ips: reader
            .get(&table::INBOUND_IPS, values::ips)
            .unwrap_or_default()
            .into_iter()
            .collect(),
        ports: reader
            .get(&table::INBOUND_PORTS, values::declared_ports)
            .unwrap_or_default(),
        default_policy: reader
            .get(&table::INBOUND_DEFAULT_POLICY, values::default_policy)
            .unwrap_or(DefaultPolicy::Deny),
        opaque_ports: reader
            .get(
                &table::INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION,
                values::ports,
            )
            .unwrap_or_default(),
        gateway_suffixes: reader
            .get(&table::INBOUND_GATEWAY_SUFFIXES, values::suffixes)
            .unwrap_or_default(),
        profile_suffixes: reader
            .get(&table::DESTINATION_PROFILE_SUFFIXES, values::suffixes)
            .unwrap_or_default(),
        authority_labels: reader
            .get(
                &table::INBOUND_METRICS_AUTHORITY_LABELS,
                values::authority_labels,
            )
            .is_some(),
        connections: connections(reader, &table::INBOUND),
    }
}

fn outbound(reader: &Reader<'_>) -> Outbound {
    let single = reader
        .get(&table::OUTBOUND_LISTEN_ADDR, values::address)
        .unwrap_or(UNSPECIFIED);
    Outbound {
        listen: reader
            .get(&table::OUTBOUND_LISTEN_ADDRS, values::addresses)
            .filter(|several| !several.is_empty())
            .unwrap_or_else(|| vec![single]),
        ingress_mode: reader.flag(&table::INGRESS_MODE),
        require_mesh_tls: reader.flag(&table::OUTBOUND_REQUIRE_MESH_TLS),
        hostname_labels: reader.flag(&table::OUTBOUND_METRICS_HOSTNAME_LABELS),
        connect_backoff: {
            reader.ordered(&table::OUTBOUND_BACKOFF_MIN, &table::OUTBOUND_BACKOFF_MAX);
            Backoff {
                min: reader.duration(&table::OUTBOUND_BACKOFF_MIN),
                max: reader.duration(&table::OUTBOUND_BACKOFF_MAX),
                jitter: reader
                    .get(&table::OUTBOUND_BACKOFF_JITTER, values::ratio)
                    .unwrap_or_default(),
            }
        },
        queue_capacity: reader.number(&table::OUTBOUND_QUEUE_CAPACITY),
        connections: connections(reader, &table::OUTBOUND),
    }
}

fn connections(reader: &Reader<'_>, of: &DirectionVariables) -> Connections {
    let window = |own: &table::Variable, both: &table::Variable| {
        let single = reader.number::<u32>(own);
        match (reader.raw(own.name), reader.number_if_set(both)) {
            (None, Some(both)) => both,
            _ => single,
        }
    };
    Connections {
        connect_timeout: reader.duration(&of.connect_timeout),
        detect_timeout: reader.duration(&of.detect_timeout),
        discovery_idle: reader.duration(&of.discovery_idle_timeout),
        accept_keepalive: reader.duration_unless_zero(&of.accept_keepalive),
        connect_keepalive: reader.duration_unless_zero(&of.connect_keepalive),
        accept_user_timeout: reader.duration_unless_zero(&of.accept_user_timeout),
        connect_user_timeout: reader.duration_unless_zero(&of.connect_user_timeout),
        max_in_flight: reader.number(&of.max_in_flight),
        pool_max_idle: reader.number(&of.max_idle),
        pool_idle: reader.duration(&of.pool_idle),
        backlog: reader.number(&of.backlog),
        h2: Http2 {
            keep_alive_interval: reader.duration_unless_zero(&of.h2_keep_alive_interval),
            keep_alive_timeout: reader.duration(&of.h2_keep_alive_timeout),
            stream_window: window(&of.h2_stream_window, &table::HTTP2_STREAM_WINDOW),
            connection_window: window(&of.h2_connection_window, &table::HTTP2_CONNECTION_WINDOW),
            max_streams: reader.number(&of.h2_max_streams),
            max_frame: reader.number(&of.h2_max_frame),
            max_header_list: reader.number(&of.h2_max_header_list),
            max_pending_resets: reader.number(&of.h2_max_pending_resets),
            max_send_buffer: reader.number(&of.h2_max_send_buffer),
        },
    }
}

/// As Linkerd: `CORES`; else the ratio of the machine's processors, rounded, between min and max; else 1.
fn workers(reader: &Reader<'_>) -> usize {
    let cores = reader.number_if_set::<usize>(&table::CORES);
    let min = reader.number::<usize>(&table::CORES_MIN).max(1);
    let max = reader.number_if_set::<usize>(&table::CORES_MAX);
    if max.is_some_and(|max| max < min) {
        reader.problem(
            &table::CORES_MIN,
            reader.raw(table::CORES_MIN.name),
            "it is more than LINKERD2_PROXY_CORES_MAX",
        );
    }
    let ratio = reader.get(&table::CORES_MAX_RATIO, values::ratio);
    let wanted = match (cores, ratio) {
        (Some(cores), _) => cores,
        (None, Some(ratio)) => {
            let machine = std::thread::available_parallelism().map_or(1, usize::from);
            ((machine as f64 * ratio).round() as usize)
                .min(max.unwrap_or(usize::MAX))
                .max(min)
        }
        (None, None) => min.max(max.map_or(1, |max| max.min(1))),
    };
    wanted.clamp(1, 64)
}
