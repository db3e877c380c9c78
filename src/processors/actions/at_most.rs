//! The maximum number of actions of a rule for one respondent: no more than `times` in any period of event time.
//!
//! ```text
//!   times = 2, per = 10 s; actions for events at        0 s   4 s          12 s    17 s
//!   an event that comes late, of                                    8 s              no: 4, 8, 12 are within 10 s
//!                                                                            21 s    no: 12, 17, 21
//!                                                                              22 s  yes: 12 and 22 are 10 s apart
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};

use foretell_streams::time::EventTime;

/// The maximum number of actions of a rule for one respondent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AtMost {
    /// Maximum number of actions; from 1 to 100.
    pub times: u32,
    /// The length of a period of event time; at least 1 ms. Two actions are in one period if the events of their predictions are
    /// less than this apart.
    #[serde(with = "humantime_serde")]
    pub per: Duration,
}

/// What is known about the actions of a rule for one respondent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct History {
    /// The event times of the predictions that caused them, in order.
    pub(super) event_times: Vec<EventTime>,
    /// Actions with earlier event times may have been removed.
    pub(super) complete_from: EventTime,
}

impl Default for AtMost {
    /// Nobody is called twice in a week unless the configuration says so.
    fn default() -> Self {
        Self { times: 1, per: Duration::from_secs(7 * 24 * 60 * 60) }
    }
}

impl AtMost {
    /// Whether there may be another action, for an event at `time`. It may not if the event is so late that it is not known how many
    /// there were around its time.
    pub(super) fn allows(self, history: &History, time: EventTime) -> bool {
        // The interval is open at its beginning: an action one period earlier does not count.
        let from = time - self.per;
        if from < history.complete_from {
            return false;
        }
        let (earlier, later): (Vec<EventTime>, Vec<EventTime>) =
            history.event_times.iter().partition(|at| **at <= time);
        let near = earlier.into_iter().chain([time]).chain(later);
        let near: Vec<EventTime> = near.filter(|at| *at > from && *at - self.per < time).collect();
        let mut periods = near.windows(self.times as usize + 1);
        periods.all(|period| match period {
            [first, .., last] => *last - self.per >= *first,
            _ => true,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Whether there are more than `times` in any period that begins with one of them.
    fn are_too_many(at_most: AtMost, times: &[i64]) -> bool {
        let per = i64::try_from(at_most.per.as_millis()).unwrap();
        times.iter().any(|first| {
            let within = times.iter().filter(|at| (*first..*first + per).contains(at));
            within.count() > at_most.times as usize
        })
    }

    proptest! {
        /// Events in any order: an action is allowed if and only if no period then has too many.
        #[test]
        fn there_are_never_more_than_so_many_in_any_period(
            events in prop::collection::vec(0..60_i64, 0..40),
            times in 1..5_u32,
            per in 1..25_u64,
        ) {
            let at_most = AtMost { times, per: Duration::from_millis(per) };
            let mut done: Vec<i64> = Vec::new();
            for event in events {
                done.sort_unstable();
                let event_times = done.iter().map(|at| EventTime(*at)).collect();
                let history = History { event_times, complete_from: EventTime::MIN };
                let is_allowed = at_most.allows(&history, EventTime(event));
                done.push(event);
                prop_assert_eq!(is_allowed, !are_too_many(at_most, &done), "{:?}", done);
                if !is_allowed {
                    done.pop();
                }
            }
        }
    }

    #[test]
    fn without_knowing_the_period_before_nothing_is_allowed() {
        let at_most = AtMost { times: 1, per: Duration::from_millis(10) };
        let history = History { event_times: Vec::new(), complete_from: EventTime(100) };
        assert!(!at_most.allows(&history, EventTime(109)));
        assert!(at_most.allows(&history, EventTime(110)));
    }
}
