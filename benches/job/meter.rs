//! CPU time and allocations of pieces of work on one thread.

use std::{ops::AddAssign, time::Duration};

use rustix::time::{ClockId, clock_gettime};

use crate::counting::allocated;

/// Cost of one event with its outcome.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub(crate) struct Cost {
    pub(crate) micros: f64,
    pub(crate) allocations: f64,
    pub(crate) bytes: f64,
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.micros += other.micros;
        self.allocations += other.allocations;
        self.bytes += other.bytes;
    }
}

/// Sums the costs of pieces of work. Time is that of the thread, which other load changes little.
#[derive(Default)]
pub(crate) struct Meter {
    spent: Duration,
    allocations: u64,
    bytes: u64,
    events: usize,
}

impl Meter {
    pub(crate) fn measure<T>(&mut self, events: usize, work: impl FnOnce() -> T) -> T {
        let (before, start) = (allocated(), thread_time());
        let result = work();
        self.spent += thread_time().saturating_sub(start);
        let after = allocated();
        self.allocations += after.allocations - before.allocations;
        self.bytes += after.bytes - before.bytes;
        self.events += events;
        result
    }

    pub(crate) fn cost(&self) -> Cost {
        let events = self.events as f64;
        Cost {
            micros: self.spent.as_secs_f64() * 1e6 / events,
            allocations: self.allocations as f64 / events,
            bytes: self.bytes as f64 / events,
        }
    }
}

/// CPU time of this thread. (`schedstat` in `/proc` is only as new as the last tick of the scheduler.)
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("a time since the start of the thread")
}
