//! What a record becomes in MLflow: names, tags, parameters, metrics and datasets. Pure functions.
//!
//! | tag | of | identifies |
//! |---|---|---|
//! | `foretell.training_id` | runs of trainings | the training: `training-<number>`, or `study-<name>` for a study on its own |
//! | `foretell.model_version` | runs, logged models, registered versions | the model |
//! | `foretell.trial` | runs of trials | the trial: study, number, and the time of its end |
//!
//! They are what a later attempt finds an entity by, so their values never change.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use crate::events::{
    decision::{Decision, DecisionOutcome},
    model::Model,
    quality::Quality,
    trial::Trial,
};
use foretell_ml::{Metric as Objective, ModelBundle};
use foretell_streams::{record::Topic, time::WallTime};

pub(super) const TRAINING_ID: &str = "foretell.training_id";
pub(super) const MODEL_VERSION: &str = "foretell.model_version";
pub(super) const TRIAL: &str = "foretell.trial";
/// MLflow's tag that makes a run the child of another one.
pub(super) const PARENT: &str = "mlflow.parentRunId";

/// Limits of MLflow, in characters: 250 for names. Older servers have these for values, newer ones have larger limits.
const NAME_MAX: usize = 250;
const PARAMETER_MAX: usize = 500;
const TAG_MAX: usize = 5_000;

/// Maximum number of features, and of classes, whose drift is recorded for a window: those that have drifted most. A run has at
/// most as many of these metrics as its model has features and classes.
const DRIFTED_MAX: usize = 20;

/// Parameters, metrics and tags of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Content {
    pub(super) parameters: Vec<(String, String)>,
    pub(super) metrics: Vec<Metric>,
    pub(super) tags: Vec<(String, String)>,
}

/// One value of a metric.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Metric {
    pub(super) name: String,
    pub(super) value: f64,
    pub(super) time: WallTime,
    pub(super) step: i64,
}

/// The examples of a training.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Dataset {
    pub(super) name: String,
    /// Changes with the examples; at most 36 characters.
    pub(super) digest: String,
    pub(super) source: Json,
    pub(super) profile: Json,
}

/// The status of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunStatus {
    Running,
    Finished,
    Failed,
}

impl RunStatus {
    /// MLflow's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Finished => "FINISHED",
            Self::Failed => "FAILED",
        }
    }
}

/// The training that a run stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TrainingId {
    /// Value of [`TRAINING_ID`], without quotes.
    pub(super) id: String,
    /// Whether a model or a decision ends it. Nothing ends a study of `foretell tune`.
    pub(super) ends: bool,
}

impl TrainingId {
    /// The training with a number. The first model of an application has 0.
    pub(super) fn of_number(number: i64) -> Self {
        Self { id: format!("training-{number}"), ends: true }
    }

    /// The training that a study belongs to.
    pub(super) fn of_study(study: &str, application: &str) -> Self {
        let number = study.strip_prefix("training-").and_then(|number| number.parse().ok());
        if let Some(number) = number {
            return Self::of_number(number);
        }
        if study.strip_prefix(application) == Some("-first") {
            return Self::of_number(0);
        }
        Self { id: format!("study-{}", unquoted(study)), ends: false }
    }
}

/// The value of [`TRIAL`]. A study that is run again has other times.
pub(super) fn trial_id(trial: &Trial) -> String {
    format!("{}/{}@{}", unquoted(&trial.study), trial.number, trial.created_at.0)
}

/// Tags that show a run's origin in MLflow's pages.
pub(super) fn source_tags(application: &str) -> Vec<(String, String)> {
    vec![
        tag("mlflow.source.name", "foretell"),
        tag("mlflow.source.type", "JOB"),
        tag("mlflow.user", application),
        tag("foretell.application", application),
    ]
}

/// The content of the run of a trial.
pub(super) fn trial(trial: &Trial) -> Content {
    let parameters = trial.parameters.iter().map(|parameter| {
        let value = parameter.text.clone().unwrap_or_else(|| parameter.value.to_string());
        (name(&parameter.name), shortened(&value, PARAMETER_MAX))
    });
    let metric = |name: &str, value: f64| self::metric(name, value, trial.created_at, 0);
    let mut metrics = vec![metric("log_loss", trial.log_loss)];
    metrics.extend(trial.auc.map(|auc| metric("auc", auc)));
    metrics.push(metric("iterations", f64::from(trial.iterations)));
    metrics.extend(trial.value.map(|value| metric("objective", value)));
    let mut tags = vec![
        tag("foretell.study", &trial.study),
        tag("foretell.sampler", &trial.sampler),
        tag("foretell.objective", &trial.objective),
        tag("foretell.pruned", if trial.pruned { "true" } else { "false" }),
    ];
    tags.extend(trial.failure.as_ref().map(|failure| tag("foretell.failure", failure)));
    Content { parameters: parameters.collect(), metrics, tags }
}

