//! Finding the rule for a request, by the Gateway API's precedence.
//!
//! [`Table`] is compiled once per policy and looked into per request; what goes with a rule (backends, authorizations)
//! belongs to `outbound` and `inbound`, which hold it under the [`RuleId`] found here.

mod filter;
mod found;
mod group;
mod host;
mod matcher;
mod name;
mod pattern;
mod query;
mod seen;
mod table;

pub use self::filter::{
    Answer, Cors, CorsGrant, Delay, Failure, Fault, Field, Filter, HeaderModifier, MAX_DELAY,
    Mirror, PathChange, Ratio, Redirect, Rewrite,
};
pub use self::found::{PolicyRule, RouteRef};
pub use self::host::HostPattern;
pub use self::matcher::{Matcher, Method, Mismatch, PathMatcher, ValueMatcher};
pub use self::name::RuleName;
pub use self::pattern::Pattern;
pub use self::table::{Candidate, Found, Outcome, Recorder, RuleId, Table};

pub(crate) use self::filter::{answer, delay};
pub(crate) use self::table::{BrokenMatch, Hosts, TableBuilder};
