//! The report of a demo: numbers, and checks of the expected result.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::{
    app::{
        demo::{
            Counters, POISONED_BATCH, Plan, QualityReport, RuleReport, RunState,
            examine::TopicContents,
        },
        play::percentile,
    },
    config::Config,
    events::decision::{Decision, ModelComparison},
    processors::outcome_join::Emit,
};
use foretell_ml::Retention;

/// The report; `--json` prints it. Latencies are from sending an event to reading its committed prediction.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Includes bad ones. A questionnaire has one or two events.
    pub events_sent: usize,
    /// Rows of the table.
    pub rows: usize,
    /// Number of rows without a prediction, by reason.
    pub rows_not_scored: BTreeMap<String, usize>,
    /// Number of predictions.
    pub scored: usize,
    /// Number of outcomes that were joined with a prediction, each of which made a labelled example; `joined` of the outcomes in
    /// `/api/v1/status`.
    pub joined: usize,
    /// Number of labelled examples from the stream: `joined`, and those with the label for no outcome. Corrections are apart.
    pub examples: usize,
    /// Predictions whose window closed without an outcome.
    pub unlabelled: usize,
    /// Categories that the model had not seen in training.
    pub unseen_categories: usize,
    /// The number of outcomes whose labels were inverted, which count in every measure as they came.
    pub inverted: usize,
    /// Numbers out of the range of the training data.
    pub out_of_range: usize,
    /// By error class.
    pub dead_letters: BTreeMap<String, usize>,
    /// Trainings after the first model.
    pub retrainings: usize,
    /// Corrections of labelled examples, such as upgrades of outcomes.
    pub corrected: usize,
    pub models: Vec<ModelReport>,
    /// Quality of all predictions that have a label; null without any.
    pub quality: Option<QualityReport>,
    /// What each rule of actions has done and changed; empty without rules.
    pub actions: Vec<RuleReport>,
    /// What was decided about them, in order.
    pub decisions: Vec<DecisionReport>,
    pub predictions_missing: usize,
    pub predictions_doubled: usize,
    /// Predictions that the model which they name does not reproduce.
    pub predictions_wrong_version: usize,
    /// Live AUC of the first model.
    pub auc_first: Option<f64>,
    /// Live AUC of the last model with enough labelled predictions.
    pub auc_last: Option<f64>,
    pub log_loss_first: Option<f64>,
    pub log_loss_last: Option<f64>,
    /// While no model is being trained.
    pub latency_p50_ms_idle: Option<f64>,
    pub latency_p99_ms_idle: Option<f64>,
    /// While a model is being trained.
    pub latency_p50_ms_training: Option<f64>,
    pub latency_p99_ms_training: Option<f64>,
    /// Duration of the whole demo.
    pub seconds: f64,
    pub checks: Vec<Check>,
}

/// A model and its live quality: on predictions that were made before it could learn from their outcomes.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ModelReport {
    pub version: String,
    /// Number of the training; 0 is the first model.
    pub training: u64,
    pub predictions: usize,
    /// Predictions for events of the table, without those for the events that close the windows.
    pub predictions_in_play: usize,
    /// Predictions with an outcome.
    pub labelled: usize,
    pub auc: Option<f64>,
    pub log_loss: Option<f64>,
}

/// A decision about a model.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DecisionReport {
    pub decision: String,
    pub outcome: String,
    pub candidate: Option<String>,
    pub reason: String,
    pub comparison: Option<ModelComparison>,
    /// Offset of the first example of the comparison.
    pub first_offset: Option<i64>,
    /// Offset after the last example.
    pub end_offset: Option<i64>,
}

impl From<Decision> for DecisionReport {
    fn from(decision: Decision) -> Self {
        Self {
            decision: decision.decision_id,
            outcome: decision.outcome.name().to_owned(),
            candidate: decision.candidate,
            reason: decision.reason,
            comparison: decision.comparison,
            first_offset: decision.first_offset,
            end_offset: decision.end_offset,
        }
    }
}

/// One condition that must hold.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    pub name: String,
    /// Whether it holds; null if it was not checked.
    pub ok: Option<bool>,
    /// Reason why it was not checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_checked: Option<String>,
}

impl Check {
    fn of(name: &str, ok: bool) -> Self {
        Self { name: name.to_owned(), ok: Some(ok), not_checked: None }
    }

    fn skipped(name: &str, reason: &str) -> Self {
        Self { name: name.to_owned(), ok: None, not_checked: Some(reason.to_owned()) }
    }
}

impl Report {
    /// Whether no check failed.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.checks.iter().all(|check| check.ok != Some(false))
    }
}

/// Minimum number of labelled predictions for the quality of the last model.
const LABELLED_MIN: usize = 200;

