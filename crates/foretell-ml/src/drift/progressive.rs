//! Progressive (test-then-train) metrics: of predictions that were made before their labels were known.

use serde::{Deserialize, Serialize};

use crate::drift::histogram::{ScoreHistogram, auc, counted};

/// Lower bound of the probability in the log loss: that of [`crate::training::log_loss`].
const PROBABILITY_MIN: f64 = 1e-15;
/// Bins of equal width of the calibration error (Guo and others, On Calibration of Modern Neural Networks, 2017, use 15).
const CALIBRATION_BINS: usize = 10;

/// Sums over labelled predictions, from which [`LiveMetrics`] follow. It has two counts for each bin of a
/// [`ScoreHistogram`] and class, whatever the number of labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progressive {
    threshold: f64,
    labels: u64,
    log_loss: f64,
    log_loss_squares: f64,
    correct: u64,
    /// Of each class; of two classes, of the second.
    classes: Vec<ClassScores>,
    calibration: Vec<CalibrationBin>,
}

/// The scores of one class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct ClassScores {
    /// Of the predictions with that label.
    positives: ScoreHistogram,
    /// Of the others.
    negatives: ScoreHistogram,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct CalibrationBin {
    predictions: u64,
    /// Sum of the probabilities.
    probability: f64,
    /// Predictions that were right.
    right: u64,
}

/// The predictions with about one probability.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CalibrationPoint {
    /// The mean probability.
    pub probability: f64,
    /// The share of those that were right: calibrated if it equals the probability.
    pub right: f64,
    /// Number of labels.
    pub labels: u64,
}

/// Metrics of labelled predictions. One that is undefined is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LiveMetrics {
    /// Number of labels.
    pub labels: u64,
    /// See [`crate::training::log_loss`].
    pub log_loss: Option<f64>,
    /// Standard deviation of the log loss of one prediction.
    pub log_loss_deviation: Option<f64>,
    /// See [`crate::training::auc`]; pairs of scores in one bin count half.
    pub auc: Option<f64>,
    /// Share of the decisions that equal the label.
    pub accuracy: Option<f64>,
    /// Expected calibration error: the mean difference between probability and share of the label, over ten bins of equal
    /// width. With two classes it is that of the second class; with more, that of the most probable class.
    pub calibration_error: Option<f64>,
}

impl Progressive {
    /// No labels of a model with `classes` classes. `threshold` decides between two classes, as that of a
    /// [`ModelBundle`](crate::ModelBundle).
    #[must_use]
    pub fn new(classes: usize, threshold: f64) -> Self {
        let histogram = ScoreHistogram::new(classes);
        let scores = ClassScores { positives: histogram.clone(), negatives: histogram };
        Self {
            threshold,
            labels: 0,
            log_loss: 0.0,
            log_loss_squares: 0.0,
            correct: 0,
            classes: counted(classes).map(|_| scores.clone()).collect(),
            calibration: vec![CalibrationBin::default(); CALIBRATION_BINS],
        }
    }

    /// Adds a prediction: the probability of each class, and the index of the true class, which is `None` if the model does not
    /// have it. Returns false, and adds nothing, if they are not the probabilities of this model's classes.
    pub fn add(&mut self, probabilities: &[f64], label: Option<usize>) -> bool {
        if !self.fits(probabilities) {
            return false;
        }
        let loss = loss_of(probabilities, label);
        self.labels += 1;
        self.log_loss += loss;
        self.log_loss_squares += loss * loss;
        let (decided, judged) = self.decision(probabilities);
        self.correct += u64::from(label == Some(decided));
        for (class, scores) in counted(probabilities.len()).zip(&mut self.classes) {
            scores.of(label == Some(class)).add(probabilities[class], 1);
        }
        let bin = self.calibration_bin(probabilities[judged]);
        bin.predictions += 1;
        bin.probability += probabilities[judged];
        bin.right += u64::from(label == Some(judged));
        true
    }

