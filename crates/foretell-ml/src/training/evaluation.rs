//! Evaluation metrics. A metric that is undefined for the given examples is `None`, never NaN.

use serde::{Deserialize, Serialize};

use crate::{
    Example, Label, Probabilities,
    scorer::{Scorer, Scratch},
};

/// Lower bound of the probability in the log loss, which would otherwise be infinite at 0. LightGBM and scikit-learn
/// have one as well.
const PROBABILITY_MIN: f64 = 1e-15;

/// Metrics of a model on some examples. With two classes, AUC and F1 are those of class 1; with more, they are means
/// over the classes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Number of examples.
    pub examples: u64,
    /// See [`log_loss`].
    pub log_loss: Option<f64>,
    /// See [`auc`].
    pub auc: Option<f64>,
    /// See [`accuracy`].
    pub accuracy: Option<f64>,
    /// See [`f1`].
    pub f1: Option<f64>,
    /// Which examples it was evaluated on.
    #[serde(default, skip_serializing_if = "EvaluatedOn::is_fifth")]
    pub on: EvaluatedOn,
    /// Intervals of the metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intervals: Option<Intervals>,
}

/// Examples that a model is evaluated on, which it was not trained on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvaluatedOn {
    /// A fifth of the examples of its training, drawn by class.
    #[default]
    Fifth,
    /// The newest examples, which it was judged on.
    Holdout,
}

impl EvaluatedOn {
    fn is_fifth(&self) -> bool {
        *self == Self::Fifth
    }
}

/// Bootstrap intervals of the metrics of an [`Evaluation`], each from its low to its high end; `None` if the metric is
/// undefined or there are too few examples (see [`crate::judge::interval`]).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Intervals {
    /// Confidence of each interval.
    pub confidence: f64,
    /// Interval of the log loss.
    pub log_loss: Option<(f64, f64)>,
    /// Interval of the AUC.
    pub auc: Option<(f64, f64)>,
    /// Interval of the accuracy.
    pub accuracy: Option<(f64, f64)>,
    /// Interval of F1.
    pub f1: Option<(f64, f64)>,
}

impl Evaluation {
    /// Compares predictions, and the classes decided on from them, with the labels; one of each per example.
    ///
    /// # Panics
    /// If the three lengths differ.
    #[must_use]
    pub fn new(predictions: &[Probabilities], decisions: &[Label], labels: &[Label]) -> Self {
        assert!(
            predictions.len() == labels.len() && decisions.len() == labels.len(),
            "one of each an example"
        );
        Self {
            examples: u64::try_from(labels.len()).expect("a length has at most 64 bits"),
            log_loss: log_loss(predictions, labels),
            auc: auc(predictions, labels),
            accuracy: accuracy(decisions, labels),
            f1: f1(
                decisions,
                labels,
                predictions.first().map_or(0, |first| first.as_slice().len()),
            ),
            on: EvaluatedOn::default(),
            intervals: None,
        }
    }
}

/// Scores `examples` and compares the predictions with their labels. For an honest result, the model must not have been
/// trained on them.
#[must_use]
pub fn evaluate(scorer: &Scorer, examples: &[Example]) -> Evaluation {
    let mut scratch = Scratch::default();
    let score = |example: &Example| scorer.score(&example.values, &mut scratch);
    let predictions: Vec<Probabilities> = examples.iter().map(score).collect();
    let decisions: Vec<Label> =
        predictions.iter().map(|prediction| scorer.decide(prediction)).collect();
    let labels: Vec<Label> = examples.iter().map(|example| example.label).collect();
    Evaluation::new(&predictions, &decisions, &labels)
}

/// Mean of `-ln(probability of the label)`, in nats per example; `None` without examples.
#[must_use]
pub fn log_loss(predictions: &[Probabilities], labels: &[Label]) -> Option<f64> {
    let pairs = predictions.iter().zip(labels);
    mean(&pairs.map(|(prediction, label)| loss_of(prediction, *label)).collect::<Vec<f64>>())
}

/// The log loss of one example.
pub(crate) fn loss_of(prediction: &Probabilities, label: Label) -> f64 {
    -prediction.of(label).unwrap_or(0.0).clamp(PROBABILITY_MIN, 1.0).ln()
}

/// Area under the ROC curve: the probability that a random example of a class is given a higher probability of that
/// class than a random example of another class; ties count half.
///
/// With two classes it is that of class 1. With more, it is the mean over the classes, each against the rest, of those
/// that have examples both in and outside the class. `None` if no class has.
#[must_use]
pub fn auc(predictions: &[Probabilities], labels: &[Label]) -> Option<f64> {
    let classes = predictions.first().map_or(0, |first| first.as_slice().len());
    let from = if classes == 2 { 1 } else { 0 };
    let of_class = |class| auc_of_class(predictions, labels, Label(class));
    mean(&(from..u32::try_from(classes).ok()?).filter_map(of_class).collect::<Vec<f64>>())
}

/// [`auc`] of one class against the rest; `None` without examples in the class, or without others.
#[must_use]
pub fn auc_of_class(predictions: &[Probabilities], labels: &[Label], class: Label) -> Option<f64> {
    let pairs = predictions.iter().zip(labels);
    let scored =
        pairs.map(|(prediction, label)| (prediction.of(class).unwrap_or(0.0), *label == class));
    auc_of_two(scored.collect())
}

