//! Which requests somebody who watches the proxy wants to see: a tap's wish, compiled once, asked about each request
//! while the tap lasts.
//!
//! The language is Linkerd's, with its corners: a member of `all` or `any` that says nothing is passed over, `all` of
//! nothing holds, `any` of nothing does not, a port range with one end is that port, a path is compared without its
//! query, and a request that names no scheme is one of `http`. Deciding does not allocate.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tulle_api::tap::observe_request as api;
use tulle_api::tap::observe_request::r#match as kinds;
use tulle_api::{http_types, tap};

use crate::destination::ip_addr;
use crate::inbound::Cidr;
use crate::invalid::Invalid;
use crate::route::Ratio;

/// The most conditions of one tap, nested ones included.
pub const MAX_CONDITIONS: usize = 256;
/// The most requests that one tap may ask for.
pub const MAX_LIMIT: u32 = 1_000_000;
/// The longest method or scheme that a tap can ask for.
const MAX_METHOD: usize = 32;

/// What somebody who watches wants.
#[derive(Clone, Debug, PartialEq)]
pub struct Wish {
    /// So many requests, at most [`MAX_LIMIT`].
    pub limit: u32,
    /// Of those that pass this.
    pub condition: Condition,
    /// The share of those.
    pub sample: Ratio,
    /// With their headers and trailers.
    pub headers: bool,
}

/// A condition on a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Every one holds.
    All(Vec<Condition>),
    /// One holds.
    Any(Vec<Condition>),
    /// It does not hold.
    Not(Box<Condition>),
    /// Where the request comes from.
    Source(Place),
    /// Where it goes to.
    Destination(Place),
    /// The destination has this label with this value.
    DestinationLabel(Label),
    /// The route has this label with this value.
    RouteLabel(Label),
    /// The scheme, whatever its case.
    Scheme(Box<str>),
    /// The method, case kept.
    Method(Box<[u8]>),
    /// The authority.
    Authority(Text),
    /// The path without its query.
    Path(Text),
}

/// Addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Of a network.
    Network(Cidr),
    /// With a port from the first to the second.
    Ports(u16, u16),
}

/// A label that has to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    key: Box<str>,
    value: Box<str>,
}

/// What a text has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text {
    /// Exactly this.
    Exact(Box<str>),
    /// Begins with this.
    Prefix(Box<str>),
}

/// What is known of a request when it is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The client's end of the connection.
    pub source: Option<SocketAddr>,
    /// Where the request is sent; `None` while nobody has chosen.
    pub destination: Option<SocketAddr>,
    /// Empty when the request does not say.
    pub scheme: &'a [u8],
    /// The method.
    pub method: &'a [u8],
    /// `None` when the request has none.
    pub authority: Option<&'a [u8]>,
    /// With or without a query.
    pub path: &'a [u8],
    /// Of the destination.
    pub destination_labels: Labels<'a>,
    /// Of the route.
    pub route_labels: Labels<'a>,
}

/// Labels, where they already are.
#[derive(Clone, Copy, Debug)]
pub enum Labels<'a> {
    /// Sorted by key.
    Map(&'a BTreeMap<String, String>),
    /// A few.
    List(&'a [(&'a str, &'a str)]),
}

impl<'a> Labels<'a> {
    /// The value of a label.
    #[must_use]
    pub fn get(self, key: &str) -> Option<&'a str> {
        match self {
            Self::Map(map) => map.get(key).map(String::as_str),
            Self::List(list) => list
                .iter()
                .find_map(|(known, value)| (*known == key).then_some(*value)),
        }
    }
}

