//! Judges the newest predictions and labels of a model, and raises alerts.

use serde::Serialize;

use crate::{
    events::quality::{QualityMetrics, StabilityIndex},
    processors::quality::{
        DISTRIBUTIONS_MAX, ModelReference, QualitySettings,
        store::{OpenStore, QualityIndex},
    },
};
use foretell_ml::{
    Scorer,
    drift::{CalibrationPoint, Distribution, LiveCounts, LiveMetrics, Progressive},
};
use foretell_streams::{state::StateError, time::EventTime};

/// Standard errors by which the log loss must exceed what is tolerated: one-sided, 99.9 %. Alerts look at a growing window several
/// times, which makes false alarms likelier than for one look.
const STANDARD_ERRORS: f64 = 3.09;

/// The cause of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertCause {
    /// The live log loss is worse than that of the evaluation in training.
    LogLoss,
    /// The values of features have drifted from the training data.
    Features,
    /// The scores have drifted from those of the held-out examples.
    Scores,
}

impl AlertCause {
    /// All causes.
    pub const ALL: [Self; 3] = [Self::LogLoss, Self::Features, Self::Scores];

    /// The name in metrics and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LogLoss => "log_loss",
            Self::Features => "features",
            Self::Scores => "scores",
        }
    }
}

/// An alert about the model that serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Alert {
    /// The cause.
    pub cause: AlertCause,
    /// The numbers.
    pub message: String,
}

/// The newest windows of a model, as many as it takes for enough labels and for enough predictions.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Assessment {
    /// The start of the newest window.
    pub(super) newest: Option<EventTime>,
    /// Predictions in these windows.
    pub(super) predictions: u64,
    pub(super) trained: QualityMetrics,
    pub(super) estimated: QualityMetrics,
    pub(super) live: LiveMetrics,
    /// Empty if there are too few predictions.
    pub(super) features: Vec<StabilityIndex>,
    /// As `features`.
    pub(super) scores: Vec<StabilityIndex>,
    pub(super) alerts: Vec<Alert>,
    /// Whether the model has a profile of its training data.
    pub(super) has_profile: bool,
    pub(super) calibration: Vec<CalibrationPoint>,
    /// Those that have drifted most, first.
    pub(super) distributions: Vec<Distribution>,
}

impl Assessment {
    /// Judges the model that serves. `model` is what its predictions are compared with.
    pub(super) fn of<Out: 'static>(
        serving: &Scorer,
        model: &ModelReference,
        index: &QualityIndex,
        settings: &QualitySettings,
        store: &mut OpenStore<'_, '_, Out>,
    ) -> Result<Self, StateError> {
        let version = model.version.as_str();
        let (mut counts, mut labels) = (None::<LiveCounts>, None::<Progressive>);
        let mut newest = None;
        for (window, _) in index.windows.iter().rev().filter(|(_, of)| of == version) {
            let has_counts = counted(&counts) >= settings.predictions_min;
            let has_labels = labelled(&labels) >= settings.labels_min;
            if has_counts && has_labels {
                break;
            }
            newest = newest.or(Some(*window));
            if !has_counts {
                counts = sum(counts, store.counts(*window, version)?, LiveCounts::merge);
            }
            if !has_labels {
                labels = sum(labels, store.labels(*window, version)?, Progressive::merge);
            }
        }
        let live = labels.as_ref().map(Progressive::metrics).unwrap_or_default();
        let mut assessment = Self {
            newest,
            live,
            trained: trained(model),
            has_profile: model.baseline.is_some(),
            calibration: labels.as_ref().map(Progressive::calibration).unwrap_or_default(),
            alerts: log_loss_alert(model, &live, settings).into_iter().collect(),
            ..Self::default()
        };
        if let Some(counts) = &counts {
            assessment.predictions = counts.predictions();
            assessment.estimated = estimated(counts);
            let [features, scores] = indices(model, counts, settings);
            (assessment.features, assessment.scores) = (features, scores);
            assessment.distributions = distributions(serving, counts, &assessment.features);
        }
        let drifted = [
            (AlertCause::Features, "feature", &assessment.features),
            (AlertCause::Scores, "score of class", &assessment.scores),
        ];
        let drifted = drifted.map(|(cause, of, found)| drift_alert(cause, of, found, settings));
        assessment.alerts.extend(drifted.into_iter().flatten());
        Ok(assessment)
    }
}

