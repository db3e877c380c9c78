//! What workers say of themselves: snapshots published at every commit, for whoever watches.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use serde::Serialize;

use crate::time::{EventTime, WallTime};

/// Where a task is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Reading its changelogs.
    Restoring,
    /// Processing.
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

/// The snapshots of all workers of this process, by name.
#[derive(Clone, Debug, Default)]
pub struct StatusBoard(Arc<Mutex<BTreeMap<String, WorkerStatus>>>);

impl StatusBoard {
    /// Puts up a worker's newest snapshot.
    pub fn publish(&self, worker: &str, status: WorkerStatus) {
        let mut board = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        board.insert(worker.to_owned(), status);
    }

    /// All snapshots.
    #[must_use]
    pub fn read(&self) -> BTreeMap<String, WorkerStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
