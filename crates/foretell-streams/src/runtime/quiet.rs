//! Stream time of a task without records that advance it. Windows and timers of a quiet partition must come too, so once
//! stream time has not advanced for a while, and all inputs are read to their ends, it continues with the clock.
//!
//! ```text
//!   record    checks, at intervals: all inputs at their ends
//!     │    ✓     ✓     ✓     ✓     ✓     ✗           ✓     ✓      ✗ no answer, or more records to come
//!     ├─────counted──────────┼─────counted──────┤    ├─────counted──▶
//!     │                      └ `quiet_after`: stream time advances by all of it at once, then with the clock
//!     └ a record that advances stream time starts again
//! ```
//! Stream time does not jump to the time of day: that would close all windows of a backfill whose producer pauses. From the
//! last record on, it advances by the time that is counted: that between two checks which found all inputs at their ends. So
//! neither an outage nor a process that stalled counts. Between two checks, stream time follows the clock in the expectation
//! that the next one finds the inputs at their ends. If it does not, stream time is early by less than the interval of checks,
//! and late from then on. The next commit makes the advance durable; an abort or a crash loses some of it, and windows then
//! close later, never earlier.

use std::time::Duration;

/// The time since which a task has been quiet, and how much of it is counted.
pub(super) struct QuietPeriod {
    /// When stream time last advanced by a record, or the task was blocked by one.
    active_at: Duration,
    /// The last check of the inputs, or the last record that advanced stream time.
    checked_at: Duration,
    /// Time is counted from here on. `None` if the last check did not find all inputs at their ends.
    counted_to: Option<Duration>,
    /// The time counted by which stream time has not advanced yet.
    counted: Duration,
}

/// The interval of checks of one task. A check takes the broker 1 to 2 ms per input.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// The addition to the interval for each task of the worker: checks take at most a tenth of its time.
const CHECK_EVERY_PER_TASK: Duration = Duration::from_millis(20);
/// The shortest advance of stream time: each one looks for punctuations that are due.
const ADVANCE_MIN: Duration = Duration::from_millis(20);

/// The interval of checks of each task, for a worker with this number of tasks.
pub(super) fn check_interval(tasks: usize) -> Duration {
    CHECK_EVERY + CHECK_EVERY_PER_TASK * u32::try_from(tasks).unwrap_or(u32::MAX)
}

impl QuietPeriod {
    pub(super) fn starting_at(now: Duration) -> Self {
        Self { active_at: now, checked_at: now, counted_to: None, counted: Duration::ZERO }
    }

    /// Starts a new period that is not counted before the next check: there is something to do.
    pub(super) fn restart(&mut self, now: Duration) {
        *self = Self::starting_at(now);
    }

    /// Starts a new period with a record that has advanced stream time, from which on time is counted.
    pub(super) fn advanced(&mut self, now: Duration) {
        *self = Self { counted_to: Some(now), ..Self::starting_at(now) };
    }

    /// Whether to check if all inputs are at their ends: every `every`, and before the first advance of a period, after
    /// `after`.
    pub(super) fn is_check_due(&self, now: Duration, after: Duration, every: Duration) -> bool {
        let quiet_from = self.active_at + after;
        now >= self.checked_at + every || (self.checked_at < quiet_from && quiet_from <= now)
    }

    /// Notes the result of a check, `None` if the broker did not answer. Counts the time since the check before, at most two
    /// intervals. Returns the time by which stream time advances.
    pub(super) fn checked(
        &mut self,
        now: Duration,
        is_at_end: Option<bool>,
        after: Duration,
        every: Duration,
    ) -> Duration {
        self.checked_at = now;
        let counted_to = self.counted_to.take();
        if is_at_end != Some(true) {
            return Duration::ZERO;
        }
        self.counted_to = Some(now);
        let since = counted_to.map_or(Duration::ZERO, |before| now.saturating_sub(before));
        self.count(since.min(every * 2), now, after)
    }

