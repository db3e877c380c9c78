//! What a demo has to say at its end: numbers, and whether they are what they must be.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use crate::{
    app::demo::{
        Counted, Play, Played,
        examine::{Found, FoundModel},
    },
    config::Config,
};

/// The whole of it; `--json` prints just this.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Events sent, in one piece or in two, bad ones included.
    pub events_sent: usize,
    /// Rows of the table.
    pub rows: usize,
    /// Rows of it that no prediction is made of, by why.
    pub rows_not_scored: BTreeMap<String, usize>,
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
    /// Records dead-lettered, by class.
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
    /// Those of them that are of the play; the others are of the events after it, which close its windows.
    pub predictions_in_play: usize,
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
    /// Whether it is; null if that was not checked.
    pub ok: Option<bool>,
    /// Why it was not checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_checked: Option<String>,
}

impl Check {
    fn of(name: &str, ok: bool) -> Self {
        Self { name: name.to_owned(), ok: Some(ok), not_checked: None }
    }

    fn skipped(name: &str, why: &str) -> Self {
        Self { name: name.to_owned(), ok: None, not_checked: Some(why.to_owned()) }
    }
}

impl Report {
    /// Whether nothing that was checked is otherwise than it must be.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.checks.iter().all(|check| check.ok != Some(false))
    }
}

/// A model has shown what it can do after so many outcomes.
const LABELLED_MIN: usize = 200;

