//! The metrics of the application. The streams layer has its own.

use prometheus::{
    Gauge, GaugeVec, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
};

use crate::{
    events::{
        decision::DecisionOutcome,
        label::UNKNOWN_LABEL,
        labelled_example::LabelSource,
        questionnaire::{INVALID_VALUE, MISSING_FIELD},
        topics::TOPICS,
    },
    processors::{
        actions::metrics::ActionMetrics,
        gather::session::{SESSION_TOO_LARGE, SessionEnd},
        quality::metrics::QualityMetrics,
        waiting::WaitingBoard,
    },
};
use foretell_streams::metrics::{Counter, Registration};

/// The metrics of the scoring and the learning topology.
#[derive(Clone, Debug)]
pub struct ApplicationMetrics {
    predictions: IntCounterVec,
    outcomes: IntCounterVec,
    unlabelled: IntCounter,
    labelled_examples: IntCounterVec,
    duplicate_events: IntCounter,
    sessions: IntCounterVec,
    incomplete_observations: IntCounter,
    predictions_not_kept: IntCounter,
    misplaced: IntCounterVec,
    unseen_categories: IntCounter,
    out_of_range: IntCounter,
    not_numbers: IntCounter,
    unreadable: IntCounterVec,
    training_pending: Gauge,
    training_log_incomplete: IntGauge,
    training_set_bytes: IntGaugeVec,
    training_set_copies: IntCounterVec,
    scoring_latency: Histogram,
    trainings: IntCounterVec,
    training_seconds: Histogram,
    decisions: IntCounterVec,
    trainings_failed_in_a_row: IntGauge,
    models_refused_in_a_row: IntGauge,
    model_info: IntGaugeVec,
    challenger_info: IntGaugeVec,
    models_refused: IntCounterVec,
    contract: IntGaugeVec,
    /// The metrics of live quality.
    pub(super) quality: QualityMetrics,
    waiting: WaitingBoard,
    /// The metrics of actions.
    pub(super) actions: ActionMetrics,
}

/// Bounds for the time from the record timestamp to the score, without the commit.
const LATENCY_SECONDS: [f64; 11] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 60.0];
const TRAINING_SECONDS: [f64; 9] = [0.1, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 1800.0];

/// The classes of dead letters, whose counters start at 0; docs/operations.md explains each. The counter of any other class
/// starts with its first record.
pub const DEAD_LETTER_CLASSES: [&str; 17] = [
    "framing",
    "malformed",
    "tombstone",
    "unknown_schema",
    "incompatible_schema",
    MISSING_FIELD,
    INVALID_VALUE,
    "future_time",
    "past_time",
    "feature_contract",
    SESSION_TOO_LARGE,
    UNKNOWN_LABEL,
    "late_outcome",
    "unmatched_outcome",
    "unwritable",
    "unstorable",
    "unsendable",
];

/// Results of an outcome.
const OUTCOME_RESULTS: [&str; 6] =
    ["joined", "waiting", "duplicate", "conflicting", "corrected", "unmatched"];
/// Aliases of the models that observations are scored with.
const SCORING_ALIASES: [&str; 2] = ["champion", "challenger"];
/// Results of a training.
const TRAINING_RESULTS: [&str; 4] = ["succeeded", "retried", "failed", "incomplete"];

/// What was done with a copy of the training set on disk.
const TRAINING_SET_RESULTS: [&str; 4] = ["written", "read", "removed", "failed"];

/// Outcomes of a decision.
const DECISION_OUTCOMES: [&str; 5] = ["promoted", "challenger", "refused", "rolled_back", "failed"];

