//! Calibration: corrects the probabilities of a model by the frequencies that held-out examples show.
//!
//! With two classes one curve corrects the probability of class 1. With more, each class has a curve, one class against the
//! rest, and the corrected probabilities are divided by their sum (Zadrozny and Elkan, "Transforming Classifier Scores into
//! Accurate Multiclass Probability Estimates", 2002).

use serde::{Deserialize, Serialize};

use crate::{Label, Probabilities};

/// Minimum number of held-out examples in a class and outside of it; with fewer, its probabilities stay as they are.
const CLASS_EXAMPLES_MIN: usize = 5;
/// Distance from 0 and 1 within which a probability has the same log-odds.
const PROBABILITY_MIN: f64 = 1e-15;

/// Method by which the probabilities of a model are calibrated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Calibration {
    /// The probabilities stay as the trees give them.
    #[default]
    None,
    /// A sigmoid of the log-odds (Platt, "Probabilistic Outputs for Support Vector Machines", 1999): two parameters, so it
    /// suits small sets.
    Platt,
    /// A non-decreasing curve (Zadrozny and Elkan 2002), fitted by pooling adjacent violators: any shape, but it needs about a
    /// thousand held-out examples.
    Isotonic,
}

impl Calibration {
    /// Whether it is [`Self::None`].
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// Fitted curves that correct probabilities: one with two classes, else one per class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Curve>", into = "Vec<Curve>")]
pub struct Calibrator {
    curves: Vec<Curve>,
}

/// A non-decreasing function from a probability to its correction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Curve {
    /// The probability itself.
    Identity,
    /// `1 / (1 + exp(-(slope × log-odds + intercept)))`.
    Platt { slope: f64, intercept: f64 },
    /// Linear between the points, constant beyond the first and the last.
    Isotonic { scores: Vec<f64>, probabilities: Vec<f64> },
}

impl Calibrator {
    /// Fits the curves to predictions for held-out examples. `None` if nothing is to be corrected: for
    /// [`Calibration::None`], with too few examples, and if the probabilities do not rise with the frequencies.
    pub(super) fn fit(
        calibration: Calibration,
        predictions: &[Probabilities],
        labels: &[Label],
    ) -> Option<Self> {
        let classes = predictions.first()?.as_slice().len();
        let curve = |class| {
            let scored = predictions.iter().zip(labels);
            let scored = scored
                .map(|(prediction, label)| (prediction.of(class).unwrap_or(0.0), *label == class));
            Curve::fit(calibration, scored.collect())
        };
        let from = usize::from(classes == 2);
        let of_class = |class| Label(u32::try_from(class).expect("there are at most 256 classes"));
        let curves: Vec<Curve> = (from..classes).map(of_class).map(curve).collect();
        curves.iter().any(|curve| *curve != Curve::Identity).then_some(Self { curves })
    }

    /// Whether it can correct the probabilities of this many classes.
    #[must_use]
    pub fn is_for(&self, classes: usize) -> bool {
        self.curves.len() == if classes == 2 { 1 } else { classes }
    }

    /// The corrected probabilities of an example.
    #[must_use]
    pub fn apply(&self, probabilities: &Probabilities) -> Probabilities {
        let by_class = probabilities.as_slice();
        if let ([curve], [_, of_one]) = (self.curves.as_slice(), by_class) {
            let corrected = curve.at(*of_one);
            return Probabilities::new(vec![1.0 - corrected, corrected]);
        }
        let mut corrected: Vec<f64> =
            self.curves.iter().zip(by_class).map(|(curve, one)| curve.at(*one)).collect();
        let total: f64 = corrected.iter().sum();
        if total > 0.0 {
            corrected.iter_mut().for_each(|one| *one /= total);
            Probabilities::new(corrected)
        } else {
            probabilities.clone()
        }
    }
}

impl Curve {
    /// Fits a curve to pairs of a probability and whether the example is of the class.
    fn fit(calibration: Calibration, scored: Vec<(f64, bool)>) -> Self {
        let positives = scored.iter().filter(|(_, is_positive)| *is_positive).count();
        if positives.min(scored.len() - positives) < CLASS_EXAMPLES_MIN {
            return Self::Identity;
        }
        match calibration {
            Calibration::None => Self::Identity,
            Calibration::Platt => Self::fit_sigmoid(&scored),
            Calibration::Isotonic => Self::fit_isotonic(scored),
        }
    }

