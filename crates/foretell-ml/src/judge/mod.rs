//! Comparison of two models on the same examples: a difference with its interval, and the verdict that follows from it.
//!
//! ```text
//!  sample ──predict──▶ Predictions of the candidate ─┐
//!         ──predict──▶ Predictions of the champion ──┼─compare──▶ Comparison ──verdict(margin)──▶ Better, Worse, Undecided
//!                      labels ───────────────────────┘
//! ```
//!
//! The interval is a paired bootstrap percentile interval (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993,
//! chapter 13): examples are drawn with replacement, the same for both models, as many as there are; each such resample
//! gives a difference of the metric; and the interval spans the middle `confidence` of the differences. Pairing matters:
//! two models mostly err on the same examples, so their difference varies much less than the metric of either.
//!
//! The interval is two-sided. So if the models are equally good, each of the verdicts "better" and "worse" has a
//! probability of about `(1 - confidence) / 2`: 2.5 % with a confidence of .95.

mod bootstrap;
mod predictions;
mod statistic;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::predictions::{Predictions, predict};
use self::{bootstrap::resample, statistic::Statistic};
use crate::{
    Label, Metric, Seed,
    training::{TrainingError, within},
};

/// Minimum number of examples of a comparison. The interval of fewer is much too narrow: that of one example has no width.
pub const EXAMPLES_MIN: usize = 30;

/// Minimum number of them whose label is not the most frequent one. What resamples do with fewer is chance: without any, the model
/// that is the most certain of the frequent label would be better without a doubt.
pub const OTHERS_MIN: usize = 10;

/// Settings of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Metric by which the models are compared.
    pub metric: Metric,
    /// Confidence of the interval, .5 to .999.
    pub confidence: f64,
    /// Number of resamples, 100 to 10,000. With 1,000, an end of a 95 % interval varies by about a fiftieth of its width.
    pub resamples: u32,
    /// Random seed of the resamples.
    pub seed: Seed,
}

impl Default for Settings {
    fn default() -> Self {
        Self { metric: Metric::default(), confidence: 0.95, resamples: 1_000, seed: Seed(0) }
    }
}

impl Settings {
    /// Checks that each setting is within its bounds.
    ///
    /// # Errors
    /// [`TrainingError::Setting`] for the first that is not.
    pub fn check(&self) -> Result<(), TrainingError> {
        within("confidence", self.confidence, 0.5, 0.999)?;
        within("resamples", self.resamples.into(), 100.0, 10_000.0)
    }
}

/// Metrics of two models on the same examples, and the interval of their difference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Metric by which the models were compared.
    pub metric: Metric,
    /// Number of examples.
    pub examples: u64,
    /// Metric of the candidate.
    pub candidate: f64,
    /// Metric of the champion.
    pub champion: f64,
    /// Difference of the metrics: positive if the candidate is better, also if a lower metric is better.
    pub difference: f64,
    /// Low end of the difference's interval.
    pub low: f64,
    /// High end of the difference's interval.
    pub high: f64,
}

/// Conclusion from a [`Comparison`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The candidate is better than the champion by more than the margin.
    Better,
    /// The candidate is worse than the champion by more than the margin.
    Worse,
    /// Neither is shown by these examples.
    Undecided,
}

impl Comparison {
    /// The verdict for a margin, in units of the metric and at least 0: [`Verdict::Better`] if the whole interval is above
    /// the margin, [`Verdict::Worse`] if it is below minus the margin, else [`Verdict::Undecided`].
    #[must_use]
    pub fn verdict(&self, margin: f64) -> Verdict {
        if self.low > margin {
            Verdict::Better
        } else if self.high < -margin {
            Verdict::Worse
        } else {
            Verdict::Undecided
        }
    }
}

/// Compares two models by their predictions for the same examples.
///
/// `None` if nothing can be concluded: there are fewer than [`EXAMPLES_MIN`] examples, or [`OTHERS_MIN`] of another label than the
/// most frequent one; a probability is NaN; or the metric is undefined for the examples or for more than 1 % of the resamples, as
/// the AUC is with fewer than about five examples of a class.
///
/// # Panics
/// If the numbers of predictions, decisions and labels differ, or the settings are out of their bounds.
#[must_use]
pub fn compare(
    candidate: &Predictions,
    champion: &Predictions,
    labels: &[Label],
    settings: &Settings,
) -> Option<Comparison> {
    if others(labels) < OTHERS_MIN {
        return None;
    }
    compare_any(candidate, champion, labels, settings)
}

