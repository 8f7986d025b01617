//! The last changes of a list of endpoints, so that a reader takes in what is new and not everything.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use super::{Changes, Endpoint};

/// Changes that are kept for readers. One that has missed more reads the whole list.
pub const MAX_LOGGED_CHANGES: usize = 512;

/// One change of a list of endpoints.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The endpoint is new, or its facts have changed to these.
    Set(Arc<Endpoint>),
    /// There is no endpoint of this address any more.
    Removed(SocketAddr),
}

/// How far a reader has read. A new one has read nothing.
#[derive(Clone, Debug, Default)]
pub struct Cursor {
    of: Option<Arc<()>>,
    read: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    /// Which list this is: positions in one mean nothing in another.
    identity: Arc<()>,
    changes: VecDeque<Change>,
    /// All changes there ever were.
    written: u64,
}

impl Log {
    pub(super) fn write(&mut self, changes: &Changes) {
        let removed = changes.removed.iter().map(|addr| Change::Removed(*addr));
        let set = changes.added.iter().chain(&changes.changed);
        for change in removed.chain(set.cloned().map(Change::Set)) {
            if self.changes.len() >= MAX_LOGGED_CHANGES {
                self.changes.pop_front();
            }
            self.changes.push_back(change);
            self.written += 1;
        }
    }

    /// What was written since the reader was last here; `None` when that is no longer known. Moves the reader.
    pub(super) fn read(&self, cursor: &mut Cursor) -> Option<impl Iterator<Item = &Change>> {
        let same = cursor
            .of
            .as_ref()
            .is_some_and(|of| Arc::ptr_eq(of, &self.identity));
        if !same {
            cursor.of = Some(self.identity.clone());
        }
        let missed = self.written - if same { cursor.read } else { 0 };
        cursor.read = self.written;
        let kept = usize::try_from(missed)
            .ok()
            .and_then(|missed| self.changes.len().checked_sub(missed))
            .filter(|_| same)?;
        Some(self.changes.range(kept..))
    }
}
