//! Time-outs and limits of the broker.

use std::time::Duration;

/// Timeouts and limits of a [`LocalBroker`](crate::local::LocalBroker).
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use foretell_streams::{local::{LocalBroker, LocalSettings}, time::SystemClock};
///
/// let settings = LocalSettings { session_timeout: Duration::from_secs(6), ..LocalSettings::default() };
/// let broker = LocalBroker::with_settings(Arc::new(SystemClock::new()), settings);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalSettings {
    /// The time without a poll after which a member is expelled from its group. 45 seconds by default.
    pub session_timeout: Duration,
    /// The time after which an open transaction is aborted, 10 seconds by default. Keep it shorter than
    /// `session_timeout`: then the transaction of an expelled member has ended when its tasks are read by other members.
    pub transaction_timeout: Duration,
    /// The memory of all logs together, in bytes, 256 MiB by default. Beyond it, topics with a finite retention lose
    /// their oldest records. Other topics lose nothing: sending fails when they fill the memory.
    pub log_bytes_max: u64,
    /// The number of bytes, 1 MiB by default, that must be appended to a log before it is compacted. In addition, more
    /// than half of the log must be new (`min.cleanable.dirty.ratio`).
    pub compaction_bytes_min: u64,
    /// The maximum number of records that one poll or read returns. 1000 by default.
    pub batch_records_max: usize,
    /// The time for which a tombstone stays in a compacted log (`delete.retention.ms`). One hour by default.
    pub tombstone_retention: Duration,
}

impl Default for LocalSettings {
    fn default() -> Self {
        Self {
            session_timeout: Duration::from_secs(45),
            transaction_timeout: Duration::from_secs(10),
            log_bytes_max: 256 * 1024 * 1024,
            compaction_bytes_min: 1024 * 1024,
            batch_records_max: 1000,
            tombstone_retention: Duration::from_secs(3600),
        }
    }
}
