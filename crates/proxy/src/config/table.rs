//! The environment: every variable the proxy reads, its accepted form, its default and its meaning. `--help` and
//! `docs/reference/environment.md` are rendered from this table; a test says when it and the reader disagree.

/// The accepted form of a value, as error messages and `--help` say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `250ms`, `10s`, …
    Duration,
    /// `true|false`
    Flag,
    /// whole number
    Number,
    /// number of worker threads
    Workers,
    /// HTTP/2 receive window
    Window,
    /// HTTP/2 frame size
    FrameSize,
    /// 0 to 1
    Ratio,
    /// `ip:port`
    Address,
    /// several `ip:port`
    Addresses,
    /// several IPs
    Ips,
    /// `name:port`
    ServiceAddress,
    /// DNS name
    Name,
    /// DNS name or SPIFFE ID
    Identity,
    /// several DNS suffixes
    Suffixes,
    /// `80,8000-8010`
    Ports,
    /// `80=18080`
    PortMap,
    /// `ip:port=port`
    Listeners,
    /// CIDRs
    Networks,
    /// mark
    Mark,
    /// default policy
    Policy,
    /// JSON object
    Json,
    /// PEM
    Pem,
    /// path
    Path,
    /// log directives
    LogLevels,
    /// plain | json
    LogFormat,
    /// apache | json
    AccessLog,
    /// unsafe
    AuthorityLabels,
    /// set or unset
    Presence,
    /// opentelemetry
    TraceProtocol,
    /// lines of name=value
    Attributes,
    /// anything
    Text,
}

impl Form {
    /// What is accepted, with an example.
    pub fn accepts(self) -> &'static str {
        match self {
            Self::Duration => "a whole number with ms, s, m, h or d, such as 250ms or 10s",
            Self::Flag => "true or false",
            Self::Number => "a whole number up to 4294967295",
            Self::Workers => "a whole number from 1 to 64",
            Self::Window => "a whole number of bytes from 1 to 2147483647",
            Self::FrameSize => "a whole number of bytes from 16384 to 16777215",
            Self::Ratio => "a number from 0 to 1, such as 0.1",
            Self::Address => "an IP address with a port, such as 127.0.0.1:4140",
            Self::Addresses => {
                "IP addresses with ports, separated by commas, such as 127.0.0.1:4140,[::1]:4140"
            }
            Self::Ips => "IP addresses separated by commas, such as 10.42.0.7,fd00::7",
            Self::ServiceAddress => {
                "a name or IP address with a port, such as linkerd-dst.linkerd.svc.cluster.local:8086"
            }
            Self::Identity => {
                "an identity, such as tap.linkerd-viz.serviceaccount.identity.linkerd.cluster.local or spiffe://cluster.local/tap"
            }
            Self::Name => {
                "a DNS name, such as default.default.serviceaccount.identity.linkerd.cluster.local"
            }
            Self::Suffixes => "DNS suffixes separated by commas, such as svc.cluster.local.",
            Self::Ports => "ports and ranges separated by commas, such as 80,8000-8010",
            Self::PortMap => "pairs of ports separated by commas, such as 80=18080,443=18443",
            Self::Listeners => "addresses with the port they stand for, such as 127.1.0.5:30080=80",
            Self::Networks => "networks separated by commas, such as 10.0.0.0/8,fd00::/8",
            Self::Mark => "a 32-bit number, such as 0x7e11",
            Self::Policy => {
                "all-unauthenticated, all-authenticated, cluster-unauthenticated, cluster-authenticated, audit or deny"
            }
            Self::Json => "a JSON object, such as {\"ns\":\"default\",\"pod\":\"web-1\"}",
            Self::Pem => "one or more certificates in PEM",
            Self::Path => "the path of a file",
            Self::LogLevels => {
                "levels separated by commas, such as warn,tulle=info (off, error, warn, info, debug)"
            }
            Self::LogFormat => "plain or json",
            Self::AccessLog => "apache or json",
            Self::AuthorityLabels => "unsafe",
            Self::Presence => "any text; whether it is set is all that counts",
            Self::TraceProtocol => "opentelemetry",
            Self::Attributes => "name=value pairs, one on a line or separated by commas",
            Self::Text => "text in UTF-8",
        }
    }

    /// The type, in a word or two.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Duration => "duration",
            Self::Flag => "flag",
            Self::Number | Self::Workers | Self::Mark => "number",
            Self::Window | Self::FrameSize => "bytes",
            Self::Ratio => "ratio",
            Self::Address => "address",
            Self::Addresses => "addresses",
            Self::Ips => "IP addresses",
            Self::ServiceAddress => "name and port",
            Self::Name => "DNS name",
            Self::Identity => "identity",
            Self::Suffixes => "DNS suffixes",
            Self::Ports => "ports",
            Self::PortMap => "port pairs",
            Self::Listeners => "listeners",
            Self::Networks => "networks",
            Self::Policy
            | Self::LogFormat
            | Self::AccessLog
            | Self::AuthorityLabels
            | Self::TraceProtocol => "choice",
            Self::Attributes => "pairs",
            Self::Json => "JSON",
            Self::Pem => "PEM",
            Self::Path => "path",
            Self::LogLevels => "log levels",
            Self::Presence => "presence",
            Self::Text => "text",
        }
    }

    /// The smallest and the largest number taken, where the form is a whole number.
    pub fn range(self) -> Option<(u64, u64)> {
        match self {
            Self::Number => Some((0, u32::MAX as u64)),
            Self::Workers => Some((1, 64)),
            // RFC 9113 §6.9.1, and a window of nothing would let nothing through.
            Self::Window => Some((1, (1 << 31) - 1)),
            // RFC 9113 §4.2.
            Self::FrameSize => Some((1 << 14, (1 << 24) - 1)),
            _ => None,
        }
    }
}