    /// Minimises the log loss by Newton's method with backtracking (Lin, Lin and Weng, "A Note on Platt's Probabilistic
    /// Outputs for Support Vector Machines", 2007). The targets are Platt's: slightly within 0 and 1.
    fn fit_sigmoid(scored: &[(f64, bool)]) -> Self {
        const STEPS_MAX: usize = 100;
        let positives = scored.iter().filter(|(_, is_positive)| *is_positive).count() as f64;
        let negatives = scored.len() as f64 - positives;
        let targets = [1.0 / (negatives + 2.0), (positives + 1.0) / (positives + 2.0)];
        let points: Vec<(f64, f64)> = scored
            .iter()
            .map(|(one, is_positive)| (log_odds(*one), targets[usize::from(*is_positive)]))
            .collect();
        let loss = |slope: f64, intercept: f64| -> f64 {
            let of = |(x, target): &(f64, f64)| {
                let z = slope * x + intercept;
                z.max(0.0) + (-z.abs()).exp().ln_1p() - target * z
            };
            points.iter().map(of).sum()
        };
        let (mut slope, mut intercept) = (1.0, 0.0);
        let mut best = loss(slope, intercept);
        for _ in 0..STEPS_MAX {
            let (step_slope, step_intercept) = newton_step(&points, slope, intercept);
            // Halves the step until the loss falls; at the minimum, none does.
            let sizes = std::iter::successors(Some(1.0), |size| Some(size / 2.0)).take(40);
            let next = sizes
                .map(|size: f64| (slope + size * step_slope, intercept + size * step_intercept))
                .find(|(slope, intercept)| loss(*slope, *intercept) < best);
            let Some(next) = next else { break };
            (slope, intercept) = next;
            let fallen = best - loss(slope, intercept);
            best -= fallen;
            if fallen < 1e-12 * best {
                break;
            }
        }
        let fitted = Self::Platt { slope, intercept };
        if fitted.is_valid() { fitted } else { Self::Identity }
    }

    /// Pools adjacent violators. The probabilities are kept as far from 0 and 1 as `n` examples can show: `1 / (n + 2)`.
    fn fit_isotonic(mut scored: Vec<(f64, bool)>) -> Self {
        struct Block {
            least: f64,
            most: f64,
            positives: f64,
            count: f64,
        }
        let bound = 1.0 / (scored.len() as f64 + 2.0);
        scored.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut blocks: Vec<Block> = Vec::new();
        for ties in scored.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq()) {
            let positives = ties.iter().filter(|(_, is_positive)| *is_positive).count() as f64;
            let mut block =
                Block { least: ties[0].0, most: ties[0].0, positives, count: ties.len() as f64 };
            while let Some(last) =
                blocks.pop_if(|last| last.positives * block.count >= block.positives * last.count)
            {
                block.least = last.least;
                block.positives += last.positives;
                block.count += last.count;
            }
            blocks.push(block);
        }
        let (mut scores, mut probabilities) = (Vec::new(), Vec::new());
        for Block { least, most, positives, count } in blocks {
            let probability = (positives / count).clamp(bound, 1.0 - bound);
            scores.push(least);
            probabilities.push(probability);
            if most > least {
                scores.push(most);
                probabilities.push(probability);
            }
        }
        let fitted = Self::Isotonic { scores, probabilities };
        if fitted.is_valid() { fitted } else { Self::Identity }
    }

    fn at(&self, probability: f64) -> f64 {
        match self {
            Self::Identity => probability,
            Self::Platt { slope, intercept } => {
                1.0 / (1.0 + (-(slope * log_odds(probability) + intercept)).exp())
            }
            Self::Isotonic { scores, probabilities } => {
                let above = scores.partition_point(|score| *score <= probability);
                let Some(below) = above.checked_sub(1) else { return probabilities[0] };
                let Some(score) = scores.get(above) else { return probabilities[below] };
                let share = (probability - scores[below]) / (score - scores[below]);
                probabilities[below] + (probabilities[above] - probabilities[below]) * share
            }
        }
    }

    fn is_valid(&self) -> bool {
        match self {
            Self::Identity => true,
            Self::Platt { slope, intercept } => {
                slope.is_finite() && *slope > 0.0 && intercept.is_finite()
            }
            Self::Isotonic { scores, probabilities } => {
                let are_probabilities = [scores, probabilities]
                    .map(|list| list.iter().all(|one| (0.0..=1.0).contains(one)));
                are_probabilities == [true, true]
                    && !scores.is_empty()
                    && scores.len() == probabilities.len()
                    && scores.is_sorted_by(|a, b| a < b)
                    && probabilities.is_sorted()
            }
        }
    }
}

/// The logarithm of `probability / (1 - probability)`.
fn log_odds(probability: f64) -> f64 {
    let inside = probability.clamp(PROBABILITY_MIN, 1.0 - PROBABILITY_MIN);
    (inside / (1.0 - inside)).ln()
}

