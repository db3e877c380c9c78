//! A bound of the attempts in any time span of a length.

use std::{collections::VecDeque, time::Duration};

use crate::config::Rate;

/// The times of the newest attempts, at most `times` of the bound.
#[derive(Debug, Default)]
pub(super) struct RecentAttempts(VecDeque<Duration>);

impl RecentAttempts {
    /// The time at which the next attempt is allowed; `None` if it is now.
    pub(super) fn free_at(&self, rate: Rate, now: Duration) -> Option<Duration> {
        let before = self.0.len().checked_sub(rate.times)?;
        let free_at = self.0.get(before)?.saturating_add(rate.per);
        (free_at > now).then_some(free_at)
    }

    /// Notes an attempt.
    pub(super) fn note(&mut self, rate: Rate, now: Duration) {
        self.0.push_back(now);
        while self.0.len() > rate.times {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_span_of_the_length_has_more_attempts() {
        let rate = Rate { times: 3, per: Duration::from_millis(100) };
        let mut recent = RecentAttempts::default();
        let mut attempts = Vec::new();
        // Wants more than it may at first, then less, then more again.
        let wanted = (0..300).filter(|ms| *ms < 150 || *ms > 260 || ms % 60 == 0);
        for now in wanted.map(Duration::from_millis) {
            if recent.free_at(rate, now).is_none() {
                recent.note(rate, now);
                attempts.push(now);
            }
        }
        for (number, first) in attempts.iter().enumerate() {
            let inside = attempts[number..].iter().filter(|time| **time < *first + rate.per);
            assert!(inside.count() <= rate.times, "after {first:?} in {attempts:?}");
        }
        assert!(attempts.len() >= 8, "{attempts:?}");
    }

    #[test]
    fn the_time_of_the_next_attempt_is_known() {
        let [ms10, ms20, ms110] = [10, 20, 110].map(Duration::from_millis);
        let rate = Rate { times: 2, per: Duration::from_millis(100) };
        let mut recent = RecentAttempts::default();
        recent.note(rate, ms10);
        assert_eq!(recent.free_at(rate, ms10), None);
        recent.note(rate, ms20);
        assert_eq!(recent.free_at(rate, ms20), Some(ms110));
        assert_eq!(recent.free_at(rate, ms110), None);
        recent.note(rate, ms110);
        assert_eq!(recent.free_at(rate, ms110), Some(Duration::from_millis(120)));
    }
}
