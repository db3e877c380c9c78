//! Metrics of resamples: what does not depend on the resample is computed once, so that each takes linear time.

use crate::{Label, Metric, judge::Predictions, training::loss_of};

/// A metric of the predictions for some examples, as a function of the number of times that each was drawn.
#[derive(Debug)]
pub(super) enum Statistic {
    /// The mean of one number for each example.
    Mean(Vec<f64>),
    /// The mean of the areas under the ROC curves of the classes.
    Auc(Vec<Ranking>),
    /// The mean of the classes' F1.
    F1 {
        /// Decision and label of each example.
        decided: Vec<(Label, Label)>,
        classes: usize,
    },
}

impl Statistic {
    /// The metric for these rows.
    pub(super) fn new(
        metric: Metric,
        predictions: &Predictions,
        labels: &[Label],
        rows: &[u32],
    ) -> Self {
        let Predictions { probabilities, decisions } = predictions;
        let classes = probabilities.first().map_or(0, |first| first.as_slice().len());
        let rows = || rows.iter().map(|row| *row as usize);
        match metric {
            Metric::LogLoss => {
                Self::Mean(rows().map(|row| loss_of(&probabilities[row], labels[row])).collect())
            }
            Metric::Accuracy => {
                let is_right = |row: usize| f64::from(u8::from(decisions[row] == labels[row]));
                Self::Mean(rows().map(is_right).collect())
            }
            Metric::F1 => Self::F1 {
                decided: rows().map(|row| (decisions[row], labels[row])).collect(),
                classes,
            },
            Metric::Auc => {
                let ranking = |class| {
                    let of = |row: usize| {
                        (probabilities[row].of(class).unwrap_or(0.0), labels[row] == class)
                    };
                    Ranking::new(&rows().map(of).collect::<Vec<_>>())
                };
                Self::Auc(positive_classes(classes).map(ranking).collect())
            }
        }
    }

    /// The value if each example was drawn this many times. `None` if it is undefined.
    pub(super) fn of(&self, counts: &[u32]) -> Option<f64> {
        match self {
            Self::Mean(numbers) => {
                let (mut sum, mut drawn) = (0.0, 0_u64);
                for (number, count) in numbers.iter().zip(counts) {
                    sum += number * f64::from(*count);
                    drawn += u64::from(*count);
                }
                (drawn > 0).then(|| sum / drawn as f64)
            }
            Self::Auc(rankings) => mean(rankings.iter().map(|ranking| ranking.area(counts))),
            Self::F1 { decided, classes } => f1(decided, *classes, counts),
        }
    }
}

/// With two classes the second one, else all.
fn positive_classes(classes: usize) -> impl Iterator<Item = Label> {
    let from = usize::from(classes == 2);
    (from..classes).map(|class| Label(u32::try_from(class).expect("there are at most 256 classes")))
}

/// The mean of the values that are defined.
fn mean(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let (mut sum, mut number) = (0.0, 0_u32);
    for value in values.flatten() {
        sum += value;
        number += 1;
    }
    (number > 0).then(|| sum / f64::from(number))
}

fn f1(decided: &[(Label, Label)], classes: usize, counts: &[u32]) -> Option<f64> {
    // For each class: right decisions, and decisions for it plus labels of it.
    let mut of_class = vec![(0_u64, 0_u64); classes];
    for ((decision, label), count) in decided.iter().zip(counts) {
        let count = u64::from(*count);
        for class in [decision, label] {
            if let Some((_, either)) = of_class.get_mut(class.index()) {
                *either += count;
            }
        }
        if decision == label
            && let Some((both, _)) = of_class.get_mut(label.index())
        {
            *both += count;
        }
    }
    mean(positive_classes(classes).map(|class| {
        let (both, either) = of_class[class.index()];
        (either > 0).then(|| 2.0 * both as f64 / either as f64)
    }))
}

/// The examples by ascending probability of a class.
#[derive(Debug)]
pub(super) struct Ranking {
    ranked: Vec<Ranked>,
}

#[derive(Clone, Copy, Debug)]
struct Ranked {
    example: u32,
    is_positive: bool,
    /// Whether the next example has a higher probability.
    is_last_of_tie: bool,
}

