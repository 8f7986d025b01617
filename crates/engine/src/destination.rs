//! Which endpoints a destination has, and what each of them needs: the compiled `Update`s and `DestinationProfile`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tulle_api::{destination as api, net};

use crate::invalid::{Invalid, duration, port};
use crate::meta::Meta;

mod log;

pub use self::log::{Change, Cursor, MAX_LOGGED_CHANGES};

/// The weight of an ordinary endpoint.
pub const ORDINARY_WEIGHT: u32 = 10_000;
/// The most endpoints of one destination that are kept.
pub const MAX_ENDPOINTS: usize = 10_000;

/// One address and what is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// Where it is.
    pub addr: SocketAddr,
    /// [`ORDINARY_WEIGHT`] is ordinary, 0 takes no traffic while others are there.
    pub weight: u32,
    /// What its certificate must say; `None` when it is not in the mesh and is reached in plain text.
    pub tls: Option<TlsIdentity>,
    /// What its proxy understands.
    pub hint: ProtocolHint,
    /// The port of its proxy that takes connections with a transport header; `None`: connections go to `addr`.
    pub transport_port: Option<u16>,
    /// What requests carry instead of their own authority.
    pub authority_override: Option<Box<str>>,
    /// Settings of HTTP/2 connections.
    pub http2: Http2Params,
    /// `dst_*` labels; those of the set and its own.
    pub labels: BTreeMap<String, String>,
    /// The Pod (or other object).
    pub meta: Arc<Meta>,
}

/// What a certificate must say.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TlsIdentity {
    /// The name in the certificate: DNS-like or a URI.
    pub name: Box<str>,
    /// The server name to ask for.
    pub server_name: Box<str>,
}

/// What an endpoint's proxy understands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProtocolHint {
    /// Nothing is known.
    #[default]
    Unknown,
    /// HTTP/1 may be carried in HTTP/2.
    Http2,
    /// The bytes are not looked into.
    Opaque,
}

/// `None`: the proxy's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Http2Params {
    /// Bytes.
    pub connection_window: Option<u32>,
    /// Bytes.
    pub stream_window: Option<u32>,
    /// Whether windows follow the bandwidth.
    pub adaptive_flow_control: bool,
    /// Pings.
    pub keep_alive: Option<KeepAlive>,
    /// Streams.
    pub max_concurrent_reset_streams: Option<u32>,
    /// Bytes.
    pub max_frame_size: Option<u32>,
    /// Bytes.
    pub max_send_buf_size: Option<u32>,
}

/// Pings of an HTTP/2 connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// Between pings.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Also while no stream is open.
    pub while_idle: bool,
}

impl Endpoint {
    /// Whether only the weight differs, at most: then what was learnt of the endpoint and its connections hold.
    #[must_use]
    pub fn is_same_but_for_weight(&self, other: &Self) -> bool {
        let Self {
            addr,
            weight: _,
            tls,
            hint,
            transport_port,
            authority_override,
            http2,
            labels,
            meta,
        } = self;
        *addr == other.addr
            && *tls == other.tls
            && *hint == other.hint
            && *transport_port == other.transport_port
            && *authority_override == other.authority_override
            && *http2 == other.http2
            && *labels == other.labels
            && *meta == other.meta
    }

    pub(crate) fn compile(message: &api::WeightedAddr) -> Result<Self, Invalid> {
        Self::with_labels(message, &BTreeMap::new())
    }

    fn with_labels(
        message: &api::WeightedAddr,
        shared: &BTreeMap<String, String>,
    ) -> Result<Self, Invalid> {
        let addr = match &message.addr {
            None => return Err(Invalid::missing("addr")),
            Some(addr) => socket_addr(addr).map_err(|error| error.under("addr"))?,
        };
        let hint = message.protocol_hint.as_ref();
        let transport = hint.and_then(|hint| hint.opaque_transport.as_ref());
        let mut labels = shared.clone();
        labels.extend(message.metric_labels.clone());
        Ok(Self {
            addr,
            weight: message.weight,
            tls: match &message.tls_identity {
                None => None,
                Some(identity) => Some(TlsIdentity::compile(identity)?),
            },
            hint: match hint.and_then(|hint| hint.protocol.as_ref()) {
                None => ProtocolHint::Unknown,
                Some(api::protocol_hint::Protocol::H2(_)) => ProtocolHint::Http2,
                Some(api::protocol_hint::Protocol::Opaque(_)) => ProtocolHint::Opaque,
            },
            transport_port: match transport {
                None => None,
                Some(transport) => Some(port(
                    "protocol_hint.opaque_transport.inbound_port",
                    transport.inbound_port,
                )?),
            },
            authority_override: message
                .authority_override
                .as_ref()
                .map(|authority| authority.authority_override.as_str())
                .filter(|authority| !authority.is_empty())
                .map(Into::into),
            http2: Http2Params::compile(message.http2.as_ref())?,
            labels,
            meta: Meta::compile(message.resource_ref.as_ref()),
        })
    }
}

