//! The sections about learning, tuning and tables of the configuration as written: see `raw.rs`.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{config::text, processors::training_log::InitialPolicy};
use foretell_ml::training::{Space, TuningSettings};

/// When a model is trained, and on which examples.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields, default)]
pub struct LearningSettings {
    /// Number of labelled examples after which a training is due; at least 1. Trainings that become due while one runs are
    /// combined into one.
    pub retrain_after: u64,
    /// Maximum number of examples from the stream that a training uses, the newest; at least 1. Unset: all.
    pub stream_examples_max: Option<usize>,
    /// Treatment of the initial data when examples come from the stream.
    pub initial: InitialPolicy,
    /// Random seed. The same training log, parameters and seed give the same model.
    pub seed: u64,
    /// Probability of the positive class (the second of `outcomes.labels`) from which a prediction has that class as its
    /// `label`: above 0 and below 1. It is stored in each model that is trained, so a change takes effect with the next
    /// model, and counts in that model's accuracy and F1. It does not change the probabilities, the log
    /// loss or the AUC, and with more than two classes it has no effect: the `label` is the most probable class.
    pub threshold: f64,
}

impl Default for LearningSettings {
    fn default() -> Self {
        Self {
            retrain_after: 10_000,
            stream_examples_max: None,
            initial: InitialPolicy::Keep,
            seed: 42,
            threshold: 0.5,
        }
    }
}

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

/// Tables of answers and labels on disk.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields, default)]
pub struct DataSettings {
    /// Table that `foretell init` trains the first model on.
    pub initial: Option<TableSettings>,
    /// Table that `foretell send` and `foretell demo` replay as live events, and on which `init` evaluates the first model.
    /// Unset: `demo` replays `data.initial`.
    pub play: Option<TableSettings>,
}

/// A table of answers and labels: CSV in UTF-8 with a column for each answer, compressed with gzip if its name ends in `.gz`.
/// `foretell demo` and `send` also use columns that have the names of the fields in `[events]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TableSettings {
    /// The file, a path from the configuration's folder.
    pub path: PathBuf,
    /// Names of the columns, in order, if the table has no header. A column with an empty name is not used. Empty: the first
    /// line is the header.
    #[serde(default, deserialize_with = "text::many")]
    pub columns: Vec<String>,
    /// Names of columns that are not used.
    #[serde(default, deserialize_with = "text::many")]
    pub skip: Vec<String>,
    /// Name of the column with the label.
    #[serde(deserialize_with = "text::one")]
    pub label: String,
    /// Separator of the columns: one ASCII character.
    #[serde(default = "comma")]
    pub delimiter: char,
    /// ASCII character that begins a comment line, which is skipped. Unset: no comments.
    #[serde(default)]
    pub comment: Option<char>,
    /// Texts that mean "no answer" in this table, in addition to `events.missing`.
    #[serde(default, deserialize_with = "text::many")]
    pub missing: Vec<String>,
    /// Text to remove from the end of each label.
    #[serde(default, deserialize_with = "text::one")]
    pub label_suffix: String,
}

fn comma() -> char {
    ','
}
