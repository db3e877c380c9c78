//! When a worker commits, and how long its next poll may wait.

use std::time::Duration;

use crate::runtime::worker::WorkerSettings;

/// Decides when a commit is due. Times are those of [`Clock::elapsed`](crate::time::Clock::elapsed).
pub(super) struct CommitPacer {
    interval: Duration,
    records_max: usize,
    /// Records processed since the last commit. At least 1 if anything else is to be committed.
    uncommitted: usize,
    committed_at: Duration,
}

/// The interval of commits without new offsets, by which the member renews offsets that would expire.
const IDLE_COMMIT: Duration = Duration::from_secs(60);

impl CommitPacer {
    pub(super) fn new(settings: &WorkerSettings, now: Duration) -> Self {
        Self {
            interval: settings.commit_interval,
            records_max: settings.commit_records_max,
            uncommitted: 0,
            committed_at: now,
        }
    }

    /// Counts processed records.
    pub(super) fn add_records(&mut self, records: usize) {
        self.uncommitted += records;
    }

    /// Notes outputs or store changes, which a punctuation makes without processing a record.
    pub(super) fn add_changes(&mut self) {
        self.uncommitted = self.uncommitted.max(1);
    }

    /// Whether nothing was processed, sent or changed since the last commit.
    pub(super) fn is_idle(&self) -> bool {
        self.uncommitted == 0
    }

    pub(super) fn is_due(&self, now: Duration) -> bool {
        let since = now.saturating_sub(self.committed_at);
        since >= IDLE_COMMIT
            || self.uncommitted >= self.records_max
            || (!self.is_idle() && since >= self.interval)
    }

    /// The longest that a poll may wait, which is never past the next commit. `wait` is the limit of an idle worker.
    pub(super) fn poll_wait(&self, now: Duration, wait: Duration) -> Duration {
        if self.is_idle() {
            return wait;
        }
        let since = now.saturating_sub(self.committed_at);
        wait.min(self.interval.saturating_sub(since))
    }

    pub(super) fn committed(&mut self, now: Duration) {
        self.committed_at = now;
        self.uncommitted = 0;
    }

    /// Notes an abort: what was processed since the last commit is processed again. The time of the last commit stays.
    pub(super) fn aborted(&mut self) {
        self.uncommitted = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(100);
    const WAIT: Duration = Duration::from_secs(1);

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// A worker that has committed at 1,000 ms.
    fn pacer() -> CommitPacer {
        let settings = WorkerSettings {
            commit_interval: INTERVAL,
            commit_records_max: 3,
            ..WorkerSettings::default()
        };
        CommitPacer::new(&settings, at(1_000))
    }

    #[test]
    fn a_commit_is_due_after_the_interval_if_anything_was_processed() {
        let mut pacer = pacer();
        assert!(!pacer.is_due(at(1_100)));
        pacer.add_records(1);
        assert!(!pacer.is_due(at(1_099)));
        assert!(pacer.is_due(at(1_100)));
        pacer.committed(at(1_100));
        assert!(pacer.is_idle() && !pacer.is_due(at(1_200)));
    }

    #[test]
    fn a_commit_is_due_at_once_after_the_maximum_number_of_records() {
        let mut pacer = pacer();
        pacer.add_records(2);
        assert!(!pacer.is_due(at(1_000)));
        pacer.add_changes();
        assert!(!pacer.is_due(at(1_000)), "changes are not records");
        pacer.add_records(1);
        assert!(pacer.is_due(at(1_000)));
    }

    #[test]
    fn changes_without_records_are_committed_after_the_interval() {
        let mut pacer = pacer();
        pacer.add_changes();
        assert!(!pacer.is_due(at(1_050)));
        assert!(pacer.is_due(at(1_100)));
    }

    #[test]
    fn an_idle_worker_commits_every_minute() {
        let pacer = pacer();
        assert!(!pacer.is_due(at(60_999)));
        assert!(pacer.is_due(at(61_000)));
    }

    #[test]
    fn a_poll_waits_no_longer_than_to_the_next_commit() {
        let mut pacer = pacer();
        assert_eq!(pacer.poll_wait(at(9_000), WAIT), WAIT);
        pacer.add_records(1);
        assert_eq!(pacer.poll_wait(at(1_025), WAIT), at(75));
        assert_eq!(pacer.poll_wait(at(1_025), at(12)), at(12));
        assert_eq!(pacer.poll_wait(at(2_000), WAIT), Duration::ZERO);
    }

    #[test]
    fn an_abort_discards_the_count_and_keeps_the_time_of_the_last_commit() {
        let mut pacer = pacer();
        pacer.add_records(3);
        pacer.aborted();
        assert!(pacer.is_idle() && !pacer.is_due(at(1_100)));
        pacer.add_records(1);
        assert!(pacer.is_due(at(1_100)));
    }
}
