//! The clock of a replay: it shows the time of the history, while intervals are real time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use foretell_streams::time::{Clock, EventTime, WallTime};

/// A clock that shows the time at which the last record was written. So bounds of event times, schedules and reports go by the
/// history, and limits on the time of a study or of a training by the machine.
pub(super) struct HistoryClock {
    now: AtomicI64,
    machine: Arc<dyn Clock>,
}

impl HistoryClock {
    pub(super) fn at(start: EventTime, machine: &Arc<dyn Clock>) -> Self {
        Self { now: AtomicI64::new(start.0), machine: Arc::clone(machine) }
    }

    /// Advances to `time`, and never goes back. Returns whether the clock has changed.
    pub(super) fn advance_to(&self, time: EventTime) -> bool {
        self.now.fetch_max(time.0, Ordering::SeqCst) < time.0
    }

    pub(super) fn advance(&self, span: Duration) {
        self.advance_to(EventTime(self.now.load(Ordering::SeqCst)) + span);
    }
}

impl Clock for HistoryClock {
    fn now(&self) -> WallTime {
        WallTime(self.now.load(Ordering::SeqCst))
    }

    fn elapsed(&self) -> Duration {
        self.machine.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use foretell_streams::time::ManualClock;

    use super::*;

    #[test]
    fn it_shows_the_history_and_measures_real_time() {
        let machine = Arc::new(ManualClock::at(WallTime(5_000)));
        let clock = HistoryClock::at(
            EventTime(10),
            &(Arc::<ManualClock>::clone(&machine) as Arc<dyn Clock>),
        );
        assert!(clock.advance_to(EventTime(30)) && !clock.advance_to(EventTime(20)));
        clock.advance(Duration::from_millis(5));
        machine.advance(Duration::from_secs(1));
        assert_eq!((clock.now(), clock.elapsed()), (WallTime(35), Duration::from_secs(1)));
    }
}
