//! The stored formats of the learner's state: the codec of the store, and format 1, of releases that promoted every model.

use serde::{Deserialize, Serialize};

use crate::processors::learning::{
    job::{Cause, Job, TrainingRequest},
    state::{Due, LearningState, ModelRef},
};
use foretell_ml::ModelVersion;
use foretell_streams::codec::{Stored, StoredSince};

impl LearningState {
    /// The codec of the store.
    #[must_use]
    pub fn codec() -> StoredSince<Self, LearningStateV1> {
        StoredSince::new(Stored::version(Self::FORMAT), Stored::version(LearningStateV1::FORMAT))
    }
}

/// The state in format 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LearningStateV1 {
    /// See [`LearningState`], also for the other fields.
    pub examples: u64,
    /// The number of finished trainings.
    pub trainings: u64,
    /// The requested training.
    pub requested: Option<TrainingRequestV1>,
    /// The end offset of the training log when the next training became due while one ran.
    pub due: Option<i64>,
    /// The model of the last successful training.
    pub champion: Option<ModelVersion>,
}

/// A training in format 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainingRequestV1 {
    /// See [`TrainingRequest`], also for the other fields.
    pub training: u64,
    /// The offset after the last record.
    pub through: i64,
    /// The champion.
    pub parent: Option<ModelVersion>,
}

impl LearningStateV1 {
    const FORMAT: u8 = 1;
}

impl From<LearningStateV1> for LearningState {
    fn from(old: LearningStateV1) -> Self {
        let LearningStateV1 { examples, trainings, requested, due, champion } = old;
        let through = due.or(requested.as_ref().map(|request| request.through)).unwrap_or(0);
        let request = |TrainingRequestV1 { training, through, parent }| {
            Job::Train(TrainingRequest { training, through, parent, cause: Cause::examples() })
        };
        Self {
            examples,
            through,
            trainings,
            running: requested.map(request),
            due: Due { training: due.map(|due| (due, Cause::examples())), ..Due::default() },
            champion: champion.map(|version| ModelRef { version, training: 0 }),
            ..Self::default()
        }
    }
}
