//! What a rule does to a request or response beside choosing a backend.
//!
//! The order in which filters act is fixed, so that a manifest need not be read from top to bottom to be understood:
//! a preflight request is answered (`cors`), a fault delays (`failure`), the first redirect, failure or abort in the
//! order of the list answers (`redirect`, `failure`), header modifiers and rewrites change the request in the order of
//! the list (`headers`, `rewrite`), a mirror copies what is left, a backend is asked. A rule's filters act before those
//! of the chosen backend. On the way back the rule's response modifiers act before the backend's, and CORS last.
//! Routes are always chosen by what the client sent: what a filter changes is not matched again.

mod cors;
mod failure;
mod headers;
mod redirect;
mod rewrite;

use std::sync::Arc;

use tulle_api::grpc_route;
use tulle_api::http_route as api;

pub use self::cors::{Cors, CorsGrant};
pub use self::failure::{Delay, Failure, Fault, MAX_DELAY, Ratio};
pub use self::headers::{Field, HeaderModifier};
pub use self::redirect::Redirect;
pub use self::rewrite::{PathChange, Rewrite};

use crate::invalid::Invalid;
use crate::outbound::BackendId;
use crate::reason::Reason;
use crate::request::{Headers, RequestView};

/// One filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Changes the request's header.
    RequestHeaders(Arc<HeaderModifier>),
    /// Changes the response's header.
    ResponseHeaders(Arc<HeaderModifier>),
    /// Answers with a redirect.
    Redirect(Arc<Redirect>),
    /// Answers with an error.
    Failure(Arc<Failure>),
    /// Changes the request's URL.
    Rewrite(Arc<Rewrite>),
    /// Sends a copy of the request elsewhere as well.
    Mirror(Mirror),
    /// Delays or fails a share of the requests that are meant.
    Fault(Arc<Fault>),
    /// Answers preflight requests, and marks answers for browsers.
    Cors(Arc<Cors>),
}

/// Where copies of requests go, and of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// One of the policy's `backends`.
    pub backend: BackendId,
    /// The share of requests.
    pub ratio: Ratio,
}

/// What filters answer instead of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// The answer to a preflight request; [`Cors::preflight`] tells its fields.
    Preflight(&'a Cors),
    /// A redirect; [`Redirect::location`] tells where to.
    Redirect(&'a Redirect),
    /// An error by a failure injector or fault.
    Failure(&'a Failure),
    /// An error because the rule cannot be read; answered with [`Reason::RouteInvalid`].
    Invalid(&'a Invalid),
}

impl Answer<'_> {
    /// What the answer says of itself.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Preflight(_) => Reason::Preflight,
            Self::Redirect(_) => Reason::Redirected,
            Self::Failure(failure) => failure.reason,
            Self::Invalid(_) => Reason::RouteInvalid,
        }
    }
}

/// Each filter of a list draws by itself from the one number of a request: a factor of its own spreads it anew.
fn draw(random: u64, place: usize) -> u64 {
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    random.wrapping_mul(SPREAD.wrapping_pow(u32::try_from(place).unwrap_or(u32::MAX)))
}

/// What the filters answer by themselves, if they do.
pub(crate) fn answer<'f, H: Headers + ?Sized>(
    filters: &'f [Filter],
    request: &RequestView<'_, H>,
    random: u64,
) -> Option<Answer<'f>> {
    if filters.is_empty() {
        return None;
    }
    let preflight = filters.iter().find_map(|filter| match filter {
        Filter::Cors(cors) if Cors::is_preflight(request) => Some(Answer::Preflight(cors)),
        _ => None,
    });
    preflight.or_else(|| {
        let mut places = filters.iter().enumerate();
        places.find_map(|(place, filter)| match filter {
            Filter::Redirect(redirect) => Some(Answer::Redirect(redirect)),
            Filter::Failure(failure) if failure.ratio.includes(draw(random, place)) => {
                Some(Answer::Failure(failure))
            }
            Filter::Fault(fault) => fault
                .abort(request, draw(random, place))
                .map(Answer::Failure),
            _ => None,
        })
    })
}

