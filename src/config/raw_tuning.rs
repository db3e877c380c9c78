//! The sections about tuning of the configuration as written: see `raw.rs`.

use std::time::Duration;

use serde::Deserialize;
#[cfg(test)]
use serde::Serialize;

use foretell_ml::training::{Space, TuningSettings};

/// How `foretell init` tunes the first model; retrainings use the parameters found.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawTuning {
    /// Maximum number of trials of the study; at least 1.
    pub trials: u32,
    /// Time limit of the study; at least 1 ms. The running trial is cancelled then.
    #[serde(with = "humantime_serde")]
    pub time: Duration,
    /// Number of folds of the stratified cross-validation; at least 2.
    pub folds: u32,
    /// Threads that train folds in parallel; at least 1.
    pub threads: u32,
    /// Maximum number of boosting iterations of one model: 1 to 10000.
    pub iterations_max: u32,
    /// Number of iterations without a better validation loss after which training stops early; at least 1.
    pub early_stopping_rounds: u32,
    pub space: Space,
}

impl Default for RawTuning {
    fn default() -> Self {
        Self {
            trials: 30,
            time: Duration::from_secs(120),
            folds: 5,
            threads: 2,
            iterations_max: 800,
            early_stopping_rounds: 25,
            space: Space::default(),
        }
    }
}

impl RawTuning {
    /// The settings of the study.
    pub(super) fn study(&self) -> TuningSettings {
        TuningSettings {
            folds: self.folds,
            trials: self.trials,
            space: self.space.clone(),
            threads: self.threads,
            iterations_max: self.iterations_max,
            early_stopping_rounds: self.early_stopping_rounds,
            ..TuningSettings::default()
        }
    }
}
