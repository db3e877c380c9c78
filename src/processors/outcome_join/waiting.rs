//! Counts what waits in the outcome store.

use std::sync::Arc;

use crate::processors::{
    outcome_join::{
        pending::PendingRef,
        store::{JoinContext, OutcomeStore},
    },
    waiting::{TaskCounts, Waiting},
};
use foretell_streams::{
    state::{Position, StateError},
    time::EventTime,
};

/// Maximum number of entries that a task counts when it starts, which takes up to half a second. With more, the numbers are not
/// known until the next start.
const COUNTED_AT_START_MAX: usize = 100_000;

impl OutcomeStore {
    /// Counts what waits in the store of a task that starts, and begins its counts.
    pub(super) fn begin_waiting(&self, ctx: &mut JoinContext<'_>) -> Arc<TaskCounts> {
        let mut counts = TaskCounts::new();
        let mut visited = 0;
        let visit = |_: &str, _: Position, bytes: &[u8]| {
            visited += 1;
            let entry = PendingRef::parse(bytes).map_err(|error| self.pending.unreadable(error))?;
            if let Some(what) = self.waits(entry)? {
                counts.add(what);
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
            ctx.count(&counts.entered(what), 1);
        }
    }

    /// Counts that something does not wait any more.
    pub(super) fn leaves(&self, what: Waiting, ctx: &mut JoinContext<'_>) {
        if let Some(counts) = self.metrics.waiting().of(ctx.partition()) {
            ctx.count(&counts.left(what), 1);
        }
    }
}