impl TlsIdentity {
    /// An identity that cannot be read fails the endpoint: plain text instead would be a downgrade.
    fn compile(message: &api::TlsIdentity) -> Result<Self, Invalid> {
        use api::tls_identity::Strategy;
        let name = match &message.strategy {
            None => return Err(Invalid::missing("tls_identity.strategy")),
            Some(Strategy::DnsLikeIdentity(identity)) => identity.name.as_str(),
            Some(Strategy::UriLikeIdentity(identity)) => identity.uri.as_str(),
        };
        if name.is_empty() {
            return Err(Invalid::new("tls_identity.strategy", "has an empty name"));
        }
        let server_name = match (&message.server_name, &message.strategy) {
            (Some(server_name), _) if !server_name.name.is_empty() => server_name.name.as_str(),
            (_, Some(Strategy::UriLikeIdentity(_))) => {
                return Err(Invalid::missing("tls_identity.server_name"));
            }
            _ => name,
        };
        Ok(Self {
            name: name.into(),
            server_name: server_name.into(),
        })
    }
}

impl Http2Params {
    fn compile(message: Option<&api::Http2ClientParams>) -> Result<Self, Invalid> {
        let Some(message) = message else {
            return Ok(Self::default());
        };
        let some = |number: u32| Some(number).filter(|number| *number != 0);
        let flow = message.flow_control.unwrap_or_default();
        let internals = message.internals.unwrap_or_default();
        let keep_alive = match &message.keep_alive {
            Some(api::http2_client_params::KeepAlive {
                interval: Some(interval),
                timeout: Some(timeout),
                while_idle,
            }) => Some(KeepAlive {
                interval: duration("http2.keep_alive.interval", interval)?,
                timeout: duration("http2.keep_alive.timeout", timeout)?,
                while_idle: *while_idle,
            })
            .filter(|keep_alive| !keep_alive.interval.is_zero() && !keep_alive.timeout.is_zero()),
            _ => None,
        };
        Ok(Self {
            connection_window: some(flow.initial_connection_window_size),
            stream_window: some(flow.initial_stream_window_size),
            adaptive_flow_control: flow.adaptive_flow_control,
            keep_alive,
            max_concurrent_reset_streams: some(internals.max_concurrent_reset_streams),
            max_frame_size: some(internals.max_frame_size),
            max_send_buf_size: some(internals.max_send_buf_size),
        })
    }
}

/// An address of a message.
///
/// # Errors
/// When there is no IP address or the port is not one.
pub fn socket_addr(message: &net::TcpAddress) -> Result<SocketAddr, Invalid> {
    let ip = message
        .ip
        .as_ref()
        .and_then(ip_addr)
        .ok_or_else(|| Invalid::missing("ip"))?;
    Ok(SocketAddr::new(ip, port("port", message.port)?))
}

/// An IP address of a message; `None` when it holds none.
#[must_use]
pub fn ip_addr(message: &net::IpAddress) -> Option<IpAddr> {
    message.ip.as_ref().map(|ip| match ip {
        net::ip_address::Ip::Ipv4(number) => Ipv4Addr::from(*number).into(),
        net::ip_address::Ip::Ipv6(net::IPv6 { first, last }) => {
            Ipv6Addr::from(u128::from(*first) << 64 | u128::from(*last)).into()
        }
    })
}

/// The endpoints of one destination, as the stream of updates has told them so far.
#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    known: BTreeMap<SocketAddr, Arc<Endpoint>>,
    state: State,
    log: log::Log,
}

/// What is known of a destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Nothing has been told yet.
    #[default]
    Unknown,
    /// There is no such service; the caller may look elsewhere.
    Missing,
    /// The service exists; it may have no endpoints.
    Exists,
}

/// What an update changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// New endpoints.
    pub added: Vec<Arc<Endpoint>>,
    /// Endpoints whose facts changed, as they are now.
    pub changed: Vec<Arc<Endpoint>>,
    /// Endpoints that are gone.
    pub removed: Vec<SocketAddr>,
    /// Endpoints of the message that were left out, and why.
    pub problems: Vec<Invalid>,
}

