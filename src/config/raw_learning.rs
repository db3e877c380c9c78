//! The sections about learning and tables of the configuration as written: see `raw.rs`.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::config::{
    raw_tuning::{RawRetuning, RawTuning, TuningPlan},
    text,
};
use foretell_ml::{DataPolicy, InitialPolicy, Retention, training_set::EXAMPLES_MAX};

/// When a model is trained, and on which examples.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLearning {
    /// Number of labelled examples after which a training is due; at least 1. Trainings that become due while one runs are
    /// combined into one.
    pub retrain_after: u64,
    /// The newest examples from the stream, which a training uses: a number of them, such as `2000`, or a time, such as
    /// `"30d"`: those whose event time is less than this before the newest event time. Empty: all.
    #[serde(deserialize_with = "text::one")]
    pub last: String,
    /// Number of examples from the stream that a training uses, a random sample of all; at least 1. It excludes `last`.
    /// Unset: all.
    pub reservoir: Option<usize>,
    /// Event time in which the weight of an example from the stream halves: the newest has a weight of 1. Unset: all examples
    /// count the same.
    #[serde(with = "humantime_serde")]
    pub half_life: Option<Duration>,
    /// Treatment of the initial data when examples come from the stream.
    pub initial: InitialPolicy,
    /// Random seed. The same training log, parameters and seed give the same model.
    pub seed: u64,
    /// Probability of the positive class (the second of `outcomes.labels`) from which a prediction has that class as its
    /// `label`: above 0 and below 1. It is stored in each model that is trained, so a change takes effect with the next
    /// model, and counts in that model's accuracy and F1. It does not change the probabilities, the log
    /// loss or the AUC, and with more than two classes it has no effect: the `label` is the most probable class.
    pub threshold: f64,
    pub tuning: RawRetuning,
}

impl Default for RawLearning {
    fn default() -> Self {
        Self {
            retrain_after: 10_000,
            last: String::new(),
            reservoir: None,
            half_life: None,
            initial: InitialPolicy::Keep,
            seed: 42,
            threshold: 0.5,
            tuning: RawRetuning::default(),
        }
    }
}

/// When a model is trained, and on which examples.
#[derive(Clone, Debug)]
pub struct LearningSettings {
    /// Number of labelled examples after which a training is due.
    pub retrain_after: u64,
    /// Which examples are used and how much they count.
    pub policy: DataPolicy,
    /// Random seed.
    pub seed: u64,
    /// Probability of the positive class from which it is the label.
    pub threshold: f64,
    /// How retrainings tune.
    pub tuning: TuningPlan,
}

/// The name of a key of `[learning]` whose value is invalid, and why.
pub(super) type Problem = (&'static str, String);

impl RawLearning {
    /// Checks the keys that say which examples a training uses.
    pub(super) fn policy(&self) -> Result<DataPolicy, Problem> {
        let retention = match (self.last()?, self.reservoir) {
            (Some(_), Some(_)) => {
                let problem = "last is set, too: a training uses the newest examples or a random sample; remove one";
                return Err(("reservoir", problem.to_owned()));
            }
            (Some(last), None) => last,
            (None, Some(number)) => Retention::Reservoir(number_of_examples("reservoir", number)?),
            (None, None) => Retention::All,
        };
        let half_life = self.half_life.map(|time| milliseconds("half_life", time)).transpose()?;
        Ok(DataPolicy { retention, half_life, initial: self.initial })
    }

    fn last(&self) -> Result<Option<Retention>, Problem> {
        if self.last.is_empty() {
            return Ok(None);
        }
        if let Ok(number) = self.last.parse() {
            return Ok(Some(Retention::Last(number_of_examples("last", number)?)));
        }
        match humantime_serde::re::humantime::parse_duration(&self.last) {
            Ok(time) => Ok(Some(Retention::Within(milliseconds("last", time)?))),
            Err(_) => {
                let problem = format!(
                    "{:?} is neither a number of examples, such as 2000, nor a time, such as \"30d\"",
                    self.last
                );
                Err(("last", problem))
            }
        }
    }

    /// The settings with a checked policy, and with the settings of the first study where there are none of their own.
    pub(super) fn with_policy(&self, policy: DataPolicy, first: &RawTuning) -> LearningSettings {
        let Self { retrain_after, seed, threshold, .. } = *self;
        let tuning = self.tuning.plan(first);
        LearningSettings { retrain_after, policy, seed, threshold, tuning }
    }
}

fn number_of_examples(key: &'static str, number: usize) -> Result<usize, Problem> {
    if (1..=EXAMPLES_MAX).contains(&number) {
        return Ok(number);
    }
    Err((key, format!("it is {number}: it must be from 1 to {EXAMPLES_MAX}")))
}

fn milliseconds(key: &'static str, time: Duration) -> Result<i64, Problem> {
    let milliseconds = i64::try_from(time.as_millis()).ok().filter(|time| *time > 0);
    milliseconds.ok_or_else(|| {
        (
            key,
            "it must be at least 1 ms and less than 292 million years, such as \"30d\"".to_owned(),
        )
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_read() {
        let check = |written: &str, retention: Retention, half_life: Option<i64>| {
            let raw: RawLearning = toml::from_str(written).unwrap();
            let expected = DataPolicy { retention, half_life, initial: InitialPolicy::Keep };
            assert_eq!(raw.policy(), Ok(expected), "{written}");
        };
        const DAY: i64 = 86_400_000;
        check("", Retention::All, None);
        check("last = 2000", Retention::Last(2_000), None);
        check("last = \"2000\"", Retention::Last(2_000), None);
        check("last = \"30d\"", Retention::Within(30 * DAY), None);
        check("last = \"1h 30m\"", Retention::Within(DAY / 16), None);
        check("reservoir = 7\nhalf_life = \"2 days\"", Retention::Reservoir(7), Some(2 * DAY));
        let raw: RawLearning = toml::from_str("initial = \"age\"").unwrap();
        assert_eq!(raw.policy().unwrap().initial, InitialPolicy::Age);
    }
}
