//! The metrics that a study minimises or maximises, and that models are compared by.

use serde::{Deserialize, Serialize};

use crate::{
    Label, Probabilities,
    training::evaluation::{accuracy, auc, f1, log_loss},
};

/// A metric by which models are compared. [`auc`] and [`f1`] of more than two classes are means over the classes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Mean of `-ln(probability of the label)`, in nats per example; lower is better.
    #[default]
    LogLoss,
    /// Area under the ROC curve; higher is better.
    Auc,
    /// Harmonic mean of precision and recall of the decisions; higher is better.
    F1,
    /// Share of the decisions that equal the label; higher is better.
    Accuracy,
}

impl Metric {
    /// All metrics.
    pub const ALL: [Self; 4] = [Self::LogLoss, Self::Auc, Self::F1, Self::Accuracy];

    /// The name in configurations and records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LogLoss => "log_loss",
            Self::Auc => "auc",
            Self::F1 => "f1",
            Self::Accuracy => "accuracy",
        }
    }

    /// Whether a higher value is better.
    #[must_use]
    pub fn is_higher_better(self) -> bool {
        self != Self::LogLoss
    }

    /// Whether it depends on the decisions, and so on the threshold, and not on the probabilities.
    #[must_use]
    pub fn is_of_decisions(self) -> bool {
        matches!(self, Self::F1 | Self::Accuracy)
    }

    /// The value as a loss: lower is better.
    #[must_use]
    pub fn loss(self, value: f64) -> f64 {
        if self.is_higher_better() { 1.0 - value } else { value }
    }

    /// The metric of predictions and of the classes decided on from them; one of each per label. `None` if it is
    /// undefined for these examples.
    #[must_use]
    pub fn of(
        self,
        predictions: &[Probabilities],
        decisions: &[Label],
        labels: &[Label],
    ) -> Option<f64> {
        let classes = predictions.first().map_or(0, |first| first.as_slice().len());
        match self {
            Self::LogLoss => log_loss(predictions, labels),
            Self::Auc => auc(predictions, labels),
            Self::F1 => f1(decisions, labels, classes),
            Self::Accuracy => accuracy(decisions, labels),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_has_one_name_in_configurations_and_records() {
        for metric in Metric::ALL {
            assert_eq!(serde_json::to_value(metric).unwrap(), metric.name());
        }
    }

    #[test]
    fn a_lower_loss_is_better_for_every_metric() {
        let label = [Label(0), Label(1), Label(1), Label(0)];
        let with = |ones: [f64; 4]| {
            let predictions = ones.map(|one| Probabilities::new(vec![1.0 - one, one]));
            let decisions = ones.map(|one| Label(u32::from(one >= 0.5)));
            (predictions, decisions)
        };
        let (good, bad) = (with([0.1, 0.9, 0.8, 0.2]), with([0.6, 0.4, 0.7, 0.9]));
        for metric in Metric::ALL {
            let loss = |(predictions, decisions): &([Probabilities; 4], [Label; 4])| {
                metric.loss(metric.of(predictions, decisions, &label).unwrap())
            };
            assert!(loss(&good) < loss(&bad), "{metric:?}");
        }
    }
}
