//! How a rule is called in refusals, logs and explanations.

use std::fmt;

use crate::meta::Meta;

/// A rule of a route: `HTTPRoute default/voting, rule 1`; a default's only rule goes by the default's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleName<'a> {
    /// The route.
    pub route: &'a Meta,
    /// The rule's number within the route, from 0.
    pub number: usize,
}

impl fmt::Display for RuleName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.route.fmt(f)?;
        if !self.route.section().is_empty() {
            write!(f, " {}", self.route.section())?;
        }
        match self.route {
            Meta::Default(_) => Ok(()),
            Meta::Resource(_) => write!(f, ", rule {}", self.number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::Resource;

    #[test]
    fn a_rule_is_called_by_its_route_and_number() {
        let route = Meta::Resource(Box::new(Resource {
            kind: "HTTPRoute".into(),
            namespace: "default".into(),
            name: "voting".into(),
            ..Resource::default()
        }));
        let name = |route, number| RuleName { route, number }.to_string();

        assert_eq!(name(&route, 1), "HTTPRoute default/voting, rule 1");
        assert_eq!(name(&Meta::named("http"), 0), "default http");
    }
}
