//! Checks event times against the clock.

use std::time::Duration;

use foretell_streams::{
    time::{EventTime, WallTime},
    topology::ProcessError,
};

/// The bounds of the times of events and outcomes, relative to the clock.
#[derive(Clone, Copy, Debug)]
pub struct TimeBounds {
    /// A record further ahead goes to the dead letters.
    pub ahead_max: Duration,
    /// A record further behind goes to the dead letters; none: no bound.
    pub behind_max: Option<Duration>,
    /// A record further ahead, up to `ahead_max`, is used and counted, and does not advance stream time beyond this.
    pub clock_tolerance: Duration,
}

impl TimeBounds {
    /// Returns `time` if it is within the bounds.
    ///
    /// # Errors
    /// A rejection, which names the unit that the time probably has if it is not milliseconds.
    pub fn check(&self, time: EventTime, now: WallTime) -> Result<EventTime, ProcessError> {
        let latest = EventTime(now.0) + self.ahead_max;
        let earliest = self.behind_max.map(|behind| EventTime(now.0) - behind);
        let (class, which, bound, setting) = match (time > latest, earliest) {
            (true, _) => ("future_time", "ahead of", self.ahead_max, "time_ahead_max"),
            (false, Some(earliest)) if time < earliest => {
                ("past_time", "behind", self.behind_max.unwrap_or_default(), "time_behind_max")
            }
            (false, _) => return Ok(time),
        };
        let hint = time.mistaken_unit(latest).map_or(String::new(), |unit| {
            format!(": it looks like {unit}, and has to be in milliseconds")
        });
        let seconds = bound.as_secs();
        let message = format!(
            "event time {time} is more than {seconds} s {which} the clock ([events] {setting}){hint}"
        );
        Err(ProcessError::reject(class, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_790_000_000_000;
    const DAY: Duration = Duration::from_secs(86_400);
    const DAY_MS: i64 = 86_400_000;

    /// The error for `time`; empty if it is valid.
    fn error_of(time: i64, behind_max: Option<Duration>) -> String {
        let bounds =
            TimeBounds { ahead_max: DAY, behind_max, clock_tolerance: Duration::from_secs(10) };
        match bounds.check(EventTime(time), WallTime(NOW)) {
            Ok(valid) => {
                assert_eq!(valid, EventTime(time));
                String::new()
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn times_far_ahead_are_rejected_with_their_probable_unit() {
        assert_eq!(error_of(NOW + DAY_MS, None), "");
        assert!(
            error_of(NOW + DAY_MS + 1, None).starts_with("future_time: event time 179008640000")
        );
        assert!(error_of(NOW * 1_000, None).contains("it looks like microseconds"));
        assert!(error_of(NOW * 1_000_000, None).contains("it looks like nanoseconds"));
        assert!(!error_of(i64::MAX, None).contains("looks like"));
    }

    #[test]
    fn times_far_behind_are_rejected_if_there_is_a_bound() {
        for time in [NOW - 400 * DAY_MS, NOW / 1_000, 0, -1, i64::MIN] {
            assert_eq!(error_of(time, None), "", "{time}");
        }
        assert_eq!(error_of(NOW - DAY_MS, Some(DAY)), "");
        let old = error_of(NOW - DAY_MS - 1, Some(DAY));
        assert!(old.starts_with("past_time") && old.contains("[events] time_behind_max"), "{old}");
        assert!(!old.contains("looks like"), "{old}");
        assert!(error_of(NOW / 1_000, Some(DAY)).contains("it looks like seconds"));
    }
}
