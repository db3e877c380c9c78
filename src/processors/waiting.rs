//! How many predictions and outcomes wait for each other now, by task. Kept in memory: what is there when a task starts is counted
//! once, and from then on what enters and leaves the outcome store, with the commits.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prometheus::IntCounter;
use serde::Serialize;

use foretell_streams::{metrics::Counter, record::Partition};

/// What waits in the outcome stores of an instance. None if a task had more entries at its start than it counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WaitingNow {
    /// Predictions without an outcome, whose window has not passed.
    pub predictions: Option<u64>,
    /// Outcomes without a prediction, whose window has not passed.
    pub outcomes: Option<u64>,
}

/// Where the tasks of an instance count what waits. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct WaitingBoard(Arc<Mutex<BTreeMap<Partition, Arc<TaskCounts>>>>);

/// The counts of one task.
#[derive(Debug)]
pub(super) struct TaskCounts {
    predictions: Tally,
    outcomes: Tally,
    /// Whether everything was counted at the start.
    pub(super) is_complete: bool,
}

impl WaitingBoard {
    /// The numbers of all tasks of this instance.
    #[must_use]
    pub fn read(&self) -> WaitingNow {
        let tasks = self.tasks();
        let sum = |of: fn(&TaskCounts) -> &Tally| {
            tasks.values().map(|task| task.is_complete.then(|| of(task).present())).sum()
        };
        WaitingNow {
            predictions: sum(|task| &task.predictions),
            outcomes: sum(|task| &task.outcomes),
        }
    }

    pub(super) fn tasks(&self) -> MutexGuard<'_, BTreeMap<Partition, Arc<TaskCounts>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the counts of a task, unless its successor in this process has begun its own.
    pub(super) fn end(&self, partition: Partition, counts: &Arc<TaskCounts>) {
        let mut tasks = self.tasks();
        if tasks.get(&partition).is_some_and(|present| Arc::ptr_eq(present, counts)) {
            tasks.remove(&partition);
        }
    }

    pub(super) fn of(&self, partition: Partition) -> Option<Arc<TaskCounts>> {
        self.tasks().get(&partition).cloned()
    }
}

/// What waits.
#[derive(Clone, Copy, Debug)]
pub(super) enum Waiting {
    Prediction,
    Outcome,
}

impl TaskCounts {
    /// Counts from zero, not complete yet.
    pub(super) fn new() -> Self {
        Self { predictions: Tally::new(), outcomes: Tally::new(), is_complete: false }
    }

    /// Counts one more at once, outside of a record.
    pub(super) fn add(&self, what: Waiting) {
        self.tally(what).entered.inc();
    }

    /// The counter of what waits from a record on.
    pub(super) fn entered(&self, what: Waiting) -> Counter {
        Counter::new(self.tally(what).entered.clone())
    }

    /// The counter of what waits no more from a record on.
    pub(super) fn left(&self, what: Waiting) -> Counter {
        Counter::new(self.tally(what).left.clone())
    }

    fn tally(&self, what: Waiting) -> &Tally {
        match what {
            Waiting::Prediction => &self.predictions,
            Waiting::Outcome => &self.outcomes,
        }
    }
}

/// A number that commits change, as they do metrics. No registry has it.
#[derive(Debug)]
struct Tally {
    entered: IntCounter,
    left: IntCounter,
}

impl Tally {
    fn new() -> Self {
        let counter = || IntCounter::new("tally", "A number.").expect("it is a valid name");
        Self { entered: counter(), left: counter() }
    }

    fn present(&self) -> u64 {
        self.entered.get().saturating_sub(self.left.get())
    }
}
