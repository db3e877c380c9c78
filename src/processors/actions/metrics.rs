//! The metrics of actions. The names of rules are their only labels of which there can be many: at most 100.

use prometheus::{GaugeVec, IntCounterVec};

use foretell_streams::metrics::{Counter, Registration};

/// States of an action's record.
const STATES: [&str; 3] = ["requested", "cancelled", "held_out"];

/// The metrics of actions.
#[derive(Clone, Debug)]
pub struct ActionMetrics {
    actions: IntCounterVec,
    undefined: IntCounterVec,
    uplift: GaugeVec,
    uplift_low: GaugeVec,
    uplift_high: GaugeVec,
}

impl ActionMetrics {
    /// Registers the metrics through `to`.
    ///
    /// # Errors
    /// If the registry has them already.
    pub(in crate::processors) fn declare(to: &Registration<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            actions: to.counters_by(
                "foretell_actions_total",
                "Records of actions, by rule and state; docs/actions.md says what each means.",
                &["rule", "state"],
            )?,
            undefined: to.counters(
                "foretell_conditions_undefined_total",
                "Predictions for which the condition of a rule has no value, such as a comparison with a missing answer.",
                "rule",
                &[],
            )?,
            uplift: to.gauges(
                "foretell_uplift",
                "Share of a label among the labelled examples on which a rule has acted, less that among those held out, on the \
                 instance with the learning task.",
                &["rule", "label"],
            )?,
            uplift_low: to.gauges(
                "foretell_uplift_low",
                "Lower bound of the 95 % interval of foretell_uplift.",
                &["rule", "label"],
            )?,
            uplift_high: to.gauges(
                "foretell_uplift_high",
                "Upper bound of the 95 % interval of foretell_uplift.",
                &["rule", "label"],
            )?,
        })
    }

    /// Exposes the series of a rule, from 0.
    pub(super) fn begin(&self, rule: &str) {
        for state in STATES {
            self.actions.with_label_values(&[rule, state]);
        }
        self.undefined.with_label_values(&[rule]);
    }

    pub(super) fn actions(&self, rule: &str, state: &str) -> Counter {
        Counter::new(self.actions.with_label_values(&[rule, state]))
    }

    /// Sets the uplift of a rule and a label, and the bounds of its interval.
    pub(in crate::processors) fn uplift(&self, labels: [&str; 2], values: [f64; 3]) {
        let gauges = [&self.uplift, &self.uplift_low, &self.uplift_high];
        for (gauge, value) in gauges.into_iter().zip(values) {
            gauge.with_label_values(&labels).set(value);
        }
    }

    pub(super) fn undefined(&self, rule: &str) -> Counter {
        Counter::new(self.undefined.with_label_values(&[rule]))
    }
}