pub(super) fn report(
    config: &Config,
    (play, played): (&Play, &Played),
    found: &Found,
    counted: &Counted,
    seconds: f64,
) -> Report {
    let models: Vec<ModelReport> = found
        .models
        .iter()
        .map(|model| {
            let live = model.live.as_ref();
            ModelReport {
                version: model.version.clone(),
                training: model.training,
                predictions: model.predictions,
                predictions_in_play: model.in_play,
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
        rows: play.rows,
        rows_not_scored: play.not_scored.iter().map(|(why, n)| ((*why).to_owned(), *n)).collect(),
        scored: found.predictions.values().sum(),
        joined: found.joined,
        unlabelled: counted.unlabelled,
        unseen_categories: counted.unseen_categories,
        out_of_range: counted.out_of_range,
        dead_letters: found.dead_letters.clone(),
        retrainings: models.iter().filter(|model| model.training > 0).count(),
        predictions_missing: expected(played).filter(|id| times(id) == 0).count(),
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
    report.checks = of_predictions(played, found, &report);
    report.checks.push(of_rows(play));
    report.checks.extend(of_outcomes(config, (play, played), found, &report));
    report.checks.extend(of_answers(found, &report));
    let every = config.learning.retrain_after;
    report.checks.extend(of_learning(every, &played.trained_on_the_way, found, &report));
    let late = played.unsettled.iter();
    report.checks.extend(late.map(|what| Check::of(&format!("in time: {what}"), false)));
    report
}

/// Names of the predictions that must be there.
fn expected(played: &Played) -> impl Iterator<Item = &String> {
    played.expected.iter().chain(&played.advancers)
}

fn of_predictions(played: &Played, found: &Found, report: &Report) -> Vec<Check> {
    let is_expected =
        |id: &&String| played.expected.contains(*id) || played.advancers.contains(*id);
    let unexpected = found.predictions.keys().filter(|id| !is_expected(id)).count();
    vec![
        Check::of("every event was predicted (missing 0)", report.predictions_missing == 0),
        Check::of("none was predicted twice (doubled 0)", report.predictions_doubled == 0),
        Check::of("none was predicted that was not to be (unexpected 0)", unexpected == 0),
        Check::of(
            "each was made by the model announced (wrong version 0)",
            report.predictions_wrong_version == 0,
        ),
    ]
}

fn of_outcomes(
    config: &Config,
    (play, played): (&Play, &Played),
    found: &Found,
    report: &Report,
) -> Vec<Check> {
    let (joined, closed) = ("every outcome was joined", "every window closed");
    let mut checks = match play.examples(config) {
        Ok(examples) => vec![
            Check::of(joined, report.joined == examples),
            Check::of(closed, report.unlabelled == play.joins.unlabelled),
        ],
        Err(why) => [joined, closed].map(|name| Check::skipped(name, why)).into(),
    };
    if play.known().is_ok() && (play.joins.corrected > 0 || found.corrected > 0) {
        let name = "corrections replaced examples";
        checks.push(Check::of(name, found.corrected == play.joins.corrected));
    }
    let expected = play.dead_letters(played.late_outcomes);
    let mut letters = found.dead_letters.clone();
    if play.known().is_err() {
        letters.remove("late_outcome");
        letters.remove("unmatched_outcome");
    }
    let classes: Vec<&str> = expected.keys().copied().collect();
    let name = format!("bad input was dead-lettered, by class ({})", classes.join(", "));
    let expected = expected.into_iter().map(|(class, times)| (class.to_owned(), times));
    checks.push(Check::of(&name, expected.eq(letters)));
    if !play.has_nobody {
        checks.push(Check::skipped(
            "events without a respondent were dead-lettered",
            "the event schema lets none be written",
        ));
    }
    checks
}

/// Rows that are not scored are no fault of what scores; but they are told of.
fn of_rows(play: &Play) -> Check {
    let name = "every row of the table was scored";
    if play.not_scored.is_empty() {
        return Check::of(name, true);
    }
    let reasons = play.not_scored.iter().map(|(why, rows)| format!("{rows}, for {why}"));
    let reasons: Vec<String> = reasons.collect();
    let rows: usize = play.not_scored.values().sum();
    Check::skipped(
        name,
        &format!("{rows} of {} rows are not scored: {}", play.rows, reasons.join("; ")),
    )
}

fn of_answers(found: &Found, report: &Report) -> [Check; 2] {
    let check = |name: &str, counted: usize, found: u64, why: &str| {
        // What was sent on purpose may still be in distribution: a large number that the initial data have, too.
        if counted == 0 && found == 0 {
            Check::skipped(name, why)
        } else {
            Check::of(name, u64::try_from(counted).is_ok_and(|counted| counted == found))
        }
    };
    [
        check(
            "unseen categories were scored, and counted",
            report.unseen_categories,
            found.out_of_distribution.unseen_categories,
            "no categorical answer of the event schema takes another value than the model has seen",
        ),
        check(
            "numbers out of range were scored, and counted",
            report.out_of_range,
            found.out_of_distribution.out_of_range,
            "no numeric answer of the event schema takes a number beyond those that the model has seen",
        ),
    ]
}

fn of_learning(
    every: u64,
    trained_on_the_way: &Result<(), String>,
    found: &Found,
    report: &Report,
) -> [Check; 2] {
    let names = [
        "models were trained from the stream",
        "a model trained on the way predicted later respondents",
    ];
    if report.retrainings == 0 && u64::try_from(found.joined).is_ok_and(|joined| joined < every) {
        let why = format!(
            "{} outcomes joined, fewer than learning.retrain_after = {every}",
            found.joined
        );
        return names.map(|name| Check::skipped(name, &why));
    }
    let has_predicted = |model: &&FoundModel| model.training > 0 && model.in_play > 0;
    let trained = found.models.iter().filter(has_predicted).count();
    let on_the_way = match trained_on_the_way {
        Err(why) if trained == 0 => Check::skipped(names[1], why),
        Ok(()) | Err(_) => Check::of(names[1], trained > 0),
    };
    [Check::of(names[0], report.retrainings > 0), on_the_way]
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

#[cfg(test)]
mod tests {
    use super::*;

    fn results(checks: &[Check]) -> Vec<Option<bool>> {
        assert!(checks.iter().all(|check| check.ok.is_none() == check.not_checked.is_some()));
        checks.iter().map(|check| check.ok).collect()
    }

    #[test]
    fn only_a_failed_check_fails_a_demo() {
        let report = |checks| Report { checks, ..Report::default() };
        let [passed, skipped] = [Check::of("a", true), Check::skipped("b", "nothing to see")];
        assert!(report(vec![passed.clone(), skipped.clone()]).is_ok());
        assert!(!report(vec![passed, skipped, Check::of("c", false)]).is_ok());
    }

    #[test]
    fn learning_is_checked_where_outcomes_are_enough_for_it() {
        let waited = Ok(());
        let check = |joined, retrainings, in_play: &[usize], waited: &Result<(), String>| {
            let model = |(training, in_play): (u64, &usize)| FoundModel {
                version: training.to_string(),
                training,
                predictions: 9,
                in_play: *in_play,
                live: None,
            };
            let models = (0..).zip(in_play).map(model).collect();
            let found = Found { joined, models, ..Found::default() };
            let report = Report { retrainings, ..Report::default() };
            results(&of_learning(100, waited, &found, &report))
        };
        assert_eq!(check(99, 0, &[9], &waited), [None, None]);
        assert_eq!(check(100, 0, &[9], &waited), [Some(false), Some(false)]);
        let too_late = check(100, 1, &[9, 0], &waited);
        assert_eq!(too_late, [Some(true), Some(false)], "it came too late");
        assert_eq!(check(100, 1, &[9, 1], &waited), [Some(true), Some(true)]);
        let too_short = Err("the play is too short".to_owned());
        assert_eq!(check(100, 1, &[9, 0], &too_short), [Some(true), None]);
        assert_eq!(check(100, 1, &[9, 1], &too_short), [Some(true), Some(true)]);
        assert_eq!(check(100, 0, &[9], &too_short), [Some(false), None]);
    }

    #[test]
    fn odd_answers_are_checked_where_models_met_some() {
        let check = |unseen_categories, by_models| {
            let out_of_distribution = foretell_ml::features::OutOfDistribution {
                unseen_categories: by_models,
                ..Default::default()
            };
            let found = Found { out_of_distribution, ..Found::default() };
            results(&of_answers(&found, &Report { unseen_categories, ..Report::default() }))[0]
        };
        assert_eq!(check(10, 10), Some(true));
        assert_eq!(check(9, 10), Some(false));
        assert_eq!(check(0, 10), Some(false));
        assert_eq!(check(0, 0), None);
        assert_eq!(check(1, 0), Some(false), "what was not sent was counted");
    }
}
