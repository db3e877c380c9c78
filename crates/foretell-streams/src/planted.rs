//! Mistakes in this layer that the simulation must find, each of them easily made. A topology carries the one that is
//! planted, for it reaches whatever runs it.

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Planted {
    /// Inputs are merged by the timestamps of their records.
    MergeByRecordTime,
    /// The stores keep what was written before the commit has succeeded.
    StateBeforeTheCommit,
    /// A checkpoint trusts offsets, whatever log they are of.
    OffsetsTrustedInAnyLog,
    /// A restore drops the records that came with an error.
    RecordsDroppedWithAnError,
    /// A restore takes an end that was told before the last transaction was decided for the end.
    ReaderNotReopened,
    /// The end of a changelog is asked for after the commit.
    EndAskedAfterTheCommit,
    /// A commit does not make a worker forget how often it was fenced before.
    FencesNotForgotten,
    /// A commit does not make a worker forget which stores it has rebuilt before.
    RebuildsNotForgotten,
    /// A standby copy that a worker has taken over is kept.
    CopyKeptAfterTakeover,
}
