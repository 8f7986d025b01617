//! How many requests one direction of the sidecar serves at once: a count, its bound, and a place that gives itself
//! back.

use std::cell::Cell;

/// The requests of one direction that are being served.
pub struct InFlight {
    count: Cell<usize>,
    most: usize,
}

/// One of the requests at once, until it is dropped.
pub struct Entered<'f>(&'f InFlight);

impl InFlight {
    pub fn new(most: usize) -> Self {
        InFlight {
            count: Cell::new(0),
            most,
        }
    }

    /// A place for one more, unless there are as many as may be.
    pub fn enter(&self) -> Option<Entered<'_>> {
        let count = self.count.get();
        (count < self.most).then(|| {
            self.count.set(count + 1);
            Entered(self)
        })
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_holds_and_a_place_comes_back() {
        let in_flight = InFlight::new(2);
        let first = in_flight.enter();
        let second = in_flight.enter();
        assert!(first.is_some() && second.is_some());
        assert!(in_flight.enter().is_none());
        drop(first);
        let third = in_flight.enter();
        assert!(third.is_some());
        assert!(in_flight.enter().is_none());
    }
}