/// As [`compare`], also if all labels are the same: for predictions whose label is the true one, whatever it is.
///
/// # Panics
/// As [`compare`].
#[must_use]
pub fn compare_any(
    candidate: &Predictions,
    champion: &Predictions,
    labels: &[Label],
    settings: &Settings,
) -> Option<Comparison> {
    let both = [candidate, champion];
    if !both.iter().all(|predictions| can_be_resampled(predictions, labels, settings)) {
        return None;
    }
    let metric = settings.metric;
    let of = |predictions: &Predictions| {
        metric.of(&predictions.probabilities, &predictions.decisions, labels)
    };
    let (of_candidate, of_champion) = (of(candidate)?, of(champion)?);
    let better = |candidate: f64, champion: f64| match metric.is_higher_better() {
        true => candidate - champion,
        false => champion - candidate,
    };
    let difference = better(of_candidate, of_champion);
    let (low, high) = resample(labels.len(), difference, settings, |rows| {
        let of = both.map(|predictions| Statistic::new(metric, predictions, labels, rows));
        move |counts: &[u32]| Some(better(of[0].of(counts)?, of[1].of(counts)?))
    })?;
    Some(Comparison {
        metric,
        examples: u64::try_from(labels.len()).expect("a length has at most 64 bits"),
        candidate: of_candidate,
        champion: of_champion,
        difference,
        low,
        high,
    })
}

/// The bootstrap interval of the metric of one model. `None` as in [`compare`].
///
/// # Panics
/// If the numbers of predictions, decisions and labels differ, or the settings are out of their bounds.
#[must_use]
pub fn interval(
    predictions: &Predictions,
    labels: &[Label],
    settings: &Settings,
) -> Option<(f64, f64)> {
    if !can_be_resampled(predictions, labels, settings) {
        return None;
    }
    let metric = settings.metric;
    let value = metric.of(&predictions.probabilities, &predictions.decisions, labels)?;
    resample(labels.len(), value, settings, |rows| {
        let statistic = Statistic::new(metric, predictions, labels, rows);
        move |counts: &[u32]| statistic.of(counts)
    })
}

fn can_be_resampled(predictions: &Predictions, labels: &[Label], settings: &Settings) -> bool {
    settings.check().expect("the settings were checked");
    assert_eq!(predictions.probabilities.len(), labels.len(), "a prediction for each label");
    assert_eq!(predictions.decisions.len(), labels.len(), "a decision for each label");
    labels.len() >= EXAMPLES_MIN && !predictions.has_nan()
}

