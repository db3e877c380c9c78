//! The records of a replay, one after the other.

use foretell_streams::record::OutputRecord;

/// The events and outcomes of a history, in the order in which the application processes them.
pub(super) trait Feed {
    /// The next record; its timestamp is when it was written.
    ///
    /// # Errors
    /// If it cannot be read.
    fn next(&mut self) -> anyhow::Result<Option<OutputRecord>>;

    /// How much was read.
    fn position(&self) -> FeedPosition;
}

/// Number of records that were read, and in total.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FeedPosition {
    pub(super) done: u64,
    pub(super) of: u64,
}
