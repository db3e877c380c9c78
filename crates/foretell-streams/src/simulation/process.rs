//! A process that can die, and what it has been through: whether it has a reason to give up.

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

/// A process; once it is dead, nothing of it reaches the broker.
#[derive(Clone)]
pub(super) struct Process {
    pub(super) name: String,
    dead: Arc<AtomicBool>,
    life: Arc<Mutex<Life>>,
}

/// What counts towards giving up.
#[derive(Default)]
struct Life {
    /// Since the last commit.
    joins: u32,
    /// How often stores of each task were damaged since they last followed a commit.
    damages: BTreeMap<Partition, u32>,
    /// The same of those that are about to follow the commit just made.
    damages_before: BTreeMap<Partition, u32>,
}

/// A worker gives up when it is fenced once more than so often without a commit; it has joined after each time but that.
const FENCED_MAX: u32 = 5;
/// The first is repaired by a rebuild.
const DAMAGES_MIN: u32 = 2;

impl Process {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), dead: Arc::default(), life: Arc::default() }
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    pub(super) fn die(&self) -> BrokerError {
        self.dead.store(true, Ordering::SeqCst);
        BrokerError::Fatal("this process is dead".to_owned())
    }

    pub(super) fn has_joined(&self) {
        let mut life = self.life();
        *life = Life { joins: life.joins + 1, ..Life::default() };
    }

    /// It has heard that a commit succeeded, with offsets of these tasks. Their stores follow before it calls the broker again.
    pub(super) fn has_committed(&self, tasks: impl Iterator<Item = Partition>) {
        let mut life = self.life();
        life.joins = 0;
        for task in tasks {
            if let Some(damages) = life.damages.remove(&task) {
                life.damages_before.insert(task, damages);
            }
        }
    }

    pub(super) fn calls_the_broker(&self) {
        self.life().damages_before.clear();
    }

    /// A store of one of its tasks is damaged.
    pub(super) fn was_damaged(&self, task: Partition) {
        let mut life = self.life();
        let before = life.damages_before.remove(&task).unwrap_or(0);
        *life.damages.entry(task).or_default() += before + 1;
    }

    /// Whether what it has been through is a reason to end with `error`. It does not end because nobody answers.
    pub(super) fn may_end_with(&self, error: &WorkerError) -> bool {
        let life = self.life();
        self.is_dead()
            || match error {
                WorkerError::FencedAgain { .. } => life.joins >= FENCED_MAX,
                WorkerError::State(_) => life.damages.values().any(|times| *times >= DAMAGES_MIN),
                WorkerError::Broker(error) => matches!(error, BrokerError::Fenced(_)),
                WorkerError::Repartitioned(_) => false,
            }
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap()
    }
}