/// Number of labels that are not the most frequent one.
fn others(labels: &[Label]) -> usize {
    let mut counts: BTreeMap<Label, usize> = BTreeMap::new();
    labels.iter().for_each(|label| *counts.entry(*label).or_default() += 1);
    labels.len() - counts.into_values().max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Probabilities, random::SplitMix64};

    /// Binary predictions with a threshold of .5.
    fn predictions(of_one: impl IntoIterator<Item = f64>) -> Predictions {
        let of_one: Vec<f64> = of_one.into_iter().collect();
        let decisions = of_one.iter().map(|one| Label(u32::from(*one >= 0.5))).collect();
        let probabilities =
            of_one.iter().map(|one| Probabilities::new(vec![1.0 - one, *one])).collect();
        Predictions { probabilities, decisions }
    }

    fn uniform(random: &mut SplitMix64) -> f64 {
        (random.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Labels with known probabilities, and the predictions of two models that distort the log-odds by noise of this size.
    fn simulated(examples: usize, noise: [f64; 2], seed: u64) -> ([Predictions; 2], Vec<Label>) {
        let mut random = SplitMix64::new(seed);
        let (mut labels, mut of_one) = (Vec::new(), [Vec::new(), Vec::new()]);
        for _ in 0..examples {
            let log_odds = 6.0 * uniform(&mut random) - 3.0;
            let probability = |log_odds: f64| 1.0 / (1.0 + (-log_odds).exp());
            labels.push(Label(u32::from(uniform(&mut random) < probability(log_odds))));
            for (of_one, noise) in of_one.iter_mut().zip(noise) {
                let sum: f64 = (0..3).map(|_| 2.0 * uniform(&mut random) - 1.0).sum();
                of_one.push(probability(log_odds + noise * sum));
            }
        }
        (of_one.map(predictions), labels)
    }

    fn with(metric: Metric) -> Settings {
        Settings { metric, resamples: 300, ..Settings::default() }
    }

    #[test]
    fn intervals_contain_the_true_difference_as_often_as_they_claim() {
        let noise = [0.4, 1.2];
        let (large, labels) = simulated(200_000, noise, 1);
        for metric in Metric::ALL {
            let of = |predictions: &Predictions| {
                metric.of(&predictions.probabilities, &predictions.decisions, &labels).unwrap()
            };
            let difference = metric.loss(of(&large[1])) - metric.loss(of(&large[0]));
            let contains = |seed| {
                let ([candidate, champion], labels) = simulated(300, noise, seed);
                let found = compare(&candidate, &champion, &labels, &with(metric)).unwrap();
                (found.low..=found.high).contains(&difference)
            };
            let hits = (1_000..1_400).filter(|seed| contains(*seed)).count();
            // 95 % of 400 are 380, with a standard deviation of 4.4.
            assert!((362..=395).contains(&hits), "{metric:?}: {hits} of 400");
        }
    }

    #[test]
    fn models_that_are_equally_good_are_seldom_told_apart() {
        for metric in Metric::ALL {
            let is_decided = |seed| {
                let ([candidate, champion], labels) = simulated(300, [0.8, 0.8], seed);
                let found = compare(&candidate, &champion, &labels, &with(metric)).unwrap();
                found.verdict(0.0) != Verdict::Undecided
            };
            let decided = (2_000..2_400).filter(|seed| is_decided(*seed)).count();
            // 5 % of 400 are 20, with a standard deviation of 4.4.
            assert!(decided <= 38, "{metric:?}: {decided} of 400");
        }
    }

    #[test]
    fn a_much_better_model_is_better_by_every_metric_and_the_other_worse() {
        let ([good, bad], labels) = simulated(2_000, [0.2, 6.0], 3);
        for metric in Metric::ALL {
            let found = compare(&good, &bad, &labels, &with(metric)).unwrap();
            assert!(found.low < found.difference && found.difference < found.high, "{found:?}");
            assert_eq!(found.verdict(0.0), Verdict::Better, "{found:?}");
            assert_eq!(found.verdict(found.low), Verdict::Undecided, "{found:?}");
            assert_eq!(found.examples, 2_000);
            let back = compare(&bad, &good, &labels, &with(metric)).unwrap();
            assert_eq!(back.verdict(0.0), Verdict::Worse, "{back:?}");
            assert_eq!(back.verdict(3.0), Verdict::Undecided, "{back:?}");
            assert!((back.difference + found.difference).abs() < 1e-12);
            assert!((back.low + found.high).abs() < 1e-9 && (back.high + found.low).abs() < 1e-9);
        }
    }

    #[test]
    fn the_same_model_twice_is_undecided() {
        let ([model, _], labels) = simulated(500, [0.5, 0.5], 4);
        let constant = predictions(std::iter::repeat_n(0.5, 500));
        for model in [&model, &constant] {
            for metric in Metric::ALL {
                let found = compare(model, model, &labels, &with(metric)).unwrap();
                assert!(found.low.abs() + found.high.abs() < 1e-15, "{found:?}");
                assert_eq!(found.verdict(0.0), Verdict::Undecided);
            }
        }
    }

    #[test]
    fn the_seed_decides() {
        let ([candidate, champion], labels) = simulated(400, [0.5, 0.9], 5);
        let of = |seed| {
            let settings = Settings { seed: Seed(seed), ..Settings::default() };
            compare(&candidate, &champion, &labels, &settings).unwrap()
        };
        assert_eq!(of(1), of(1));
        assert_ne!(of(1).low.to_bits(), of(2).low.to_bits());
        // Must never change: an old judgement is repeated with the same numbers.
        let Comparison { low, high, .. } = of(1);
        assert_eq!(format!("{low:.9} {high:.9}"), "0.016533770 0.086886182");
    }

    #[test]
    fn nothing_is_concluded_from_too_little() {
        let with_labels = |examples: usize, positives: usize, one: f64| {
            let labels: Vec<Label> =
                (0..examples).map(|n| Label(u32::from(n < positives))).collect();
            let candidate = predictions((0..examples).map(|n| if n == 3 { one } else { 0.4 }));
            let champion = predictions((0..examples).map(|n| 0.3 + 0.001 * n as f64));
            Metric::ALL
                .map(|metric| compare(&candidate, &champion, &labels, &with(metric)).is_some())
        };
        // Log loss, AUC, F1, accuracy.
        assert_eq!(with_labels(0, 0, 0.4), [false; 4]);
        assert_eq!(with_labels(1, 1, 0.4), [false; 4]);
        assert_eq!(with_labels(29, 10, 0.4), [false; 4]);
        assert_eq!(with_labels(30, 10, 0.4), [true; 4]);
        assert_eq!(with_labels(30, 10, f64::NAN), [false; 4]);
        assert_eq!(with_labels(30, 20, 0.4), [true; 4]);
        for positives in [0, 1, 9, 21, 30] {
            assert_eq!(
                with_labels(30, positives, 0.4),
                [false; 4],
                "{positives}: nearly one class"
            );
        }
        assert_eq!(with_labels(3_000, 9, 0.4), [false; 4]);
        assert_eq!(with_labels(3_000, 10, 0.4), [true; 4]);
    }

    #[test]
    fn settings_have_bounds() {
        let check = |settings: Settings, expected: bool| {
            assert_eq!(settings.check().is_ok(), expected, "{settings:?}");
        };
        let default = Settings::default();
        check(default, true);
        check(Settings { confidence: 1.0, ..default }, false);
        check(Settings { confidence: f64::NAN, ..default }, false);
        check(Settings { resamples: 99, ..default }, false);
        check(Settings { resamples: 10_001, ..default }, false);
    }
}