impl Wish {
    /// Reads the message.
    ///
    /// # Errors
    /// The limit is 0, there is no condition, or a part of it cannot be meant.
    pub fn compile(message: &tap::ObserveRequest) -> Result<Self, Invalid> {
        if message.limit == 0 {
            return Err(Invalid::new("limit", "is 0"));
        }
        let condition = message
            .r#match
            .as_ref()
            .and_then(|message| message.r#match.as_ref())
            .ok_or_else(|| Invalid::missing("match"))?;
        let extract = message
            .extract
            .as_ref()
            .and_then(|extract| extract.extract.as_ref());
        Ok(Self {
            limit: message.limit.min(MAX_LIMIT),
            condition: Condition::compile(condition, &mut 0).map_err(|why| why.under("match"))?,
            sample: Ratio::compile(message.sample.as_ref()).map_err(|why| why.under("sample"))?,
            headers: matches!(
                extract,
                Some(api::extract::Extract::Http(api::extract::Http {
                    extract: Some(_)
                }))
            ),
        })
    }

    /// Whether this request is one of those that are wanted. `random` is drawn anew for each.
    #[must_use]
    pub fn wants(&self, subject: &Subject<'_>, random: u64) -> bool {
        self.sample.includes(random) && self.condition.holds(subject)
    }
}

impl Condition {
    fn compile(message: &kinds::Match, count: &mut usize) -> Result<Self, Invalid> {
        *count += 1;
        if *count > MAX_CONDITIONS {
            let why = format!("has more than {MAX_CONDITIONS} conditions");
            return Err(Invalid::new("", why));
        }
        Ok(match message {
            kinds::Match::All(seq) => Self::All(Self::members("all", seq, count)?),
            kinds::Match::Any(seq) => Self::Any(Self::members("any", seq, count)?),
            kinds::Match::Not(inner) => {
                let inner = inner.r#match.as_ref();
                let inner = inner.ok_or_else(|| Invalid::missing("not"))?;
                let inner = Self::compile(inner, count).map_err(|why| why.under("not"))?;
                Self::Not(Box::new(inner))
            }
            kinds::Match::Source(tcp) => {
                Self::Source(Place::compile(tcp).map_err(|why| why.under("source"))?)
            }
            kinds::Match::Destination(tcp) => {
                Self::Destination(Place::compile(tcp).map_err(|why| why.under("destination"))?)
            }
            kinds::Match::DestinationLabel(label) => {
                let label = Label::compile(label).map_err(|why| why.under("destination_label"));
                Self::DestinationLabel(label?)
            }
            kinds::Match::RouteLabel(label) => {
                Self::RouteLabel(Label::compile(label).map_err(|why| why.under("route_label"))?)
            }
            kinds::Match::Http(http) => Self::http(http).map_err(|why| why.under("http"))?,
        })
    }

