//! The active tasks of a worker, and which of their stores have to be rebuilt.
//!
//! ```text
//!   open ─▶ restore ─▶ process ─▶ (commit) ─▶ close
//!             ▲           │ a store is corrupted
//!             └─ rebuild ◀┘   twice without a commit of the task in between: the worker ends
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    record::{InputRecord, Offset, Partition, TopicPartition},
    runtime::{
        active_task::ActiveTask,
        broker::BrokerError,
        error::TurnError,
        status::TaskStatus,
        worker::{
            WorkerParts,
            checkpointer::{Ends, TaskStore},
            commit_pacer::CommitPacer,
        },
    },
    state::StoreId,
    task::Task,
    time::Clock,
};

/// The active tasks of a worker, by number.
pub(super) struct ActiveTasks {
    tasks: BTreeMap<Partition, ActiveTask>,
    /// Tasks whose stores differ from their changelogs. They must be rebuilt before anything is processed.
    corrupted: BTreeSet<Partition>,
    /// Tasks that were rebuilt and have not committed since: to rebuild them again would not help.
    rebuilt: BTreeSet<Partition>,
    restore_logged_at: Duration,
}

/// Records of one task per turn: the group must be polled within its session.
pub(super) const RECORDS_PER_TURN_MAX: usize = 1_000;
/// The interval of log lines about the progress of a restore.
const RESTORE_LOGGED_EVERY: Duration = Duration::from_secs(5);

impl ActiveTasks {
    pub(super) fn new(now: Duration) -> Self {
        Self {
            tasks: BTreeMap::new(),
            corrupted: BTreeSet::new(),
            rebuilt: BTreeSet::new(),
            restore_logged_at: now,
        }
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&Partition, &mut ActiveTask)> {
        self.tasks.iter_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Partition, &ActiveTask)> {
        self.tasks.iter()
    }