/// One variable.
#[derive(Debug)]
pub struct Variable {
    /// Full name.
    pub name: &'static str,
    /// Accepted form.
    pub form: Form,
    /// The value used when it is unset, in the same form; empty for none.
    pub default: &'static str,
    /// What it does.
    pub meaning: &'static str,
}

macro_rules! variables {
    ($($group:literal => $($id:ident $name:literal $form:ident $default:literal $meaning:literal;)*)*) => {
        $($(
            #[doc = $meaning]
            pub const $id: Variable = Variable { name: $name, form: Form::$form, default: $default, meaning: $meaning };
        )*)*
        /// The variables that no direction has to itself, by what they are about.
        const GENERAL: &[(&str, &[&Variable])] = &[$(($group, &[$(&$id),*])),*];
    };
}

variables! {
    "Identity" =>
    IDENTITY_DISABLED "LINKERD2_PROXY_IDENTITY_DISABLED" Presence "" "Any value: run without an identity; no mTLS in either direction.";
    IDENTITY_TRUST_ANCHORS "LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS" Pem "" "Certificates of the authorities that every peer must chain to.";
    IDENTITY_TOKEN_FILE "LINKERD2_PROXY_IDENTITY_TOKEN_FILE" Path "" "The service-account token shown to the identity service; read again for every certificate.";
    IDENTITY_LOCAL_NAME "LINKERD2_PROXY_IDENTITY_LOCAL_NAME" Name "" "The identity to ask for.";
    IDENTITY_SERVER_ID "LINKERD2_PROXY_IDENTITY_SERVER_ID" Identity "" "The identity to ask for, where IDENTITY_LOCAL_NAME is unset; a SPIFFE ID with the SPIFFE Workload API.";
    IDENTITY_SERVER_NAME "LINKERD2_PROXY_IDENTITY_SERVER_NAME" Name "" "The server name by which peers dial this proxy; the same as IDENTITY_SERVER_ID unless that is a SPIFFE ID.";
    IDENTITY_SPIRE_SOCKET "LINKERD2_PROXY_IDENTITY_SPIRE_SOCKET" Path "" "Unix socket of the SPIFFE Workload API, from which the certificate then comes instead of from the identity service.";
    IDENTITY_SPIRE_WORKLOAD_API_ADDRESS "LINKERD2_PROXY_IDENTITY_SPIRE_WORKLOAD_API_ADDRESS" Path "" "The same under its newer name; wins.";
    IDENTITY_SVC_ADDR "LINKERD2_PROXY_IDENTITY_SVC_ADDR" ServiceAddress "" "Where the identity service is.";
    IDENTITY_SVC_NAME "LINKERD2_PROXY_IDENTITY_SVC_NAME" Name "" "The identity the identity service must have; not needed on loopback.";
    IDENTITY_MIN_REFRESH "LINKERD2_PROXY_IDENTITY_MIN_REFRESH" Duration "10s" "Shortest time between two renewals.";
    IDENTITY_MAX_REFRESH "LINKERD2_PROXY_IDENTITY_MAX_REFRESH" Duration "1d" "Longest time between two renewals.";
    "Control plane" =>
    DESTINATION_SVC_ADDR "LINKERD2_PROXY_DESTINATION_SVC_ADDR" ServiceAddress "" "Where the destination service is.";
    DESTINATION_SVC_NAME "LINKERD2_PROXY_DESTINATION_SVC_NAME" Name "" "The identity the destination service must have; not needed on loopback.";
    DESTINATION_CONTEXT "LINKERD2_PROXY_DESTINATION_CONTEXT" Text "" "Handed to the destination service as it is; JSON with ns, nodeName and pod.";
    DESTINATION_PROFILE_NETWORKS "LINKERD2_PROXY_DESTINATION_PROFILE_NETWORKS" Networks "" "Networks whose addresses the destination service is asked about; unset is all.";
    DESTINATION_PROFILE_SUFFIXES "LINKERD2_PROXY_DESTINATION_PROFILE_SUFFIXES" Suffixes "svc.cluster.local." "Names that the destination service is asked for the ServiceProfile of, when requests for them come in; `.` is every name. Where requests go out to, the policy controller decides which names it knows.";
    POLICY_SVC_ADDR "LINKERD2_PROXY_POLICY_SVC_ADDR" ServiceAddress "" "Where the policy service is.";
    POLICY_SVC_NAME "LINKERD2_PROXY_POLICY_SVC_NAME" Name "" "The identity the policy service must have; not needed on loopback.";
    POLICY_WORKLOAD "LINKERD2_PROXY_POLICY_WORKLOAD" Text "" "This workload, as the policy service knows it; JSON with ns and pod, or ns:pod.";
    POLICY_CLUSTER_NETWORKS "LINKERD2_PROXY_POLICY_CLUSTER_NETWORKS" Networks "10.0.0.0/8,100.64.0.0/10,172.16.0.0/12,192.168.0.0/16,fd00::/8" "What the cluster-* default policies take for the cluster.";
    CONTROL_STREAM_INITIAL_TIMEOUT "LINKERD2_PROXY_CONTROL_STREAM_INITIAL_TIMEOUT" Duration "3s" "How long a discovery stream may take to its first message.";
    CONTROL_STREAM_IDLE_TIMEOUT "LINKERD2_PROXY_CONTROL_STREAM_IDLE_TIMEOUT" Duration "5m" "A discovery stream silent for so long is opened anew.";
    CONTROL_STREAM_LIFETIME "LINKERD2_PROXY_CONTROL_STREAM_LIFETIME" Duration "1h" "A discovery stream this old is opened anew, to spread load over the controllers.";
    DNS_MIN_TTL "LINKERD2_PROXY_DNS_MIN_TTL" Duration "5s" "Shortest time a DNS answer is kept.";
    DNS_MAX_TTL "LINKERD2_PROXY_DNS_MAX_TTL" Duration "1m" "Longest time a DNS answer is kept.";
    DNS_SERVER "TULLE_PROXY_DNS_SERVER" Addresses "" "DNS servers to ask instead of those in /etc/resolv.conf.";
    "Listeners and traffic" =>
    ADMIN_LISTEN_ADDR "LINKERD2_PROXY_ADMIN_LISTEN_ADDR" Address "127.0.0.1:4191" "The admin server: /metrics /live /ready /shutdown /proxy-log-level /env.json /config.";
    CONTROL_LISTEN_ADDR "LINKERD2_PROXY_CONTROL_LISTEN_ADDR" Address "0.0.0.0:4190" "Where tap is served, if it is.";
    TAP_SVC_NAME "LINKERD2_PROXY_TAP_SVC_NAME" Identity "" "The one identity that may watch requests (tap); unset: nobody may.";
    OUTBOUND_LISTEN_ADDR "LINKERD2_PROXY_OUTBOUND_LISTEN_ADDR" Address "127.0.0.1:4140" "Where the application's outgoing connections arrive.";
    OUTBOUND_LISTEN_ADDRS "LINKERD2_PROXY_OUTBOUND_LISTEN_ADDRS" Addresses "" "The same, several; wins over the single one.";
    INBOUND_LISTEN_ADDR "LINKERD2_PROXY_INBOUND_LISTEN_ADDR" Address "0.0.0.0:4143" "Where connections to the pod arrive.";
    INBOUND_IPS "LINKERD2_PROXY_INBOUND_IPS" Ips "" "The pod's addresses; inbound connections to others are refused. Unset is any.";
    INBOUND_PORTS "LINKERD2_PROXY_INBOUND_PORTS" Ports "" "The pod's ports; their policies are fetched at start and are part of /ready.";
    INBOUND_DEFAULT_POLICY "LINKERD2_PROXY_INBOUND_DEFAULT_POLICY" Policy "all-unauthenticated" "The policy of a port until the controller has answered, and of ports it does not know.";
    INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION "LINKERD2_PROXY_INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION" Ports "" "Ports that are opaque until the controller says otherwise.";
    INBOUND_PORT_MAP "TULLE_PROXY_INBOUND_PORT_MAP" PortMap "" "Mesh port = the port on which the application really listens.";
    INBOUND_EXTRA_LISTENERS "TULLE_PROXY_INBOUND_EXTRA_LISTENERS" Listeners "" "Further inbound listeners, each standing for an original port.";
    INBOUND_GATEWAY_SUFFIXES "LINKERD2_PROXY_INBOUND_GATEWAY_SUFFIXES" Suffixes "" "Names to which this proxy forwards what other proxies send it with a name; `.` is every name. Unset: it is no gateway.";
    OUTBOUND_BACKOFF_MIN "LINKERD2_PROXY_OUTBOUND_CONNECT_EXP_BACKOFF_MIN" Duration "100ms" "First pause after a failed connect to an endpoint.";
    OUTBOUND_BACKOFF_MAX "LINKERD2_PROXY_OUTBOUND_CONNECT_EXP_BACKOFF_MAX" Duration "60s" "Longest pause after failed connects.";
    OUTBOUND_BACKOFF_JITTER "LINKERD2_PROXY_OUTBOUND_CONNECT_EXP_BACKOFF_JITTER" Ratio "0.1" "Share of a pause that is random.";
    OUTBOUND_QUEUE_CAPACITY "LINKERD2_PROXY_OUTBOUND_HTTP_QUEUE_CAPACITY" Number "1024" "Most requests and connections that wait for an endpoint of one backend until discovery has answered.";
    OUTBOUND_REQUIRE_MESH_TLS "TULLE_PROXY_OUTBOUND_REQUIRE_MESH_TLS" Flag "false" "Refuse what would leave in the clear, wherever it goes; a policy may demand the same of single destinations.";
    INGRESS_MODE "LINKERD2_PROXY_INGRESS_MODE" Flag "false" "Route each outgoing request by l5d-dst-override, else by its authority.";
    SO_MARK "TULLE_PROXY_MARK" Mark "" "Packet mark set on the proxy's own connections, so that capture rules can exempt them.";
    HTTP1_HEAD_TIMEOUT "TULLE_PROXY_HTTP1_HEAD_TIMEOUT" Duration "30s" "How long an HTTP/1 client may take from the first byte of a request's head to its last.";
    HTTP1_IDLE_TIMEOUT "TULLE_PROXY_HTTP1_IDLE_TIMEOUT" Duration "1h" "How long an HTTP/1 client may keep its connection open without a request; 0 is for ever.";
    HTTP_BODY_IDLE_TIMEOUT "TULLE_PROXY_HTTP_BODY_IDLE_TIMEOUT" Duration "0s" "An exchange of which nothing has moved for so long is cut, where its route has no idle timeout of its own; 0 is off.";
    HTTP_STALL_TIMEOUT "TULLE_PROXY_HTTP_STALL_TIMEOUT" Duration "30s" "A caller that takes nothing of an answer for so long is given up: its HTTP/2 stream is reset, its HTTP/1 connection closed; 0 is never.";
    GRPC_STALL_TIMEOUT "TULLE_PROXY_GRPC_STALL_TIMEOUT" Duration "5m" "The same for gRPC calls and for tunnels in HTTP/2, whose consumers pause; 256 at once, further ones have the shorter limit. 0 is never.";
    HTTP_SERVER_STALL_TIMEOUT "TULLE_PROXY_HTTP_SERVER_STALL_TIMEOUT" Duration "5m" "A server that takes nothing of a request's body for so long is given up: 504 server-stalled; 0 is never.";
    HTTP_BODY_TIMEOUT "TULLE_PROXY_HTTP_BODY_TIMEOUT" Duration "60s" "Inbound: a client that sends nothing of its request's body for so long before the answer has begun is answered 408; gRPC calls and tunnels may be silent. 0 is never.";
    HTTP2_STREAM_WINDOW "LINKERD2_PROXY_HTTP2_INITIAL_STREAM_WINDOW_SIZE" Window "" "Receive window of a stream in both directions, where the direction's own setting is unset.";
    HTTP2_CONNECTION_WINDOW "LINKERD2_PROXY_HTTP2_INITIAL_CONNECTION_WINDOW_SIZE" Window "" "Receive window of a connection in both directions, where the direction's own setting is unset.";
    "Shutdown" =>
    SHUTDOWN_GRACE_PERIOD "LINKERD2_PROXY_SHUTDOWN_GRACE_PERIOD" Duration "120s" "How long connections may take to end after SIGTERM.";
    SHUTDOWN_ACCEPT "TULLE_PROXY_SHUTDOWN_ACCEPT" Duration "1s" "How long after SIGTERM inbound connections are still accepted, for callers who do not know of the end yet; they are served and told to go elsewhere.";
    SHUTDOWN_ENDPOINT_ENABLED "LINKERD2_PROXY_SHUTDOWN_ENDPOINT_ENABLED" Flag "false" "Whether POST /shutdown is served.";
    "Observability" =>
    LOG "LINKERD2_PROXY_LOG" LogLevels "warn,tulle=info" "What is logged.";
    LOG_FORMAT "LINKERD2_PROXY_LOG_FORMAT" LogFormat "plain" "How it is written.";
    ACCESS_LOG "LINKERD2_PROXY_ACCESS_LOG" AccessLog "" "One line on standard error per inbound HTTP request, in this format; unset is off.";
    INBOUND_METRICS_AUTHORITY_LABELS "LINKERD2_PROXY_INBOUND_METRICS_AUTHORITY_LABELS" AuthorityLabels "" "`unsafe`: inbound HTTP metrics carry the authority; clients then make series.";
    OUTBOUND_METRICS_HOSTNAME_LABELS "LINKERD2_PROXY_OUTBOUND_METRICS_HOSTNAME_LABELS" Flag "false" "Whether outbound route metrics carry the hostname.";
    TRACE_COLLECTOR_SVC_ADDR "LINKERD2_PROXY_TRACE_COLLECTOR_SVC_ADDR" ServiceAddress "" "Where spans of traced requests are sent to, by OTLP over gRPC; unset is nowhere.";
    TRACE_COLLECTOR_SVC_NAME "LINKERD2_PROXY_TRACE_COLLECTOR_SVC_NAME" Name "" "The identity the collector must have; not needed on loopback.";
    TRACE_PROTOCOL "LINKERD2_PROXY_TRACE_PROTOCOL" TraceProtocol "opentelemetry" "What the collector speaks; there is no other.";
    TRACE_SERVICE_NAME "LINKERD2_PROXY_TRACE_SERVICE_NAME" Text "linkerd-proxy" "The spans' service.name, unless the labels or the attributes below name another.";
    TRACE_ATTRIBUTES_PATH "LINKERD2_PROXY_TRACE_ATTRIBUTES_PATH" Path "" "A file of name=value lines that all spans carry: the pod's labels, as the downward API writes them.";
    TRACE_EXTRA_ATTRIBUTES "LINKERD2_PROXY_TRACE_EXTRA_ATTRIBUTES" Attributes "" "More of them, over those in the file.";
    OTEL_RESOURCE_ATTRIBUTES "OTEL_RESOURCE_ATTRIBUTES" Attributes "" "More of them, over all others.";
    TRACE_EXPORT_INTERVAL "TULLE_PROXY_TRACE_EXPORT_INTERVAL" Duration "10s" "How long a span waits at most before it is sent; 512 that wait go at once.";
    METRICS_RETAIN_IDLE "LINKERD2_PROXY_METRICS_RETAIN_IDLE" Duration "10m" "How long an unused series stays on the metrics page.";
    "Threads" =>
    CORES "LINKERD2_PROXY_CORES" Workers "" "Worker threads.";
    CORES_MIN "LINKERD2_PROXY_CORES_MIN" Workers "1" "Fewest worker threads, when CORES is unset.";
    CORES_MAX "LINKERD2_PROXY_CORES_MAX" Workers "" "Most worker threads, when CORES is unset.";
    CORES_MAX_RATIO "LINKERD2_PROXY_CORES_MAX_RATIO" Ratio "" "Worker threads as a share of the machine's processors, when CORES is unset.";
}

