//! How many entries of the outcome stores wait now, by task. Kept in memory: what is there when a task starts is counted once, and
//! from then on what enters and leaves, with the commits.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;

use crate::processors::{
    metrics::Tally,
    outcome_join::{
        pending::PendingRef,
        store::{JoinContext, OutcomeStore},
    },
};
use foretell_streams::{
    record::Partition,
    state::{Position, StateError},
    time::EventTime,
};

/// Maximum number of entries that a task counts when it starts, which takes up to half a second. With more, the numbers are not
/// known until the next start.
const COUNTED_AT_START_MAX: usize = 100_000;

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
    is_complete: bool,
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

    fn tasks(&self) -> MutexGuard<'_, BTreeMap<Partition, Arc<TaskCounts>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the counts of a task, unless its successor in this process has begun its own.
    pub(super) fn end(&self, partition: Partition, counts: &Arc<TaskCounts>) {
        let mut tasks = self.tasks();
        if tasks.get(&partition).is_some_and(|present| Arc::ptr_eq(present, counts)) {
            tasks.remove(&partition);
        }
    }

    fn of(&self, partition: Partition) -> Option<Arc<TaskCounts>> {
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
    fn tally(&self, what: Waiting) -> &Tally {
        match what {
            Waiting::Prediction => &self.predictions,
            Waiting::Outcome => &self.outcomes,
        }
    }
}

impl OutcomeStore {
    /// Counts what waits in the store of a task that starts, and begins its counts.
    pub(super) fn begin_waiting(&self, ctx: &mut JoinContext<'_>) -> Arc<TaskCounts> {
        let mut counts =
            TaskCounts { predictions: Tally::new(), outcomes: Tally::new(), is_complete: false };
        let mut visited = 0;
        let visit = |_: &str, _: Position, bytes: &[u8]| {
            visited += 1;
            let entry = PendingRef::parse(bytes).map_err(|error| self.pending.unreadable(error))?;
            if let Some(what) = self.waits(entry)? {
                counts.tally(what).add();
            }
            Ok::<(), StateError>(())
        };
        let counted =
            ctx.window(&self.pending).visit_expired(EventTime::MAX, COUNTED_AT_START_MAX, visit);
        match counted {
            Ok(()) => counts.is_complete = visited < COUNTED_AT_START_MAX,
            // The first record that needs the entry recovers the store.
            Err(error) => tracing::debug!(%error, "cannot count what waits for an outcome"),
        }
        let counts = Arc::new(counts);
        let task = ctx.partition();
        self.metrics.waiting().tasks().insert(task, Arc::clone(&counts));
        counts
    }

    /// What waits in an entry, if anything does. An outcome that was joined stays for further predictions, and does not wait.
    fn waits(&self, entry: PendingRef<'_>) -> Result<Option<Waiting>, StateError> {
        Ok(match entry {
            PendingRef::Prediction { .. } => entry.is_waiting().then_some(Waiting::Prediction),
            PendingRef::Outcome(bytes) => {
                self.outcome(bytes)?.1.is_some().then_some(Waiting::Outcome)
            }
        })
    }

    /// Counts that something waits from now on.
    pub(super) fn enters(&self, what: Waiting, ctx: &mut JoinContext<'_>) {
        if let Some(counts) = self.metrics.waiting().of(ctx.partition()) {
            ctx.count(&counts.tally(what).entered(), 1);
        }
    }

    /// Counts that something does not wait any more.
    pub(super) fn leaves(&self, what: Waiting, ctx: &mut JoinContext<'_>) {
        if let Some(counts) = self.metrics.waiting().of(ctx.partition()) {
            ctx.count(&counts.tally(what).left(), 1);
        }
    }
}
