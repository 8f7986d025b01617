//! How much useless work a peer may make us do.
//!
//! A bucket of credit: frames that move nothing forward take from it (PING, SETTINGS, PRIORITY, WINDOW_UPDATE, RST_STREAM
//! of a young stream, empty DATA, refused and malformed requests, unknown frames); time and useful work fill it up. An
//! empty bucket ends the connection with ENHANCE_YOUR_CALM. So every flood of control frames has one bound whatever its
//! mixture, in either direction of rapid reset, and a peer that works may ask for much more than one that does not.

/// Credit of a new connection, and the most there can be.
const MOST: u32 = 768;
/// What a second gives back.
const PER_SECOND: u64 = 100;
const SECOND: u64 = 1_000_000_000;

#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    credit: u32,
    /// Until when time has been credited, in the clock of `now`.
    credited: u64,
}

impl Patience {
    pub(super) fn new() -> Self {
        Patience {
            credit: MOST,
            credited: 0,
        }
    }

    /// Takes `cost`; `false` when there is no more.
    pub(super) fn spend(&mut self, cost: u32, now: u64) -> bool {
        if self.credit < cost {
            self.refill(now);
        }
        match self.credit.checked_sub(cost) {
            Some(left) => {
                self.credit = left;
                true
            }
            None => false,
        }
    }

    /// Something useful was done.
    pub(super) fn earn(&mut self, credit: u32) {
        self.credit = (self.credit + credit).min(MOST);
    }

    /// Looked at only when the credit has run out, so it costs nothing in steady state.
    fn refill(&mut self, now: u64) {
        let elapsed = now.saturating_sub(self.credited);
        let earned = elapsed.min(10 * SECOND) * PER_SECOND / SECOND;
        if earned > 0 {
            self.earn(u32::try_from(earned).unwrap_or(MOST));
            self.credited = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_ends_and_a_steady_trickle_does_not() {
        let mut patience = Patience::new();
        let taken = (0..).take_while(|_| patience.spend(1, 0)).count();
        assert_eq!(taken, MOST as usize);
        assert!((1..10_000).all(|second| patience.spend(50, second * SECOND)));
        assert!(!(20_000..20_100).all(|second| patience.spend(200, second * SECOND)));
    }

    #[test]
    fn work_pays_for_what_it_needs() {
        let mut patience = Patience::new();
        assert!((0..100_000).all(|_| {
            patience.earn(1);
            patience.spend(1, 0)
        }));
    }
}
