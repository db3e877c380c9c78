//! A partition to which nothing comes any more still has windows to close. When a task has had nothing for a while,
//! and all its inputs are read to their ends, its stream time goes on at the speed of the clock.
//!
//! ```text
//!   Active ──nothing for `quiet_after`──▶ the broker is asked now and then ──all at their ends──▶ time goes on
//!      ▲                                        │ no answer, or more to come: it stalls
//!      └────────── a record ────────────────────┘
//! ```
//! Stream time does not jump to the time of day: a backfill whose producer pauses would find all its windows closed. It
//! goes on by what has passed between two questions that were answered, so neither an outage nor a process that
//! stalled counts. What it has gone on by is kept by the next commit, like all else; an abort or a crash loses some,
//! and windows close later for it, never earlier.

use std::time::Duration;

/// Since when a task is quiet.
pub(super) struct Quiet {
    /// When there was something to do last.
    active_at: Duration,
    asked_at: Duration,
    /// When all inputs were seen to be read to their ends, if there was nothing since.
    seen_at: Option<Duration>,
}

/// How often the broker is asked, which takes it a millisecond or two an input.
const ASKED_EVERY: Duration = Duration::from_secs(1);
/// And so much less often for each task of the worker: at most a tenth of its time goes to asking.
const ASKED_EVERY_A_TASK: Duration = Duration::from_millis(20);

/// How often the broker is asked about each of so many tasks.
pub(super) fn asked_every(tasks: usize) -> Duration {
    ASKED_EVERY + ASKED_EVERY_A_TASK * u32::try_from(tasks).unwrap_or(u32::MAX)
}

impl Quiet {
    pub(super) fn since(now: Duration) -> Self {
        Self { active_at: now, asked_at: now, seen_at: None }
    }

    /// There is something to do.
    pub(super) fn end(&mut self, now: Duration) {
        self.active_at = now;
        self.seen_at = None;
    }

    /// Whether the broker is to be asked.
    pub(super) fn is_due(&self, now: Duration, after: Duration, every: Duration) -> bool {
        now >= self.active_at + after && now >= self.asked_at + every
    }

    /// The answer, none if there was none; returns by how much time goes on.
    pub(super) fn answered(
        &mut self,
        now: Duration,
        is_at_end: Option<bool>,
        every: Duration,
    ) -> Duration {
        self.asked_at = now;
        let seen_at =
            std::mem::replace(&mut self.seen_at, (is_at_end == Some(true)).then_some(now));
        match (is_at_end, seen_at) {
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
    fn time_goes_on_by_what_passes_between_two_answers() {
        let (after, every) = (at(10), at(1));
        let mut quiet = Quiet::since(at(0));
        assert!(!quiet.is_due(at(9), after, every));
        assert!(quiet.is_due(at(10), after, every));
        assert_eq!(quiet.answered(at(10), Some(true), every), at(0));
        assert!(!quiet.is_due(at(10), after, every));
        assert_eq!(quiet.answered(at(11), Some(true), every), at(1));
        assert_eq!(quiet.answered(at(13), Some(true), every), at(2));
        // The process stalled for a day.
        assert_eq!(quiet.answered(at(86_400), Some(true), every), at(2));
        // Nobody answers.
        assert_eq!(quiet.answered(at(86_401), None, every), at(0));
        assert_eq!(quiet.answered(at(86_500), Some(true), every), at(0));
        assert_eq!(quiet.answered(at(86_501), Some(true), every), at(1));
        // There is more.
        assert_eq!(quiet.answered(at(86_502), Some(false), every), at(0));
        assert!(!quiet.is_due(at(86_511), after, every));
        // Records in between.
        assert_eq!(quiet.answered(at(86_511), Some(true), every), at(0));
        quiet.end(at(86_512));
        assert_eq!(quiet.answered(at(86_512), Some(true), every), at(0));
        quiet.end(at(86_512));
        assert!(!quiet.is_due(at(86_521), after, every));
        assert_eq!(quiet.answered(at(86_522), Some(true), every), at(0));
    }
}
