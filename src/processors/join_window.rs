//! Which predictions and outcomes of a respondent belong together, by their times.

use std::{ops::RangeInclusive, time::Duration};

use foretell_streams::time::EventTime;

/// The window of the outcome join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinWindow {
    /// Maximum difference in event time between a prediction and its outcome.
    pub window: Duration,
    /// Stream time after the window in which both are still kept.
    pub grace: Duration,
}

impl JoinWindow {
    /// The stream time after which an entry of `time` can no longer be joined.
    #[must_use]
    pub fn closes(&self, time: EventTime) -> EventTime {
        time + self.window + self.grace
    }

    /// The stream time between two removals of the entries that have closed.
    #[must_use]
    pub fn removal_interval(&self) -> Duration {
        (self.window / 20).max(Duration::from_secs(1))
    }

    /// The earliest time of an entry that has not closed.
    #[must_use]
    pub fn open(&self, stream_time: EventTime) -> EventTime {
        stream_time - (self.window + self.grace)
    }

    /// The times of the entries that can be joined with one of `time`: those in its window that have not closed.
    #[must_use]
    pub fn near(&self, time: EventTime, stream_time: EventTime) -> RangeInclusive<EventTime> {
        (time - self.window).max(self.open(stream_time))..=time + self.window
    }
}
