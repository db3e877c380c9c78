//! The section about drift and live quality of the configuration as written: see `raw.rs`.

use std::time::Duration;

use serde::Deserialize;
#[cfg(test)]
use serde::Serialize;

use crate::processors::quality::QualitySettings;

/// Drift and live quality of the models, and when they are an alert.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawQuality {
    /// Length of a window, in event time; at least 1 ms. Choose one in which the traffic is as in the training data: with an hour,
    /// answers that depend on the time of day drift every day.
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// Population stability index from which a feature or the scores have drifted. 0.1 is a small, 0.25 a large change.
    pub psi_alert: f64,
    /// Increase of the live log loss over that of the model's evaluation in training that is tolerated, as a share: with 0.1, an
    /// alert rings when it is more than 10 % worse, and chance does not explain it (99.9 %).
    pub log_loss_alert: f64,
    /// Number of labels from which the log loss is judged; at least 1. If the newest window has fewer, those before it count, too.
    pub labels_min: u64,
    /// Number of predictions from which the population stability index is judged; at least 1. If the newest window has fewer, those
    /// before it count, too.
    pub predictions_min: u64,
    /// Whether an alert requests a training, at most once for each model and window.
    pub retrain_on_drift: bool,
}

impl Default for RawQuality {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(60 * 60),
            psi_alert: 0.25,
            log_loss_alert: 0.1,
            labels_min: 200,
            predictions_min: 1_000,
            retrain_on_drift: false,
        }
    }
}

impl RawQuality {
    /// The settings; labels can come for `labels_within`.
    pub(super) fn settings(&self, labels_within: Duration) -> QualitySettings {
        let Self { window, psi_alert, log_loss_alert, labels_min, predictions_min, .. } = *self;
        QualitySettings {
            window,
            labels_within,
            psi_alert,
            log_loss_alert,
            labels_min,
            predictions_min,
            retrain_on_drift: self.retrain_on_drift,
        }
    }
}
