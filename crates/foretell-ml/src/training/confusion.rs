//! How often each class was decided on for each true class, and the metrics of each class that follow.

use serde::Serialize;

use crate::Label;

/// Number of examples by their true class and by the class that was decided on.
///
/// ```text
///                decided on
///               0    1    2
///   true  0   [50    3    0]      recall of 0:    50 / (50 + 3 + 0)
///         1   [ 4   20    1]      precision of 0: 50 / (50 + 4 + 2)
///         2   [ 2    0    5]      support of 0:   50 + 3 + 0
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ConfusionMatrix {
    /// By true class, then by decided class. As many rows as columns.
    counts: Vec<Vec<u64>>,
}

impl ConfusionMatrix {
    /// Counts the decisions, one for each label. A pair with a class that is not below `classes` is not counted.
    #[must_use]
    pub fn new(classes: usize, decisions: &[Label], labels: &[Label]) -> Self {
        let mut counts = vec![vec![0; classes]; classes];
        for (decision, label) in decisions.iter().zip(labels) {
            let row = counts.get_mut(index(*label));
            if let Some(count) = row.and_then(|row| row.get_mut(index(*decision))) {
                *count += 1;
            }
        }
        Self { counts }
    }

    /// For each true class, the number of examples by decided class.
    #[must_use]
    pub fn counts(&self) -> &[Vec<u64>] {
        &self.counts
    }

    /// Number of examples of a class.
    #[must_use]
    pub fn support(&self, class: usize) -> u64 {
        self.counts[class].iter().sum()
    }

    /// Number of examples for which a class was decided on.
    #[must_use]
    pub fn decided(&self, class: usize) -> u64 {
        self.counts.iter().map(|row| row[class]).sum()
    }

    /// Share of the decisions for a class that are right; `None` if there are none.
    #[must_use]
    pub fn precision(&self, class: usize) -> Option<f64> {
        share(self.counts[class][class], self.decided(class))
    }

    /// Share of the examples of a class for which it was decided on; `None` if there are none.
    #[must_use]
    pub fn recall(&self, class: usize) -> Option<f64> {
        share(self.counts[class][class], self.support(class))
    }

    /// Harmonic mean of precision and recall of a class; `None` if it occurs neither among the decisions nor among the labels.
    #[must_use]
    pub fn f1(&self, class: usize) -> Option<f64> {
        share(2 * self.counts[class][class], self.support(class) + self.decided(class))
    }
}

fn share(part: u64, of: u64) -> Option<f64> {
    (of > 0).then(|| part as f64 / of as f64)
}

fn index(label: Label) -> usize {
    usize::try_from(label.0).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::{accuracy, f1};

    fn matrix(classes: usize, pairs: &[(u32, u32)]) -> ConfusionMatrix {
        let (labels, decisions): (Vec<Label>, Vec<Label>) =
            pairs.iter().map(|(label, decision)| (Label(*label), Label(*decision))).unzip();
        ConfusionMatrix::new(classes, &decisions, &labels)
    }

    #[test]
    fn metrics_of_a_class_follow_from_the_counts() {
        let matrix = matrix(4, &[(0, 0), (0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]);
        assert_eq!(matrix.counts()[0], [2, 1, 0, 0]);
        let check = |class, support, decided, metrics: [Option<f64>; 3]| {
            assert_eq!((matrix.support(class), matrix.decided(class)), (support, decided));
            let found = [matrix.precision(class), matrix.recall(class), matrix.f1(class)];
            assert_eq!(found, metrics, "class {class}");
        };
        check(0, 3, 4, [Some(2.0 / 4.0), Some(2.0 / 3.0), Some(4.0 / 7.0)]);
        check(1, 2, 2, [Some(0.5), Some(0.5), Some(0.5)]);
        check(2, 1, 0, [None, Some(0.0), Some(0.0)]);
        check(3, 0, 0, [None, None, None]);
    }

    #[test]
    fn a_class_that_is_not_configured_is_not_counted() {
        assert_eq!(matrix(2, &[(0, 0), (2, 0), (0, 2)]).counts(), [[1, 0], [0, 0]]);
        assert!(matrix(0, &[]).counts().is_empty());
    }

    #[test]
    fn it_agrees_with_accuracy_and_f1() {
        let labels: Vec<Label> = (0..60).map(|row| Label(row % 3)).collect();
        let decisions: Vec<Label> = (0..60).map(|row| Label(row * row % 7 % 3)).collect();
        let matrix = ConfusionMatrix::new(3, &decisions, &labels);
        let right: u64 = (0..3).map(|class| matrix.counts()[class][class]).sum();
        assert_eq!(accuracy(&decisions, &labels), Some(right as f64 / 60.0));
        let mean = (0..3).filter_map(|class| matrix.f1(class)).sum::<f64>() / 3.0;
        let expected = f1(&decisions, &labels, 3).unwrap();
        assert!((mean - expected).abs() < 1e-12, "{mean} {expected}");
    }
}
