//! Lets go of what no connection uses any more: sets of series, and the profiles that requests were counted by. The
//! registry then forgets the series in its own time, and discovery the profiles.

use std::rc::{Rc, Weak};
use std::time::Duration;

use crate::inbound::Inbound;

/// How often it is looked, whatever the idle time is: series are forgotten by the registry after minutes.
const SOONEST: Duration = Duration::from_secs(1);
/// See [`SOONEST`].
const LATEST: Duration = Duration::from_secs(60);

/// Looks from now on, until nothing is left.
pub fn begin(inbound: &Rc<Inbound>) {
    if !inbound.sweeping.replace(true) {
        tokio::task::spawn_local(sweep(Rc::downgrade(inbound)));
    }
}

async fn sweep(inbound: Weak<Inbound>) {
    loop {
        let Some(idle) = inbound.upgrade().map(|inbound| inbound.idle()) else {
            return;
        };
        tokio::time::sleep((idle / 4).clamp(SOONEST, LATEST)).await;
        let Some(inbound) = inbound.upgrade() else {
            return;
        };
        let profiles = inbound.profiles.borrow_mut().sweep(idle);
        let series = inbound.ports.borrow().sweep();
        if !profiles && !series {
            return inbound.sweeping.set(false);
        }
    }
}
