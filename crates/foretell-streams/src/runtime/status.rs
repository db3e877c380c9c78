//! Status of workers and tasks: snapshots published at each commit.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;

use crate::{
    record::{Offset, TopicPartition},
    time::{EventTime, WallTime},
};

/// The state of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// It restores its stores from their changelogs.
    Restoring,
    /// It processes records.
    Running,
    /// Its next record has to wait; [`TaskStatus::blocked_by`] says why.
    Blocked,
}

/// The status of a task, as of the last commit.
#[derive(Clone, Debug, Serialize)]
pub struct TaskStatus {
    /// The number of the task: the partition of its inputs.
    pub partition: i32,
    /// The state of the task.
    pub state: TaskState,
    /// The reason why its next record has to wait, if it has to.
    pub blocked_by: Option<String>,
    /// The time since which no record was processed because each had to wait.
    pub blocked_since: Option<WallTime>,
    /// The stream time, or `None` before the first record.
    pub stream_time: Option<EventTime>,
    /// The number of queued records.
    pub buffered: usize,
    /// The number of changelog records that the present or last restore has read.
    pub restored: usize,
    /// The number of changelog records still to be restored, at most.
    pub restore_remaining: u64,
    /// The number of entries of each store, by name.
    pub store_entries: BTreeMap<String, usize>,
    /// Whether `store_entries` are estimates: a store on disk counts overwritten and deleted entries until it is compacted.
    pub store_entries_estimated: bool,
}

/// The status of a worker, as of the last commit.
#[derive(Clone, Debug, Default, Serialize)]
pub struct WorkerStatus {
    /// Whether it has received an assignment, perhaps of no tasks.
    pub joined: bool,
    /// Its tasks, in the order of their numbers.
    pub tasks: Vec<TaskStatus>,
}

impl WorkerStatus {
    /// Whether it has joined and all its tasks process records.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.joined && self.tasks.iter().all(|task| task.state == TaskState::Running)
    }
}

/// The latest snapshots of the workers of a process, by the workers' names. Clones share the board.
///
/// ```
/// use foretell_streams::runtime::{StatusBoard, WorkerStatus};
///
/// let board = StatusBoard::default(); // A clone of it goes into `WorkerParts::board`.
/// let is_ready = || board.read().values().all(WorkerStatus::is_running);
/// board.publish("worker-1", WorkerStatus::default()); // A worker does this.
/// assert!(!is_ready(), "it has not joined yet");
/// ```
#[derive(Clone, Debug, Default)]
pub struct StatusBoard(Arc<Mutex<Snapshots>>);

#[derive(Debug, Default)]
struct Snapshots {
    workers: BTreeMap<String, WorkerStatus>,
    inputs: BTreeMap<String, Vec<InputStatus>>,
}

/// How far an input of an active task was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputStatus {
    /// The partition.
    pub source: TopicPartition,
    /// The offset after the last record that was fetched, or the end of the partition if that was reached.
    pub position: Offset,
    /// The number of records that were fetched and are not processed yet.
    pub buffered: usize,
}

impl StatusBoard {
    /// Replaces a worker's snapshot.
    pub fn publish(&self, worker: &str, status: WorkerStatus) {
        self.lock().workers.insert(worker.to_owned(), status);
    }

    /// Copies all snapshots.
    #[must_use]
    pub fn read(&self) -> BTreeMap<String, WorkerStatus> {
        self.lock().workers.clone()
    }

    /// Replaces the inputs of a worker's tasks. They change without a commit, so they are no part of its snapshot.
    pub fn publish_inputs(&self, worker: &str, inputs: Vec<InputStatus>) {
        self.lock().inputs.insert(worker.to_owned(), inputs);
    }

    /// Copies the inputs of the tasks of all workers.
    #[must_use]
    pub fn read_inputs(&self) -> Vec<InputStatus> {
        self.lock().inputs.values().flatten().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Snapshots> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
