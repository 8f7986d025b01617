//! What a policy of either direction says of a request: the rule that was found, with its route.

use std::sync::Arc;
use std::time::Duration;

use super::filter::{self, Answer, Filter};
use super::matcher::Matcher;
use super::name::RuleName;
use super::table::RuleId;
use crate::invalid::Invalid;
use crate::meta::Meta;
use crate::request::{Headers, RequestView};

/// A rule of a policy, as far as both directions are alike.
pub trait PolicyRule {
    /// The route object that rules belong to.
    type Route;

    /// Its number within the route.
    fn number(&self) -> usize;
    /// Applied in order.
    fn filters(&self) -> &[Filter];
    /// The object that the route is.
    fn meta(route: &Self::Route) -> &Arc<Meta>;
}

/// What matched a request or connection.
#[derive(Debug)]
pub struct RouteRef<'a, R: PolicyRule> {
    /// The rule's place in the policy's `rules`.
    pub id: RuleId,
    /// The route object.
    pub route: &'a R::Route,
    /// The rule.
    pub rule: &'a R,
    /// The match of it that holds.
    pub matcher: &'a Matcher,
    /// Why the rule or the match could not be read, when it could not.
    pub invalid: Option<&'a Invalid>,
}

impl<R: PolicyRule> Clone for RouteRef<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R: PolicyRule> Copy for RouteRef<'_, R> {}

impl<'a, R: PolicyRule> RouteRef<'a, R> {
    /// What the rule is called.
    #[must_use]
    pub fn name(&self) -> RuleName<'a> {
        RuleName {
            route: R::meta(self.route),
            number: self.rule.number(),
        }
    }

    /// What the rule answers by itself, if it does. `random` decides about what hits a share of the requests. Inbound, to
    /// be asked after [`Server::authorize`](crate::inbound::Server::authorize).
    #[must_use]
    pub fn answer<H: Headers + ?Sized>(
        &self,
        request: &RequestView<'_, H>,
        random: u64,
    ) -> Option<Answer<'a>> {
        match self.invalid {
            Some(error) => Some(Answer::Invalid(error)),
            None => filter::answer(self.rule.filters(), request, random),
        }
    }

    /// How long the rule holds the request back before it answers or goes on. To be asked with the same `random`.
    #[must_use]
    pub fn delay<H: Headers + ?Sized>(
        &self,
        request: &RequestView<'_, H>,
        random: u64,
    ) -> Option<Duration> {
        match self.invalid {
            Some(_) => None,
            None => filter::delay(self.rule.filters(), request, random),
        }
    }
}
