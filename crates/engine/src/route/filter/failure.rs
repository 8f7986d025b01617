//! Errors and delays on purpose: failure injectors (Linkerd's) and faults, each for a share of the requests.

use std::time::Duration;

use tulle_api::grpc_route;
use tulle_api::http_route as api;

use crate::invalid::{Invalid, required_duration};
use crate::reason::Reason;
use crate::request::{Headers, RequestView};
use crate::route::matcher::{ValueMatcher, headers};

/// The longest delay of a fault: a held request keeps its place among the requests at once.
pub const MAX_DELAY: Duration = Duration::from_secs(3600);

/// An answer that fails a share of the requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The HTTP status, for HTTP routes.
    pub http_status: Option<u16>,
    /// The gRPC status, for gRPC routes.
    pub grpc_status: Option<u8>,
    /// Told to the client.
    pub message: Box<str>,
    /// The share of requests.
    pub ratio: Ratio,
    /// What the answer says of itself.
    pub reason: Reason,
}

/// Delays or fails a share of the requests that carry certain headers. Acts once per request, before any try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// All have to hold; none means every request.
    pub headers: Vec<(Box<str>, ValueMatcher)>,
    /// Comes before the abort.
    pub delay: Option<Delay>,
    /// Both statuses are given: that of the other protocol is mapped when the message has only one.
    pub abort: Option<Failure>,
}

/// How long a share of the requests is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    /// At most [`MAX_DELAY`].
    pub length: Duration,
    /// The share of requests.
    pub ratio: Ratio,
}

/// A share of all requests, `numerator/denominator`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ratio {
    numerator: u32,
    denominator: u32,
}

impl Ratio {
    /// Every request.
    pub const ALL: Self = Self {
        numerator: 1,
        denominator: 1,
    };

    pub(crate) fn compile(message: Option<&api::Ratio>) -> Result<Self, Invalid> {
        match message {
            None => Ok(Self::ALL),
            Some(api::Ratio { denominator: 0, .. }) => {
                Err(Invalid::new("ratio.denominator", "is 0"))
            }
            Some(api::Ratio {
                numerator,
                denominator,
            }) if numerator > denominator => Err(Invalid::new(
                "ratio",
                format!("{numerator}/{denominator} is more than 1"),
            )),
            Some(api::Ratio {
                numerator,
                denominator,
            }) => Ok(Self {
                numerator: *numerator,
                denominator: *denominator,
            }),
        }
    }

    /// Whether a request that drew this number belongs to the share.
    #[must_use]
    pub fn includes(self, random: u64) -> bool {
        crate::random_below(random, u64::from(self.denominator)) < u64::from(self.numerator)
    }

    /// Between 0 and 1.
    #[must_use]
    pub fn share(self) -> f64 {
        f64::from(self.numerator) / f64::from(self.denominator)
    }
}

impl Failure {
    pub(super) fn http(message: &api::HttpFailureInjector) -> Result<Self, Invalid> {
        Ok(Self {
            http_status: Some(http_status("status", message.status)?),
            grpc_status: None,
            message: message.message.as_str().into(),
            ratio: Ratio::compile(message.ratio.as_ref())?,
            reason: Reason::FailureInjected,
        })
    }

    pub(super) fn grpc(message: &grpc_route::GrpcFailureInjector) -> Result<Self, Invalid> {
        Ok(Self {
            http_status: None,
            grpc_status: Some(grpc_status("code", message.code)?),
            message: message.message.as_str().into(),
            ratio: Ratio::compile(message.ratio.as_ref())?,
            reason: Reason::FailureInjected,
        })
    }

    fn abort(message: &api::fault_injector::Abort) -> Result<Self, Invalid> {
        let http = match message.http_status {
            0 => None,
            status => Some(http_status("http_status", status)?),
        };
        let grpc = match message.grpc_code {
            0 => None,
            code => Some(grpc_status("grpc_code", code)?),
        };
        let (http, grpc) = match (http, grpc) {
            (None, None) => return Err(Invalid::missing("http_status")),
            (Some(http), None) => (http, grpc_of_http(http)),
            (None, Some(grpc)) => (http_of_grpc(grpc), grpc),
            (Some(http), Some(grpc)) => (http, grpc),
        };
        Ok(Self {
            http_status: Some(http),
            grpc_status: Some(grpc),
            message: message.message.as_str().into(),
            ratio: Ratio::compile(message.ratio.as_ref())?,
            reason: Reason::FaultInjected,
        })
    }
}

impl Fault {
    pub(super) fn compile(message: &api::FaultInjector) -> Result<Self, Invalid> {
        let delay = match &message.delay {
            None => None,
            Some(delay) => Some(Delay::compile(delay).map_err(|error| error.under("delay"))?),
        };
        let abort = match &message.abort {
            None => None,
            Some(abort) => Some(Failure::abort(abort).map_err(|error| error.under("abort"))?),
        };
        if delay.is_none() && abort.is_none() {
            return Err(Invalid::new("", "has neither a delay nor an abort"));
        }
        Ok(Self {
            headers: headers(&message.headers)?,
            delay,
            abort,
        })
    }

    fn means<H: Headers + ?Sized>(&self, request: &RequestView<'_, H>) -> bool {
        self.headers
            .iter()
            .all(|(name, value)| request.headers.any(name, &mut |found| value.matches(found)))
    }

    /// How long this request is held.
    pub(super) fn delay<H: Headers + ?Sized>(
        &self,
        request: &RequestView<'_, H>,
        random: u64,
    ) -> Option<Duration> {
        let delay = self.delay.filter(|delay| delay.ratio.includes(random))?;
        self.means(request).then_some(delay.length)
    }

    /// How this request fails.
    pub(super) fn abort<H: Headers + ?Sized>(
        &self,
        request: &RequestView<'_, H>,
        random: u64,
    ) -> Option<&Failure> {
        let abort = self.abort.as_ref()?;
        (abort.ratio.includes(random) && self.means(request)).then_some(abort)
    }
}

impl Delay {
    fn compile(message: &api::fault_injector::Delay) -> Result<Self, Invalid> {
        let length = required_duration("duration", message.duration.as_ref())?;
        if length > MAX_DELAY {
            let why = format!("is {length:?}, and at most {MAX_DELAY:?} are allowed");
            return Err(Invalid::new("duration", why));
        }
        Ok(Self {
            length,
            ratio: Ratio::compile(message.ratio.as_ref())?,
        })
    }
}

fn http_status(field: &str, status: u32) -> Result<u16, Invalid> {
    u16::try_from(status)
        .ok()
        .filter(|status| (200..=599).contains(status))
        .ok_or_else(|| Invalid::new(field, format!("is {status}, not the status of an answer")))
}

fn grpc_status(field: &str, code: u32) -> Result<u8, Invalid> {
    u8::try_from(code)
        .ok()
        .filter(|code| (1..=16).contains(code))
        .ok_or_else(|| Invalid::new(field, format!("is {code}, not a gRPC error")))
}

/// What a gRPC client makes of an HTTP status (grpc/doc/http-grpc-status-mapping.md).
fn grpc_of_http(status: u16) -> u8 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// What a gRPC status is in HTTP (google/rpc/code.proto).
fn http_of_grpc(code: u8) -> u16 {
    match code {
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}
