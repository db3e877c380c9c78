//! The sections about learning and tables of the configuration as written: see `raw.rs`.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    config::{
        raw_tuning::{RawRetuning, RawTuning},
        text,
    },
    processors::learning::{rules::Rules, schedule::Schedule, work::TuningPlan},
};
use foretell_ml::{
    DataPolicy, InitialPolicy, Metric, Retention, judge,
    training::{Calibration, Threshold},
    training_set::EXAMPLES_MAX,
};

/// Default of `learning.judge.check_after` if `retrain_after` is 0: a quarter of the default of that.
const CHECK_AFTER_WITHOUT_TRAININGS: u64 = 2_500;

/// When a model is trained, and on which examples.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLearning {
    /// Number of labelled examples after which a training is due. Trainings that become due while one runs are combined into
    /// one. 0: never; then a training is due only by `schedule`, by drift (`quality.retrain_on_drift`) or when it is requested,
    /// and a challenger is not judged again.
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
    /// `label`: above 0 and below 1; or `"best"`: the one with the best F1 on held-out examples if `learning.judge.metric` is
    /// `"f1"`, else the one with the best accuracy. It is stored in each model that is trained, so a change takes effect with
    /// the next model, and counts in that model's accuracy and F1. It does not change the probabilities, the log
    /// loss or the AUC, and with more than two classes it has no effect: the `label` is the most probable class.
    #[serde(deserialize_with = "text::one")]
    pub threshold: String,
    /// Calibration of the probabilities on held-out examples: `"none"`, `"platt"` (a logistic function of the score) or
    /// `"isotonic"` (a step function, for thousands of examples). LightGBM's probabilities with the default parameters are
    /// calibrated well already.
    pub calibration: Calibration,
    /// Times at which a training is due, besides those by `retrain_after`: a cron expression of five fields in UTC, such as
    /// `"0 3 * * *"`. One that comes while no instance runs is made up for. Empty: none.
    #[serde(deserialize_with = "text::one")]
    pub schedule: String,
    /// Time limit of a training with its study; at least 1 ms. A training that takes longer fails, and the champion goes on
    /// serving.
    #[serde(with = "humantime_serde")]
    pub time_max: Duration,
    pub judge: RawJudge,
    pub tuning: RawRetuning,
}

/// How a new model is compared with the champion before it is promoted.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawJudge {
    /// Which new models are promoted.
    pub policy: JudgePolicy,
    /// Metric of the comparison.
    pub metric: Metric,
    /// Improvement of the metric that a promotion requires, in units of the metric; 0 or more. An automatic rollback requires
    /// it as well.
    pub margin: f64,
    /// Confidence level of the interval of the improvement, whose lower end must be above `margin`: 0.5 to 0.999.
    pub confidence: f64,
    /// Share of the examples from the stream that the champion was not trained on, which are held out for the comparison: 0.05
    /// to 0.9. They are the newest, at most `learning.retrain_after` (but 30 if that is less) and at most 10,000. The published
    /// model is trained on them, too.
    pub holdout: f64,
    /// Number of examples after which the champion is compared with its predecessor, again and again, and rolled back if it
    /// is worse; 0: never. Unset: a quarter of `learning.retrain_after`, or 2,500 if that is 0.
    pub check_after: Option<u64>,
}

impl Default for RawJudge {
    fn default() -> Self {
        Self {
            policy: JudgePolicy::Better,
            metric: Metric::LogLoss,
            margin: 0.0,
            confidence: 0.95,
            holdout: 0.3,
            check_after: None,
        }
    }
}

/// Which new models are promoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(rename_all = "snake_case")]
pub(super) enum JudgePolicy {
    /// Those that are better than the champion on examples that neither was trained on. Others become the challenger, or are
    /// refused if they are worse.
    Better,
    /// All, as without a judge. None is rolled back automatically.
    Always,
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
            threshold: "best".to_owned(),
            calibration: Calibration::None,
            schedule: String::new(),
            time_max: Duration::from_secs(30 * 60),
            judge: RawJudge::default(),
            tuning: RawRetuning::default(),
        }
    }
}

/// When a model is trained, on which examples, and which models are promoted.
#[derive(Clone, Debug)]
pub struct LearningSettings {
    /// The rules by which jobs become due and models are promoted.
    pub rules: Rules,
    /// The schedule of trainings.
    pub schedule: Option<Schedule>,
    /// Time limit of a training.
    pub time_max: Duration,
    /// Which examples are used and how much they count.
    pub policy: DataPolicy,
    /// Random seed.
    pub seed: u64,
    /// Choice of the decision threshold.
    pub threshold: Threshold,
    /// Calibration of the probabilities.
    pub calibration: Calibration,
    /// Settings of comparisons.
    pub judge: judge::Settings,
    /// Share of the examples that the champion was not trained on, which are held out for a comparison.
    pub holdout: f64,
    /// The studies of trainings.
    pub tuning: TuningPlan,
}

