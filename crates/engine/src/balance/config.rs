//! How a backend's endpoints are balanced, as its policy says: the compiled `BalanceP2c`.

use std::time::Duration;

use tulle_api::outbound::backend::{BalanceP2c, balance_p2c as api};

use crate::breaker::MAX_RETRY_AFTER;
use crate::destination::Endpoint;
use crate::invalid::{Invalid, duration};

/// How a backend's endpoints are balanced.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Balance {
    /// How load is reckoned.
    pub load: Load,
    /// What keeps requests together; `None`: each goes where the load is lowest.
    pub hash: Option<ConsistentHash>,
    /// Own zone first; `None`: all endpoints alike.
    pub zone: Option<ZonePreference>,
    /// In which a new endpoint's share grows to its full size; `None`: it has it at once.
    pub slow_start: Option<Duration>,
    /// Requests at once to one endpoint; `None`: no limit.
    pub max_in_flight: Option<u32>,
}

/// The same key goes to the same endpoint while that one is there and has room.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsistentHash {
    /// What of a request is its key.
    pub key: HashKey,
    /// An endpoint with more than so many times its share of the requests in flight (and more than
    /// [`super::ALWAYS_ROOM`]) is passed over; at least 1.
    pub load_bound: f64,
}

/// What of a request is its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The value of this header, in lower case. A request without it has no key.
    Header(Box<str>),
    /// The value of this cookie; the answer sets one when the request has none.
    Cookie(Cookie),
    /// The client's address.
    SourceAddress,
}

/// A cookie that the proxy sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// Its name.
    pub name: Box<str>,
    /// Where it holds.
    pub path: Box<str>,
    /// How long the client keeps it; `None`: until it ends.
    pub ttl: Option<Duration>,
}

/// Endpoints of the same zone first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZonePreference {
    /// Others are used as well when fewer than so many per cent of the zone's endpoints are in the draw.
    pub spill_over_below_percent: u32,
}

impl ZonePreference {
    /// Whether an endpoint is in the client's zone: the control plane says so in its `zone_locality`.
    #[must_use]
    pub fn is_near(endpoint: &Endpoint) -> bool {
        endpoint
            .labels
            .get("zone_locality")
            .is_some_and(|locality| locality == "local")
    }
}

/// How load is reckoned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// The latency of an endpoint that has not answered yet.
    pub default_rtt: Duration,
    /// The time in which the average falls to 1/e.
    pub decay: Duration,
    /// What failures count as; `None`: as any other answer.
    pub penalty: Option<Penalty>,
}

/// What failures count as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Penalty {
    /// The latency of a failure, at least, where the server does not say how long it wants to be left alone.
    pub latency: Duration,
    /// The longest that it is believed.
    pub max_retry_after: Duration,
    /// The time in which a penalty falls to 1/e.
    pub decay: Duration,
}

impl Default for Load {
    /// Linkerd's: 30 ms, 10 s.
    fn default() -> Self {
        Self {
            default_rtt: Duration::from_millis(30),
            decay: Duration::from_secs(10),
            penalty: None,
        }
    }
}

const DEFAULT_LOAD_BOUND: f64 = 1.25;
const DEFAULT_SPILL_OVER_PERCENT: u32 = 50;

impl Balance {
    pub(crate) fn compile(message: &BalanceP2c) -> Result<Self, Invalid> {
        let balance = Self {
            load: Load::compile(message.load.as_ref())?,
            hash: match &message.consistent_hash {
                None => None,
                Some(hash) => Some(
                    ConsistentHash::compile(hash)
                        .map_err(|error| error.under("consistent_hash"))?,
                ),
            },
            zone: match &message.zone_preference {
                None => None,
                Some(zone) => Some(ZonePreference::compile(*zone)?),
            },
            slow_start: match &message.slow_start {
                None => None,
                Some(length) => {
                    Some(duration("slow_start", length)?).filter(|length| !length.is_zero())
                }
            },
            max_in_flight: Some(message.max_in_flight_per_endpoint).filter(|limit| *limit != 0),
        };
        // A key decides alone where its request goes: these two would have no effect, and that silently.
        for (given, field) in [
            (balance.zone.is_some(), "zone_preference"),
            (balance.slow_start.is_some(), "slow_start"),
        ] {
            if given && balance.hash.is_some() {
                return Err(Invalid::new(
                    field,
                    "cannot be combined with consistent_hash",
                ));
            }
        }
        Ok(balance)
    }
}