/// The distributions of the columns, by their stability index, the largest first.
fn distributions(
    serving: &Scorer,
    counts: &LiveCounts,
    indices: &[StabilityIndex],
) -> Vec<Distribution> {
    let Some(profile) = serving.profile() else { return Vec::new() };
    let mut all = Distribution::of(profile, serving.columns(), counts);
    let psi = |of: &Distribution| {
        let index = indices.iter().find(|index| index.name == of.name);
        index.map_or(f64::NEG_INFINITY, |index| index.psi)
    };
    all.sort_by(|one, other| psi(other).total_cmp(&psi(one)));
    all.truncate(DISTRIBUTIONS_MAX);
    all
}

fn counted(counts: &Option<LiveCounts>) -> u64 {
    counts.as_ref().map_or(0, LiveCounts::predictions)
}

fn labelled(labels: &Option<Progressive>) -> u64 {
    labels.as_ref().map_or(0, Progressive::labels)
}

fn sum<T>(so_far: Option<T>, more: Option<T>, merge: impl Fn(&mut T, &T)) -> Option<T> {
    match (so_far, more) {
        (Some(mut so_far), Some(more)) => {
            merge(&mut so_far, &more);
            Some(so_far)
        }
        (so_far, more) => so_far.or(more),
    }
}

/// The metrics of the evaluation in training.
pub(super) fn trained(model: &ModelReference) -> QualityMetrics {
    let super::TrainedMetrics { log_loss, auc, accuracy, .. } = model.trained;
    QualityMetrics { log_loss, auc, accuracy, calibration_error: None }
}

/// The metrics that are expected of calibrated probabilities.
pub(super) fn estimated(counts: &LiveCounts) -> QualityMetrics {
    let Some(estimate) = counts.estimate() else { return QualityMetrics::default() };
    QualityMetrics {
        log_loss: Some(estimate.log_loss),
        auc: estimate.auc,
        accuracy: Some(estimate.accuracy),
        calibration_error: None,
    }
}

/// The metrics of labelled predictions.
pub(super) fn live(metrics: &LiveMetrics) -> QualityMetrics {
    let LiveMetrics { log_loss, auc, accuracy, calibration_error, .. } = *metrics;
    QualityMetrics { log_loss, auc, accuracy, calibration_error }
}

/// The stability index of each feature and of the scores of each class; both empty with too few predictions.
pub(super) fn indices(
    model: &ModelReference,
    counts: &LiveCounts,
    settings: &QualitySettings,
) -> [Vec<StabilityIndex>; 2] {
    let enough = counts.predictions() >= settings.predictions_min;
    let Some(baseline) = model.baseline.as_ref().filter(|_| enough) else {
        return [vec![], vec![]];
    };
    let index = |name: &str, psi| StabilityIndex { name: name.to_owned(), psi };
    let features = baseline.column_psi(counts).map(|(name, psi)| index(name, psi));
    // Of two classes, the second is counted.
    let classes = model.classes.iter().skip(if model.classes.len() == 2 { 1 } else { 0 });
    let scores = classes.zip(baseline.score_psi(counts));
    let scores = scores.filter_map(|(class, psi)| Some(index(class, psi?)));
    [features.collect(), scores.collect()]
}

