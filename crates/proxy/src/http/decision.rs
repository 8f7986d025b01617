//! Between a head and the engine: what the engine is told of a request, and what its filters and answers do to one.
//!
//! Cost: a rule without filters pays an empty loop. A rewrite is put together in a buffer that the thread keeps.

use std::cell::RefCell;
use std::sync::Arc;

use tulle_engine::outbound::Answer;
use tulle_engine::route::{Cors, Filter, HeaderModifier, Matcher, Rewrite, RuleName};
use tulle_engine::{Headers, Meta, Reason, RequestView};
use tulle_http::{Head, TargetForm};

use crate::http::answer::Refusal;
use crate::metrics::Labels;

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

/// Applies the filters that change a request's head, in their order. `prefix`: how much of the path the rule's match is
/// about, for rewrites; it follows them.
pub fn modify_request(
    filters: &[Filter],
    head: &mut Head,
    prefix: &mut Option<usize>,
) -> Result<(), Refusal> {
    filters.iter().try_for_each(|filter| match filter {
        Filter::RequestHeaders(modifier) => modify(modifier, head).map_err(Refusal::malformed),
        Filter::Rewrite(change) => rewrite(change, head, prefix),
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

thread_local! {
    static REWRITTEN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

fn rewrite(change: &Rewrite, head: &mut Head, prefix: &mut Option<usize>) -> Result<(), Refusal> {
    if let Some(host) = &change.host {
        head.set_authority(host.as_bytes())
            .map_err(Refusal::malformed)?;
    }
    // `*` and CONNECT's missing path are no paths.
    let has_path = head.path().starts_with(b"/") && head.target_form() != TargetForm::Authority;
    let Some(path) = change.path.as_ref().filter(|_| has_path) else {
        return Ok(());
    };
    REWRITTEN.with_borrow_mut(|rewritten| {
        rewritten.clear();
        let matched = path.apply(head.path(), *prefix, rewritten);
        let matched = matched.ok_or_else(|| Refusal::new(Reason::RewriteInvalid))?;
        head.set_path(rewritten).map_err(Refusal::malformed)?;
        *prefix = Some(matched);
        Ok(())
    })
}

/// What a rule answers instead of a server.
pub fn refusal(answer: Answer<'_>, head: &Head, matcher: &Matcher, rule: RuleName<'_>) -> Refusal {
    let refusal = match answer {
        Answer::Invalid(error) => Refusal::because(Reason::RouteInvalid, error),
        Answer::Preflight(cors) => return preflight(cors, head),
        Answer::Failure(failure) => {
            let mut refusal = if failure.message.is_empty() {
                Refusal::new(answer.reason())
            } else {
                Refusal::because(answer.reason(), &failure.message)
            };
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
    };
    refusal.of_rule(rule)
}

/// The first value of a field, or nothing.
fn asked<'h>(head: &'h Head, name: &'static str) -> &'h [u8] {
    head.get(name).unwrap_or_default()
}

fn preflight(cors: &Cors, head: &Head) -> Refusal {
    let mut refusal = Refusal::new(Reason::Preflight);
    let fields = &mut refusal.more.get_or_insert_default().fields;
    cors.preflight(
        asked(head, "origin"),
        asked(head, "access-control-request-method"),
        asked(head, "access-control-request-headers"),
        &mut |name, value| fields.push((name.into(), value.into())),
    );
    if cors.varies() {
        fields.push(("vary".into(), b"origin".as_slice().into()));
    }
    refusal
}

/// Where a request comes from that a rule with CORS has taken: kept until its answer can be marked.
pub struct Origin {
    cors: Arc<Cors>,
    name: Option<Box<[u8]>>,
}

impl Origin {
    /// `None` for rules without CORS: most requests.
    pub fn of(filters: &[Filter], head: &Head) -> Option<Box<Self>> {
        filters.iter().find_map(|filter| match filter {
            Filter::Cors(cors) => Some(Box::new(Origin {
                cors: cors.clone(),
                name: head.get("origin").map(Into::into),
            })),
            _ => None,
        })
    }

    /// Marks the answer for browsers, in place of what the application says about origins.
    pub fn mark(&self, head: &mut Head) -> Result<(), tulle_http::Error> {
        for name in [
            "access-control-allow-origin",
            "access-control-allow-credentials",
            "access-control-expose-headers",
        ] {
            head.remove(name);
        }
        self.fields(|name, value| head.push(name, value))
    }

    /// The same for an answer of the proxy's own: a page may read why it was refused.
    pub fn mark_refusal(&self, refusal: &mut Refusal) {
        let fields = &mut refusal.more.get_or_insert_default().fields;
        let marked = self.fields(|name, value| {
            fields.push((name.into(), value.into()));
            Ok::<_, std::convert::Infallible>(())
        });
        match marked {
            Ok(()) => {}
            Err(never) => match never {},
        }
    }

    fn fields<E>(
        &self,
        mut push: impl FnMut(&'static str, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut pushed = Ok(());
        if let Some(name) = &self.name {
            self.cors.decorate(name, &mut |field, value| {
                if pushed.is_ok() {
                    pushed = push(field, value);
                }
            });
        }
        pushed?;
        // Also without an origin: a cache must not hand this answer to a page that has one (Fetch §3.2.5).
        if self.cors.varies() {
            push("vary", b"origin")?;
        }
        Ok(())
    }
}

/// The labels of a fault.
pub fn fault_labels(direction: &str, route: &Meta, fault: &str) -> Labels {
    Labels::builder()
        .add("direction", direction)
        .add("route_group", route.group())
        .add("route_kind", route.kind())
        .add("route_namespace", route.namespace())
        .add("route_name", route.name())
        .add("fault", fault)
        .build()
}

/// The labels of an answered preflight request.
pub fn preflight_labels(direction: &str, answer: &Refusal) -> Labels {
    let fields = answer.more.iter().flat_map(|more| &more.fields);
    let allowed = fields
        .into_iter()
        .any(|(name, _)| &**name == "access-control-allow-origin");
    Labels::builder()
        .add("direction", direction)
        .add("allowed", if allowed { "true" } else { "false" })
        .build()
}
