//! The confidence-based estimate of a model's metrics, before labels arrive.

use serde::Serialize;

use crate::drift::{LiveCounts, histogram::auc};

/// Metrics that the model has if its probabilities are calibrated: if of the predictions with a probability of 0.8, eight in ten
/// are right. It shows what a change of the inputs does to the metrics. It cannot show a change of the relation between inputs and
/// labels, which only labels do. (Confidence-based performance estimation, as in NannyML.)
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The expected log loss: the mean entropy of the probabilities.
    pub log_loss: f64,
    /// The expected AUC, as [`crate::training::auc`] defines it.
    pub auc: Option<f64>,
    /// The expected accuracy: the mean probability of the decided class.
    pub accuracy: f64,
}

impl LiveCounts {
    /// The estimate from the scores that were counted. Log loss and AUC are exact up to the width of a bin of the scores: 2 % of a
    /// probability with two classes. `None` without predictions.
    #[must_use]
    pub fn estimate(&self) -> Option<Estimate> {
        let predictions = self.predictions() as f64;
        if self.predictions() == 0 {
            return None;
        }
        let is_binary = self.scores().len() == 1;
        let surprise = |p: f64| -p * p.ln();
        let entropy = |p: f64| surprise(p) + if is_binary { surprise(1.0 - p) } else { 0.0 };
        let scores = self.scores().iter();
        let bins = scores.clone().flat_map(|histogram| histogram.by_probability());
        let entropies: f64 = bins.map(|(probability, count)| count * entropy(probability)).sum();
        let aucs: Vec<f64> = scores
            .filter_map(|histogram| {
                auc(histogram.by_probability().map(|(p, count)| (count * p, count * (1.0 - p))))
            })
            .collect();
        let auc = (!aucs.is_empty()).then(|| aucs.iter().sum::<f64>() / aucs.len() as f64);
        let accuracy = self.confidence() / predictions;
        Some(Estimate { log_loss: entropies / predictions, auc, accuracy })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Label, Probabilities,
        drift::histogram::counted,
        training::{accuracy, auc as exact_auc, log_loss},
    };
    use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

    /// Draws labels by the probabilities, which are then calibrated, and compares the estimate with the metrics.
    #[track_caller]
    fn check(classes: usize, number: usize, tolerance: f64) {
        let mut random = StdRng::seed_from_u64(11);
        let mut counts = LiveCounts::new(None, classes);
        let (mut predictions, mut decisions, mut labels) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..number {
            let weights: Vec<f64> =
                (0..classes).map(|_| random.random_range(-3.0_f64..3.0).exp()).collect();
            let sum: f64 = weights.iter().sum();
            let prediction =
                Probabilities::new(weights.iter().map(|weight| weight / sum).collect());
            let mut left = random.random_range(0.0..1.0);
            let drawn = prediction.as_slice().iter().position(|p| {
                left -= p;
                left < 0.0
            });
            let decided = prediction.most_probable();
            let probability = prediction.of(decided).unwrap();
            counts.add_prediction(prediction.as_slice().iter().copied(), probability, 1);
            labels.push(Label(u32::try_from(drawn.unwrap_or(0)).unwrap()));
            decisions.push(decided);
            predictions.push(prediction);
        }
        let Estimate { log_loss: loss, auc, accuracy: right } = counts.estimate().unwrap();
        let close = |found: f64, truth: f64| (found - truth).abs() < tolerance;
        assert!(close(loss, log_loss(&predictions, &labels).unwrap()), "{loss}");
        assert!(close(right, accuracy(&decisions, &labels).unwrap()), "{right}");
        assert!(close(auc.unwrap(), exact_auc(&predictions, &labels).unwrap()), "{auc:?}");
        assert_eq!(counted(classes).len(), counts.scores().len());
    }

    #[test]
    fn the_estimate_of_calibrated_probabilities_is_near_the_truth() {
        check(2, 50_000, 0.01);
        check(4, 50_000, 0.01);
    }

    #[test]
    fn nothing_is_estimated_without_predictions() {
        assert_eq!(LiveCounts::new(None, 2).estimate(), None);
    }
}
