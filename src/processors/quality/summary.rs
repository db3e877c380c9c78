//! Summaries of windows, which scoring tasks send to the learning task on the internal topic `window-summaries`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use foretell_ml::{
    Scorer,
    drift::{Baseline, LiveCounts},
};
use foretell_streams::{
    codec::{Codec, Stored},
    time::EventTime,
};

/// What a scoring task counted in a window since its last summary of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WindowSummary {
    /// The start of the window.
    pub window: EventTime,
    /// The model that made the predictions.
    pub model: ModelReference,
    /// The counts.
    pub counts: LiveCounts,
}

/// A model, and what its live predictions are compared with. Each summary has it, so that the learning task needs no models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelReference {
    /// The version.
    pub version: String,
    /// The names of the classes, in order.
    pub classes: Vec<String>,
    /// The decision threshold with two classes.
    pub threshold: f64,
    /// The evaluation in training.
    pub trained: TrainedMetrics,
    /// The counts of the training data; none for a model without a profile.
    pub baseline: Option<Baseline>,
}

/// The metrics of an evaluation in training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainedMetrics {
    /// The number of held-out examples.
    pub examples: u64,
    /// The log loss.
    pub log_loss: Option<f64>,
    /// The area under the ROC curve.
    pub auc: Option<f64>,
    /// The accuracy.
    pub accuracy: Option<f64>,
}

impl WindowSummary {
    /// The format version of this type and all types in it. A changed field needs a new version, and the codec of the last one:
    /// during an upgrade, tasks of two releases write.
    pub const FORMAT: u8 = 1;

    /// The codec of the topic's values.
    #[must_use]
    pub fn codec() -> Arc<dyn Codec<Self>> {
        Arc::new(Stored::version(Self::FORMAT))
    }
}

impl ModelReference {
    /// The reference of a model.
    #[must_use]
    pub fn of(scorer: &Scorer) -> Self {
        let evaluation = scorer.evaluation();
        Self {
            version: scorer.version().as_str().to_owned(),
            classes: scorer.classes().to_vec(),
            threshold: scorer.threshold(),
            trained: TrainedMetrics {
                examples: evaluation.examples,
                log_loss: evaluation.log_loss,
                auc: evaluation.auc,
                accuracy: evaluation.accuracy,
            },
            baseline: scorer.profile().map(|profile| profile.baseline(scorer.columns())),
        }
    }
}
