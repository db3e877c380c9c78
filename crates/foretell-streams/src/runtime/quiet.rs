//! Stream time of a task without records that advance it. Windows of a quiet partition must close too, so once stream time has
//! not advanced for a while, and all inputs are read to their ends, it advances at the speed of the clock.
//!
//! ```text
//!   Active ──nothing for `quiet_after`──▶ ask the broker at intervals ──all at their ends──▶ stream time advances
//!      ▲                                        │ no answer, or more records to come: stream time stalls
//!      └── a record that advances stream time ──┘
//! ```
//! Stream time does not jump to the time of day: that would close all windows of a backfill whose producer pauses. It
//! advances by the time between two checks that were answered, so neither an outage nor a process that stalled counts. The
//! next commit makes the advance durable; an abort or a crash loses some of it, and windows then close later, never
//! earlier.

use std::time::Duration;

/// The time since which a task has been quiet, and the last check of its inputs.
pub(super) struct QuietPeriod {
    /// When stream time last advanced by a record, or the task was blocked by one.
    active_at: Duration,
    checked_at: Duration,
    /// The last check that found all inputs at their ends, if the task has had nothing to do since.
    at_end_at: Option<Duration>,
}

/// The interval of checks of one task. A check takes the broker 1 to 2 ms per input.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// The addition to the interval for each task of the worker: checks take at most a tenth of its time.
const CHECK_EVERY_PER_TASK: Duration = Duration::from_millis(20);

/// The interval of checks of each task, for a worker with this number of tasks.
pub(super) fn check_interval(tasks: usize) -> Duration {
    CHECK_EVERY + CHECK_EVERY_PER_TASK * u32::try_from(tasks).unwrap_or(u32::MAX)
}

impl QuietPeriod {
    pub(super) fn starting_at(now: Duration) -> Self {
        Self { active_at: now, checked_at: now, at_end_at: None }
    }

    /// Starts a new period: there is something to do.
    pub(super) fn restart(&mut self, now: Duration) {
        self.active_at = now;
        self.at_end_at = None;
    }

    /// Whether to check if all inputs are at their ends: after `after` without work, every `every`.
    pub(super) fn is_check_due(&self, now: Duration, after: Duration, every: Duration) -> bool {
        now >= self.active_at + after && now >= self.checked_at + every
    }

    /// Notes the result of a check, `None` if the broker did not answer. Returns the time by which stream time advances:
    /// that since the check before, at most two intervals.
    pub(super) fn checked(
        &mut self,
        now: Duration,
        is_at_end: Option<bool>,
        every: Duration,
    ) -> Duration {
        self.checked_at = now;
        let at_end_at =
            std::mem::replace(&mut self.at_end_at, (is_at_end == Some(true)).then_some(now));
        match (is_at_end, at_end_at) {
            (Some(true), Some(before)) => now.saturating_sub(before).min(every * 2),
            (Some(true), None) | (None, _) => Duration::ZERO,
            (Some(false), _) => {
                self.active_at = now;
                Duration::ZERO
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn stream_time_advances_by_the_time_between_two_answered_checks() {
        let (after, every) = (at(10), at(1));
        let mut quiet = QuietPeriod::starting_at(at(0));
        assert!(!quiet.is_check_due(at(9), after, every));
        assert!(quiet.is_check_due(at(10), after, every));
        assert_eq!(quiet.checked(at(10), Some(true), every), at(0));
        assert!(!quiet.is_check_due(at(10), after, every));
        assert_eq!(quiet.checked(at(11), Some(true), every), at(1));
        assert_eq!(quiet.checked(at(13), Some(true), every), at(2));
        // The process stalled for a day.
        assert_eq!(quiet.checked(at(86_400), Some(true), every), at(2));
        // The broker does not answer.
        assert_eq!(quiet.checked(at(86_401), None, every), at(0));
        assert_eq!(quiet.checked(at(86_500), Some(true), every), at(0));
        assert_eq!(quiet.checked(at(86_501), Some(true), every), at(1));
        // An input has more records.
        assert_eq!(quiet.checked(at(86_502), Some(false), every), at(0));
        assert!(!quiet.is_check_due(at(86_511), after, every));
        // Records come between two checks.
        assert_eq!(quiet.checked(at(86_511), Some(true), every), at(0));
        quiet.restart(at(86_512));
        assert_eq!(quiet.checked(at(86_512), Some(true), every), at(0));
        quiet.restart(at(86_512));
        assert!(!quiet.is_check_due(at(86_521), after, every));
        assert_eq!(quiet.checked(at(86_522), Some(true), every), at(0));
    }
}