    pub(super) fn numbers(&self) -> Vec<Partition> {
        self.tasks.keys().copied().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Opens a task, in place of the one that it may have. Its inputs must be paused until it is restored.
    pub(super) fn open(&mut self, parts: &WorkerParts, number: Partition) -> Result<(), TurnError> {
        let stores = parts.stores.as_ref();
        let task = Task::open(&parts.topology, number, &parts.metrics, stores)
            .map_err(TurnError::in_task(number))?;
        self.tasks.insert(number, ActiveTask::open(task, parts.clock.as_ref()));
        Ok(())
    }

    /// Opens a task with empty stores, to be restored from the beginning of its changelogs.
    pub(super) fn open_empty(
        &mut self,
        parts: &WorkerParts,
        number: Partition,
    ) -> Result<(), TurnError> {
        self.open(parts, number)?;
        let Some(active) = self.tasks.get_mut(&number) else { return Ok(()) };
        for index in 0..parts.topology.stores.len() {
            let cleared = active.task.clear(StoreId(index));
            cleared.map_err(TurnError::in_task(number))?;
        }
        Ok(())
    }

    /// Closes tasks that were revoked.
    pub(super) fn close(&mut self, numbers: &[Partition]) {
        self.tasks.retain(|number, _| !numbers.contains(number));
        self.corrupted.retain(|number| !numbers.contains(number));
    }

    /// Closes all tasks.
    pub(super) fn close_all(&mut self) {
        self.tasks.clear();
        self.corrupted.clear();
        self.rebuilt.clear();
    }

    /// Queues a record for its task. A record of a task that was closed meanwhile is dropped.
    pub(super) fn add(&mut self, record: InputRecord) {
        if let Some(active) = self.tasks.get_mut(&record.source.partition) {
            active.add(record);
        }
    }

    /// Whether a turn would find something to do without waiting.
    pub(super) fn have_work(&self) -> bool {
        self.tasks.values().any(ActiveTask::has_work)
    }

    /// Discards everything since the last commit, after an abort.
    pub(super) fn discard(&mut self, clock: &dyn Clock) {
        for active in self.tasks.values_mut() {
            active.discard(clock);
        }
    }

    /// Continues restores; returns whether the status has to be published.
    pub(super) fn restore(&mut self, parts: &WorkerParts) -> Result<bool, TurnError> {
        let (mut changed, mut truncated) = (false, Vec::new());
        let mut is_restoring = false;
        for (number, active) in &mut self.tasks {
            match active.restore(parts.broker.as_ref(), parts.clock.as_ref(), &parts.metrics) {
                Err(TurnError::Broker(BrokerError::OutOfRange(changelog))) => {
                    tracing::warn!(%changelog, "truncated during the restore: restoring from the beginning");
                    truncated.push(*number);
                }
                restored => changed |= restored?,
            }
            is_restoring |= !active.is_restored();
        }
        for number in truncated {
            let Some(active) = self.tasks.get_mut(&number) else { continue };
            active.restart_restore().map_err(TurnError::in_task(number))?;
        }
        let now = parts.clock.elapsed();
        if is_restoring && now >= self.restore_logged_at + RESTORE_LOGGED_EVERY {
            self.restore_logged_at = now;
            self.log_restore_progress();
            changed = true;
        }
        Ok(changed)
    }

    fn log_restore_progress(&self) {
        for (task, active) in self.tasks.iter().filter(|(_, active)| !active.is_restored()) {
            let status = active.status();
            let (records, remaining) = (status.restored, status.restore_remaining);
            tracing::info!(%task, records, remaining, "restoring");
        }
    }

    /// Processes what is queued and punctuates; returns whether the status has to be published.
    pub(super) fn process(
        &mut self,
        parts: &WorkerParts,
        pacer: &mut CommitPacer,
    ) -> Result<bool, TurnError> {
        let (clock, worker) = (parts.clock.as_ref(), &parts.membership.member);
        for (number, active) in &mut self.tasks {
            let records = active.process(RECORDS_PER_TURN_MAX, parts.settings.max_task_idle, clock);
            let records = records.map_err(TurnError::in_task(*number))?;
            pacer.add_records(records);
            active.update_blocked(records, worker, &parts.metrics, clock);
            // A punctuation may change a store without sending anything.
            if pacer.is_idle() && active.task.has_changes() {
                pacer.add_changes();
            }
        }
        let mut changed = false;
        for active in self.tasks.values_mut() {
            changed |= active.blocked_reason_has_changed();
        }
        Ok(changed)
    }

    /// Whether a store was changed since the last commit.
    pub(super) fn have_changes(&self) -> bool {
        self.tasks.values().any(|active| active.task.has_changes())
    }

    /// The offsets to commit: of inputs of which records were processed since the last commit.
    pub(super) fn consumed(&self) -> Vec<(TopicPartition, Offset)> {
        self.tasks.values().flat_map(|active| active.task.consumed()).collect()
    }

    /// An offset that was committed before, by which a commit without new offsets can ask whether the tasks still belong
    /// to this worker.
    pub(super) fn committed_offset(&self) -> Option<(TopicPartition, Offset)> {
        self.tasks.values().find_map(|active| active.task.committed_offset())
    }

    /// The stores of restored tasks that have changes after their checkpoints, with their changelogs.
    pub(super) fn stores_behind(&self) -> impl Iterator<Item = (TaskStore, TopicPartition)> + '_ {
        let restored = self.tasks.iter().filter(|(_, active)| active.is_restored());
        restored.flat_map(|(number, active)| {
            active
                .task
                .outdated_checkpoints()
                .map(move |(store, changelog)| ((*number, store), changelog))
        })
    }

    /// Applies a successful commit to all stores. `ends` are ends of changelogs, read before it.
    ///
    /// # Errors
    /// The first error of a store. The stores of the other tasks are written all the same, since their changes are
    /// committed; those that failed are corrupted.
    pub(super) fn apply_commit(&mut self, clock: &dyn Clock, ends: &Ends) -> Result<(), TurnError> {
        let (now, none) = (clock.now(), BTreeMap::new());
        let mut result = Ok(());
        for (number, active) in &mut self.tasks {
            let applied = active.task.apply_commit(now, ends.get(number).unwrap_or(&none));
            if applied.is_err() {
                self.corrupted.insert(*number);
            }
            result = result.and(applied.map_err(TurnError::in_task(*number)));
        }
        result
    }