impl Endpoints {
    /// Applies an update. `first` says that it is the first of a stream: it then replaces all that an earlier stream has
    /// told, and nothing before.
    pub fn apply(&mut self, update: &api::Update, first: bool) -> Changes {
        use api::update::Update;
        let mut changes = Changes::default();
        match &update.update {
            // A message of a later version of the API: what is known stays.
            None => changes.problems.push(Invalid::missing("update")),
            Some(Update::Add(set)) => {
                let before = if first {
                    std::mem::take(&mut self.known)
                } else {
                    BTreeMap::new()
                };
                self.state = State::Exists;
                self.add(set, &before, &mut changes);
                changes.removed.extend(
                    before
                        .into_keys()
                        .filter(|addr| !self.known.contains_key(addr)),
                );
            }
            Some(Update::Remove(set)) => {
                self.state = State::Exists;
                if first {
                    changes
                        .removed
                        .extend(std::mem::take(&mut self.known).into_keys());
                }
                for addr in &set.addrs {
                    match socket_addr(addr) {
                        Ok(addr) => changes
                            .removed
                            .extend(self.known.remove(&addr).map(|_| addr)),
                        Err(error) => changes.problems.push(error.under("remove.addrs")),
                    }
                }
            }
            Some(Update::NoEndpoints(none)) => {
                self.state = if none.exists {
                    State::Exists
                } else {
                    State::Missing
                };
                changes
                    .removed
                    .extend(std::mem::take(&mut self.known).into_keys());
            }
        }
        self.log.write(&changes);
        changes
    }

    /// What has changed since the reader was last here, oldest first; `None` when that is not known, and the whole list
    /// ([`Self::iter`]) is to be read. Either way the reader is up to date afterwards. Costs what has changed.
    pub fn since(&self, reader: &mut Cursor) -> Option<impl Iterator<Item = &Change>> {
        self.log.read(reader)
    }

    fn add(
        &mut self,
        set: &api::WeightedAddrSet,
        before: &BTreeMap<SocketAddr, Arc<Endpoint>>,
        changes: &mut Changes,
    ) {
        for (index, message) in set.addrs.iter().enumerate() {
            let endpoint = match Endpoint::with_labels(message, &set.metric_labels) {
                Ok(endpoint) => endpoint,
                Err(error) => {
                    changes
                        .problems
                        .push(error.under(format!("add.addrs[{index}]")));
                    continue;
                }
            };
            let known = self
                .known
                .get(&endpoint.addr)
                .or_else(|| before.get(&endpoint.addr))
                .cloned();
            if known.is_none() && self.known.len() >= MAX_ENDPOINTS {
                let why = format!("has more than {MAX_ENDPOINTS} endpoints");
                changes.problems.push(Invalid::new("add.addrs", why));
                break;
            }
            match known {
                Some(known) if *known == endpoint => {
                    self.known.insert(known.addr, known);
                }
                known => {
                    let endpoint = Arc::new(endpoint);
                    self.known.insert(endpoint.addr, endpoint.clone());
                    let list = if known.is_some() {
                        &mut changes.changed
                    } else {
                        &mut changes.added
                    };
                    list.push(endpoint);
                }
            }
        }
    }

    /// All endpoints, by address.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Endpoint>> {
        self.known.values()
    }

    /// What is known of the destination.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

/// What is known of an `IP:port`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// The service's name without a port; empty when the address belongs to none.
    pub fully_qualified_name: Box<str>,
    /// The protocol is not to be detected.
    pub opaque: bool,
    /// The address is this one endpoint.
    pub endpoint: Option<Arc<Endpoint>>,
    /// The service.
    pub parent: Option<Arc<Meta>>,
}

impl Profile {
    /// Compiles the message.
    ///
    /// # Errors
    /// When it names an endpoint that cannot be read.
    pub fn compile(message: &api::DestinationProfile) -> Result<Self, Invalid> {
        Ok(Self {
            fully_qualified_name: message.fully_qualified_name.as_str().into(),
            opaque: message.opaque_protocol,
            endpoint: match &message.endpoint {
                None => None,
                Some(endpoint) => Some(Arc::new(
                    Endpoint::compile(endpoint).map_err(|error| error.under("endpoint"))?,
                )),
            },
            parent: message
                .parent_ref
                .as_ref()
                .map(|parent| Meta::compile(Some(parent))),
        })
    }
}

#[cfg(test)]
#[path = "destination_tests.rs"]
mod tests;
