//! When a worker commits, and how long its next poll may wait.
//!
//! Records arrive in batches: a fetch gathers those of some milliseconds. Records of a batch that a commit has just missed
//! wait for a whole interval more. So a worker commits after a batch if the next one is not expected before the commit is
//! due:
//!
//! ```text
//!   records    ···········|···········|···········|···········|···········|···········|
//!   batches               ▲           ▲           ▲           ▲           ▲           ▲
//!   commit     ├───────────────────────────────────────────▶┆ commit_interval
//!   due                                           commit ───┘ early, with the last batch before it
//! ```
//! The gap before a batch is at most the time since the last commit if that was early, too. So two early commits are at
//! least 0.475 of the interval apart, and there are about twice as many commits as by the interval alone at most.

use std::time::Duration;

/// Decides when a commit is due. Times are those of [`Clock::elapsed`](crate::time::Clock::elapsed).
pub(super) struct CommitPacer {
    interval: Duration,
    records_max: usize,
    /// Records processed since the last commit. At least 1 if anything else is to be committed.
    uncommitted: usize,
    /// From when the interval counts: the start of the last commit, or later after a slow one.
    committed_at: Duration,
    /// When the last batch began to arrive.
    batch_at: Duration,
    /// The time from the batch before to the last one.
    batch_gap: Duration,
    /// Whether the last poll returned records: the rest of their batch may follow.
    is_receiving: bool,
}

/// The interval of commits without new offsets, by which the member renews offsets that would expire.
const IDLE_COMMIT: Duration = Duration::from_secs(60);

/// The part of the interval by which the time of a batch is uncertain. Records that arrive within it are of one batch,
/// because a client delivers a response partition by partition; and a batch that is expected so little before the commit is
/// due is not waited for.
const JITTER_PART: u32 = 20;

/// The part of the interval for which a commit waits for the rest of its last batch.
const REST_PART: u32 = 100;

impl CommitPacer {
    pub(super) fn new(interval: Duration, records_max: usize, now: Duration) -> Self {
        Self {
            interval,
            records_max,
            uncommitted: 0,
            committed_at: now,
            batch_at: now,
            batch_gap: Duration::ZERO,
            is_receiving: false,
        }
    }

    /// Notes what a poll has returned.
    pub(super) fn polled(&mut self, now: Duration, has_records: bool) {
        self.is_receiving = has_records;
        let since = now.saturating_sub(self.batch_at);
        if has_records && since >= self.interval / JITTER_PART {
            self.batch_at = now;
            self.batch_gap = since;
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

    /// Whether to commit, even if there are more records to process.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        let since = now.saturating_sub(self.committed_at);
        since >= IDLE_COMMIT
            || self.uncommitted >= self.records_max
            || (!self.is_idle() && since >= self.interval)
    }

    /// Whether to commit if there is nothing more to process: a batch has arrived, and the next one is expected after the
    /// commit is due.
    pub(super) fn is_due_after_batch(&self) -> bool {
        !self.is_idle() && !self.is_receiving && self.is_last_batch()
    }

    fn is_last_batch(&self) -> bool {
        let expected = self.batch_at + self.batch_gap + self.interval / JITTER_PART;
        self.batch_at > self.committed_at && expected > self.committed_at + self.interval
    }

    /// The longest that a poll may wait, which is never past the next commit. `wait` is the limit of an idle worker.
    pub(super) fn poll_wait(&self, now: Duration, wait: Duration) -> Duration {
        if self.is_idle() {
            return wait;
        }
        let since = now.saturating_sub(self.committed_at);
        let due = wait.min(self.interval.saturating_sub(since));
        if self.is_last_batch() { due.min(self.interval / REST_PART) } else { due }
    }

    /// Notes a commit. The next one is due an interval after the start of this one, so that records wait no longer than
    /// that; but half of the interval is left for processing after a commit that was slow.
    pub(super) fn committed(&mut self, started: Duration, ended: Duration) {
        self.committed_at = started.max(ended.saturating_sub(self.interval / 2));
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
        CommitPacer::new(INTERVAL, 3, at(1_000))
    }

    /// A batch that was processed, and the poll after it.
    fn batch(pacer: &mut CommitPacer, millis: u64) {
        pacer.polled(at(millis), true);
        pacer.add_changes();
        pacer.polled(at(millis), false);
    }

    #[test]
    fn a_commit_is_due_after_the_interval_if_anything_was_processed() {
        let mut pacer = pacer();
        assert!(!pacer.is_due(at(1_100)));
        pacer.add_records(1);
        assert!(!pacer.is_due(at(1_099)));
        assert!(pacer.is_due(at(1_100)));
        pacer.committed(at(1_100), at(1_110));
        assert!(pacer.is_idle() && !pacer.is_due(at(1_200)));
        pacer.add_records(1);
        assert!(pacer.is_due(at(1_200)), "the duration of a commit does not count");
    }

    #[test]
    fn half_of_the_interval_is_left_for_processing_after_a_slow_commit() {
        let mut pacer = pacer();
        pacer.committed(at(1_100), at(1_400));
        pacer.add_records(1);
        assert!(!pacer.is_due(at(1_449)));
        assert!(pacer.is_due(at(1_450)));
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
        assert!(!pacer.is_due(at(1_050)) && !pacer.is_due_after_batch());
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
    fn a_commit_follows_the_last_batch_before_it_is_due() {
        let check = |gap: u64, expected: u64| {
            let mut pacer = pacer();
            let last = (1..).map(|number| 1_000 + number * gap).find(|now| {
                batch(&mut pacer, *now);
                pacer.is_due(at(*now)) || pacer.is_due_after_batch()
            });
            assert_eq!(last, Some(1_000 + expected), "every {gap} ms");
        };
        check(6, 90);
        check(22, 88);
        check(24, 72);
        check(31, 93);
        check(33, 66);
        check(47, 94);
        check(51, 51);
        check(100, 100);
        check(250, 250);
    }

    #[test]
    fn a_batch_of_several_parts_is_committed_whole() {
        let mut pacer = pacer();
        batch(&mut pacer, 1_045);
        for millis in [1_090, 1_091, 1_092] {
            pacer.polled(at(millis), true);
            pacer.add_changes();
            assert!(!pacer.is_due_after_batch(), "at {millis} ms more may follow");
            assert_eq!(pacer.poll_wait(at(millis), WAIT), at(1));
        }
        pacer.polled(at(1_093), false);
        assert!(pacer.is_due_after_batch());
    }

    #[test]
    fn records_that_arrive_all_the_time_are_committed_by_the_interval() {
        let mut pacer = pacer();
        let mut commits = Vec::new();
        for millis in 1_000..1_500 {
            pacer.polled(at(millis), true);
            pacer.add_changes();
            if pacer.is_due(at(millis)) || pacer.is_due_after_batch() {
                pacer.committed(at(millis), at(millis));
                commits.push(millis);
            }
        }
        assert_eq!(commits, [1_100, 1_200, 1_300, 1_400]);
    }

    #[test]
    fn an_early_commit_takes_a_batch_since_the_last_one() {
        let mut pacer = pacer();
        batch(&mut pacer, 1_090);
        pacer.committed(at(1_090), at(1_100));
        pacer.add_changes();
        assert!(!pacer.is_due_after_batch());
        assert!(pacer.is_due(at(1_190)));
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
