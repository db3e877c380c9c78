//! The part of the configuration as it is written that says what models learn from, when and how: see `raw.rs`.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{config::text, processors::training_log::InitialPolicy};
use foretell_ml::training::{Space, TuningSettings};

/// When a model is trained, and from what.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields, default)]
pub struct LearningSettings {
    /// Labelled examples after which a training is due; at least 1. While a training runs, further trainings that become
    /// due are combined into one.
    pub retrain_after: u64,
    /// How many of the newest examples from the stream a training uses; at least 1. Unset: all.
    pub stream_examples_max: Option<usize>,
    /// What happens to the initial data as examples come from the stream.
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
    /// Trials of the study; at least 1.
    pub trials: u32,
    /// Time for the study; at least 1 ms. A trial that is running then is cancelled.
    #[serde(with = "humantime_serde")]
    pub time: Duration,
    /// Folds of the stratified cross-validation; at least 2.
    pub folds: u32,
    /// Threads that train folds in parallel; at least 1.
    pub threads: u32,
    /// Boosting iterations of one model: 1 to 10000.
    pub iterations_max: u32,
    /// Iterations without a better validation loss after which a model is complete; at least 1.
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

/// Tables on disk.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields, default)]
pub struct DataSettings {
    /// Table that `foretell init` trains the first model from.
    pub initial: Option<TableSettings>,
    /// Table that `foretell send` and `foretell demo` replay as live events, and on which `init` evaluates the first model.
    /// Unset: `demo` replays `data.initial`.
    pub play: Option<TableSettings>,
}

/// A table of answers and labels: CSV in UTF-8, one column an answer, compressed with gzip if its name ends in `.gz`.
/// `foretell demo` and `send` also use columns named as the fields of `[events]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TableSettings {
    /// The file, a path from the configuration's folder.
    pub path: PathBuf,
    /// Names of the columns, in order, of a table without a header. A column with an empty name is not used. Empty: the
    /// first line names the columns.
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
    /// Lines that begin with this ASCII character are skipped. Unset: none are.
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
