//! The work of the trainer, which a replay shares with its thread.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::processors::learning::{
    job::{Job, JobResult},
    trainer::{Progress, Work},
    work::LearningWork,
};

/// The work of the trainer, whose training log is also read between two jobs.
#[derive(Clone)]
pub(super) struct SharedWork(Arc<Mutex<LearningWork>>);

impl SharedWork {
    pub(super) fn new(work: LearningWork) -> Self {
        Self(Arc::new(Mutex::new(work)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, LearningWork> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Work for SharedWork {
    fn run(&mut self, job: &Job, progress: Progress<'_>) -> JobResult {
        self.lock().run(job, progress)
    }
}