pub(super) fn report(
    config: &Config,
    plan: &Plan,
    state: &RunState,
    contents: TopicContents,
    counters: &Counters,
    seconds: f64,
) -> Report {
    let [idle, training] = latencies(state);
    let models = &contents.models;
    let last = models.iter().rev().find(|model| model.labelled >= LABELLED_MIN);
    let is_missing = |id: &&String| !contents.predictions.contains_key(*id);
    let mut report = Report {
        events_sent: state.events_sent,
        rows: plan.rows,
        rows_not_scored: plan.not_scored.iter().map(|(why, n)| ((*why).to_owned(), *n)).collect(),
        scored: contents.predictions.values().sum(),
        joined: contents.joined,
        examples: contents.joined + contents.by_policy,
        unlabelled: counters.unlabelled,
        unseen_categories: counters.unseen_categories,
        inverted: if plan.is_poisoned {
            usize::try_from(config.learning.rules.retrain_after).unwrap_or(usize::MAX)
        } else {
            0
        },
        out_of_range: counters.out_of_range,
        dead_letters: contents.dead_letters.clone(),
        retrainings: models.iter().filter(|model| model.training > 0).count(),
        predictions_missing: state
            .expected
            .iter()
            .chain(&state.session_ends)
            .chain(&state.advancers)
            .filter(is_missing)
            .count(),
        predictions_doubled: contents.predictions.values().filter(|count| **count > 1).count(),
        predictions_wrong_version: contents.wrong_version,
        auc_first: models.first().and_then(|model| model.auc),
        auc_last: last.and_then(|model| model.auc),
        log_loss_first: models.first().and_then(|model| model.log_loss),
        log_loss_last: last.and_then(|model| model.log_loss),
        latency_p50_ms_idle: percentile(&idle, 50),
        latency_p99_ms_idle: percentile(&idle, 99),
        latency_p50_ms_training: percentile(&training, 50),
        latency_p99_ms_training: percentile(&training, 99),
        seconds,
        corrected: counters.corrected,
        models: contents.models.clone(),
        quality: contents.quality.clone(),
        actions: contents.actions.reports(&counters.uplift, &plan.script.potential),
        decisions: contents.decisions.clone(),
        checks: Vec::new(),
    };
    let mut checks = check_predictions(plan, state, &contents, &report);
    checks.push(check_rows(plan));
    checks.extend(check_outcomes(plan, state, &contents, &report));
    checks.extend(check_answers(&contents, &report));
    checks.extend(check_actions(state, &contents, counters));
    let every = config.learning.rules.retrain_after;
    checks.extend(check_learning(every, &state.waited_for_training, &report));
    if plan.is_poisoned {
        checks.extend(check_judge(config.learning.policy.retention, &report));
    }
    let unreached = state.unreached.iter();
    checks.extend(unreached.map(|goal| Check::of(&format!("in time: {goal}"), false)));
    report.checks = checks;
    report
}

fn check_predictions(
    plan: &Plan,
    state: &RunState,
    contents: &TopicContents,
    report: &Report,
) -> Vec<Check> {
    let at_ends: BTreeSet<&str> = plan.script.session_ends.ids().collect();
    let expected = [&state.expected, &state.advancers];
    let is_expected = |id: &&String| {
        expected.iter().any(|ids| ids.contains(*id)) || at_ends.contains(id.as_str())
    };
    let unexpected = contents.predictions.keys().filter(|id| !is_expected(id)).count();
    vec![
        Check::of("every event was predicted (missing 0)", report.predictions_missing == 0),
        Check::of("none was predicted twice (doubled 0)", report.predictions_doubled == 0),
        Check::of("no unexpected predictions (unexpected 0)", unexpected == 0),
        Check::of(
            "each was made by the model announced (wrong version 0)",
            report.predictions_wrong_version == 0,
        ),
    ]
}

fn check_outcomes(
    plan: &Plan,
    state: &RunState,
    contents: &TopicContents,
    report: &Report,
) -> Vec<Check> {
    let names =
        ["every outcome was joined", "every window closed", "every labelled example was written"];
    let mut checks = match plan.known_joins() {
        Ok(joins) => {
            let expected = [joins.joined, joins.unlabelled, joins.examples(&plan.settings.join)];
            let found = [report.joined, report.unlabelled, report.examples];
            let checks = names.iter().zip(expected.iter().zip(&found));
            checks.map(|(name, (expected, found))| Check::of(name, expected == found)).collect()
        }
        Err(reason) => names.map(|name| Check::skipped(name, reason)).to_vec(),
    };
    let is_known = plan.known_joins().is_ok();
    if is_known && (plan.joins.corrected > 0 || report.corrected > 0) {
        let (name, written) = match plan.settings.join.emit {
            Emit::OnUpdate => ("corrections replaced examples", plan.joins.corrected),
            Emit::OnClose => ("corrections replaced labels before their examples were made", 0),
        };
        let is_equal = report.corrected == plan.joins.corrected && contents.corrected == written;
        checks.push(Check::of(name, is_equal));
    }
    let expected = plan.dead_letters(state.late_outcomes);
    let mut letters = contents.dead_letters.clone();
    if !is_known {
        letters.remove("late_outcome");
        letters.remove("unmatched_outcome");
    }
    let classes: Vec<&str> = expected.keys().copied().collect();
    let name = format!("bad input was dead-lettered, by class ({})", classes.join(", "));
    let expected = expected.into_iter().map(|(class, count)| (class.to_owned(), count));
    checks.push(Check::of(&name, expected.eq(letters)));
    if !plan.respondent_is_optional {
        checks.push(Check::skipped(
            "events without a respondent were dead-lettered",
            "the event schema allows none",
        ));
    }
    checks
}