/// The variables that exist for each direction.
#[derive(Debug)]
pub struct DirectionVariables {
    /// Longest time to connect.
    pub connect_timeout: Variable,
    /// Protocol detection.
    pub detect_timeout: Variable,
    /// How long an unused target is watched.
    pub discovery_idle_timeout: Variable,
    /// TCP keep-alive of accepted connections.
    pub accept_keepalive: Variable,
    /// TCP keep-alive of own connections.
    pub connect_keepalive: Variable,
    /// TCP_USER_TIMEOUT of accepted connections.
    pub accept_user_timeout: Variable,
    /// TCP_USER_TIMEOUT of own connections.
    pub connect_user_timeout: Variable,
    /// Requests in flight.
    pub max_in_flight: Variable,
    /// Idle h1 connections.
    pub max_idle: Variable,
    /// How long they are kept.
    pub pool_idle: Variable,
    /// Listen backlog.
    pub backlog: Variable,
    /// Server HTTP/2 settings.
    pub h2_keep_alive_interval: Variable,
    /// Server HTTP/2 settings.
    pub h2_keep_alive_timeout: Variable,
    /// Server HTTP/2 settings.
    pub h2_stream_window: Variable,
    /// Server HTTP/2 settings.
    pub h2_connection_window: Variable,
    /// Server HTTP/2 settings.
    pub h2_max_streams: Variable,
    /// Server HTTP/2 settings.
    pub h2_max_frame: Variable,
    /// Server HTTP/2 settings.
    pub h2_max_header_list: Variable,
    /// Server HTTP/2 settings.
    pub h2_max_pending_resets: Variable,
    /// Server HTTP/2 settings.
    pub h2_max_send_buffer: Variable,
}

