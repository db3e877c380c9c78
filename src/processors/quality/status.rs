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
use foretell_ml::drift::{CalibrationPoint, Distribution, Progressive};

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
    /// The calibration curve of the labelled predictions.
    pub calibration: Vec<CalibrationPoint>,
    /// The values of features in training and live, those that have drifted most first, at most [`DISTRIBUTIONS_MAX`]; empty
    /// without a profile.
    pub distributions: Vec<Distribution>,
    /// The live metrics of each model over all its stored windows, those with the newest windows first, at most
    /// [`VERSIONS_MAX`].
    pub versions: Vec<VersionQuality>,
    /// The newest windows of all models, oldest first, without the indices, which the topic `quality` has.
    pub windows: Vec<Quality>,
}

/// Maximum number of distributions in a status: each has about ten bins, so they are some 20 KB.
pub const DISTRIBUTIONS_MAX: usize = 40;
/// Maximum number of models in a status.
pub const VERSIONS_MAX: usize = 10;
/// Half of the width of a 95 % interval, in standard errors.
const STANDARD_ERRORS: f64 = 1.96;

/// The live metrics of one model, on predictions that were made before their labels were known.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VersionQuality {
    /// The version of the model.
    pub model_version: String,
    /// The number of labels.
    pub labels: u64,
    /// The mean log loss.
    pub log_loss: Option<f64>,
    /// Half of the width of its 95 % interval.
    pub log_loss_error: Option<f64>,
    /// The area under the ROC curve.
    pub auc: Option<f64>,
    /// The share of the decisions that equal the label.
    pub accuracy: Option<f64>,
    /// Half of the width of its 95 % interval.
    pub accuracy_error: Option<f64>,
}

impl VersionQuality {
    pub(super) fn of(model_version: &str, labels: &Progressive) -> Self {
        let metrics = labels.metrics();
        let root = (metrics.labels as f64).sqrt();
        let error = |deviation: f64| STANDARD_ERRORS * deviation / root;
        let deviation_of_share = |share: f64| (share * (1.0 - share)).max(0.0).sqrt();
        Self {
            model_version: model_version.to_owned(),
            labels: metrics.labels,
            log_loss: metrics.log_loss,
            log_loss_error: metrics.log_loss_deviation.map(error),
            auc: metrics.auc,
            accuracy: metrics.accuracy,
            accuracy_error: metrics.accuracy.map(|share| error(deviation_of_share(share))),
        }
    }
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
        versions: Vec<VersionQuality>,
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
            calibration: assessment.calibration.clone(),
            distributions: assessment.distributions.clone(),
            versions,
            windows,
        }
    }
}