    /// The members that say something.
    fn members(field: &str, seq: &kinds::Seq, count: &mut usize) -> Result<Vec<Self>, Invalid> {
        let said = seq.matches.iter().enumerate();
        let said = said.filter_map(|(index, one)| Some((index, one.r#match.as_ref()?)));
        said.map(|(index, one)| {
            Self::compile(one, count).map_err(|why| why.under(format!("{field}[{index}]")))
        })
        .collect()
    }

    fn http(message: &kinds::Http) -> Result<Self, Invalid> {
        use kinds::http::Match;
        let said = message.r#match.as_ref();
        Ok(match said.ok_or_else(|| Invalid::missing("match"))? {
            Match::Scheme(scheme) => Self::Scheme(scheme_name(scheme)?.into()),
            Match::Method(method) => Self::Method(method_name(method)?.as_bytes().into()),
            Match::Authority(text) => Self::Authority(Text::compile("authority", text)?),
            Match::Path(text) => Self::Path(Text::compile("path", text)?),
        })
    }

    /// Whether it holds for the request.
    #[must_use]
    pub fn holds(&self, subject: &Subject<'_>) -> bool {
        match self {
            Self::All(members) => members.iter().all(|member| member.holds(subject)),
            Self::Any(members) => members.iter().any(|member| member.holds(subject)),
            Self::Not(inner) => !inner.holds(subject),
            Self::Source(place) => subject.source.is_some_and(|at| place.contains(at)),
            Self::Destination(place) => subject.destination.is_some_and(|at| place.contains(at)),
            Self::DestinationLabel(label) => label.is_among(subject.destination_labels),
            Self::RouteLabel(label) => label.is_among(subject.route_labels),
            Self::Scheme(scheme) => match subject.scheme {
                b"" => scheme.eq_ignore_ascii_case("http"),
                said => scheme.as_bytes().eq_ignore_ascii_case(said),
            },
            Self::Method(method) => **method == *subject.method,
            Self::Authority(text) => subject.authority.is_some_and(|said| text.fits(said)),
            Self::Path(text) => text.fits(without_query(subject.path)),
        }
    }
}

/// A path as it is compared and told.
#[must_use]
pub fn without_query(path: &[u8]) -> &[u8] {
    path.split(|byte| *byte == b'?').next().unwrap_or_default()
}

impl Place {
    fn compile(message: &kinds::Tcp) -> Result<Self, Invalid> {
        use kinds::tcp::Match;
        let said = message.r#match.as_ref();
        match said.ok_or_else(|| Invalid::missing("match"))? {
            Match::Netmask(netmask) => {
                let ip = netmask.ip.as_ref().and_then(ip_addr);
                let ip = ip.ok_or_else(|| Invalid::missing("netmask.ip"))?;
                if netmask.mask == 0 {
                    return Err(Invalid::missing("netmask.mask"));
                }
                let network = Cidr::new(ip, netmask.mask);
                Ok(Self::Network(network.map_err(|_| {
                    Invalid::new("netmask.mask", format!("is {}", netmask.mask))
                })?))
            }
            Match::Ports(range) => {
                let (first, last) = match (range.min, range.max) {
                    (0, 0) => return Err(Invalid::missing("ports")),
                    (0, only) | (only, 0) => (only, only),
                    both => both,
                };
                match (u16::try_from(first), u16::try_from(last)) {
                    (Ok(first), Ok(last)) if first <= last => Ok(Self::Ports(first, last)),
                    _ => Err(Invalid::new("ports", format!("are {first} to {last}"))),
                }
            }
        }
    }

    fn contains(&self, at: SocketAddr) -> bool {
        match self {
            Self::Network(network) => network.contains(at.ip()),
            Self::Ports(first, last) => (*first..=*last).contains(&at.port()),
        }
    }
}

impl Label {
    fn compile(message: &kinds::Label) -> Result<Self, Invalid> {
        if message.key.is_empty() {
            return Err(Invalid::missing("key"));
        }
        if message.value.is_empty() {
            return Err(Invalid::missing("value"));
        }
        Ok(Self {
            key: message.key.as_str().into(),
            value: message.value.as_str().into(),
        })
    }

    fn is_among(&self, labels: Labels<'_>) -> bool {
        labels.get(&self.key) == Some(&*self.value)
    }
}

impl Text {
    fn compile(field: &str, message: &kinds::http::StringMatch) -> Result<Self, Invalid> {
        use kinds::http::string_match::Match;
        match message.r#match.as_ref() {
            None => Err(Invalid::missing(field)),
            Some(Match::Exact(text)) => Ok(Self::Exact(text.as_str().into())),
            Some(Match::Prefix(text)) => Ok(Self::Prefix(text.as_str().into())),
        }
    }

    fn fits(&self, text: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => exact.as_bytes() == text,
            Self::Prefix(prefix) => text.starts_with(prefix.as_bytes()),
        }
    }
}

fn scheme_name(message: &http_types::Scheme) -> Result<&str, Invalid> {
    use http_types::scheme::{Registered, Type};
    match message.r#type.as_ref() {
        None => Err(Invalid::missing("scheme")),
        Some(Type::Registered(number)) => match Registered::try_from(*number) {
            Ok(Registered::Http) => Ok("http"),
            Ok(Registered::Https) => Ok("https"),
            Err(_) => Err(Invalid::new("scheme", format!("is {number}"))),
        },
        Some(Type::Unregistered(name)) => {
            let rest = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
            let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic());
            if first && name.len() <= MAX_METHOD && name.bytes().all(rest) {
                Ok(name)
            } else {
                Err(Invalid::new("scheme", "is no scheme"))
            }
        }
    }
}

fn method_name(message: &http_types::HttpMethod) -> Result<&str, Invalid> {
    use http_types::http_method::{Registered, Type};
    match message.r#type.as_ref() {
        None => Err(Invalid::missing("method")),
        Some(Type::Registered(number)) => match Registered::try_from(*number) {
            Ok(method) => Ok(method.as_str_name()),
            Err(_) => Err(Invalid::new("method", format!("is {number}"))),
        },
        Some(Type::Unregistered(name)) => {
            let token =
                |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            if !name.is_empty() && name.len() <= MAX_METHOD && name.bytes().all(token) {
                Ok(name)
            } else {
                Err(Invalid::new("method", "is no method"))
            }
        }
    }
}

#[cfg(test)]
mod tests;