    /// Counts the time up to `now`, at which no check is due. Returns the time by which stream time advances.
    pub(super) fn passed(&mut self, now: Duration, after: Duration) -> Duration {
        let Some(counted_to) = &mut self.counted_to else { return Duration::ZERO };
        let since = now.saturating_sub(*counted_to);
        *counted_to = now.max(*counted_to);
        self.count(since, now, after)
    }

    fn count(&mut self, span: Duration, now: Duration, after: Duration) -> Duration {
        self.counted += span;
        if now < self.active_at + after || self.counted < ADVANCE_MIN {
            return Duration::ZERO;
        }
        // Stream time is in milliseconds; the rest counts for the next advance.
        let below = Duration::from_nanos(u64::from(self.counted.subsec_nanos() % 1_000_000));
        let advance = self.counted - below;
        self.counted = below;
        advance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn stream_time_catches_up_with_the_time_that_is_counted_and_follows_the_clock() {
        let (after, every) = (at(10), at(1));
        let mut quiet = QuietPeriod::starting_at(at(0));
        quiet.advanced(at(0));
        for second in 1..10 {
            assert_eq!(quiet.passed(at(second) - at(1) / 2, after), at(0));
            assert!(quiet.is_check_due(at(second), after, every));
            assert_eq!(quiet.checked(at(second), Some(true), after, every), at(0));
        }
        assert_eq!(quiet.checked(at(10), Some(true), after, every), at(10));
        let millis = Duration::from_millis;
        assert!(!quiet.is_check_due(at(10) + millis(100), after, every));
        assert_eq!(quiet.passed(at(10) + millis(19), after), at(0));
        assert_eq!(quiet.passed(at(10) + Duration::from_micros(20_300), after), millis(20));
        assert_eq!(quiet.passed(at(10) + Duration::from_micros(50_900), after), millis(30));
        assert_eq!(quiet.checked(at(11), Some(true), after, every), millis(950), "no time is lost");
    }

    #[test]
    fn there_is_a_check_before_the_first_advance() {
        let (after, every) = (Duration::from_millis(100), at(1));
        let mut quiet = QuietPeriod::starting_at(at(0));
        quiet.advanced(at(0));
        assert!(!quiet.is_check_due(after / 2, after, every));
        assert!(quiet.is_check_due(after, after, every));
        assert_eq!(quiet.checked(after * 2, Some(true), after, every), after * 2);
        assert!(!quiet.is_check_due(after * 3, after, every));
        assert_eq!(quiet.passed(after * 3, after), after);
    }

    #[test]
    fn neither_an_outage_nor_a_stall_counts() {
        let (after, every) = (at(10), at(1));
        let mut quiet = QuietPeriod::starting_at(at(0));
        assert!(!quiet.is_check_due(at(1) / 2, after, every));
        // The task starts, and its stream time is restored: nothing is known of the time before the first check.
        assert_eq!(quiet.checked(at(10), Some(true), after, every), at(0));
        assert_eq!(quiet.checked(at(11), Some(true), after, every), at(1));
        assert_eq!(quiet.checked(at(13), Some(true), after, every), at(2));
        // The process stalled for a day.
        assert!(quiet.is_check_due(at(86_400), after, every));
        assert_eq!(quiet.checked(at(86_400), Some(true), after, every), at(2));
        // The broker does not answer.
        assert_eq!(quiet.checked(at(86_401), None, after, every), at(0));
        assert_eq!(quiet.passed(at(86_402), after), at(0));
        assert_eq!(quiet.checked(at(86_500), Some(true), after, every), at(0));
        assert_eq!(quiet.checked(at(86_501), Some(true), after, every), at(1));
        // An input has more records.
        assert_eq!(quiet.checked(at(86_502), Some(false), after, every), at(0));
        assert_eq!(quiet.passed(at(86_503), after), at(0));
        assert_eq!(quiet.checked(at(86_504), Some(true), after, every), at(0));
        // Something had to wait.
        quiet.restart(at(86_505));
        assert_eq!(quiet.checked(at(86_506), Some(true), after, every), at(0));
        assert_eq!(quiet.checked(at(86_514), Some(true), after, every), at(0));
        assert_eq!(quiet.checked(at(86_515), Some(true), after, every), at(2) + at(1));
    }
}