/// The name of a key of `[learning]` whose value is invalid, and why.
pub(super) type Problem = (&'static str, String);

impl RawLearning {
    /// Checks the keys that say which examples a training uses.
    fn policy(&self) -> Result<DataPolicy, Problem> {
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

    /// The checked settings.
    pub(super) fn settings(&self, first: &RawTuning) -> Result<LearningSettings, Problem> {
        let RawJudge { policy, metric, margin, confidence, holdout, check_after } = self.judge;
        let always = policy == JudgePolicy::Always;
        let check_after = check_after.unwrap_or(match self.retrain_after {
            0 => CHECK_AFTER_WITHOUT_TRAININGS,
            number => (number / 4).max(1),
        });
        let settings = LearningSettings {
            rules: Rules {
                retrain_after: self.retrain_after,
                check_after: if always { 0 } else { check_after },
                always,
                margin,
                confidence,
            },
            schedule: self.schedule()?,
            time_max: self.time_max,
            policy: self.policy()?,
            seed: self.seed,
            threshold: self.threshold()?,
            calibration: self.calibration,
            judge: judge::Settings { metric, confidence, ..judge::Settings::default() },
            holdout,
            tuning: self.tuning.plan(first),
        };
        settings.judge.check().map_err(|error| ("judge.confidence", error.to_string()))?;
        if !(0.0..=1e9).contains(&margin) {
            return Err(("judge.margin", format!("it is {margin}: it must be 0 or more")));
        }
        if !(0.05..=0.9).contains(&holdout) {
            return Err(("judge.holdout", format!("it is {holdout}: set a share of 0.05 to 0.9")));
        }
        Ok(settings)
    }

    fn schedule(&self) -> Result<Option<Schedule>, Problem> {
        if self.schedule.is_empty() {
            return Ok(None);
        }
        self.schedule.parse().map(Some).map_err(|error| {
            let written = &self.schedule;
            let problem = format!(
                "{written:?} is not a cron expression, such as \"0 3 * * *\" (every day at 03:00 UTC): {error}"
            );
            ("schedule", problem)
        })
    }

    fn threshold(&self) -> Result<Threshold, Problem> {
        if self.threshold == "best" {
            return Ok(Threshold::Best(self.judge.metric));
        }
        match self.threshold.parse() {
            Ok(number) if number > 0.0 && number < 1.0 => Ok(Threshold::Fixed(number)),
            Ok(_) | Err(_) => {
                let problem = format!(
                    "it is {}: set a probability above 0 and below 1, such as 0.5, or \"best\"",
                    self.threshold
                );
                Err(("threshold", problem))
            }
        }
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
    /// Table that `foretell send` and `foretell demo` play as live events, and on which `init` evaluates the first model.
    /// Unset: `demo` plays `data.initial`.
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
    /// Name of a column with all outcomes of a row and the time of each after the event, such as
    /// `liked after 12m; bought after 1h 5m`; a blank cell: none comes. `foretell demo` and `replay` play them at these times, `send`
    /// in proportion within its `--outcome-delay`, in place of the label, which is then the one that an example has in the end.
    /// Empty: the label is the only outcome, after a random time.
    #[serde(default, deserialize_with = "text::one")]
    pub outcomes: String,
    /// Name of a column with the outcomes that come if an action is requested for the row's prediction, in a made-up table; it needs
    /// `outcomes`, which come otherwise. `foretell demo` plays those of the two that differ when it is known whether there was an
    /// action, and shows the true uplift of each rule. `send` and `replay` do not act. Empty: actions change nothing.
    #[serde(default, deserialize_with = "text::one")]
    pub outcomes_if_acted: String,
    /// Names of columns with the true probability of each label, in the order of `outcomes.labels`, in a made-up table.
    /// `foretell demo` shows the log loss and the AUC that no model can beat. Empty: they are unknown.
    #[serde(default, deserialize_with = "text::many")]
    pub truth: Vec<String>,
}

fn comma() -> char {
    ','
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_champion_is_checked_after_a_quarter_of_the_examples_of_a_training() {
        let check = |written: &str, expected: u64| {
            let raw: RawLearning = toml::from_str(written).unwrap();
            let rules = raw.settings(&RawTuning::default()).unwrap().rules;
            assert_eq!(rules.check_after, expected, "{written}");
        };
        check("", 2_500);
        check("retrain_after = 2", 1);
        check("retrain_after = 0", 2_500);
        check("retrain_after = 0\n[judge]\ncheck_after = 9", 9);
    }

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
