//! A bounded number of places: whoever does a thing that is bounded takes one, and gives it back when it is dropped.
//! On one thread, without an allocation; [`Places::enter`] is on the path of a request.

use std::cell::Cell;
use std::ops::Deref;
use std::rc::Rc;

/// How many there are at once of something, and how many there may be.
#[derive(Debug)]
pub struct Places {
    taken: Cell<usize>,
    most: usize,
}

/// One of the places, until it is dropped. `P` leads to where it is given back.
#[derive(Debug)]
pub struct Place<P: Deref<Target = Places>>(P);

impl Places {
    /// All free; `most` of them.
    pub fn new(most: usize) -> Self {
        Places {
            taken: Cell::new(0),
            most,
        }
    }

    /// A place, unless all are taken.
    pub fn enter(&self) -> Option<Place<&Self>> {
        self.take().then(|| Place(self))
    }

    /// A place that a task can keep.
    pub fn enter_shared(self: &Rc<Self>) -> Option<Place<Rc<Self>>> {
        self.take().then(|| Place(self.clone()))
    }

    fn take(&self) -> bool {
        let taken = self.taken.get();
        let free = taken < self.most;
        if free {
            self.taken.set(taken + 1);
        }
        free
    }
}

impl<P: Deref<Target = Places>> Drop for Place<P> {
    fn drop(&mut self) {
        self.0.taken.set(self.0.taken.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_holds_and_a_place_comes_back() {
        let places = Rc::new(Places::new(2));
        let first = places.enter();
        let second = places.enter_shared();
        assert!(first.is_some() && second.is_some());
        assert!(places.enter().is_none() && places.enter_shared().is_none());
        drop(first);
        let third = places.enter_shared();
        assert!(third.is_some());
        assert!(places.enter().is_none());
        drop(second);
        assert!(places.enter().is_some());
    }
}
