//! Snapshots of an instance for the HTTP API.

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;

use crate::{
    events::topics::{TopicTable, Topics},
    processors::{
        contract::{ContractBoard, Violation},
        learning::trainer::{Trainer, TrainingProgress},
        model_table::Serving,
        quality::{QualityBoard, QualityStatus},
        tracking_status::{TrackingBoard, TrackingStatus},
        uplift::{RuleUplift, UpliftBoard},
        waiting::{WaitingBoard, WaitingNow},
    },
};
use foretell_ml::Scorer;
use foretell_streams::runtime::{StatusBoard, WorkerStatus};

/// A model of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServedModel {
    /// The version.
    pub version: String,
    /// The number of its training; 0 for the first model.
    pub training: u64,
    /// The numbers of initial examples and of stream examples that it was trained on.
    pub examples: [u64; 2],
}

impl ServedModel {
    fn of(scorer: &Scorer) -> Self {
        let origin = &scorer.lineage().origin;
        Self {
            version: scorer.version().as_str().to_owned(),
            training: origin.training,
            examples: [origin.initial_examples, origin.stream_examples],
        }
    }
}

/// The state of an instance as of its last commits.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// The name of the application.
    pub application: String,
    /// The name of the process.
    pub instance: String,
    /// Whether every worker runs, a model serves, and the feature contract holds no observation back.
    pub ready: bool,
    /// The violations of the feature contract.
    pub contract: Vec<Violation>,
    /// The model that serves.
    pub model: Option<ServedModel>,
    /// The challenger, whose scores are recorded beside those of the model.
    pub challenger: Option<ServedModel>,
    /// The running training on this instance.
    pub training: Option<TrainingProgress>,
    /// The reason that no model is trained here, if the training log is incomplete.
    pub training_refused: Option<String>,
    /// Drift and live quality of the model that serves, on the instance with the learning task.
    pub quality: Option<QualityStatus>,
    /// What the rules of actions change, on the instance with the learning task.
    pub uplift: Vec<RuleUplift>,
    /// What became of the outcomes that this instance has processed since its start, by state: the number of each. Those that
    /// still wait are in `waiting`.
    pub outcomes: BTreeMap<String, u64>,
    /// The labelled examples that this instance has written since its start, by the source of their label, and the corrections.
    pub examples: BTreeMap<String, u64>,
    /// What waits in the outcome stores of this instance.
    pub waiting: WaitingNow,
    /// What is sent to MLflow; none if no server is configured.
    pub mlflow: Option<TrackingStatus>,
    /// The names of the topics. `companions` are further topics of events.
    pub topics: TopicTable<String>,
    /// The workers, by name.
    pub workers: BTreeMap<String, WorkerStatus>,
}

/// What became of outcomes and predictions since the start of an instance.
#[derive(Clone, Debug, Default)]
pub struct JoinCounts {
    /// Outcomes by state.
    pub outcomes: BTreeMap<String, u64>,
    /// Labelled examples by the source of their label, and corrections.
    pub examples: BTreeMap<String, u64>,
}

/// Takes snapshots.
#[derive(Clone)]
pub struct Overview {
    /// The name of the application.
    pub application: String,
    /// The name of the process.
    pub instance: String,
    /// The status of the workers.
    pub board: StatusBoard,
    /// The models.
    pub serving: Serving,
    /// The violations of the feature contract.
    pub contract: ContractBoard,
    /// The training thread.
    pub trainer: Trainer,
    /// Drift and live quality.
    pub quality: QualityBoard,
    /// What the rules of actions change.
    pub uplift: UpliftBoard,
    /// Reads what became of outcomes and predictions.
    pub joins: Arc<dyn Fn() -> JoinCounts + Send + Sync>,
    /// What waits in the outcome stores.
    pub waiting: WaitingBoard,
    /// What is sent to MLflow; none if no server is configured.
    pub mlflow: Option<TrackingBoard>,
    /// The topics.
    pub topics: Topics,
}

impl Overview {
    /// Takes a snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let workers = self.board.read();
        let models = self.serving.models();
        let model = models.champion.as_deref().map(ServedModel::of);
        let JoinCounts { outcomes, examples } = (self.joins)();
        let is_running = !workers.is_empty() && workers.values().all(WorkerStatus::is_running);
        Snapshot {
            application: self.application.clone(),
            instance: self.instance.clone(),
            ready: is_running && model.is_some() && !self.contract.holds_back(),
            contract: self.contract.violations(),
            model,
            challenger: models.challenger.as_deref().map(ServedModel::of),
            training: self.trainer.progress(),
            training_refused: self.trainer.refused(),
            quality: self.quality.read(),
            uplift: self.uplift.read(),
            outcomes,
            examples,
            waiting: self.waiting.read(),
            mlflow: self.mlflow.as_ref().map(TrackingBoard::read),
            topics: self.topics.names(),
            workers,
        }
    }
}
