//! The decision threshold between two classes: given, or the best one for a metric on held-out examples.

use serde::{Deserialize, Serialize};

use crate::{Label, Metric, Probabilities};

/// The threshold if none can be chosen: class 1 if it is at least as probable as class 0.
pub(super) const UNDECIDED: f64 = 0.5;

/// Decision threshold with two classes: class 1 is chosen if its probability is at least this.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Threshold {
    /// This one, 0 to 1.
    Fixed(f64),
    /// The one with the highest F1 or accuracy on held-out examples. For the log loss and the AUC, which do not depend on a
    /// threshold, it is the one with the highest accuracy.
    Best(Metric),
}

/// The best threshold for a metric; the one nearest to .5 of several that are equally good. `None` if the examples are not of
/// two classes.
pub(super) fn best(metric: Metric, predictions: &[Probabilities], labels: &[Label]) -> Option<f64> {
    let of_one = |prediction: &Probabilities| match prediction.as_slice() {
        [_, of_one] => Some(*of_one),
        _ => None,
    };
    let scored = predictions.iter().zip(labels);
    let mut scored: Vec<(f64, bool)> = scored
        .map(|(prediction, label)| Some((of_one(prediction)?, *label == Label(1))))
        .collect::<Option<_>>()?;
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    let positives = scored.iter().filter(|(_, is_positive)| *is_positive).count();
    let negatives = scored.len() - positives;
    if positives == 0 || negatives == 0 {
        return None;
    }
    let value = |right: usize, wrong: usize| match metric {
        Metric::F1 => 2.0 * right as f64 / (right + wrong + positives) as f64,
        Metric::LogLoss | Metric::Auc | Metric::Accuracy => {
            (right + negatives - wrong) as f64 / (positives + negatives) as f64
        }
    };
    // From a threshold above all probabilities to one below, which all exceed.
    let (mut right, mut wrong, mut above) = (0, 0, 1.0);
    let mut best = (f64::NEG_INFINITY, UNDECIDED);
    let mut consider = |value: f64, threshold: f64| {
        let is_nearer = (threshold - UNDECIDED).abs() < (best.1 - UNDECIDED).abs();
        if value > best.0 || (value >= best.0 && is_nearer) {
            best = (value, threshold);
        }
    };
    for ties in scored.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq()) {
        let below = ties[0].0;
        // Nothing is above a probability of 1.
        if below < above {
            consider(value(right, wrong), between(below, above));
        }
        let hits = ties.iter().filter(|(_, is_positive)| *is_positive).count();
        right += hits;
        wrong += ties.len() - hits;
        above = below;
    }
    consider(value(right, wrong), above / 2.0);
    Some(best.1)
}

/// A number above `below` and at most `above`, in the middle if there is one.
fn between(below: f64, above: f64) -> f64 {
    let middle = below + (above - below) / 2.0;
    if middle > below { middle } else { above }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn predictions(of_one: &[f64]) -> Vec<Probabilities> {
        of_one.iter().map(|one| Probabilities::new(vec![1.0 - one, *one])).collect()
    }

    fn labels(labels: &[u32]) -> Vec<Label> {
        labels.iter().copied().map(Label).collect()
    }

    #[test]
    fn the_best_threshold_lies_between_two_probabilities() {
        let check = |metric, of_one: &[f64], truth: &[u32], expected: Option<f64>| {
            let found = best(metric, &predictions(of_one), &labels(truth));
            let is_same = match (found, expected) {
                (Some(found), Some(expected)) => (found - expected).abs() < 1e-12,
                (found, expected) => found.is_none() && expected.is_none(),
            };
            assert!(is_same, "{metric:?} {of_one:?}: {found:?}, not {expected:?}");
        };
        check(Metric::Accuracy, &[0.1, 0.2, 0.4, 0.6], &[0, 0, 1, 1], Some(0.3));
        check(Metric::F1, &[0.1, 0.2, 0.4, 0.6], &[0, 0, 1, 1], Some(0.3));
        // F1 prefers one false positive to one false negative: .8 at .15, .67 at .5.
        check(Metric::F1, &[0.1, 0.2, 0.3, 0.7], &[0, 1, 0, 1], Some(0.15));
        check(Metric::Accuracy, &[0.1, 0.2, 0.3, 0.7], &[0, 1, 0, 1], Some(0.5));
        check(Metric::LogLoss, &[0.1, 0.2, 0.3, 0.7], &[0, 1, 0, 1], Some(0.5));
        // All or nothing.
        check(Metric::Accuracy, &[0.2, 0.4, 0.6], &[1, 1, 0], Some(0.1));
        check(Metric::Accuracy, &[0.2, 0.4, 0.6], &[1, 0, 0], Some(0.8));
        check(Metric::Accuracy, &[1.0, 1.0, 1.0], &[1, 0, 0], Some(0.5));
        check(Metric::Accuracy, &[0.2, 0.4], &[1, 1], None);
        check(Metric::F1, &[], &[], None);
        assert_eq!(best(Metric::F1, &[Probabilities::new(vec![0.2; 5])], &labels(&[1])), None);
    }

    #[test]
    fn a_threshold_between_neighbouring_numbers_tells_them_apart() {
        let (low, high) = (0.3, f64::from_bits(0.3_f64.to_bits() + 1));
        let threshold = best(Metric::F1, &predictions(&[low, high]), &labels(&[0, 1])).unwrap();
        assert!(low < threshold && threshold <= high);
    }

    proptest! {
        #[test]
        fn no_other_threshold_is_better(
            examples in prop::collection::vec((0_u8..=10, 0_u32..2), 0..30),
            other in 0.0..=1.0_f64,
        ) {
            let of_one: Vec<f64> = examples.iter().map(|(one, _)| f64::from(*one) / 10.0).collect();
            let truth: Vec<Label> = examples.iter().map(|(_, label)| Label(*label)).collect();
            for metric in [Metric::F1, Metric::Accuracy] {
                let predictions = predictions(&of_one);
                let Some(found) = best(metric, &predictions, &truth) else { continue };
                prop_assert!((0.0..=1.0).contains(&found));
                let value = |threshold: f64| {
                    let decide = |one: &f64| Label(u32::from(*one >= threshold));
                    let decisions: Vec<Label> = of_one.iter().map(decide).collect();
                    metric.of(&predictions, &decisions, &truth).unwrap()
                };
                prop_assert!(value(found) >= value(other) - 1e-12, "{} {}", found, other);
            }
        }
    }
}
