//! Breakers of all endpoints together: who is ejected, who is probed, and how many may be out at once.
//!
//! The bound: those that cannot be connected to and those ejected are together no more than the configured share of all
//! endpoints, and leave the configured number in. Connections that cannot be made are nobody's choice and may break the
//! bound; ejected endpoints are then taken back, the next one due first, until it holds or none is ejected. So one bad
//! deploy never takes out a whole service.

use std::collections::BTreeSet;
use std::hash::Hash;

use super::members::{EndpointId, Out};
use super::{Balancer, Picked};
use crate::breaker::{self, Outcome, State, Trip};
use crate::outbound::FailureAccrual;

/// What breakers have done so far: each number only rises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Ejections for failures in a row.
    pub consecutive: u64,
    /// Ejections for a low success rate.
    pub success_rate: u64,
    /// Ejections because a probe failed.
    pub probe_failed: u64,
    /// Ejections that the bound did not allow.
    pub refused: u64,
    /// Probes sent.
    pub probes: u64,
    /// Endpoints taken back because their probe passed.
    pub readmitted: u64,
    /// Endpoints taken back because too many were out.
    pub forced: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Ejections {
    accrual: Option<FailureAccrual>,
    /// Ejected and not being probed, by when they are due.
    waiting: BTreeSet<(u64, EndpointId)>,
    /// Members whose breaker is not closed.
    ejected: usize,
    /// Members that cannot be connected to or are ejected.
    failed: usize,
    /// Members that are out only because they are full.
    full: usize,
    tally: Tally,
}

impl Ejections {
    pub(super) fn new(accrual: Option<FailureAccrual>) -> Self {
        Self {
            accrual,
            waiting: BTreeSet::new(),
            ejected: 0,
            failed: 0,
            full: 0,
            tally: Tally::default(),
        }
    }

    pub(super) fn accrual(&self) -> Option<&FailureAccrual> {
        self.accrual.as_ref()
    }

    pub(super) fn len(&self) -> usize {
        self.ejected
    }

    pub(super) fn full(&self) -> usize {
        self.full
    }

    pub(super) fn tally(&self) -> Tally {
        self.tally
    }

    /// A member is out for other reasons than before.
    pub(super) fn count(&mut self, before: Out, after: Out) {
        let only_full = |out: Out| usize::from(out.full && !out.failed());
        self.ejected = self.ejected + usize::from(after.ejected) - usize::from(before.ejected);
        self.failed = self.failed + usize::from(after.failed()) - usize::from(before.failed());
        self.full = self.full + only_full(after) - only_full(before);
    }

    /// A member is gone.
    pub(super) fn forget(&mut self, id: EndpointId, out: Out, state: State) {
        self.count(out, Out::default());
        if let State::Ejected(until) = state {
            self.waiting.remove(&(until, id));
        }
    }

    /// The endpoint that may be probed now.
    pub(super) fn due(&self, now: u64) -> Option<EndpointId> {
        let (until, id) = self.waiting.first()?;
        (*until <= now).then_some(*id)
    }

    /// When the next endpoint may be probed.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.waiting.first().map(|(until, _)| *until)
    }

    /// How many of so many endpoints may be out.
    fn allowed(&self, all: usize) -> usize {
        let Some(accrual) = &self.accrual else {
            return 0;
        };
        let share = all * accrual.max_ejected_percent.min(100) as usize / 100;
        share.min(all.saturating_sub(accrual.min_ready_endpoints as usize))
    }
}

impl<K: Clone + Eq + Hash> Balancer<K> {
    /// How a try went. Told at most once for each pick, before its [`Self::on_end`].
    pub fn on_result(
        &mut self,
        picked: Picked,
        started: u64,
        now: u64,
        random: u64,
        outcome: &Outcome,
    ) {
        let penalty = self.config.load.penalty.filter(|_| outcome.penalised);
        let allowed = self.ejections.allowed(self.members.len());
        let Some(member) = self.members.get_mut(picked.id) else {
            return;
        };
        if let Some(penalty) = penalty {
            let asked = outcome
                .retry_after
                .map(|asked| asked.min(penalty.max_retry_after));
            let latency = std::time::Duration::from_nanos(now.saturating_sub(started));
            member
                .load
                .penalise(asked.unwrap_or(penalty.latency).max(latency), now);
        }
        let (Some(accrual), Some(breaker)) = (self.ejections.accrual, &mut member.breaker) else {
            return;
        };
        if breaker.awaits(picked.probe) {
            if breaker::passes(&accrual, outcome.verdict) {
                self.ejections.tally.readmitted += 1;
                self.close(picked.id);
            } else {
                self.ejections.tally.probe_failed += 1;
                let until = breaker.eject(&accrual.backoff, now, random, outcome.retry_after);
                self.ejections.waiting.insert((until, picked.id));
                self.keep_enough();
            }
            return;
        }
        let Some(trip) = breaker.record(&accrual, now, outcome.verdict) else {
            return;
        };
        // One that cannot be connected to is out by itself, and comes back by itself.
        if member.out.unreachable {
            return;
        }
        if self.ejections.failed >= allowed {
            self.ejections.tally.refused += 1;
            return;
        }
        match trip {
            Trip::Consecutive => self.ejections.tally.consecutive += 1,
            Trip::SuccessRate => self.ejections.tally.success_rate += 1,
        }
        let until = breaker.eject(&accrual.backoff, now, random, outcome.retry_after);
        self.ejections.waiting.insert((until, picked.id));
        self.set_out(picked.id, |out| out.ejected = true);
    }

    /// Sends the request that is picked now as the probe of an ejected endpoint. `None` when it is not due.
    pub(super) fn probe(&mut self, id: EndpointId, now: u64) -> Option<u32> {
        let breaker = self.members.get_mut(id)?.breaker.as_mut()?;
        match breaker.state() {
            State::Ejected(until) if until <= now => {
                self.ejections.waiting.remove(&(until, id));
                self.ejections.tally.probes += 1;
                Some(breaker.begin_probe())
            }
            _ => None,
        }
    }

    /// Another probe may be sent if this one's result was never told.
    pub(super) fn give_up(&mut self, picked: Picked, now: u64) {
        let breaker = self
            .members
            .get_mut(picked.id)
            .and_then(|member| member.breaker.as_mut());
        if let Some(breaker) = breaker.filter(|breaker| breaker.awaits(picked.probe)) {
            breaker.give_up_probe(now);
            self.ejections.waiting.insert((now, picked.id));
            self.keep_enough();
        }
    }

    /// Takes ejected endpoints back while too many are out: those that would be probed first, and then those whose probe
    /// is on its way, for it may take as long as it likes.
    pub(super) fn keep_enough(&mut self) {
        while self.ejections.failed > self.ejections.allowed(self.members.len()) {
            let first = self.ejections.waiting.pop_first().map(|(_, id)| id);
            let Some(id) = first.or_else(|| self.probed()) else {
                return;
            };
            self.ejections.tally.forced += 1;
            self.close(id);
        }
    }

    /// One whose probe is on its way.
    fn probed(&self) -> Option<EndpointId> {
        let probed = |id: &EndpointId| self.breaker(*id) == Some(State::Probing);
        self.members.ids().map(|(_, id)| id).find(probed)
    }

    fn close(&mut self, id: EndpointId) {
        if let Some(breaker) = self
            .members
            .get_mut(id)
            .and_then(|member| member.breaker.as_mut())
        {
            breaker.close();
        }
        self.set_out(id, |out| out.ejected = false);
    }

    /// When a request that finds nothing ready may be sent as a probe; `None`: no endpoint is waiting to be probed.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        self.ejections.next_due()
    }
}
