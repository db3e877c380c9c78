//! Test-only seam for the simulation: the counts of a worker about its recoveries between two commits.
//!
//! The simulation plants two bugs with it, a worker that does not reset these counts after a commit. They cannot be
//! planted through a broker or a store, because nothing outside a worker has a part in the reset. All other planted bugs
//! are wrappers around the ports; see `simulation`.

use std::collections::BTreeSet;

use crate::{record::Partition, runtime::worker::Worker};

/// The recoveries of a worker since the last commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecoveryHistory {
    /// Times that the worker was fenced.
    pub(crate) fenced: u32,
    /// Tasks whose stores were rebuilt.
    pub(crate) rebuilt: BTreeSet<Partition>,
}

impl Worker {
    pub(crate) fn recovery_history(&mut self) -> RecoveryHistory {
        let (fenced, rebuilt) = (*self.group.fenced_mut(), self.tasks.rebuilt_mut().clone());
        RecoveryHistory { fenced, rebuilt }
    }

    pub(crate) fn set_recovery_history(&mut self, history: RecoveryHistory) {
        let RecoveryHistory { fenced, rebuilt } = history;
        *self.group.fenced_mut() = fenced;
        *self.tasks.rebuilt_mut() = rebuilt;
    }
}
