//! Limits of a worker.

use std::time::Duration;

/// Limits of a worker.
///
/// ```
/// use std::time::Duration;
/// use foretell_streams::runtime::WorkerSettings;
///
/// let settings = WorkerSettings { quiet_after: Duration::from_secs(60), ..WorkerSettings::default() };
/// assert_eq!(settings.commit_records_max, 10_000);
/// ```
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    /// The number of processed records after which a commit comes sooner than by the membership's interval (10,000 by
    /// default).
    pub commit_records_max: usize,
    /// The longest wait of a starting task for an input without buffered records (`max.task.idle.ms`; 5 minutes by
    /// default). A task merges its inputs by event time, so it waits until each input has been read to where it ended at
    /// the start (KIP-695).
    pub max_task_idle: Duration,
    /// The time without records after which the stream time of a task catches up with the time since the last one, and
    /// advances with the clock, if all its inputs are read to their ends (10 s by default).
    pub quiet_after: Duration,
    /// Exactly once: the number of pending changes of a task after which they are flushed to the changelogs before the
    /// commit (1,000 by default). Below this, a key that is written several times is sent once per commit.
    pub changes_pending_max: usize,
}

impl Default for WorkerSettings {
    fn default() -> Self {
        Self {
            commit_records_max: 10_000,
            max_task_idle: Duration::from_secs(300),
            quiet_after: Duration::from_secs(10),
            changes_pending_max: 1_000,
        }
    }
}