macro_rules! direction {
    ($dir:literal, $max_idle_name:literal, connect $connect:literal) => {
        DirectionVariables {
            connect_timeout: direction!(@ $dir "_CONNECT_TIMEOUT" Duration $connect "Longest time to connect."),
            detect_timeout: direction!(@ $dir "_DETECT_TIMEOUT" Duration "10s" "A connection whose protocol is unknown after so long is treated as opaque."),
            discovery_idle_timeout: direction!(@ $dir "_DISCOVERY_IDLE_TIMEOUT" Duration "1h" "A target unused for so long is no longer watched; the last known state is kept for as long as it is."),
            accept_keepalive: direction!(@ $dir "_ACCEPT_KEEPALIVE" Duration "10s" "TCP keep-alive of accepted connections; 0 is off."),
            connect_keepalive: direction!(@ $dir "_CONNECT_KEEPALIVE" Duration "10s" "TCP keep-alive of the proxy's own connections; 0 is off."),
            accept_user_timeout: direction!(@ $dir "_ACCEPT_USER_TIMEOUT" Duration "30s" "TCP_USER_TIMEOUT of accepted connections; 0 is off."),
            connect_user_timeout: direction!(@ $dir "_CONNECT_USER_TIMEOUT" Duration "30s" "TCP_USER_TIMEOUT of the proxy's own connections; 0 is off."),
            max_in_flight: direction!(@ $dir "_MAX_IN_FLIGHT" Number "100000" "Most requests at once; more are answered 503."),
            max_idle: Variable { name: concat!("LINKERD2_PROXY_", $max_idle_name), form: Form::Number, default: "64", meaning: "Most idle HTTP/1 connections kept per endpoint." },
            pool_idle: direction!(@ $dir "_HTTP1_CONNECTION_POOL_IDLE_TIMEOUT" Duration "3s" "How long an idle HTTP/1 connection is kept."),
            backlog: direction!(@ $dir "_TCP_LISTEN_BACKLOG" Number "1024" "Connections the kernel queues before they are accepted."),
            h2_keep_alive_interval: direction!(@ $dir "_SERVER_HTTP2_KEEP_ALIVE_INTERVAL" Duration "10s" "Time between pings on accepted HTTP/2 connections; 0 is off."),
            h2_keep_alive_timeout: direction!(@ $dir "_SERVER_HTTP2_KEEP_ALIVE_TIMEOUT" Duration "3s" "How long such a ping may go unanswered."),
            h2_stream_window: direction!(@ $dir "_SERVER_HTTP2_INITIAL_STREAM_WINDOW_SIZE" Window "65535" "Receive window of a stream."),
            h2_connection_window: direction!(@ $dir "_SERVER_HTTP2_INITIAL_CONNECTION_WINDOW_SIZE" Window "1048576" "Receive window of a connection."),
            h2_max_streams: direction!(@ $dir "_SERVER_HTTP2_MAX_CONCURRENT_STREAMS" Number "1000" "Most streams a client may open at once."),
            h2_max_frame: direction!(@ $dir "_SERVER_HTTP2_MAX_FRAME_SIZE" FrameSize "16384" "Largest frame accepted."),
            h2_max_header_list: direction!(@ $dir "_SERVER_HTTP2_MAX_HEADER_LIST_SIZE" Number "65536" "Largest header list accepted."),
            h2_max_pending_resets: direction!(@ $dir "_SERVER_HTTP2_MAX_PENDING_ACCEPT_RESET_STREAMS" Number "20" "Most streams reset by the client before they were served; more end the connection."),
            h2_max_send_buffer: direction!(@ $dir "_SERVER_HTTP2_MAX_SEND_BUF_SIZE" Number "409600" "Most bytes buffered for a stream."),
        }
    };
    (@ $dir:literal $name:literal $form:ident $default:literal $meaning:literal) => {
        Variable { name: concat!("LINKERD2_PROXY_", $dir, $name), form: Form::$form, default: $default, meaning: $meaning }
    };
}