    /// Replaces the label of a prediction that was added: `from` by `to`. Returns false, and replaces nothing, if there is no
    /// label, or these are not the probabilities of this model's classes.
    pub fn replace(
        &mut self,
        probabilities: &[f64],
        from: Option<usize>,
        to: Option<usize>,
    ) -> bool {
        if self.labels == 0 || !self.fits(probabilities) {
            return false;
        }
        let [before, after] = [from, to].map(|label| loss_of(probabilities, label));
        self.log_loss = (self.log_loss - before + after).max(0.0);
        self.log_loss_squares = (self.log_loss_squares - before * before + after * after).max(0.0);
        let (decided, judged) = self.decision(probabilities);
        let replace = |count: &mut u64, class: usize| {
            *count = count.saturating_sub(u64::from(from == Some(class)));
            *count += u64::from(to == Some(class));
        };
        replace(&mut self.correct, decided);
        for (class, scores) in counted(probabilities.len()).zip(&mut self.classes) {
            scores.of(from == Some(class)).remove(probabilities[class]);
            scores.of(to == Some(class)).add(probabilities[class], 1);
        }
        replace(&mut self.calibration_bin(probabilities[judged]).right, judged);
        true
    }

    /// Whether they are the probabilities of this model's classes.
    fn fits(&self, probabilities: &[f64]) -> bool {
        let are_valid = probabilities.iter().all(|p| (0.0..=1.0).contains(p));
        let classes = counted(probabilities.len()).len();
        are_valid && classes == self.classes.len() && probabilities.len() >= 2
    }

    /// The class that the model decides for, and that whose calibration is measured.
    fn decision(&self, probabilities: &[f64]) -> (usize, usize) {
        match probabilities {
            [_, of_one] => (usize::from(*of_one >= self.threshold), 1),
            _ => {
                let most = most_probable(probabilities);
                (most, most)
            }
        }
    }

    fn calibration_bin(&mut self, probability: f64) -> &mut CalibrationBin {
        #[expect(clippy::cast_sign_loss, reason = "a probability is not negative")]
        let bin = (probability * CALIBRATION_BINS as f64) as usize;
        &mut self.calibration[bin.min(CALIBRATION_BINS - 1)]
    }

    /// Adds the labels of another time, of the same model.
    pub fn merge(&mut self, other: &Self) {
        self.labels += other.labels;
        self.log_loss += other.log_loss;
        self.log_loss_squares += other.log_loss_squares;
        self.correct += other.correct;
        for (scores, more) in self.classes.iter_mut().zip(&other.classes) {
            scores.positives.merge(&more.positives);
            scores.negatives.merge(&more.negatives);
        }
        for (bin, more) in self.calibration.iter_mut().zip(&other.calibration) {
            bin.predictions += more.predictions;
            bin.probability += more.probability;
            bin.right += more.right;
        }
    }

    /// Number of labels.
    #[must_use]
    pub fn labels(&self) -> u64 {
        self.labels
    }

    /// Sum of the log loss, which a replaced label changes.
    #[must_use]
    pub fn log_loss_sum(&self) -> f64 {
        self.log_loss
    }

    /// The calibration curve: a point for each of ten bins of equal width that has labels. With two classes it is that of the
    /// second class; with more, that of the most probable class.
    #[must_use]
    pub fn calibration(&self) -> Vec<CalibrationPoint> {
        let bins = self.calibration.iter().filter(|bin| bin.predictions > 0);
        let point = |bin: &CalibrationBin| {
            let labels = bin.predictions as f64;
            CalibrationPoint {
                probability: bin.probability / labels,
                right: bin.right as f64 / labels,
                labels: bin.predictions,
            }
        };
        bins.map(point).collect()
    }

