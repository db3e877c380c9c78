//! The metric of a fold that a study optimises.

use crate::{
    Label, Probabilities,
    training::{Metric, log_loss},
};

/// The metric of a fold's predictions; `None` if it is undefined for its labels.
///
/// Metrics of decisions need a threshold, and a model gets its own after the study. With two classes, the value is that of the
/// threshold that is best for this fold: it says how well a model can decide, and is optimistic by the same little for every
/// trial. (With a threshold of one half a study would prefer models whose probabilities are too high for rare labels.) With
/// more classes, the most probable one is decided on.
pub(super) fn value_of(
    metric: Metric,
    predictions: &[Probabilities],
    labels: &[Label],
) -> Option<f64> {
    let is_binary = predictions.first().is_some_and(|first| first.as_slice().len() == 2);
    match metric {
        Metric::LogLoss => log_loss(predictions, labels),
        Metric::F1 | Metric::Accuracy if is_binary => {
            let of_one = |(prediction, label): (&Probabilities, &Label)| {
                (prediction.as_slice()[1], *label == Label(1))
            };
            best_of_thresholds(metric, predictions.iter().zip(labels).map(of_one).collect())
        }
        Metric::Auc | Metric::F1 | Metric::Accuracy => {
            let decisions: Vec<Label> =
                predictions.iter().map(Probabilities::most_probable).collect();
            metric.of(predictions, &decisions, labels)
        }
    }
}

/// The highest value over all thresholds, of pairs of a probability and whether the label is positive.
fn best_of_thresholds(metric: Metric, mut scored: Vec<(f64, bool)>) -> Option<f64> {
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    let count = scored.len() as f64;
    let positives = scored.iter().filter(|(_, is_positive)| *is_positive).count() as f64;
    let value = |decided: f64, right: f64| match metric {
        Metric::F1 => 2.0 * right / (decided + positives),
        Metric::Accuracy | Metric::LogLoss | Metric::Auc => {
            (count - decided - positives + 2.0 * right) / count
        }
    };
    let (mut decided, mut right) = (0.0, 0.0);
    let mut best = value(decided, right);
    // Examples of one probability are on the same side of each threshold.
    for ties in scored.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq()) {
        decided += ties.len() as f64;
        right += ties.iter().filter(|(_, is_positive)| *is_positive).count() as f64;
        best = best.max(value(decided, right));
    }
    Some(best).filter(|best| best.is_finite() && positives > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::{accuracy, f1};

    fn labels(of: &[u32]) -> Vec<Label> {
        of.iter().map(|label| Label(*label)).collect()
    }

    fn binary(of_one: &[f64]) -> Vec<Probabilities> {
        of_one.iter().map(|one| Probabilities::new(vec![1.0 - one, *one])).collect()
    }

    #[test]
    fn the_best_threshold_of_a_fold_counts() {
        let of_one = [0.02, 0.05, 0.1, 0.1, 0.2, 0.3, 0.31, 0.4];
        let truth = [0, 0, 1, 0, 0, 1, 0, 1];
        let (predictions, labels) = (binary(&of_one), labels(&truth));
        for metric in [Metric::F1, Metric::Accuracy] {
            let at = |threshold: f64| {
                let decided: Vec<Label> =
                    of_one.iter().map(|one| Label(u32::from(*one >= threshold))).collect();
                let value = if metric == Metric::F1 {
                    f1(&decided, &labels, 2)
                } else {
                    accuracy(&decided, &labels)
                };
                value.unwrap()
            };
            let best = of_one.iter().chain(&[1.0]).map(|one| at(*one)).fold(0.0, f64::max);
            let found = value_of(metric, &predictions, &labels).unwrap();
            assert!((found - best).abs() < 1e-12, "{metric:?}: {found}, not {best}");
            assert!(found > at(0.5), "{metric:?}");
        }
    }

    #[test]
    fn metrics_of_probabilities_and_of_many_classes_need_no_threshold() {
        let (predictions, truth) = (binary(&[0.1, 0.4, 0.35, 0.8]), labels(&[0, 0, 1, 1]));
        assert_eq!(value_of(Metric::Auc, &predictions, &truth), Some(0.75));
        let loss = value_of(Metric::LogLoss, &predictions, &truth);
        assert_eq!(loss, log_loss(&predictions, &truth));
        let three: Vec<Probabilities> = [[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.4, 0.3, 0.3]]
            .map(|of| Probabilities::new(of.to_vec()))
            .into();
        let found = value_of(Metric::Accuracy, &three, &labels(&[0, 1, 2])).unwrap();
        assert!((found - 2.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn a_fold_without_positives_has_no_f1() {
        assert_eq!(value_of(Metric::F1, &binary(&[0.1, 0.9]), &labels(&[0, 0])), None);
        assert_eq!(value_of(Metric::F1, &[], &[]), None);
    }
}