impl Ranking {
    /// Ranks examples by their score; each is positive or negative.
    fn new(scored: &[(f64, bool)]) -> Self {
        let mut order: Vec<u32> = (0_u32..).take(scored.len()).collect();
        let score = |example: &u32| scored[*example as usize].0;
        order.sort_by(|a, b| score(a).total_cmp(&score(b)));
        let mut ranked = Vec::with_capacity(order.len());
        for ties in order.chunk_by(|a, b| score(a).total_cmp(&score(b)).is_eq()) {
            for (place, example) in (1..).zip(ties) {
                ranked.push(Ranked {
                    example: *example,
                    is_positive: scored[*example as usize].1,
                    is_last_of_tie: place == ties.len(),
                });
            }
        }
        Self { ranked }
    }

    /// The share of the pairs of a positive and a negative example in which the positive one has the higher score, ties
    /// counting half. `None` without a pair.
    fn area(&self, counts: &[u32]) -> Option<f64> {
        // Each pair counts two, so that a tie counts one.
        let (mut won, mut positives, mut negatives) = (0_u64, 0_u64, 0_u64);
        let (mut tied_positives, mut tied_negatives) = (0_u64, 0_u64);
        for Ranked { example, is_positive, is_last_of_tie } in &self.ranked {
            let count = u64::from(counts[*example as usize]);
            if *is_positive {
                tied_positives += count;
            } else {
                tied_negatives += count;
            }
            if *is_last_of_tie {
                won += tied_positives * (2 * negatives + tied_negatives);
                positives += std::mem::take(&mut tied_positives);
                negatives += std::mem::take(&mut tied_negatives);
            }
        }
        let pairs = positives * negatives;
        (pairs > 0).then(|| won as f64 / 2.0 / pairs as f64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Probabilities;

    /// Predictions of few distinct probabilities, so that there are ties, with decisions, labels and counts.
    fn drawn(classes: usize) -> impl Strategy<Value = (Predictions, Vec<Label>, Vec<u32>)> {
        let most = u32::try_from(classes).unwrap();
        let example = (prop::collection::vec(0_u8..6, classes), 0..most, 0..most, 0_u32..4);
        prop::collection::vec(example, 0..40).prop_map(|examples| {
            let (mut probabilities, mut decisions) = (Vec::new(), Vec::new());
            let (mut labels, mut counts) = (Vec::new(), Vec::new());
            for (shares, decision, label, count) in examples {
                let total: u8 = shares.iter().sum::<u8>().max(1);
                let share = |share: u8| f64::from(share) / f64::from(total);
                probabilities.push(Probabilities::new(shares.into_iter().map(share).collect()));
                decisions.push(Label(decision));
                labels.push(Label(label));
                counts.push(count);
            }
            (Predictions { probabilities, decisions }, labels, counts)
        })
    }

    /// The metric of the examples, each as often as it was drawn.
    fn expected(
        metric: Metric,
        predictions: &Predictions,
        labels: &[Label],
        counts: &[u32],
    ) -> Option<f64> {
        let repeated = || {
            let rows = (0..labels.len()).zip(counts);
            rows.flat_map(|(row, count)| std::iter::repeat_n(row, *count as usize))
        };
        let probabilities: Vec<_> =
            repeated().map(|row| predictions.probabilities[row].clone()).collect();
        let decisions: Vec<_> = repeated().map(|row| predictions.decisions[row]).collect();
        let labels: Vec<_> = repeated().map(|row| labels[row]).collect();
        metric.of(&probabilities, &decisions, &labels)
    }

    proptest! {
        #[test]
        fn a_resample_has_the_metric_of_its_examples(
            (predictions, labels, counts) in prop_oneof![drawn(2), drawn(4)]
        ) {
            let rows: Vec<u32> = (0..).take(labels.len()).collect();
            for metric in Metric::ALL {
                let found = Statistic::new(metric, &predictions, &labels, &rows).of(&counts);
                let expected = expected(metric, &predictions, &labels, &counts);
                let is_same = match (found, expected) {
                    (Some(found), Some(expected)) => (found - expected).abs() < 1e-12,
                    (found, expected) => found.is_none() && expected.is_none(),
                };
                prop_assert!(is_same, "{:?}: {:?}, not {:?}", metric, found, expected);
            }
        }
    }
}
