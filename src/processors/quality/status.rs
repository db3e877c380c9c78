//! The state of quality on the instance with the learning task, for `/api/v1/status`.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::{
    events::quality::{Quality, QualityMetrics, StabilityIndex},
    processors::quality::{
        Alert, Maturity,
        alert::{Assessment, live},
    },
};

/// The quality of the model that serves, over its newest windows: as many as it takes for enough labels and predictions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct QualityStatus {
    /// The version of the model.
    pub model_version: String,
    /// What needs attention; empty if nothing does.
    pub alerts: Vec<Alert>,
    /// The number of predictions that were counted.
    pub predictions: u64,
    /// The number of labels.
    pub labels: u64,
    /// The evaluation of the model in training.
    pub trained: QualityMetrics,
    /// The metrics that the model has if its probabilities are calibrated.
    pub estimated: QualityMetrics,
    /// The metrics on labelled predictions.
    pub live: QualityMetrics,
    /// Whether the model has a profile of its training data; without one there is no index.
    pub has_profile: bool,
    /// The population stability index of each feature; empty with too few predictions.
    pub features: Vec<StabilityIndex>,
    /// The population stability index of the scores of each class; of two classes, of the second.
    pub scores: Vec<StabilityIndex>,
    /// The share of the predictions of all models that have their label, by age, youngest first.
    pub maturity: Vec<Maturity>,
    /// The newest windows of all models, oldest first, without the indices, which the topic `quality` has.
    pub windows: Vec<Quality>,
}

/// Where the learning task publishes the status.
#[derive(Clone, Debug, Default)]
pub struct QualityBoard(Arc<Mutex<Option<QualityStatus>>>);

impl QualityBoard {
    /// The status; none on an instance without the learning task, and before the first report.
    #[must_use]
    pub fn read(&self) -> Option<QualityStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn publish(&self, status: Option<QualityStatus>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }
}

impl QualityStatus {
    pub(super) fn new(
        version: &str,
        assessment: &Assessment,
        maturity: Vec<Maturity>,
        windows: Vec<Quality>,
    ) -> Self {
        Self {
            model_version: version.to_owned(),
            alerts: assessment.alerts.clone(),
            predictions: assessment.predictions,
            labels: assessment.live.labels,
            trained: assessment.trained,
            estimated: assessment.estimated,
            live: live(&assessment.live),
            has_profile: assessment.has_profile,
            features: assessment.features.clone(),
            scores: assessment.scores.clone(),
            maturity,
            windows,
        }
    }
}