/// How long the filters hold the request back before anything else happens to it; the longest of several.
pub(crate) fn delay<H: Headers + ?Sized>(
    filters: &[Filter],
    request: &RequestView<'_, H>,
    random: u64,
) -> Option<std::time::Duration> {
    let mut faults = filters
        .iter()
        .enumerate()
        .filter_map(|(place, filter)| match filter {
            Filter::Fault(fault) => Some((place, fault)),
            _ => None,
        })
        .peekable();
    faults.peek()?;
    if filters
        .iter()
        .any(|filter| matches!(filter, Filter::Cors(_)))
        && Cors::is_preflight(request)
    {
        return None;
    }
    // Beyond the places of the list, so that the delay and the abort of one fault draw apart.
    faults
        .filter_map(|(place, fault)| fault.delay(request, draw(random, filters.len() + 1 + place)))
        .max()
}

impl Filter {
    pub(crate) fn request_headers(message: &api::RequestHeaderModifier) -> Result<Self, Invalid> {
        HeaderModifier::request(message.add.as_ref(), message.set.as_ref(), &message.remove)
            .map(|modifier| Self::RequestHeaders(Arc::new(modifier)))
            .map_err(|error| error.under("request_header_modifier"))
    }

    pub(crate) fn response_headers(message: &api::ResponseHeaderModifier) -> Result<Self, Invalid> {
        HeaderModifier::response(message.add.as_ref(), message.set.as_ref(), &message.remove)
            .map(|modifier| Self::ResponseHeaders(Arc::new(modifier)))
            .map_err(|error| error.under("response_header_modifier"))
    }

    pub(crate) fn redirect(message: &api::RequestRedirect) -> Result<Self, Invalid> {
        Redirect::compile(message)
            .map(|redirect| Self::Redirect(Arc::new(redirect)))
            .map_err(|error| error.under("redirect"))
    }

    pub(crate) fn http_failure(message: &api::HttpFailureInjector) -> Result<Self, Invalid> {
        Failure::http(message)
            .map(|failure| Self::Failure(Arc::new(failure)))
            .map_err(|error: Invalid| error.under("failure_injector"))
    }

    pub(crate) fn grpc_failure(message: &grpc_route::GrpcFailureInjector) -> Result<Self, Invalid> {
        Failure::grpc(message)
            .map(|failure| Self::Failure(Arc::new(failure)))
            .map_err(|error| error.under("failure_injector"))
    }

    pub(crate) fn rewrite(message: &api::UrlRewrite) -> Result<Self, Invalid> {
        Rewrite::compile(message)
            .map(|rewrite| Self::Rewrite(Arc::new(rewrite)))
            .map_err(|error| error.under("url_rewrite"))
    }

    pub(crate) fn mirror(
        backend: Result<BackendId, Invalid>,
        ratio: Option<&api::Ratio>,
    ) -> Result<Self, Invalid> {
        let compile = || {
            Ok(Mirror {
                backend: backend?,
                ratio: Ratio::compile(ratio)?,
            })
        };
        compile()
            .map(Self::Mirror)
            .map_err(|error: Invalid| error.under("mirror"))
    }

    pub(crate) fn fault(message: &api::FaultInjector) -> Result<Self, Invalid> {
        Fault::compile(message)
            .map(|fault| Self::Fault(Arc::new(fault)))
            .map_err(|error| error.under("fault"))
    }

    pub(crate) fn cors(message: &api::Cors) -> Result<Self, Invalid> {
        Cors::compile(message)
            .map(|cors| Self::Cors(Arc::new(cors)))
            .map_err(|error| error.under("cors"))
    }

    /// Fails everything, for a reason of the proxy's own.
    pub(crate) fn fail(reason: Reason, message: &str) -> Self {
        Self::Failure(Arc::new(Failure {
            http_status: Some(reason.http_status()),
            grpc_status: Some(reason.grpc_status()),
            message: message.into(),
            ratio: Ratio::ALL,
            reason,
        }))
    }
}

#[cfg(test)]
mod tests;
