//! What may be seen from outside: snapshots, never live state.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::processors::{
    contract::{ContractBoard, Violation},
    model_table::Serving,
    trainer::{Trainer, TrainingProgress},
};
use foretell_streams::runtime::{StatusBoard, WorkerStatus};

/// The model that serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServedModel {
    /// Its version.
    pub version: String,
    /// The number of its training; 0 is the first model's.
    pub training: u64,
    /// Examples it learned from: the initial data's, and the stream's.
    pub examples: [u64; 2],
}

/// An instance, as of its last commits.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// The application.
    pub application: String,
    /// This process.
    pub instance: String,
    /// Whether all of it is running, a model serves, and nothing is held back because it was fitted on other answers.
    pub ready: bool,
    /// Which features are not as the model that serves was fitted.
    pub contract: Vec<Violation>,
    /// The model that serves.
    pub model: Option<ServedModel>,
    /// The training under way here.
    pub training: Option<TrainingProgress>,
    /// Why nothing is trained here, if the training log is not whole.
    pub training_refused: Option<String>,
    /// The workers, by name.
    pub workers: BTreeMap<String, WorkerStatus>,
}

/// Takes snapshots.
#[derive(Clone)]
pub struct Overview {
    /// The application.
    pub application: String,
    /// This process.
    pub instance: String,
    /// Where the workers say how they are.
    pub board: StatusBoard,
    /// Which model serves.
    pub serving: Serving,
    /// What it is held to.
    pub contract: ContractBoard,
    /// The training thread.
    pub trainer: Trainer,
}

impl Overview {
    /// How this instance is now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let workers = self.board.read();
        let model = self.serving.scorer().map(|scorer| ServedModel {
            version: scorer.version().as_str().to_owned(),
            training: scorer.lineage().origin.training,
            examples: [
                scorer.lineage().origin.initial_examples,
                scorer.lineage().origin.stream_examples,
            ],
        });
        let is_running = !workers.is_empty() && workers.values().all(WorkerStatus::is_running);
        Snapshot {
            application: self.application.clone(),
            instance: self.instance.clone(),
            ready: is_running && model.is_some() && !self.contract.holds_back(),
            contract: self.contract.violations(),
            model,
            training: self.trainer.progress(),
            training_refused: self.trainer.refused(),
            workers,
        }
    }
}