/// The step of Newton's method, in slope and intercept, towards the minimum of the log loss.
fn newton_step(points: &[(f64, f64)], slope: f64, intercept: f64) -> (f64, f64) {
    // A ridge, so that the Hessian can be inverted.
    let (mut h11, mut h12, mut h22) = (1e-12, 0.0, 1e-12);
    let (mut g1, mut g2) = (0.0, 0.0);
    for (x, target) in points {
        let probability = 1.0 / (1.0 + (-(slope * x + intercept)).exp());
        let weight = probability * (1.0 - probability);
        h11 += x * x * weight;
        h12 += x * weight;
        h22 += weight;
        g1 += x * (probability - target);
        g2 += probability - target;
    }
    let determinant = h11 * h22 - h12 * h12;
    (-(h22 * g1 - h12 * g2) / determinant, -(h11 * g2 - h12 * g1) / determinant)
}

impl TryFrom<Vec<Curve>> for Calibrator {
    type Error = &'static str;

    fn try_from(curves: Vec<Curve>) -> Result<Self, Self::Error> {
        if curves.is_empty() || !curves.iter().all(Curve::is_valid) {
            return Err(
                "a curve of the calibration is not a non-decreasing function of probabilities",
            );
        }
        Ok(Self { curves })
    }
}

impl From<Calibrator> for Vec<Curve> {
    fn from(calibrator: Calibrator) -> Self {
        calibrator.curves
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{random::SplitMix64, training::log_loss};

    fn uniform(random: &mut SplitMix64) -> f64 {
        (random.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Binary predictions that are too sure of themselves: twice the true log-odds, less a half.
    fn overconfident(examples: usize, seed: u64) -> (Vec<Probabilities>, Vec<Label>) {
        let mut random = SplitMix64::new(seed);
        let example = |_| {
            let log_odds = 5.0 * uniform(&mut random) - 2.5;
            let sigmoid = |z: f64| 1.0 / (1.0 + (-z).exp());
            let label = Label(u32::from(uniform(&mut random) < sigmoid(log_odds)));
            let one = sigmoid(2.0 * log_odds - 0.5);
            (Probabilities::new(vec![1.0 - one, one]), label)
        };
        (0..examples).map(example).unzip()
    }

    fn fitted(
        calibration: Calibration,
        predictions: &[Probabilities],
        labels: &[Label],
    ) -> Calibrator {
        Calibrator::fit(calibration, predictions, labels).unwrap()
    }

    #[test]
    fn platt_finds_the_distortion() {
        let (predictions, labels) = overconfident(20_000, 1);
        let calibrator = fitted(Calibration::Platt, &predictions, &labels);
        let [Curve::Platt { slope, intercept }] = calibrator.curves[..] else { panic!() };
        assert!(
            (slope - 0.5).abs() < 0.02 && (intercept - 0.25).abs() < 0.05,
            "{slope} {intercept}"
        );
    }

    #[test]
    fn calibrated_probabilities_have_a_lower_log_loss_on_fresh_examples() {
        let (predictions, labels) = overconfident(5_000, 2);
        let (fresh, truth) = overconfident(20_000, 3);
        let before = log_loss(&fresh, &truth).unwrap();
        for calibration in [Calibration::Platt, Calibration::Isotonic] {
            let calibrator = fitted(calibration, &predictions, &labels);
            let corrected: Vec<_> = fresh.iter().map(|one| calibrator.apply(one)).collect();
            let after = log_loss(&corrected, &truth).unwrap();
            assert!(after < before - 0.04, "{calibration:?}: {after}, {before}");
        }
    }

    #[test]
    fn many_classes_are_calibrated_one_against_the_rest() {
        let mut random = SplitMix64::new(4);
        let mut example = || {
            let sums = [(); 3].map(|()| 3.0 * uniform(&mut random));
            let softmax = |scale: f64| {
                let shares = sums.map(|sum| (scale * sum).exp());
                shares.map(|share| share / shares.iter().sum::<f64>())
            };
            let (truth, drawn) = (softmax(1.0), uniform(&mut random));
            let label = u32::from(drawn > truth[0]) + u32::from(drawn > truth[0] + truth[1]);
            (Probabilities::new(softmax(2.5).to_vec()), Label(label))
        };
        let (predictions, labels): (Vec<_>, Vec<_>) = (0..6_000).map(|_| example()).unzip();
        let (fresh, truth): (Vec<_>, Vec<_>) = (0..6_000).map(|_| example()).unzip();
        let before = log_loss(&fresh, &truth).unwrap();
        for calibration in [Calibration::Platt, Calibration::Isotonic] {
            let calibrator = fitted(calibration, &predictions, &labels);
            assert!(calibrator.is_for(3) && !calibrator.is_for(2) && !calibrator.is_for(4));
            let corrected: Vec<_> = fresh.iter().map(|one| calibrator.apply(one)).collect();
            let after = log_loss(&corrected, &truth).unwrap();
            assert!(after < before - 0.05, "{calibration:?}: {after}, {before}");
            let sums = corrected.iter().map(|one| one.as_slice().iter().sum::<f64>());
            assert!(sums.into_iter().all(|sum| (sum - 1.0).abs() < 1e-12));
        }
    }

    #[test]
    fn adjacent_violators_are_pooled() {
        let one = |number: u32| f64::from(number) / 20.0;
        // Positive at 1, 4, 5, 7, 8, 9 of 0 to 9: the violators are 1 to 3, and 5 and 6.
        let is_positive = |number| [1, 4, 5, 7, 8, 9].contains(&number);
        let scored: Vec<(f64, bool)> = (0..10).map(|n| (one(n), is_positive(n))).collect();
        let Curve::Isotonic { scores, probabilities } = Curve::fit_isotonic(scored) else {
            panic!()
        };
        assert_eq!(scores, [0, 1, 3, 4, 6, 7, 9].map(one));
        let third = 1.0 / 3.0;
        let expected =
            [1.0 / 12.0, third, third, 2.0 * third, 2.0 * third, 11.0 / 12.0, 11.0 / 12.0];
        let close = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-12;
        assert!(probabilities.iter().zip(&expected).all(close), "{probabilities:?}");
    }

    #[test]
    fn nothing_is_calibrated_by_too_few_examples_or_against_the_frequencies() {
        let (predictions, labels) = overconfident(400, 5);
        let is_fitted = |calibration, predictions: &[Probabilities], labels: &[Label]| {
            Calibrator::fit(calibration, predictions, labels).is_some()
        };
        let methods = [Calibration::None, Calibration::Platt, Calibration::Isotonic];
        let check = |predictions: &[Probabilities], labels: &[Label], expected: [bool; 3]| {
            let found = methods.map(|method| is_fitted(method, predictions, labels));
            assert_eq!(found, expected);
        };
        check(&predictions, &labels, [false, true, true]);
        check(&[], &[], [false; 3]);
        check(&predictions[..5], &labels[..5], [false; 3]);
        check(&predictions, &[Label(1); 400], [false; 3]);
        let swap =
            |one: &Probabilities| Probabilities::new(vec![one.as_slice()[1], one.as_slice()[0]]);
        let reversed: Vec<_> = predictions.iter().map(swap).collect();
        check(&reversed, &labels, [false, false, true]);
        let sure: Vec<_> =
            labels.iter().map(|label| f64::from(label.0)).map(|one| vec![1.0 - one, one]).collect();
        let sure: Vec<_> = sure.into_iter().map(Probabilities::new).collect();
        check(&sure, &labels, [false, true, true]);
    }

    #[test]
    fn a_deserialised_curve_is_checked() {
        let check = |json: &str, expected: bool| {
            assert_eq!(serde_json::from_str::<Calibrator>(json).is_ok(), expected, "{json}");
        };
        check(r#"["identity", {"platt": {"slope": 0.5, "intercept": -1.0}}]"#, true);
        check("[]", false);
        check(r#"[{"platt": {"slope": -0.5, "intercept": 0.0}}]"#, false);
        let isotonic = |scores: &str, probabilities: &str| {
            format!(r#"[{{"isotonic": {{"scores": {scores}, "probabilities": {probabilities}}}}}]"#)
        };
        check(&isotonic("[0.1, 0.2]", "[0.3, 0.3]"), true);
        check(&isotonic("[0.1, 0.2]", "[0.3, 0.2]"), false);
        check(&isotonic("[0.2, 0.2]", "[0.3, 0.3]"), false);
        check(&isotonic("[0.1]", "[0.3, 0.3]"), false);
        check(&isotonic("[0.1]", "[1.1]"), false);
        check(&isotonic("[]", "[]"), false);
    }

    proptest! {
        #[test]
        fn curves_do_not_fall_and_stay_within_0_and_1(
            scored in prop::collection::vec((0.0..=1.0_f64, any::<bool>()), 0..60),
            ones in prop::collection::vec(0.0..=1.0_f64, 1..20),
        ) {
            for calibration in [Calibration::Platt, Calibration::Isotonic] {
                let curve = Curve::fit(calibration, scored.clone());
                prop_assert!(curve.is_valid());
                let mut ones = ones.clone();
                ones.extend([0.0, 1.0]);
                ones.sort_by(f64::total_cmp);
                let corrected: Vec<f64> = ones.iter().map(|one| curve.at(*one)).collect();
                prop_assert!(corrected.iter().all(|one| (0.0..=1.0).contains(one)));
                prop_assert!(corrected.windows(2).all(|pair| pair[0] <= pair[1] + 1e-15));
            }
        }
    }
}