/// Whether the live log loss is worse than that of the evaluation by more than is tolerated and more than chance explains. The
/// evaluation is taken to have the same deviation.
fn log_loss_alert(
    model: &ModelReference,
    live: &LiveMetrics,
    settings: &QualitySettings,
) -> Option<Alert> {
    let (Some(found), Some(deviation)) = (live.log_loss, live.log_loss_deviation) else {
        return None;
    };
    let expected = model.trained.log_loss.filter(|_| model.trained.examples > 0)?;
    if live.labels < settings.labels_min.max(1) {
        return None;
    }
    let error = deviation * (1.0 / live.labels as f64 + 1.0 / model.trained.examples as f64).sqrt();
    let tolerated = expected * (1.0 + settings.log_loss_alert);
    (found - STANDARD_ERRORS * error > tolerated).then(|| {
        let message = format!(
            "the log loss of {} labels is {found:.4}; in training it was {expected:.4}",
            live.labels
        );
        Alert { cause: AlertCause::LogLoss, message }
    })
}

fn drift_alert(
    cause: AlertCause,
    of: &str,
    found: &[StabilityIndex],
    settings: &QualitySettings,
) -> Option<Alert> {
    let drifted = found.iter().filter(|index| index.psi >= settings.psi_alert);
    let named: Vec<String> =
        drifted.map(|StabilityIndex { name, psi }| format!("{of} {name} ({psi:.2})")).collect();
    (!named.is_empty()).then(|| {
        let message = format!("population stability index: {}", named.join(", "));
        Alert { cause, message }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processors::quality::TrainedMetrics;
    use std::time::Duration;

    fn settings() -> QualitySettings {
        QualitySettings {
            window: Duration::from_secs(60),
            labels_within: Duration::from_secs(600),
            psi_alert: 0.25,
            log_loss_alert: 0.1,
            labels_min: 200,
            predictions_min: 1_000,
            retrain_on_drift: false,
        }
    }

    fn model(examples: u64, log_loss: Option<f64>) -> ModelReference {
        ModelReference {
            version: "m1".to_owned(),
            classes: vec!["no".to_owned(), "yes".to_owned()],
            threshold: 0.5,
            trained: TrainedMetrics { examples, log_loss, auc: None, accuracy: None },
            baseline: None,
        }
    }

    #[test]
    fn a_log_loss_is_an_alert_if_it_is_worse_than_tolerated_and_than_chance_explains() {
        let check = |labels: u64,
                     log_loss: f64,
                     of_training: (u64, Option<f64>),
                     is_alert: bool| {
            let live = LiveMetrics {
                labels,
                log_loss: Some(log_loss),
                log_loss_deviation: Some(0.4),
                ..LiveMetrics::default()
            };
            let found = log_loss_alert(&model(of_training.0, of_training.1), &live, &settings());
            assert_eq!(found.is_some(), is_alert, "{labels} {log_loss} {of_training:?}: {found:?}");
        };
        let trained = (6_000, Some(0.3));
        check(1_000, 0.30, trained, false);
        // Worse by more than 10 %, as chance may make it with so few labels.
        check(1_000, 0.36, trained, false);
        check(100_000, 0.36, trained, true);
        // Worse for certain, but by less than 10 %.
        check(1_000_000, 0.325, (1_000_000, Some(0.3)), false);
        check(1_000, 0.8, trained, true);
        check(199, 0.8, trained, false);
        check(1_000, 0.8, (0, Some(0.3)), false);
        check(1_000, 0.8, (6_000, None), false);
        check(1_000, 0.1, trained, false);
    }

    #[test]
    fn an_alert_names_what_has_drifted() {
        let index = |name: &str, psi| StabilityIndex { name: name.to_owned(), psi };
        let found = [index("age", 0.1), index("hours", 0.25), index("job", 1.5)];
        let alert = drift_alert(AlertCause::Features, "feature", &found, &settings()).unwrap();
        assert_eq!(
            alert.message,
            "population stability index: feature hours (0.25), feature job (1.50)"
        );
        assert_eq!(drift_alert(AlertCause::Features, "feature", &found[..1], &settings()), None);
    }
}