    /// The metrics of the labels so far.
    #[must_use]
    pub fn metrics(&self) -> LiveMetrics {
        if self.labels == 0 {
            return LiveMetrics::default();
        }
        let labels = self.labels as f64;
        let mean = self.log_loss / labels;
        let variance = (self.log_loss_squares / labels - mean * mean).max(0.0);
        let aucs: Vec<f64> = self.classes.iter().filter_map(ClassScores::auc).collect();
        let gap = |bin: &CalibrationBin| (bin.probability - bin.right as f64).abs();
        LiveMetrics {
            labels: self.labels,
            log_loss: Some(mean),
            log_loss_deviation: Some(variance.sqrt()),
            auc: (!aucs.is_empty()).then(|| aucs.iter().sum::<f64>() / aucs.len() as f64),
            accuracy: Some(self.correct as f64 / labels),
            calibration_error: Some(self.calibration.iter().map(gap).sum::<f64>() / labels),
        }
    }
}

/// The log loss of one prediction. A class that the model does not have has a probability of 0.
fn loss_of(probabilities: &[f64], label: Option<usize>) -> f64 {
    let of_label = label.and_then(|label| probabilities.get(label)).copied().unwrap_or(0.0);
    -of_label.clamp(PROBABILITY_MIN, 1.0).ln()
}

impl ClassScores {
    /// The histogram of predictions with that label, or with others.
    fn of(&mut self, is_label: bool) -> &mut ScoreHistogram {
        if is_label { &mut self.positives } else { &mut self.negatives }
    }

    fn auc(&self) -> Option<f64> {
        let pairs = self.positives.counts().iter().zip(self.negatives.counts());
        auc(pairs.map(|(positives, negatives)| (*positives as f64, *negatives as f64)))
    }
}