/// Inbound variables.
pub const INBOUND: DirectionVariables =
    direction!("INBOUND", "MAX_IDLE_CONNS_PER_ENDPOINT", connect "300ms");
/// Outbound variables.
pub const OUTBOUND: DirectionVariables =
    direction!("OUTBOUND", "OUTBOUND_MAX_IDLE_CONNS_PER_ENDPOINT", connect "1s");

impl DirectionVariables {
    /// All of them, in the order of the table.
    pub fn all(&self) -> [&Variable; 20] {
        [
            &self.connect_timeout,
            &self.detect_timeout,
            &self.discovery_idle_timeout,
            &self.accept_keepalive,
            &self.connect_keepalive,
            &self.accept_user_timeout,
            &self.connect_user_timeout,
            &self.max_in_flight,
            &self.max_idle,
            &self.pool_idle,
            &self.backlog,
            &self.h2_keep_alive_interval,
            &self.h2_keep_alive_timeout,
            &self.h2_stream_window,
            &self.h2_connection_window,
            &self.h2_max_streams,
            &self.h2_max_frame,
            &self.h2_max_header_list,
            &self.h2_max_pending_resets,
            &self.h2_max_send_buffer,
        ]
    }
}

/// Variables of Linkerd that injectors set and this proxy does not carry out: accepted, and named in a warning at
/// start when they ask for something. A name that ends in `*` is a prefix.
pub const NOT_CARRIED_OUT: &[(&str, &str)] = &[
    (
        "LINKERD2_PROXY_INBOUND_SERVER_HTTP2_ADAPTIVE_FLOW_CONTROL",
        "windows are fixed",
    ),
    (
        "LINKERD2_PROXY_OUTBOUND_SERVER_HTTP2_ADAPTIVE_FLOW_CONTROL",
        "windows are fixed",
    ),
    (
        "LINKERD2_PROXY_OUTBOUND_HTTP_FAILFAST_TIMEOUT",
        "each backend's policy says how long is waited for an endpoint, else it is 3s",
    ),
    (
        "LINKERD2_PROXY_OUTBOUND_TCP_FAILFAST_TIMEOUT",
        "each backend's policy says how long is waited for an endpoint, else it is 3s",
    ),
    (
        "LINKERD2_PROXY_OUTBOUND_TCP_QUEUE_CAPACITY",
        "LINKERD2_PROXY_OUTBOUND_HTTP_QUEUE_CAPACITY bounds connections too",
    ),
    (
        "LINKERD2_PROXY_INBOUND_HTTP_QUEUE_CAPACITY",
        "nothing waits inbound: the application takes a request or the connect fails",
    ),
    (
        "LINKERD2_PROXY_INBOUND_HTTP_FAILFAST_TIMEOUT",
        "nothing waits inbound: the application takes a request or the connect fails",
    ),
    (
        "LINKERD2_PROXY_INBOUND_TCP_*",
        "nothing waits inbound: the application takes a connection or the connect fails",
    ),
    (
        "LINKERD2_PROXY_INBOUND_CONNECT_EXP_BACKOFF_*",
        "each request tries the application at once",
    ),
];