    /// Notes that these tasks have committed: the stores of those that are not corrupted again were rebuilt successfully.
    pub(super) fn finish_rebuilds(&mut self, committed: impl Iterator<Item = Partition>) {
        for number in committed.filter(|number| !self.corrupted.contains(number)) {
            self.rebuilt.remove(&number);
        }
    }

    /// Has the stores of a task rebuilt; returns false if they were rebuilt since its last commit already.
    pub(super) fn mark_corrupted(&mut self, number: Partition) -> bool {
        let is_first = self.rebuilt.insert(number);
        if is_first {
            self.corrupted.insert(number);
        }
        is_first
    }

    /// A task whose stores have to be rebuilt.
    pub(super) fn first_corrupted(&self) -> Option<Partition> {
        self.corrupted.first().copied()
    }

    /// Notes that the stores of a task are about to be rebuilt, also if that fails.
    pub(super) fn note_rebuild(&mut self, number: Partition) {
        self.rebuilt.insert(number);
    }

    /// Opens a corrupted task with empty stores. If that fails it stays corrupted.
    pub(super) fn rebuild(
        &mut self,
        parts: &WorkerParts,
        number: Partition,
    ) -> Result<(), TurnError> {
        self.open_empty(parts, number)?;
        self.corrupted.remove(&number);
        Ok(())
    }

    pub(super) fn statuses(&self) -> Vec<TaskStatus> {
        self.tasks.values().map(ActiveTask::status).collect()
    }

    /// The number of changelog records that all restores have still to read, at most.
    pub(super) fn restore_remaining(&self) -> u64 {
        self.tasks.values().map(ActiveTask::restore_remaining).sum()
    }
}

#[cfg(test)]
impl ActiveTasks {
    pub(super) fn get(&self, number: Partition) -> &ActiveTask {
        &self.tasks[&number]
    }

    pub(super) fn get_mut(&mut self, number: Partition) -> &mut ActiveTask {
        self.tasks.get_mut(&number).unwrap()
    }

    /// The tasks that were rebuilt since their last commit.
    pub(super) fn rebuilt_mut(&mut self) -> &mut BTreeSet<Partition> {
        &mut self.rebuilt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: Partition = Partition(0);

    /// A task that was corrupted and then rebuilt.
    fn rebuilt() -> ActiveTasks {
        let mut tasks = ActiveTasks::new(Duration::ZERO);
        assert!(tasks.mark_corrupted(TASK));
        assert_eq!(tasks.first_corrupted(), Some(TASK));
        tasks.corrupted.remove(&TASK);
        tasks
    }

    #[test]
    fn a_task_is_rebuilt_only_once_without_a_commit() {
        let mut tasks = rebuilt();
        assert!(!tasks.mark_corrupted(TASK));
        assert_eq!(tasks.first_corrupted(), None, "it would be rebuilt in vain");
        assert!(tasks.mark_corrupted(Partition(1)), "another task has its own count");
    }

    #[test]
    fn a_commit_of_the_task_allows_another_rebuild() {
        let mut tasks = rebuilt();
        tasks.finish_rebuilds([Partition(1)].into_iter());
        assert!(!tasks.mark_corrupted(TASK), "another task has committed");
        tasks.finish_rebuilds([TASK].into_iter());
        assert!(tasks.mark_corrupted(TASK));
    }

    #[test]
    fn a_commit_that_the_stores_cannot_apply_allows_no_other_rebuild() {
        let mut tasks = rebuilt();
        tasks.corrupted.insert(TASK);
        tasks.finish_rebuilds([TASK].into_iter());
        assert!(!tasks.mark_corrupted(TASK));
    }

    #[test]
    fn a_closed_task_is_not_rebuilt() {
        let mut tasks = ActiveTasks::new(Duration::ZERO);
        assert!(tasks.mark_corrupted(TASK) && tasks.mark_corrupted(Partition(1)));
        tasks.close(&[TASK]);
        assert_eq!(tasks.first_corrupted(), Some(Partition(1)));
        tasks.close_all();
        assert_eq!(tasks.first_corrupted(), None);
        assert!(tasks.mark_corrupted(TASK), "a new member starts without counts");
    }
}
