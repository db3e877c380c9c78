//! Drift and live quality of a model in a window: `schemas/quality/v1.avsc`.

use serde::{Deserialize, Serialize};

use foretell_avro::codec::AvroRecord;
use foretell_streams::time::{EventTime, WallTime};

/// Drift and live quality of a model in a window of event time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// The model that made the predictions.
    pub model_version: String,
    /// The start of the window. A prediction is in the window of the event time of its observation.
    pub window_start: EventTime,
    /// The end of the window, exclusive.
    pub window_end: EventTime,
    /// Whether the time for labels of the window has passed.
    pub closed: bool,
    /// The number of predictions that were counted.
    pub predictions: i64,
    /// The number of predictions whose label is known.
    pub labels: i64,
    /// The evaluation of the model in training.
    pub trained: QualityMetrics,
    /// The metrics that the model has on the predictions of the window if its probabilities are calibrated.
    pub estimated: QualityMetrics,
    /// The metrics on the predictions of the window whose label is known.
    pub live: QualityMetrics,
    /// The population stability index of each feature.
    pub features: Vec<StabilityIndex>,
    /// The population stability index of the scores of each class; of two classes, of the second.
    pub scores: Vec<StabilityIndex>,
    /// The time of the record.
    pub updated_at: WallTime,
}

/// Metrics of a model. One that is not known or undefined is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QualityMetrics {
    /// The mean of -ln(probability of the label); lower is better.
    pub log_loss: Option<f64>,
    /// The area under the ROC curve; with more than two classes, the mean over the classes.
    pub auc: Option<f64>,
    /// The share of the decisions that equal the label.
    pub accuracy: Option<f64>,
    /// The expected calibration error.
    pub calibration_error: Option<f64>,
}

/// The population stability index of a feature, or of the scores of a class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StabilityIndex {
    /// The name of the feature, or of the class.
    pub name: String,
    /// 0 for the shares of the training, 0.25 and more for a large change.
    pub psi: f64,
}

impl Quality {
    /// The key of the record. With a key for each window, compaction keeps the newest record of every window.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}", self.model_version, self.window_start.0)
    }
}

impl QualityMetrics {
    /// The metrics with their names.
    #[must_use]
    pub fn named(&self) -> [(&'static str, Option<f64>); 4] {
        [
            ("log_loss", self.log_loss),
            ("auc", self.auc),
            ("accuracy", self.accuracy),
            ("calibration_error", self.calibration_error),
        ]
    }
}

impl AvroRecord for Quality {
    const SCHEMA: &'static str = include_str!("../../schemas/quality/v1.avsc");
}