/// The status of the run of a trial.
pub(super) fn trial_status(trial: &Trial) -> RunStatus {
    if trial.failure.is_some() { RunStatus::Failed } else { RunStatus::Finished }
}

/// The course of a tuning, for the run of the training: the objective of each trial, and the best so far, by the number of the
/// trial. MLflow shows the last value of a metric, so the best one is the result. `before` has what the run has already.
pub(super) fn tuning(trial: &Trial, before: &BTreeMap<String, f64>) -> Content {
    let number = i64::from(trial.number);
    let Some(value) = trial.value.filter(|_| trial.failure.is_none()) else {
        return Content::default();
    };
    let of_best = name(&format!("tuning.{}", trial.objective));
    let objective = Objective::ALL.into_iter().find(|one| one.name() == trial.objective);
    let is_higher_better = objective.is_some_and(Objective::is_higher_better);
    let best = match before.get(&of_best) {
        Some(before) if is_higher_better => value.max(*before),
        Some(before) => value.min(*before),
        None => value,
    };
    let of_trial = format!("tuning.trial.{}", trial.objective);
    let metrics = vec![
        metric(&of_best, best, trial.created_at, number),
        metric(&of_trial, value, trial.created_at, number),
    ];
    Content { metrics, ..Content::default() }
}

/// The content of the run of a training that made a model.
pub(super) fn model(model: &Model, bundle: &ModelBundle) -> Content {
    let at = model.created_at;
    let mut metrics: Vec<Metric> =
        model.metrics.iter().map(|(name, value)| metric(name, *value, at, 0)).collect();
    metrics.extend(model.example_count.map(|count| metric("examples", count as f64, at, 0)));
    if let Some(intervals) = &bundle.evaluation.intervals {
        let of = [
            ("log_loss", intervals.log_loss),
            ("auc", intervals.auc),
            ("accuracy", intervals.accuracy),
            ("f1", intervals.f1),
        ];
        for (name, interval) in of {
            let Some((low, high)) = interval else { continue };
            metrics.push(metric(&format!("{name}.low"), low, at, 0));
            metrics.push(metric(&format!("{name}.high"), high, at, 0));
        }
    }
    let mut parameters = parameters_of(bundle);
    parameters.push(("classes".to_owned(), bundle.classes.join(", ")));
    parameters.push(("threshold".to_owned(), bundle.threshold.to_string()));
    let parameters = parameters
        .into_iter()
        .map(|(key, value)| (name(&key), shortened(&value, PARAMETER_MAX)))
        .collect();
    let lineage = &bundle.lineage;
    let mut tags = vec![
        tag(MODEL_VERSION, &model.version),
        tag("foretell.training", &model.training.to_string()),
        tag("foretell.seed", &lineage.seed.0.to_string()),
        tag("foretell.lightgbm", &lineage.lightgbm),
    ];
    let optional = [
        ("foretell.parent", model.parent.clone()),
        ("foretell.trigger", model.trigger.clone()),
        ("foretell.end_offset", model.end_offset.map(|offset| offset.to_string())),
        ("foretell.imported", lineage.imported.then(|| "true".to_owned())),
    ];
    tags.extend(optional.into_iter().filter_map(|(key, value)| Some(tag(key, &value?))));
    Content { parameters, metrics, tags }
}

/// LightGBM's parameters. Those that are rarely set are in an object of their own in a lineage.
fn parameters_of(bundle: &ModelBundle) -> Vec<(String, String)> {
    let params = match serde_json::to_value(&bundle.lineage.params) {
        Ok(Json::Object(params)) => params,
        Ok(_) | Err(_) => Map::new(),
    };
    let flat = params.into_iter().flat_map(|(name, value)| {
        if let Json::Object(extra) = value {
            extra.into_iter().collect::<Vec<_>>()
        } else {
            vec![(name, value)]
        }
    });
    let text = |value: Json| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    flat.map(|(name, value)| (name, text(value))).collect()
}