/// The index of the most probable class; the first one of a tie.
fn most_probable(probabilities: &[f64]) -> usize {
    let mut best = 0;
    for (class, probability) in probabilities.iter().enumerate() {
        if *probability > probabilities[best] {
            best = class;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_calibration_curve_has_a_point_for_each_bin_with_labels() {
        let mut labels = Progressive::new(2, 0.5);
        for (probability, label) in [(0.92, 1), (0.98, 0), (0.15, 0)] {
            assert!(labels.add(&[1.0 - probability, probability], Some(label)));
        }
        let curve = labels.calibration();
        let [low, high] = curve.as_slice() else { panic!("{curve:?}") };
        assert_eq!((low.labels, high.labels), (1, 2));
        assert!((high.probability - 0.95).abs() < 1e-12 && (high.right - 0.5).abs() < 1e-12);
        assert!(low.right == 0.0);
    }
    use crate::{
        Label, Probabilities,
        training::{Evaluation, log_loss},
    };
    use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

    /// Random predictions whose labels follow them, more or less.
    fn random(classes: usize, number: usize, seed: u64) -> Vec<(Vec<f64>, usize)> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut one = || {
            let label = random.random_range(0..classes);
            let score = |class| random.random_range(0.0_f64..4.0) + f64::from(class == label);
            let scores: Vec<f64> = (0..classes).map(score).map(f64::exp).collect();
            let sum: f64 = scores.iter().sum();
            (scores.iter().map(|score| score / sum).collect(), label)
        };
        (0..number).map(|_| one()).collect()
    }

    fn sums(classes: usize, predictions: &[(Vec<f64>, usize)]) -> Progressive {
        let mut sums = Progressive::new(classes, 0.4);
        for (probabilities, label) in predictions {
            assert!(sums.add(probabilities, Some(*label)));
        }
        sums
    }

    #[test]
    fn the_metrics_are_those_of_an_evaluation() {
        let check = |classes: usize, auc_error: f64| {
            let predictions = random(classes, 20_000, 3);
            let found = sums(classes, &predictions).metrics();
            let of =
                |(probabilities, _): &(Vec<f64>, usize)| Probabilities::new(probabilities.clone());
            let probabilities: Vec<_> = predictions.iter().map(of).collect();
            let decide = |prediction: &Probabilities| match prediction.as_slice() {
                [_, one] => Label(u32::from(*one >= 0.4)),
                _ => prediction.most_probable(),
            };
            let decisions: Vec<_> = probabilities.iter().map(decide).collect();
            let label = |label: usize| Label(u32::try_from(label).unwrap());
            let labels: Vec<_> = predictions.iter().map(|(_, class)| label(*class)).collect();
            let exact = Evaluation::new(&probabilities, &decisions, &labels);
            let near = |a: Option<f64>, b: Option<f64>, error: f64| {
                assert!((a.unwrap() - b.unwrap()).abs() < error, "{a:?}, not {b:?}");
            };
            assert_eq!(found.labels, exact.examples);
            near(found.log_loss, exact.log_loss, 1e-9);
            near(found.accuracy, exact.accuracy, 1e-12);
            near(found.auc, exact.auc, auc_error);
        };
        check(2, 2e-5);
        check(3, 5e-5);
        check(40, 2e-3);
    }

    #[test]
    fn merged_sums_are_those_of_all_predictions() {
        let predictions = random(2, 1_000, 5);
        let mut merged = sums(2, &predictions[..300]);
        merged.merge(&sums(2, &predictions[300..]));
        let (merged, all) = (merged.metrics(), sums(2, &predictions).metrics());
        assert_eq!((merged.labels, merged.auc), (all.labels, all.auc));
        assert!((merged.log_loss.unwrap() - all.log_loss.unwrap()).abs() < 1e-12);
        assert!((merged.calibration_error.unwrap() - all.calibration_error.unwrap()).abs() < 1e-12);
    }

    #[test]
    fn a_replaced_label_leaves_the_sums_as_if_only_the_last_had_come() {
        for classes in [2, 3, 40] {
            let predictions = random(classes, 1_000, 7);
            let mut replaced = sums(classes, &predictions);
            let last: Vec<(Vec<f64>, usize)> = predictions
                .iter()
                .enumerate()
                .map(|(number, (p, label))| (p.clone(), (label + number % 2) % classes))
                .collect();
            for ((probabilities, from), (_, to)) in predictions.iter().zip(&last) {
                if from != to {
                    assert!(replaced.replace(probabilities, Some(*from), Some(*to)));
                }
            }
            let (found, expected) = (replaced.metrics(), sums(classes, &last).metrics());
            assert_eq!((found.labels, found.auc), (expected.labels, expected.auc));
            assert_eq!(found.accuracy, expected.accuracy);
            let near = |a: Option<f64>, b: Option<f64>| (a.unwrap() - b.unwrap()).abs() < 1e-9;
            assert!(near(found.log_loss, expected.log_loss));
            assert!(near(found.log_loss_deviation, expected.log_loss_deviation));
            assert!(near(found.calibration_error, expected.calibration_error));
        }
        assert!(!Progressive::new(2, 0.5).replace(&[0.5, 0.5], Some(0), Some(1)));
    }

    #[test]
    fn the_calibration_error_is_the_gap_between_probability_and_share() {
        let check = |probability: f64, ones: usize, expected: f64| {
            let mut sums = Progressive::new(2, 0.5);
            for number in 0..100 {
                sums.add(&[1.0 - probability, probability], Some(usize::from(number < ones)));
            }
            let found = sums.metrics().calibration_error.unwrap();
            assert!((found - expected).abs() < 1e-9, "{found}, not {expected}");
        };
        check(0.8, 80, 0.0);
        check(0.8, 20, 0.6);
        check(0.0, 100, 1.0);
        check(1.0, 100, 0.0);
    }

    #[test]
    fn a_class_that_the_model_lacks_has_a_probability_of_zero() {
        let mut sums = Progressive::new(2, 0.5);
        assert!(sums.add(&[0.5, 0.5], None));
        let expected = log_loss(&[Probabilities::new(vec![0.5, 0.5])], &[Label(7)]);
        assert_eq!(sums.metrics().log_loss, expected);
    }

    #[test]
    fn what_are_no_probabilities_of_the_model_is_not_added() {
        let mut sums = Progressive::new(2, 0.5);
        for invalid in [&[][..], &[1.0], &[0.2, 0.3, 0.5], &[f64::NAN, 0.5], &[-0.1, 1.1]] {
            assert!(!sums.add(invalid, Some(0)), "{invalid:?}");
        }
        assert_eq!(sums.metrics(), LiveMetrics::default());
    }
}
