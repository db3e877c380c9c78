//! A simulated process that can crash, and the failures since its last success: whether it may end with an error.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    record::Partition,
    runtime::{WorkerError, broker::BrokerError},
};

/// A simulated process. After a crash, none of its calls reaches the broker.
#[derive(Clone)]
pub(super) struct Process {
    pub(super) name: String,
    has_crashed: Arc<AtomicBool>,
    failures: Arc<Mutex<Failures>>,
}

/// The failures that justify an error at the end.
#[derive(Default)]
struct Failures {
    /// Joins since the last commit.
    joins: u32,
    /// Corruptions of each task's stores since the stores last followed a commit.
    corruptions: BTreeMap<Partition, u32>,
    /// Earlier corruptions of tasks whose stores are about to follow the commit just made.
    corruptions_before_commit: BTreeMap<Partition, u32>,
}

/// A worker ends when it is fenced more often than this without a commit. It has joined again each time before.
const FENCED_MAX: u32 = 5;
/// The first corruption of a store is repaired by a rebuild.
const CORRUPTIONS_MIN: u32 = 2;

impl Process {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), has_crashed: Arc::default(), failures: Arc::default() }
    }

    pub(super) fn has_crashed(&self) -> bool {
        self.has_crashed.load(Ordering::SeqCst)
    }

    /// Crashes the process. Returns the error of all its calls from now on.
    pub(super) fn crash(&self) -> BrokerError {
        self.has_crashed.store(true, Ordering::SeqCst);
        BrokerError::Fatal("this process has crashed".to_owned())
    }

    pub(super) fn record_join(&self) {
        let mut failures = self.failures();
        *failures = Failures { joins: failures.joins + 1, ..Failures::default() };
    }

    /// Records that the process got the result of a successful commit with offsets of these tasks. Their stores follow
    /// before the next call to the broker.
    pub(super) fn record_commit(&self, tasks: impl Iterator<Item = Partition>) {
        let mut failures = self.failures();
        failures.joins = 0;
        for task in tasks {
            if let Some(corruptions) = failures.corruptions.remove(&task) {
                failures.corruptions_before_commit.insert(task, corruptions);
            }
        }
    }

    pub(super) fn record_broker_call(&self) {
        self.failures().corruptions_before_commit.clear();
    }

    /// Records that a store of an active task was found corrupted.
    pub(super) fn record_corruption(&self, task: Partition) {
        let mut failures = self.failures();
        let before = failures.corruptions_before_commit.remove(&task).unwrap_or(0);
        *failures.corruptions.entry(task).or_default() += before + 1;
    }

    /// Whether the failures since the last success justify ending with `error`. An unavailable broker never does.
    pub(super) fn may_end_with(&self, error: &WorkerError) -> bool {
        let failures = self.failures();
        self.has_crashed()
            || match error {
                WorkerError::FencedAgain { .. } => failures.joins >= FENCED_MAX,
                WorkerError::State(_) => {
                    failures.corruptions.values().any(|times| *times >= CORRUPTIONS_MIN)
                }
                WorkerError::Broker(error) => matches!(error, BrokerError::Fenced(_)),
                WorkerError::Repartitioned(_) => false,
            }
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().unwrap()
    }
}