/// Variables of Linkerd that ask for nothing this proxy would have to do: accepted in silence, with the reason.
pub const WITHOUT_EFFECT: &[(&str, &str)] = &[
    (
        "LINKERD2_PROXY_TRACE_ANNOTATIONS_PATH",
        "the pod's labels are at TRACE_ATTRIBUTES_PATH",
    ),
    (
        "LINKERD2_PROXY_IDENTITY_DIR",
        "the key never leaves the process, so no directory is needed",
    ),
    (
        "LINKERD2_PROXY_INBOUND_PORTS_REQUIRE_IDENTITY",
        "the policy controller derives it from the workload",
    ),
    (
        "LINKERD2_PROXY_INBOUND_PORTS_REQUIRE_TLS",
        "the policy controller derives it from the workload",
    ),
    (
        "LINKERD2_PROXY_OUTBOUND_DISABLE_INFORMATIONAL_HEADERS",
        "informational headers never leave the mesh",
    ),
];

/// Whether some part of the proxy reads the variable.
pub fn is_known(name: &str) -> bool {
    all().any(|variable| variable.name == name)
}

/// Every variable, in the order of [`groups`].
pub fn all() -> impl Iterator<Item = &'static Variable> {
    groups().flat_map(|(_, variables)| variables)
}

/// The variables by what they are about: the general groups, then what inbound and outbound have alike.
pub fn groups() -> impl Iterator<Item = (&'static str, Vec<&'static Variable>)> {
    static IN: DirectionVariables = INBOUND;
    static OUT: DirectionVariables = OUTBOUND;
    GENERAL
        .iter()
        .map(|(title, variables)| (*title, variables.to_vec()))
        .chain([
            ("Inbound connections", IN.all().to_vec()),
            ("Outbound connections", OUT.all().to_vec()),
        ])
}
