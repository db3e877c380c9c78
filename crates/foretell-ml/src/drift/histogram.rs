//! Histograms of probabilities, with bins of equal width on the logit scale.
//!
//! Bins of equal width in probability would put all scores of a rare class into one or two bins.

use serde::{Deserialize, Serialize};

/// The bins cover probabilities with a logit from -10.24 to 10.24, which is 3.6e-5 to 1 - 3.6e-5; the first and the last
/// bin have those beyond.
const LOGIT_MAX: f64 = 10.24;
/// Bins of all classes together: 512 for the one class of two that is counted, a width of 0.04 of the logit.
const BINS: usize = 1_024;
/// With more than 16 classes, each still has 64 bins, of a width of 0.32 of the logit.
const BINS_MIN: usize = 64;

/// Numbers of probabilities by bin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ScoreHistogram {
    counts: Vec<u64>,
}

impl ScoreHistogram {
    /// An empty histogram for one of `classes` classes.
    #[must_use]
    pub fn new(classes: usize) -> Self {
        let bins = (BINS / classes.max(2)).max(BINS_MIN);
        Self { counts: vec![0; bins] }
    }

    /// Counts a probability as `times` ones.
    pub fn add(&mut self, probability: f64, times: u64) {
        let bin = bin_of(probability, self.counts.len());
        self.counts[bin] += times;
    }

    /// Takes a probability out that was counted once.
    pub(super) fn remove(&mut self, probability: f64) {
        let bin = bin_of(probability, self.counts.len());
        self.counts[bin] = self.counts[bin].saturating_sub(1);
    }

    /// Adds the counts of another histogram; none if it has other bins.
    pub fn merge(&mut self, other: &Self) {
        if other.counts.len() == self.counts.len() {
            add_counts(&mut self.counts, &other.counts);
        }
    }

    /// Sets all counts to 0.
    pub fn clear(&mut self) {
        self.counts.fill(0);
    }

    /// The counts of the bins, in the order of the probability.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// The probability in the middle of each bin, and its count.
    pub(super) fn by_probability(&self) -> impl Iterator<Item = (f64, f64)> {
        let bins = self.counts.len();
        self.counts
            .iter()
            .enumerate()
            .map(move |(bin, count)| (middle_of(bin, bins), *count as f64))
    }
}

/// Adds `more` to `counts`, bin by bin.
pub(super) fn add_counts(counts: &mut [u64], more: &[u64]) {
    for (count, more) in counts.iter_mut().zip(more) {
        *count += more;
    }
}

/// The classes whose scores are counted: of two the second, because the first has the complement.
pub(super) fn counted(classes: usize) -> std::ops::Range<usize> {
    let first = if classes == 2 { 1 } else { 0 };
    first..classes
}

fn bin_of(probability: f64, bins: usize) -> usize {
    let logit = (probability / (1.0 - probability)).ln();
    let place = (logit + LOGIT_MAX) * (bins as f64 / (2.0 * LOGIT_MAX));
    #[expect(clippy::cast_sign_loss, reason = "a negative place, and NaN, become 0")]
    let bin = place as usize;
    bin.min(bins - 1)
}

fn middle_of(bin: usize, bins: usize) -> f64 {
    let logit = (bin as f64 + 0.5) * (2.0 * LOGIT_MAX / bins as f64) - LOGIT_MAX;
    1.0 / (1.0 + (-logit).exp())
}

/// The AUC of weights of positives and negatives by bin, in the order of the score. Pairs in one bin count half, so the error
/// is at most half of the share of such pairs. `None` without positives or without negatives.
pub(super) fn auc(bins: impl Iterator<Item = (f64, f64)>) -> Option<f64> {
    let (mut positives, mut negatives, mut ordered) = (0.0, 0.0, 0.0);
    for (positive, negative) in bins {
        ordered += positive * (negatives + negative / 2.0);
        positives += positive;
        negatives += negative;
    }
    let pairs: f64 = positives * negatives;
    (pairs > 0.0).then(|| ordered / pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_probability_has_a_bin() {
        for classes in [0, 2, 3, 100] {
            let mut histogram = ScoreHistogram::new(classes);
            let bins = histogram.counts().len();
            for probability in [0.0, 1e-300, 0.5, 1.0 - 1e-16, 1.0, f64::NAN, -1.0, 2.0] {
                histogram.add(probability, 1);
            }
            assert_eq!(histogram.counts().iter().sum::<u64>(), 8, "{bins} bins");
        }
        assert_eq!(ScoreHistogram::new(2).counts().len(), 512);
        assert_eq!(ScoreHistogram::new(1_000).counts().len(), BINS_MIN);
    }

    #[test]
    fn the_middle_of_a_bin_is_in_it_and_near_its_probabilities() {
        for bin in 0..512 {
            assert_eq!(bin_of(middle_of(bin, 512), 512), bin);
        }
        for probability in [0.001, 0.02, 0.3, 0.5, 0.77, 0.999] {
            let middle = middle_of(bin_of(probability, 512), 512);
            let error = (middle - probability).abs() / (probability * (1.0 - probability));
            assert!(error < 0.021, "{probability}: {middle}");
        }
    }
}
