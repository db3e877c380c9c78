//! Which event times are taken, and what is said of those that are not.

use std::time::Duration;

use foretell_streams::{
    time::{EventTime, WallTime},
    topology::ProcessError,
};

/// What becomes of times that are far from the clock's, of events and of outcomes.
#[derive(Clone, Copy, Debug)]
pub struct TimeBounds {
    /// Further ahead of the clock, a record goes to the dead letters.
    pub ahead_max: Duration,
    /// Further behind the clock, a record goes to the dead letters; none: there is no such bound.
    pub behind_max: Option<Duration>,
    /// Between this and `ahead_max`, a record is used and counted, and stream time does not follow it.
    pub clock_tolerance: Duration,
}

impl TimeBounds {
    /// The time itself, if it is within the bounds.
    ///
    /// # Errors
    /// A rejection, with the unit that the time may be in by mistake.
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

    /// What is said of `time`; nothing if it is taken.
    fn said(time: i64, behind_max: Option<Duration>) -> String {
        let bounds =
            TimeBounds { ahead_max: DAY, behind_max, clock_tolerance: Duration::from_secs(10) };
        match bounds.check(EventTime(time), WallTime(NOW)) {
            Ok(taken) => {
                assert_eq!(taken, EventTime(time));
                String::new()
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn times_far_ahead_are_refused_with_their_unit() {
        assert_eq!(said(NOW + DAY_MS, None), "");
        assert!(said(NOW + DAY_MS + 1, None).starts_with("future_time: event time 179008640000"));
        assert!(said(NOW * 1_000, None).contains("it looks like microseconds"));
        assert!(said(NOW * 1_000_000, None).contains("it looks like nanoseconds"));
        assert!(!said(i64::MAX, None).contains("looks like"));
    }

    #[test]
    fn times_far_behind_are_refused_if_that_is_wanted() {
        for time in [NOW - 400 * DAY_MS, NOW / 1_000, 0, -1, i64::MIN] {
            assert_eq!(said(time, None), "", "{time}");
        }
        assert_eq!(said(NOW - DAY_MS, Some(DAY)), "");
        let old = said(NOW - DAY_MS - 1, Some(DAY));
        assert!(old.starts_with("past_time") && old.contains("[events] time_behind_max"), "{old}");
        assert!(!old.contains("looks like"), "{old}");
        assert!(said(NOW / 1_000, Some(DAY)).contains("it looks like seconds"));
    }
}