/// The examples that a model was trained on.
pub(super) fn dataset(model: &Model, topic: &Topic) -> Option<Dataset> {
    let end = model.end_offset?;
    Some(Dataset {
        name: shortened(&topic.to_string(), 500),
        digest: shortened(&format!("to-{end}"), 36),
        source: json!({
            "topic": topic.to_string(),
            "first_offset": model.first_offset,
            "end_offset": end,
        }),
        profile: json!({ "num_rows": model.example_count }),
    })
}

/// What a decision adds to the run of the model, or of the training, that it is about.
pub(super) fn decision(decision: &Decision) -> Content {
    let mut tags = vec![
        tag("foretell.decision", decision.outcome.name()),
        tag("foretell.decision_id", &decision.decision_id),
        tag("foretell.decision_reason", &decision.reason),
        tag("mlflow.note.content", &note(decision)),
    ];
    let optional = [
        ("foretell.champion_before", &decision.champion),
        ("foretell.decision_trigger", &decision.trigger),
        ("foretell.requested_by", &decision.requested_by),
    ];
    let optional = optional.into_iter().filter_map(|(key, value)| Some(tag(key, value.as_ref()?)));
    tags.extend(optional);
    let mut metrics = Vec::new();
    if let Some(comparison) = &decision.comparison {
        tags.push(tag("foretell.decision_metric", &comparison.metric));
        // A model is judged again later, on more examples.
        let step = decision.end_offset.unwrap_or_default();
        for (name, value) in [
            ("judged.candidate", comparison.candidate),
            ("judged.champion", comparison.champion),
            ("judged.difference", comparison.difference),
            ("judged.difference.low", comparison.low),
            ("judged.difference.high", comparison.high),
            ("judged.examples", comparison.examples as f64),
        ] {
            metrics.push(metric(name, value, decision.decided_at, step));
        }
    }
    Content { parameters: Vec::new(), metrics, tags }
}

/// The description of a run, in Markdown.
fn note(decision: &Decision) -> String {
    let outcome = match decision.outcome {
        DecisionOutcome::Promoted => "Promoted",
        DecisionOutcome::Challenger => "Challenger",
        DecisionOutcome::Refused => "Refused",
        DecisionOutcome::RolledBack => "Rolled back to",
        DecisionOutcome::Failed => "Failed",
    };
    format!("**{outcome}**: {}", decision.reason)
}

/// Drift and live quality of a model in one window. The step is the start of the window, in seconds since the Unix epoch: a
/// later record of the same window, with more labels, has the same step and a later time.
pub(super) fn quality(quality: &Quality) -> Content {
    let step = quality.window_start.0.div_euclid(1_000);
    let metric = |name: &str, value: f64| self::metric(name, value, quality.updated_at, step);
    let mut metrics = vec![
        metric("live.predictions", quality.predictions as f64),
        metric("live.labels", quality.labels as f64),
    ];
    for (kind, of) in [("live", &quality.live), ("estimated", &quality.estimated)] {
        let known = of.named().into_iter().filter_map(|(name, value)| Some((name, value?)));
        metrics.extend(known.map(|(name, value)| metric(&format!("{kind}.{name}"), value)));
    }
    for (kind, indexes) in
        [("drift.features", &quality.features), ("drift.scores", &quality.scores)]
    {
        let mut largest: Vec<_> = indexes.iter().collect();
        largest.sort_by(|a, b| b.psi.total_cmp(&a.psi).then_with(|| a.name.cmp(&b.name)));
        metrics.extend(largest.first().map(|index| metric(kind, index.psi)));
        let largest = largest.into_iter().take(DRIFTED_MAX);
        metrics.extend(largest.map(|index| metric(&format!("{kind}.{}", index.name), index.psi)));
    }
    Content { metrics, ..Content::default() }
}

fn metric(key: &str, value: f64, time: WallTime, step: i64) -> Metric {
    Metric { name: name(key), value, time, step }
}

pub(super) fn tag(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), shortened(value, TAG_MAX))
}

/// A name as MLflow allows it: letters, digits, `_`, `-`, `.`, blanks and `/`; any other character becomes `_`.
fn name(text: &str) -> String {
    let allowed = |c: char| if c.is_alphanumeric() || "_-. /".contains(c) { c } else { '_' };
    text.chars().map(allowed).take(NAME_MAX).collect()
}

/// A text that stands between quotes in a filter.
fn unquoted(text: &str) -> String {
    let allowed = |c: char| if c.is_control() || "'\"`\\%".contains(c) { '_' } else { c };
    text.chars().map(allowed).take(NAME_MAX).collect()
}

fn shortened(text: &str, characters_max: usize) -> String {
    text.chars().take(characters_max).collect()
}
