//! Between a head and the engine: what the engine is told of a request, and what its filters and answers do to one.

use tulle_engine::outbound::Answer;
use tulle_engine::route::{Filter, HeaderModifier, Matcher};
use tulle_engine::{Headers, Reason, RequestView};
use tulle_http::Head;

use crate::http::answer::Refusal;

/// The fields of a head, as the engine asks for them.
pub struct Fields<'h>(pub &'h Head);

impl Headers for Fields<'_> {
    fn any(&self, name: &str, test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        if name == "host" {
            return self.0.authority().is_some_and(test);
        }
        self.0.get_all(name.as_bytes()).any(test)
    }
}

impl<'h> Fields<'h> {
    /// What the engine is told of the request.
    pub fn view(&self) -> RequestView<'_, Self> {
        RequestView {
            method: self.0.method(),
            authority: self.0.authority().unwrap_or_default(),
            path: self.0.path(),
            headers: self,
        }
    }
}

/// Applies the filters that change a request's head.
pub fn modify_request(filters: &[Filter], head: &mut Head) -> Result<(), tulle_http::Error> {
    filters.iter().try_for_each(|filter| match filter {
        Filter::RequestHeaders(modifier) => modify(modifier, head),
        _ => Ok(()),
    })
}

/// Applies the filters that change an answer's head.
pub fn modify_response(filters: &[Filter], head: &mut Head) -> Result<(), tulle_http::Error> {
    filters.iter().try_for_each(|filter| match filter {
        Filter::ResponseHeaders(modifier) => modify(modifier, head),
        _ => Ok(()),
    })
}

fn modify(modifier: &HeaderModifier, head: &mut Head) -> Result<(), tulle_http::Error> {
    for (name, value) in &modifier.add {
        head.push(name.as_bytes(), value)?;
    }
    for (name, value) in &modifier.set {
        head.set(name.as_bytes(), value)?;
    }
    for name in &modifier.remove {
        head.remove(name.as_bytes());
    }
    Ok(())
}

/// What a rule answers instead of a server.
pub fn refusal(answer: Answer<'_>, head: &Head, matcher: &Matcher) -> Refusal {
    match answer {
        Answer::Invalid(error) => Refusal::because(Reason::RouteInvalid, error),
        Answer::Failure(failure) => {
            let mut refusal = Refusal::because(answer.reason(), &failure.message);
            if let Some(status) = failure.http_status {
                refusal.status = status;
            }
            refusal.grpc_status = failure.grpc_status;
            refusal
        }
        Answer::Redirect(redirect) => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let scheme = if head.scheme() == b"https" {
                "https"
            } else {
                "http"
            };
            let (authority, path) = (
                text(head.authority().unwrap_or_default()),
                text(head.path()),
            );
            match redirect.location(scheme, &authority, &path, matcher) {
                Some(location) => Refusal {
                    status: redirect.status,
                    location: Some(location.into()),
                    ..Refusal::new(Reason::Redirected)
                },
                None => Refusal::new(Reason::RedirectInvalid),
            }
        }
    }
}
