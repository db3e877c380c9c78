//! The phases of a commit, and how long each took.

use std::time::Duration;

/// The time that a commit took, by phase.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CommitTimes {
    /// Outputs and changelog records are encoded and handed to the producer.
    pub(crate) send: Duration,
    /// The records reach the broker.
    pub(crate) write: Duration,
    /// The offsets are committed, exactly once with the transaction.
    pub(crate) commit: Duration,
    /// The changes are applied to the stores.
    pub(crate) apply: Duration,
}

impl CommitTimes {
    /// The phases in order, with their names.
    pub(crate) fn by_phase(self) -> [(&'static str, Duration); 4] {
        let Self { send, write, commit, apply } = self;
        [("send", send), ("write", write), ("commit", commit), ("apply", apply)]
    }
}
