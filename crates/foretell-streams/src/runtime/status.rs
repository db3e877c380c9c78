//! Status of workers and tasks: snapshots published at each commit.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use serde::Serialize;

use crate::time::{EventTime, WallTime};

/// The state of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// It reads its changelogs.
    Restoring,
    /// It processes records.
    Running,
    /// Its next record waits for something.
    Blocked,
}

/// One task, as of the last commit.
#[derive(Clone, Debug, Serialize)]
pub struct TaskStatus {
    /// Its number.
    pub partition: i32,
    /// Where it is in its life.
    pub state: TaskState,
    /// Why its next record waits, if it does.
    pub blocked_by: Option<String>,
    /// Since when nothing is processed for such a reason, which may not always have been the same.
    pub blocked_since: Option<WallTime>,
    /// The highest event time it has seen, if it has seen one.
    pub stream_time: Option<EventTime>,
    /// Records waiting in its queues.
    pub buffered: usize,
    /// Changelog records read by the restore that goes on, or the last one.
    pub restored: usize,
    /// Changelog records that it has still to read, at most.
    pub restore_remaining: u64,
    /// Entries in each of its stores.
    pub store_entries: BTreeMap<String, usize>,
    /// Whether those are estimates: a store on disk counts what was written over or deleted until it has merged it away.
    pub store_entries_estimated: bool,
}

/// One worker, as of the last commit.
#[derive(Clone, Debug, Default, Serialize)]
pub struct WorkerStatus {
    /// It has been given its first assignment (perhaps of no tasks).
    pub joined: bool,
    /// Its tasks, by number.
    pub tasks: Vec<TaskStatus>,
}

impl WorkerStatus {
    /// Whether all it has is being processed.
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
pub struct StatusBoard(Arc<Mutex<BTreeMap<String, WorkerStatus>>>);

impl StatusBoard {
    /// Replaces a worker's snapshot.
    pub fn publish(&self, worker: &str, status: WorkerStatus) {
        let mut board = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        board.insert(worker.to_owned(), status);
    }

    /// Copies all snapshots.
    #[must_use]
    pub fn read(&self) -> BTreeMap<String, WorkerStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