impl ApplicationMetrics {
    /// Registers the application's metrics. Counters with known label values start at 0, so that the first increment is visible
    /// as an increase.
    ///
    /// # Errors
    /// If `registry` has them already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        Self::declare(&Registration::in_registry(registry))
    }

    /// Registers the application's metrics through `to`, which keeps a list of them.
    ///
    /// # Errors
    /// If the registry has them already.
    #[expect(clippy::too_many_lines, reason = "one entry for each metric")]
    pub fn declare(to: &Registration<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            predictions: to.counters(
                "foretell_predictions_total",
                "Predictions, by model version.",
                "model_version",
                &[],
            )?,
            outcomes: to.counters(
                "foretell_outcomes_total",
                "Outcomes, by result; docs/concepts.md says what each means.",
                "result",
                &OUTCOME_RESULTS,
            )?,
            unlabelled: to.counter(
                "foretell_unlabelled_total",
                "Predictions whose window and grace passed without an outcome.",
            )?,
            labelled_examples: to.counters(
                "foretell_labelled_examples_total",
                "Labelled examples written to the training log, by the source of the label: outcome and policy \
                 (outcomes.unlabelled) are examples, a correction replaces one.",
                "source",
                &LabelSource::ALL.map(LabelSource::name),
            )?,
            duplicate_events: to.counter(
                "foretell_duplicate_events_total",
                "Repeated events, which were not used again.",
            )?,
            sessions: to.counters(
                "foretell_sessions_total",
                "Sessions that ended, by the reason; docs/sessions.md says what each means.",
                "end",
                &SessionEnd::ALL.map(SessionEnd::name),
            )?,
            incomplete_observations: to.counter(
                "foretell_incomplete_observations_total",
                "Observations that were not complete when their session ended, and were dropped without being scored.",
            )?,
            predictions_not_kept: to.counter(
                "foretell_predictions_not_kept_total",
                "Predictions that do not wait for an outcome, because outcomes.predictions_max of their respondent do.",
            )?,
            misplaced: to.counters(
                "foretell_records_misplaced_total",
                "Records in another partition than the one that their respondent's key belongs to.",
                "topic",
                &[],
            )?,
            unseen_categories: to.counter(
                "foretell_unseen_categories_total",
                "Answers scored with a category that the model was not trained on.",
            )?,
            out_of_range: to.counter(
                "foretell_out_of_range_total",
                "Answers scored with a number outside the range that the model was trained on.",
            )?,
            not_numbers: to.counter(
                "foretell_not_numbers_total",
                "Answers scored as missing, because they are text where the model expects numbers.",
            )?,
            unreadable: to.counters(
                "foretell_unreadable_records_total",
                "Records of Foretell's own topics that cannot be read and were skipped.",
                "topic",
                &[TOPICS.models.name, TOPICS.labelled_examples.name, TOPICS.trials.name],
            )?,
            training_pending: training_pending(to)?,
            training_log_incomplete: to.gauge(
                "foretell_training_log_incomplete",
                "1 if the training log lacks initial examples or ends too early, so that no model is trained.",
            )?,
            training_set_bytes: to.gauges(
                "foretell_training_set_bytes",
                "Bytes of the training set on the instance that trains: its columns in memory, and their copy on disk.",
                &["place"],
            )?,
            training_set_copies: to.counters(
                "foretell_training_set_copies_total",
                "Copies of the training set on disk, by what was done with them; docs/operations.md says what each means.",
                "result",
                &TRAINING_SET_RESULTS,
            )?,
            scoring_latency: to.histogram(
                "foretell_scoring_latency_seconds",
                "Time from a record's timestamp to its score, without the commit.",
                &LATENCY_SECONDS,
            )?,
            trainings: to.counters(
                "foretell_trainings_total",
                "Trainings, by result.",
                "result",
                &TRAINING_RESULTS,
            )?,
            training_seconds: to.histogram(
                "foretell_training_seconds",
                "Duration of trainings.",
                &TRAINING_SECONDS,
            )?,
            decisions: to.counters(
                "foretell_decisions_total",
                "Decisions about models, by outcome; docs/learning.md says what each means.",
                "outcome",
                &DECISION_OUTCOMES,
            )?,
            trainings_failed_in_a_row: to.gauge(
                "foretell_trainings_failed_in_a_row",
                "Number of the latest trainings that failed, up to the last one that succeeded, or since the learning task \
                 started on this instance.",
            )?,
            models_refused_in_a_row: to.gauge(
                "foretell_models_refused_in_a_row",
                "Number of the latest trainings whose models were refused as worse than the champion, up to the last one \
                 whose model was not, or since the learning task started on this instance.",
            )?,
            model_info: to.gauges(
                "foretell_model_info",
                "1 for the model that this instance serves.",
                &["version"],
            )?,
            challenger_info: to.gauges(
                "foretell_challenger_info",
                "1 for the challenger, whose scores this instance records beside those of the model that it serves.",
                &["version"],
            )?,
            models_refused: to.counters(
                "foretell_models_refused_total",
                "Models that this instance cannot use, by the alias that points to them.",
                "alias",
                &SCORING_ALIASES,
            )?,
            contract: to.gauges(
                "foretell_feature_contract_violated",
                "1 for a feature that violates the feature contract, by problem; docs/learning.md lists them.",
                &["feature", "problem"],
            )?,
            quality: QualityMetrics::declare(to)?,
            waiting: WaitingBoard::default(),
            actions: ActionMetrics::declare(to)?,
        })
    }

    pub(super) fn predictions(&self, version: &str) -> Counter {
        Counter::new(self.predictions.with_label_values(&[version]))
    }

    pub(super) fn outcomes(&self, result: &str) -> Counter {
        Counter::new(self.outcomes.with_label_values(&[result]))
    }

    /// What waits in the outcome stores of this instance.
    #[must_use]
    pub fn waiting(&self) -> &WaitingBoard {
        &self.waiting
    }

    pub(super) fn misplaced(&self, topic: &str) -> Counter {
        Counter::new(self.misplaced.with_label_values(&[topic]))
    }

    pub(super) fn unlabelled(&self) -> Counter {
        Counter::new(self.unlabelled.clone())
    }

    pub(super) fn labelled_examples(&self, source: LabelSource) -> Counter {
        Counter::new(self.labelled_examples.with_label_values(&[source.name()]))
    }

    pub(super) fn duplicate_events(&self) -> Counter {
        Counter::new(self.duplicate_events.clone())
    }

    /// The counters of ended sessions, in the order of [`SessionEnd::ALL`].
    pub(super) fn sessions(&self) -> [Counter; SessionEnd::ALL.len()] {
        SessionEnd::ALL.map(|end| Counter::new(self.sessions.with_label_values(&[end.name()])))
    }

    pub(super) fn incomplete_observations(&self) -> Counter {
        Counter::new(self.incomplete_observations.clone())
    }

    pub(super) fn predictions_not_kept(&self) -> Counter {
        Counter::new(self.predictions_not_kept.clone())
    }

    pub(super) fn unseen_categories(&self) -> Counter {
        Counter::new(self.unseen_categories.clone())
    }

    pub(super) fn out_of_range(&self) -> Counter {
        Counter::new(self.out_of_range.clone())
    }

    pub(super) fn not_numbers(&self) -> Counter {
        Counter::new(self.not_numbers.clone())
    }

    /// Counts a record that cannot be read and is skipped. `topic` is the name without the prefix.
    pub fn unreadable(&self, topic: &str) {
        self.unreadable.with_label_values(&[topic]).inc();
    }

    pub(super) fn training_pending(&self, seconds: f64) {
        self.training_pending.set(seconds);
    }

    pub(super) fn training_log_incomplete(&self, is_incomplete: bool) {
        self.training_log_incomplete.set(i64::from(is_incomplete));
    }

    /// Sets the allocated bytes of the training set.
    pub(super) fn training_set_in_memory(&self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.training_set_bytes.with_label_values(&["memory"]).set(bytes);
    }

    /// Sets the size of the copy of the training set on disk.
    pub(super) fn training_set_on_disk(&self, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.training_set_bytes.with_label_values(&["disk"]).set(bytes);
    }

    /// Counts what was done with a copy of the training set on disk.
    pub(super) fn training_set_copy(&self, result: &str) {
        self.training_set_copies.with_label_values(&[result]).inc();
    }

    pub(super) fn scored_after(&self, seconds: f64) {
        self.scoring_latency.observe(seconds);
    }

    pub(super) fn trained(&self, result: &str, seconds: f64) {
        self.trainings.with_label_values(&[result]).inc();
        self.training_seconds.observe(seconds);
    }

    pub(super) fn decided(&self, outcome: DecisionOutcome) {
        self.decisions.with_label_values(&[outcome.name()]).inc();
    }

    /// Sets the gauges of trainings in a row after the decision about the model of a training. A training that failed has no
    /// model.
    pub(super) fn training_decided(&self, outcome: DecisionOutcome) {
        match outcome {
            DecisionOutcome::Failed => self.trainings_failed_in_a_row.inc(),
            DecisionOutcome::Refused => {
                self.trainings_failed_in_a_row.set(0);
                self.models_refused_in_a_row.inc();
            }
            DecisionOutcome::Promoted
            | DecisionOutcome::Challenger
            | DecisionOutcome::RolledBack => self.reset_trainings_in_a_row(),
        }
    }

    pub(super) fn reset_trainings_in_a_row(&self) {
        self.trainings_failed_in_a_row.set(0);
        self.models_refused_in_a_row.set(0);
    }

    pub(super) fn contract(&self, feature: &str, problem: &str, is_violated: bool) {
        self.contract.with_label_values(&[feature, problem]).set(i64::from(is_violated));
    }

    /// Records that this instance serves `version`. The series of `retired` are removed, which bounds their number.
    pub(super) fn serving(&self, version: &str, retired: Option<&str>) {
        self.model_info.reset();
        self.model_info.with_label_values(&[version]).set(1);
        if let Some(retired) = retired
            && let Err(error) = self.predictions.remove_label_values(&[retired])
        {
            tracing::debug!(retired, %error, "the retired model has no series");
        }
    }

    /// Records that this instance scores with the challenger `version`.
    pub(super) fn challenger(&self, version: Option<&str>) {
        self.challenger_info.reset();
        if let Some(version) = version {
            self.challenger_info.with_label_values(&[version]).set(1);
        }
    }

    pub(super) fn refused(&self, alias: &str) {
        self.models_refused.with_label_values(&[alias]).inc();
    }
}