/// The AUC of pairs of score and class membership, by the sum of ranks (Mann and Whitney); ties have the mean rank.
fn auc_of_two(mut scored: Vec<(f64, bool)>) -> Option<f64> {
    scored.sort_by(|a, b| a.0.total_cmp(&b.0));
    let positives = scored.iter().filter(|(_, positive)| *positive).count() as f64;
    let negatives = scored.len() as f64 - positives;
    let (mut ranks, mut below) = (0.0, 0.0);
    for ties in scored.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq()) {
        let count = ties.len() as f64;
        let rank = below + (count + 1.0) / 2.0;
        ranks += rank * ties.iter().filter(|(_, positive)| *positive).count() as f64;
        below += count;
    }
    let pairs = positives * negatives;
    (pairs > 0.0).then(|| (ranks - positives * (positives + 1.0) / 2.0) / pairs)
}

/// Share of the decisions that equal the label; `None` without examples.
#[must_use]
pub fn accuracy(decisions: &[Label], labels: &[Label]) -> Option<f64> {
    let right = |(decision, label): (&Label, &Label)| f64::from(u8::from(decision == label));
    mean(&decisions.iter().zip(labels).map(right).collect::<Vec<f64>>())
}

/// F1, the harmonic mean of precision and recall: that of class 1 if there are two classes, else the mean over them.
///
/// A class that occurs neither among the decisions nor among the labels is left out; `None` if that leaves none.
#[must_use]
pub fn f1(decisions: &[Label], labels: &[Label], classes: usize) -> Option<f64> {
    let from = if classes == 2 { 1 } else { 0 };
    let of_class = |class| {
        let (mut both, mut either) = (0.0, 0.0);
        for (decision, label) in decisions.iter().zip(labels) {
            let (decided, true_) = (*decision == Label(class), *label == Label(class));
            both += f64::from(u8::from(decided && true_));
            either += f64::from(u8::from(decided)) + f64::from(u8::from(true_));
        }
        (either > 0.0).then(|| 2.0 * both / either)
    };
    mean(&(from..u32::try_from(classes).ok()?).filter_map(of_class).collect::<Vec<f64>>())
}

/// The mean; `None` of an empty slice.
pub(super) fn mean(numbers: &[f64]) -> Option<f64> {
    (!numbers.is_empty()).then(|| numbers.iter().sum::<f64>() / numbers.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(labels: &[u32]) -> Vec<Label> {
        labels.iter().copied().map(Label).collect()
    }

    fn binary(of_one: &[f64]) -> Vec<Probabilities> {
        of_one.iter().map(|p| Probabilities::new(vec![1.0 - p, *p])).collect()
    }

    fn same(found: Option<f64>, expected: Option<f64>) {
        let close = |a: f64, b: f64| (a - b).abs() < 1e-12;
        let same = match (found, expected) {
            (Some(found), Some(expected)) => close(found, expected),
            (found, expected) => found.is_none() && expected.is_none(),
        };
        assert!(same, "{found:?}, not {expected:?}");
    }

    #[test]
    fn auc_counts_pairs() {
        let check = |of_one: &[f64], truth: &[u32], expected| {
            same(auc(&binary(of_one), &labels(truth)), expected)
        };
        check(&[0.1, 0.4, 0.35, 0.8], &[0, 0, 1, 1], Some(0.75));
        check(&[0.1, 0.2, 0.8, 0.9], &[0, 0, 1, 1], Some(1.0));
        check(&[0.9, 0.8, 0.2, 0.1], &[0, 0, 1, 1], Some(0.0));
        check(&[0.5, 0.5, 0.5], &[0, 1, 1], Some(0.5));
        check(&[0.5, 0.5, 0.7], &[0, 1, 1], Some(0.75));
        check(&[0.5, 0.5], &[1, 1], None);
        check(&[], &[], None);
    }

    #[test]
    fn auc_of_many_classes_is_the_mean_over_classes_where_it_is_defined() {
        let predictions: Vec<Probabilities> =
            [[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.5, 0.4, 0.1]]
                .map(|by_class| Probabilities::new(by_class.to_vec()))
                .into();
        same(auc(&predictions, &labels(&[0, 0, 1, 1])), Some(1.0));
        same(auc(&predictions, &labels(&[0, 1, 1, 0])), Some(0.75));
        same(auc(&predictions, &labels(&[2, 2, 2, 2])), None);
    }

    #[test]
    fn log_loss_is_bounded() {
        let check = |of_one: &[f64], truth: &[u32], expected| {
            same(log_loss(&binary(of_one), &labels(truth)), expected)
        };
        check(&[0.5, 0.5], &[0, 1], Some(2.0_f64.ln()));
        check(&[0.25], &[1], Some(4.0_f64.ln()));
        check(&[0.0], &[1], Some(-PROBABILITY_MIN.ln()));
        check(&[0.5], &[7], Some(-PROBABILITY_MIN.ln()));
        check(&[], &[], None);
    }

    #[test]
    fn decisions_are_counted() {
        let check =
            |decided: &[u32], truth: &[u32], classes, expected: (Option<f64>, Option<f64>)| {
                same(accuracy(&labels(decided), &labels(truth)), expected.0);
                same(f1(&labels(decided), &labels(truth), classes), expected.1);
            };
        check(&[1, 1, 0, 0], &[1, 0, 1, 0], 2, (Some(0.5), Some(0.5)));
        check(&[1, 1, 1, 0], &[1, 1, 0, 0], 2, (Some(0.75), Some(0.8)));
        check(&[0, 0], &[0, 0], 2, (Some(1.0), None));
        check(&[0, 1, 1], &[0, 1, 1], 4, (Some(1.0), Some(1.0)));
        check(&[], &[], 2, (None, None));
    }

    #[test]
    fn an_evaluation_of_no_examples_has_no_metrics() {
        assert_eq!(Evaluation::new(&[], &[], &[]), Evaluation::default());
    }
}
