//! The metrics of live quality, with series for the model that serves only.

use std::time::Duration;

use prometheus::{GaugeVec, Histogram, IntCounterVec, IntGaugeVec};

use foretell_streams::metrics::{Counter, Registration};

/// Seconds, minutes, hours, and days up to a quarter of a year.
const LABEL_DELAY_SECONDS: [f64; 12] = [
    1.0,
    10.0,
    60.0,
    600.0,
    3_600.0,
    21_600.0,
    86_400.0,
    259_200.0,
    604_800.0,
    1_209_600.0,
    2_592_000.0,
    7_776_000.0,
];

/// The metrics of live quality.
#[derive(Clone, Debug)]
pub struct QualityMetrics {
    values: GaugeVec,
    psi: GaugeVec,
    alerts: IntGaugeVec,
    label_delay: Histogram,
    labelled_share: GaugeVec,
    late: IntCounterVec,
}

impl QualityMetrics {
    /// Registers the metrics through `to`.
    ///
    /// # Errors
    /// If the registry has them already.
    pub(in crate::processors) fn declare(to: &Registration<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            values: to.gauges(
                "foretell_quality",
                "Log loss, AUC, accuracy and calibration error of the model that serves: live on labelled predictions, estimated \
                 without labels, and trained on the held-out examples of the training.",
                &["model_version", "source", "metric"],
            )?,
            psi: to.gauges(
                "foretell_quality_psi",
                "Population stability index of each feature of the model that serves, and of its scores by class, against its \
                 training data.",
                &["kind", "name"],
            )?,
            alerts: to.gauges(
                "foretell_quality_alert",
                "1 for a cause of a quality alert; docs/learning.md lists them.",
                &["cause"],
            )?,
            label_delay: to.histogram(
                "foretell_label_delay_seconds",
                "Event time from a prediction to its outcome, of labelled examples; 0 if the outcome is earlier.",
                &LABEL_DELAY_SECONDS,
            )?,
            labelled_share: to.gauges(
                "foretell_labelled_share",
                "Share of the predictions of an age whose label is known: those that are older than this, and younger than the \
                 next.",
                &["older_than"],
            )?,
            late: to.counters(
                "foretell_quality_late_total",
                "Predictions and labels that came after their window was removed, and are in no live metric.",
                "kind",
                &["predictions", "labels"],
            )?,
        })
    }

    /// Sets a metric of the model that serves: its version, the source and the name of the metric.
    pub(super) fn value(&self, labels: [&str; 3], value: f64) {
        self.values.with_label_values(&labels).set(value);
    }

    /// Sets the population stability index of a feature, or of the scores of a class.
    pub(super) fn psi(&self, [kind, name]: [&str; 2], value: f64) {
        self.psi.with_label_values(&[kind, name]).set(value);
    }

    pub(super) fn alert(&self, cause: &str) {
        self.alerts.with_label_values(&[cause]).set(1);
    }

    /// Records how long after its prediction an outcome was.
    pub(super) fn labelled_after(&self, seconds: f64) {
        self.label_delay.observe(seconds);
    }

    /// Sets the share of the predictions that are older than `age` whose label is known.
    pub(super) fn labelled_share(&self, age: Duration, share: f64) {
        let age = humantime_serde::re::humantime::format_duration(age).to_string();
        self.labelled_share.with_label_values(&[age.as_str()]).set(share);
    }

    /// Removes all series of quality, which bounds their number, and withdraws the alerts.
    pub(super) fn reset(&self, causes: &[&str]) {
        self.values.reset();
        self.psi.reset();
        self.labelled_share.reset();
        for cause in causes {
            self.alerts.with_label_values(&[*cause]).set(0);
        }
    }

    pub(super) fn late(&self, kind: &str) -> Counter {
        Counter::new(self.late.with_label_values(&[kind]))
    }
}