fn training_pending(to: &Registration<'_>) -> Result<Gauge, prometheus::Error> {
    let gauges: GaugeVec = to.gauges(
        "foretell_training_pending_seconds",
        "Seconds since a training became due; 0 if none is due.",
        &[],
    )?;
    Ok(gauges.with_label_values::<&str>(&[]))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Metrics with a registry for a test to read.
    pub(crate) struct TestMetrics {
        registry: Registry,
        pub(crate) metrics: ApplicationMetrics,
    }

    impl TestMetrics {
        pub(crate) fn new() -> Self {
            let registry = Registry::new();
            let metrics = ApplicationMetrics::register(&registry).unwrap();
            Self { registry, metrics }
        }

        fn of(&self, name: &str) -> Vec<prometheus::proto::Metric> {
            let families = self.registry.gather();
            let family = families.iter().find(|family| family.name() == name);
            family.map_or_else(Vec::new, |family| family.get_metric().to_vec())
        }

        /// The values of the first label.
        pub(crate) fn series(&self, name: &str) -> Vec<String> {
            let metrics = self.of(name);
            metrics.iter().map(|metric| metric.get_label()[0].value().to_owned()).collect()
        }

        /// The value of a counter or a gauge, with this label value if it has labels.
        pub(crate) fn value(&self, name: &str, label: &str) -> f64 {
            let metrics = self.of(name);
            let metric = metrics.iter().find(|metric| {
                label.is_empty() || metric.get_label().iter().any(|pair| pair.value() == label)
            });
            let metric = metric.unwrap();
            metric.get_counter().get_value() + metric.get_gauge().get_value()
        }

        /// The sum of a histogram.
        pub(crate) fn sum(&self, name: &str) -> f64 {
            self.of(name)[0].get_histogram().get_sample_sum()
        }
    }
}