/// Rows that are not scored are not a failure, but are reported.
fn check_rows(plan: &Plan) -> Check {
    let name = "every row of the table was scored";
    if plan.not_scored.is_empty() {
        return Check::of(name, true);
    }
    let reasons = plan.not_scored.iter().map(|(reason, rows)| format!("{rows}: {reason}"));
    let reasons: Vec<String> = reasons.collect();
    let rows: usize = plan.not_scored.values().sum();
    let reason = format!("{rows} of {} rows are not scored ({})", plan.rows, reasons.join("; "));
    Check::skipped(name, &reason)
}

/// Compares the counters of the instance with the predictions on the topic.
fn check_answers(contents: &TopicContents, report: &Report) -> [Check; 2] {
    let check = |name: &str, counted: usize, found: u64, reason: &str| {
        // A number that was sent as out of range may be in the initial data, too.
        if counted == 0 && found == 0 {
            Check::skipped(name, reason)
        } else {
            Check::of(name, u64::try_from(counted).is_ok_and(|counted| counted == found))
        }
    };
    [
        check(
            "unseen categories were scored, and counted",
            report.unseen_categories,
            contents.out_of_distribution.unseen_categories,
            "the event schema has no categorical answer that allows a value which the model has not seen",
        ),
        check(
            "numbers out of range were scored, and counted",
            report.out_of_range,
            contents.out_of_distribution.out_of_range,
            "the event schema has no numeric answer that allows a number out of the range of the training data",
        ),
    ]
}

/// Compares the actions and their examples on the topics with what the instance counts; none without rules.
fn check_actions(state: &RunState, contents: &TopicContents, counters: &Counters) -> Vec<Check> {
    if counters.uplift.is_empty() {
        return Vec::new();
    }
    let actions = &contents.actions;
    // A partition without traffic for minutes of event time is behind, and so are its actions.
    let (late, of) = (state.acted_too_late, state.taken_as_not_acted.len());
    let in_time = format!(
        "actions were requested before the outcomes that they change (late {late} of {of})"
    );
    vec![
        Check::of("each action was decided once (doubled 0)", actions.doubled() == 0),
        Check::of("actions were counted", actions.records() == counters.actions),
        Check::of(&in_time, late * 100 <= of),
        Check::of(
            "uplift counts each respondent once, with the last label",
            actions.are_counted(&counters.uplift),
        ),
    ]
}

fn check_learning(
    every: u64,
    waited_for_training: &Result<(), String>,
    report: &Report,
) -> [Check; 2] {
    let names = [
        "models were trained from the stream",
        "a model trained from the stream predicted later respondents",
    ];
    let examples = report.examples;
    if report.retrainings == 0 && u64::try_from(examples).is_ok_and(|examples| examples < every) {
        let reason =
            format!("{examples} labelled examples, fewer than learning.retrain_after = {every}");
        return names.map(|name| Check::skipped(name, &reason));
    }
    let has_predicted = |model: &ModelReport| model.training > 0 && model.predictions_in_play > 0;
    let has_predicted = report.models.iter().any(has_predicted);
    let later = match waited_for_training {
        Err(reason) if !has_predicted => Check::skipped(names[1], reason),
        Ok(()) | Err(_) => Check::of(names[1], has_predicted),
    };
    [Check::of(names[0], report.retrainings > 0), later]
}