impl ConsistentHash {
    fn compile(message: &api::ConsistentHash) -> Result<Self, Invalid> {
        use api::consistent_hash::Key;
        let key = match &message.key {
            None => return Err(Invalid::missing("key")),
            Some(Key::Header(name)) => {
                HashKey::Header(token("header", name)?.to_lowercase().into())
            }
            Some(Key::Cookie(cookie)) => HashKey::Cookie(Cookie::compile(cookie)?),
            Some(Key::SourceAddress(_)) => HashKey::SourceAddress,
        };
        let load_bound = match message.load_bound {
            0.0 => DEFAULT_LOAD_BOUND,
            bound if bound >= 1.0 && bound.is_finite() => bound,
            bound => return Err(Invalid::new("load_bound", format!("is {bound}, below 1"))),
        };
        Ok(Self { key, load_bound })
    }
}

impl Cookie {
    fn compile(message: &api::consistent_hash::Cookie) -> Result<Self, Invalid> {
        let path = match message.path.as_str() {
            "" => "/",
            path => path,
        };
        let fits = |c: u8| (0x20..0x7f).contains(&c) && c != b';';
        if !path.starts_with('/') || !path.bytes().all(fits) {
            return Err(Invalid::new(
                "cookie.path",
                format!("is {path:?}, not a path"),
            ));
        }
        Ok(Self {
            name: token("cookie.name", &message.name)?.into(),
            path: path.into(),
            ttl: match &message.ttl {
                None => None,
                Some(ttl) => Some(duration("cookie.ttl", ttl)?),
            },
        })
    }
}

/// A name that may stand in a head (RFC 9110 §5.6.2).
fn token<'m>(field: &str, name: &'m str) -> Result<&'m str, Invalid> {
    let fits = |c: u8| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c);
    if name.is_empty() || !name.bytes().all(fits) {
        return Err(Invalid::new(field, format!("is {name:?}, not a name")));
    }
    Ok(name)
}

impl ZonePreference {
    fn compile(message: api::ZonePreference) -> Result<Self, Invalid> {
        let percent = match message.spill_over_below_percent {
            0 => DEFAULT_SPILL_OVER_PERCENT,
            percent @ 1..=100 => percent,
            percent => {
                return Err(Invalid::new(
                    "zone_preference.spill_over_below_percent",
                    format!("is {percent}, above 100"),
                ));
            }
        };
        Ok(Self {
            spill_over_below_percent: percent,
        })
    }
}

impl Load {
    fn compile(message: Option<&api::Load>) -> Result<Self, Invalid> {
        let or =
            |field: &str, length: &Option<prost_types::Duration>, default: Duration| match length {
                None => Ok(default),
                Some(length) => duration(field, length),
            };
        let default = Self::default();
        match message {
            None => Err(Invalid::missing("load")),
            Some(api::Load::PeakEwma(ewma)) => Ok(Self {
                default_rtt: or(
                    "peak_ewma.default_rtt",
                    &ewma.default_rtt,
                    default.default_rtt,
                )?,
                decay: or("peak_ewma.decay", &ewma.decay, default.decay)?,
                penalty: None,
            }),
            Some(api::Load::PenaltyPeakEwma(ewma)) => {
                let part = |field: &str, length: &Option<prost_types::Duration>, default| {
                    or(field, length, default).map_err(|error| error.under("penalty_peak_ewma"))
                };
                Ok(Self {
                    default_rtt: part("default_rtt", &ewma.default_rtt, default.default_rtt)?,
                    decay: part("decay", &ewma.decay, default.decay)?,
                    penalty: Some(Penalty {
                        latency: part("penalty", &ewma.penalty, Duration::from_secs(5))?,
                        max_retry_after: part(
                            "max_retry_after",
                            &ewma.max_retry_after,
                            MAX_RETRY_AFTER,
                        )?,
                        decay: part("penalty_decay", &ewma.penalty_decay, default.decay)?,
                    }),
                })
            }
        }
    }
}
