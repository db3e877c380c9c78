//! What a demo has to say at its end: numbers, and whether they are what they must be.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use crate::app::demo::{Counted, Played, examine::Found};

/// The whole of it; `--json` prints just this.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Events sent, in one piece or in two, bad ones included.
    pub events_sent: usize,
    /// Observations scored.
    pub scored: usize,
    /// Outcomes joined with their predictions.
    pub joined: usize,
    /// Predictions whose window closed without an outcome.
    pub unlabelled: usize,
    /// Answers scored with a category that the model had never seen.
    pub unseen_categories: usize,
    /// Answers scored with a number beyond those that the model was trained on.
    pub out_of_range: usize,
    /// Records set aside, by class.
    pub dead_letters: BTreeMap<String, usize>,
    /// Trainings after the first model.
    pub retrainings: usize,
    /// Every model that was announced.
    pub models: Vec<ModelReport>,
    /// Events that were to be scored and were not.
    pub predictions_missing: usize,
    /// Events that were scored more than once.
    pub predictions_doubled: usize,
    /// Predictions that the model announced under their version does not make.
    pub predictions_wrong_version: usize,
    /// Of the first model, on live events.
    pub auc_first: Option<f64>,
    /// Of the last model that has seen enough of them.
    pub auc_last: Option<f64>,
    /// Of the first model, on live events.
    pub log_loss_first: Option<f64>,
    /// Of the last model that has seen enough of them.
    pub log_loss_last: Option<f64>,
    /// From sending an event to its prediction being readable, committed; no training under way.
    pub latency_p50_ms_idle: Option<f64>,
    /// See `latency_p50_ms_idle`.
    pub latency_p99_ms_idle: Option<f64>,
    /// The same while a model is being trained.
    pub latency_p50_ms_training: Option<f64>,
    /// See `latency_p50_ms_training`.
    pub latency_p99_ms_training: Option<f64>,
    /// From start to end.
    pub seconds: f64,
    /// What was checked.
    pub checks: Vec<Check>,
}

/// One model.
#[derive(Clone, Debug, Serialize)]
pub struct ModelReport {
    /// Its version.
    pub version: String,
    /// The number of its training; 0 is the first model's.
    pub training: u64,
    /// Predictions it made.
    pub predictions: usize,
    /// Those of them whose outcome came.
    pub labelled: usize,
    /// On those: scored first, learned from later.
    pub auc: Option<f64>,
    /// On those.
    pub log_loss: Option<f64>,
}

/// Something that must be so.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What.
    pub name: String,
    /// Whether it is; none if it could not be checked.
    pub ok: Option<bool>,
}

impl Report {
    /// Whether everything is as it must be.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.checks.iter().all(|check| check.ok != Some(false))
    }
}

/// A model has shown what it can do after so many outcomes.
const LABELLED_MIN: usize = 200;

pub(super) fn report(played: &Played, found: &Found, counted: &Counted, seconds: f64) -> Report {
    let models: Vec<ModelReport> = found
        .models
        .iter()
        .map(|model| {
            let live = model.live.as_ref();
            ModelReport {
                version: model.version.clone(),
                training: model.training,
                predictions: model.predictions,
                labelled: live
                    .map_or(0, |live| usize::try_from(live.examples).unwrap_or(usize::MAX)),
                auc: live.and_then(|live| live.auc),
                log_loss: live.and_then(|live| live.log_loss),
            }
        })
        .collect();
    let times = |id: &String| found.predictions.get(id).copied().unwrap_or(0);
    let first = models.first();
    let last = models.iter().rev().find(|model| model.labelled >= LABELLED_MIN);
    let [idle, training] = latencies(played);
    let mut report = Report {
        events_sent: played.events_sent,
        scored: found.predictions.values().sum(),
        joined: found.joined,
        unlabelled: counted.unlabelled,
        unseen_categories: counted.unseen_categories,
        out_of_range: counted.out_of_range,
        dead_letters: found.dead_letters.clone(),
        retrainings: models.iter().filter(|model| model.training > 0).count(),
        predictions_missing: played.expected.iter().filter(|id| times(id) == 0).count(),
        predictions_doubled: found.predictions.values().filter(|times| **times > 1).count(),
        predictions_wrong_version: found.wrong_version,
        auc_first: first.and_then(|model| model.auc),
        auc_last: last.and_then(|model| model.auc),
        log_loss_first: first.and_then(|model| model.log_loss),
        log_loss_last: last.and_then(|model| model.log_loss),
        latency_p50_ms_idle: percentile(&idle, 50),
        latency_p99_ms_idle: percentile(&idle, 99),
        latency_p50_ms_training: percentile(&training, 50),
        latency_p99_ms_training: percentile(&training, 99),
        seconds,
        checks: Vec::new(),
        models,
    };
    report.checks = checks(played, found, &report);
    report
}

fn checks(played: &Played, found: &Found, report: &Report) -> Vec<Check> {
    let check = |name: &str, ok: bool| Check { name: name.to_owned(), ok: Some(ok) };
    let unexpected = found.predictions.keys().filter(|id| !played.expected.contains(*id)).count();
    let expected_letters = played.expected_dead_letters();
    let letters = expected_letters.iter().map(|(class, times)| ((*class).to_owned(), *times));
    let mut checks = vec![
        check("every event was predicted (missing 0)", report.predictions_missing == 0),
        check("none was predicted twice (doubled 0)", report.predictions_doubled == 0),
        check("none was predicted that was not to be (unexpected 0)", unexpected == 0),
        check(
            "each was made by the model announced (wrong version 0)",
            report.predictions_wrong_version == 0,
        ),
        check("every outcome was joined", report.joined == played.script.joined),
        check("every window closed", report.unlabelled == played.script.unlabelled),
        check("bad input was set aside, by class", letters.eq(found.dead_letters.clone())),
    ];
    let script = &played.script;
    let counted = |name: &str, wanted: usize, found: usize| Check {
        name: name.to_owned(),
        ok: (wanted > 0).then_some(found >= wanted),
    };
    checks.push(counted("unseen categories were counted", script.unseen, report.unseen_categories));
    checks.push(counted(
        "out-of-range numbers were counted",
        script.out_of_range,
        report.out_of_range,
    ));
    // A model that was made and predicted nothing has shown nothing.
    let serving = report.models.iter().filter(|model| model.predictions > 0).count();
    checks.push(check("a model was retrained", report.retrainings > 0));
    // As fast as it goes, the play may be over before the first training is.
    let is_shown = serving > 1;
    checks.push(Check {
        name: "a retrained model made predictions while the play went on".to_owned(),
        ok: (played.is_paced || is_shown).then_some(is_shown),
    });
    checks.extend(played.unsettled.iter().map(|what| check(&format!("in time: {what}"), false)));
    checks
}

/// Milliseconds, sorted: with no training under way, and with one.
fn latencies(played: &Played) -> [Vec<f64>; 2] {
    let log = played.watch.lock();
    let mut split = [Vec::new(), Vec::new()];
    for seen in &log.seen {
        if let Some(latency) = seen.latency {
            split[usize::from(seen.while_training)].push(millis(latency));
        }
    }
    for side in &mut split {
        side.sort_by(f64::total_cmp);
    }
    split
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// By the nearest rank.
fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(rank).copied()
}