/// A model of inverted labels must not serve in the end, and its successors must not be judged by these labels.
fn check_judge(retention: Retention, report: &Report) -> [Check; 2] {
    let poisoned = format!("training-{}", POISONED_BATCH + 1);
    let mut decisions = report.decisions.iter();
    let trained = decisions.find(|one| one.decision == poisoned);
    let moves = report.decisions.iter().rev();
    let mut moves = moves.filter(|one| ["promoted", "rolled_back"].contains(&one.outcome.as_str()));
    let champion = moves.next().and_then(|last| last.candidate.as_ref());
    let serves = champion.is_some_and(|champion| {
        trained.is_some_and(|trained| trained.candidate.as_ref() == Some(champion))
    });
    let name = "the model of the inverted labels does not serve in the end";
    let later = "the models after it were judged without the inverted labels";
    let later = if let Retention::Reservoir(_) = retention {
        Check::skipped(later, "learning.reservoir: the newest examples of a sample go back farther")
    } else {
        let end = trained.and_then(|trained| trained.end_offset);
        let is_judged = |one: &&DecisionReport| {
            one.decision.starts_with("training-") && one.comparison.is_some()
        };
        let mut judged = decisions.filter(is_judged);
        Check::of(later, judged.all(|one| one.first_offset >= end))
    };
    [Check::of(name, trained.is_some() && !serves), later]
}

/// Sorted latencies in milliseconds: while no model is being trained, and while one is.
fn latencies(state: &RunState) -> [Vec<f64>; 2] {
    let mut split = [Vec::new(), Vec::new()];
    for received in &state.log.lock().received {
        if let Some(latency) = received.latency {
            split[usize::from(received.while_training)].push(latency.as_secs_f64() * 1e3);
        }
    }
    for latencies in &mut split {
        latencies.sort_by(f64::total_cmp);
    }
    split
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
        let [passed, skipped] = [Check::of("a", true), Check::skipped("b", "no data")];
        assert!(report(vec![passed.clone(), skipped.clone()]).is_ok());
        assert!(!report(vec![passed, skipped, Check::of("c", false)]).is_ok());
    }

    #[test]
    fn learning_is_checked_if_there_are_enough_examples() {
        let waited = Ok(());
        let check = |examples, retrainings, in_play: &[usize], waited: &Result<(), String>| {
            let model = |(training, in_play): (u64, &usize)| ModelReport {
                training,
                predictions: 9,
                predictions_in_play: *in_play,
                ..ModelReport::default()
            };
            let models = (0..).zip(in_play).map(model).collect();
            let report = Report { examples, models, retrainings, ..Report::default() };
            results(&check_learning(100, waited, &report))
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
    fn the_model_of_inverted_labels_must_not_serve_and_its_successors_be_judged_by_other_labels() {
        let decision =
            |(id, outcome, candidate, offsets): (&str, &str, &str, (i64, i64))| DecisionReport {
                decision: id.to_owned(),
                outcome: outcome.to_owned(),
                candidate: Some(candidate.to_owned()),
                reason: String::new(),
                comparison: Some(comparison()),
                first_offset: Some(offsets.0),
                end_offset: Some(offsets.1),
            };
        let check = |retention, decisions: &[(&str, &str, &str, (i64, i64))]| {
            let decisions = decisions.iter().copied().map(decision).collect();
            results(&check_judge(retention, &Report { decisions, ..Report::default() }))
        };
        let promoted = ("training-3", "promoted", "c", (70, 100));
        let rolled_back = ("rollback-110", "rolled_back", "a", (60, 110));
        let refused = |first| ("training-4", "refused", "d", (first, 200));
        let all = Retention::All;
        assert_eq!(check(all, &[promoted, rolled_back, refused(100)]), [Some(true), Some(true)]);
        assert_eq!(check(all, &[promoted, refused(100)]), [Some(false), Some(true)]);
        assert_eq!(check(all, &[promoted, rolled_back, refused(99)]), [Some(true), Some(false)]);
        let sampled = check(Retention::Reservoir(9), &[promoted, rolled_back, refused(99)]);
        assert_eq!(sampled, [Some(true), None]);
        assert_eq!(check(all, &[]), [Some(false), Some(true)], "it was not trained");
    }

    fn comparison() -> ModelComparison {
        ModelComparison {
            metric: "log_loss".to_owned(),
            examples: 30,
            candidate: 0.3,
            champion: 0.4,
            difference: 0.1,
            low: 0.05,
            high: 0.15,
            confidence: 0.95,
            margin: 0.0,
        }
    }

    #[test]
    fn out_of_distribution_inputs_are_checked_if_there_are_any() {
        let check = |unseen_categories, by_models| {
            let out_of_distribution = foretell_ml::features::OutOfDistribution {
                unseen_categories: by_models,
                ..Default::default()
            };
            let contents = TopicContents { out_of_distribution, ..TopicContents::default() };
            results(&check_answers(&contents, &Report { unseen_categories, ..Report::default() }))
                [0]
        };
        assert_eq!(check(10, 10), Some(true));
        assert_eq!(check(9, 10), Some(false));
        assert_eq!(check(0, 10), Some(false));
        assert_eq!(check(0, 0), None);
        assert_eq!(check(1, 0), Some(false), "counted more than there are");
    }
}
