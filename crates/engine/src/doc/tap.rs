//! Conditions of Linkerd's tap, as short as they can be written.

use tulle_api::tap::observe_request::{Match, r#match as kinds};

/// These, for a condition that all or any of them meet.
#[must_use]
pub fn seq(members: Vec<kinds::Match>) -> kinds::Seq {
    let of = |member| Match {
        r#match: Some(member),
    };
    kinds::Seq {
        matches: members.into_iter().map(of).collect(),
    }
}

/// What does not meet the condition.
#[must_use]
pub fn not(condition: kinds::Match) -> kinds::Match {
    kinds::Match::Not(Box::new(Match {
        r#match: Some(condition),
    }))
}

/// A condition on the request.
#[must_use]
pub fn http(condition: kinds::http::Match) -> kinds::Match {
    kinds::Match::Http(kinds::Http {
        r#match: Some(condition),
    })
}

/// This text.
#[must_use]
pub fn exact(value: &str) -> kinds::http::StringMatch {
    kinds::http::StringMatch {
        r#match: Some(kinds::http::string_match::Match::Exact(value.into())),
    }
}

/// Texts that begin like this.
#[must_use]
pub fn prefix(value: &str) -> kinds::http::StringMatch {
    kinds::http::StringMatch {
        r#match: Some(kinds::http::string_match::Match::Prefix(value.into())),
    }
}

/// Ports of a range; `max` 0 is without an end.
#[must_use]
pub fn ports(min: u32, max: u32) -> kinds::Tcp {
    kinds::Tcp {
        r#match: Some(kinds::tcp::Match::Ports(kinds::tcp::PortRange { min, max })),
    }
}

/// A label of an endpoint or a route.
#[must_use]
pub fn label(key: &str, value: &str) -> kinds::Label {
    kinds::Label {
        key: key.into(),
        value: value.into(),
    }
}
