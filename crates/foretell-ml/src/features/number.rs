//! Numbers on a common scale, and what a missing one counts as.

use serde::{Deserialize, Serialize};

/// How numbers are scaled. Trees see no difference; readers of the features do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scaling {
    /// Not at all.
    #[default]
    None,
    /// The smallest becomes 0, the largest 1. Numbers millions of times farther off than the others do not count.
    MinMax,
    /// The mean becomes 0, the standard deviation 1.
    Standard,
}

/// One numeric column's scale: `(number - shift) / span`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Scale {
    shift: f64,
    span: f64,
    /// The smallest and the largest number that was seen; none if there was no number.
    range: Option<(f64, f64)>,
    /// What a missing number counts as, before scaling; none leaves it NaN.
    fill: Option<f64>,
}

impl Scale {
    /// Learns from the finite `numbers` of a column in which `missing` others were not.
    pub(super) fn fit(scaling: Scaling, mut numbers: Vec<f64>, missing: usize) -> Self {
        numbers.sort_by(f64::total_cmp);
        let (Some(least), Some(most)) = (numbers.first(), numbers.last()) else {
            return Self { shift: 0.0, span: 1.0, range: None, fill: None };
        };
        let usual = usual(&numbers);
        let (shift, span) = match (scaling, usual) {
            (Scaling::None, _) | (_, []) => (0.0, 1.0),
            (Scaling::MinMax, [only]) => (*only, 0.0),
            (Scaling::MinMax, [least, .., most]) => (*least, most - least),
            (Scaling::Standard, usual) => mean_and_deviation(usual),
        };
        // A constant column has no span, and one near the largest number that there is an infinite one.
        let usable = shift.is_finite() && span.is_finite() && span > 0.0;
        let (shift, span) = if usable { (shift, span) } else { (0.0, 1.0) };
        let range = Some((*least, *most));
        let median = numbers[numbers.len() / 2];
        Self { shift, span, range, fill: (missing == 0).then_some(median) }
    }

    /// Whether it lies among the numbers that were seen.
    pub(super) fn has_seen(&self, number: f64) -> bool {
        self.range.is_some_and(|(least, most)| (least..=most).contains(&number))
    }

    /// The number, or what a missing one counts as, before scaling.
    pub(super) fn filled(&self, number: Option<f64>) -> Option<f64> {
        number.or(self.fill)
    }

    /// The feature of a number, if there is one.
    pub(super) fn encode(&self, number: Option<f64>) -> f64 {
        match self.filled(number) {
            // Whatever is given, a feature is finite, or NaN where nothing was.
            Some(number) => ((number - self.shift) / self.span).clamp(f64::MIN, f64::MAX),
            None => f64::NAN,
        }
    }

    /// Whether it can encode: false only for one that was tampered with.
    pub(super) fn is_sound(&self) -> bool {
        let finite = self.shift.is_finite() && self.span.is_finite();
        finite && self.span > 0.0 && self.fill.is_none_or(f64::is_finite)
    }
}

/// The numbers by which a scale goes: those that are not millions of times farther from the median than others are, so
/// that a single 1e308 does not press all others together. `numbers` are in order, and so is what comes out.
fn usual(numbers: &[f64]) -> &[f64] {
    const FAR: f64 = 1e6;
    let median = numbers[numbers.len() / 2];
    let distance = |number: &f64| (number - median).abs();
    let mut distances: Vec<f64> = numbers.iter().map(distance).filter(|far| *far > 0.0).collect();
    distances.sort_by(f64::total_cmp);
    let Some(typical) = distances.get(distances.len().saturating_sub(1) / 2) else {
        return numbers;
    };
    let far = typical * FAR;
    let start = numbers.partition_point(|number| *number < median - far);
    let end = numbers.partition_point(|number| *number <= median + far);
    &numbers[start..end]
}

fn mean_and_deviation(numbers: &[f64]) -> (f64, f64) {
    let count = numbers.len() as f64;
    let mean = numbers.iter().sum::<f64>() / count;
    let variance = numbers.iter().map(|number| (number - mean).powi(2)).sum::<f64>() / count;
    (mean, variance.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(scaling: Scaling, numbers: &[f64], missing: usize, cases: &[(Option<f64>, f64)]) {
        let scale = Scale::fit(scaling, numbers.to_vec(), missing);
        assert!(scale.is_sound());
        for (number, expected) in cases {
            let feature = scale.encode(*number);
            let same =
                feature.to_bits() == expected.to_bits() || (feature.is_nan() && expected.is_nan());
            assert!(same, "{scaling:?} {number:?}: {feature}, not {expected}");
        }
    }

    #[test]
    fn the_ends_of_what_was_seen_were_seen() {
        let scale = Scale::fit(Scaling::MinMax, vec![5.0, 1.0, 3.0], 1);
        let seen = [0.99, 1.0, 2.0, 5.0, 5.01].map(|number| scale.has_seen(number));
        assert_eq!(seen, [false, true, true, true, false]);
        assert!(!Scale::fit(Scaling::None, Vec::new(), 1).has_seen(0.0));
    }

    #[test]
    fn numbers_are_scaled() {
        check(Scaling::None, &[1.0, 5.0, 3.0], 0, &[(Some(2.0), 2.0), (None, 3.0)]);
        check(
            Scaling::MinMax,
            &[1.0, 5.0, 3.0],
            0,
            &[(Some(1.0), 0.0), (Some(9.0), 2.0), (None, 0.5)],
        );
        check(Scaling::Standard, &[1.0, 3.0], 0, &[(Some(2.0), 0.0), (Some(3.0), 1.0)]);
    }

    #[test]
    fn a_missing_number_is_nan_where_training_had_missing_ones() {
        check(Scaling::MinMax, &[1.0, 5.0], 1, &[(None, f64::NAN)]);
        check(Scaling::MinMax, &[], 3, &[(None, f64::NAN), (Some(7.0), 7.0)]);
    }

    #[test]
    fn an_outlier_moves_no_other_number() {
        let mut numbers: Vec<f64> = (0..=300).map(f64::from).collect();
        let mut both = |outliers: &[f64], scaling| {
            numbers.truncate(301);
            let clean = Scale::fit(scaling, numbers.clone(), 0);
            numbers.extend_from_slice(outliers);
            let scale = Scale::fit(scaling, numbers.clone(), 0);
            for number in [0.0, 17.0, 300.0] {
                let (clean, scaled) = (clean.encode(Some(number)), scale.encode(Some(number)));
                assert!(
                    (clean - scaled).abs() < 1e-12,
                    "{scaling:?} {outliers:?}: {clean} {scaled}"
                );
            }
            assert!(scale.encode(Some(f64::MAX)).is_finite());
        };
        for outliers in [&[1e308][..], &[-1e308], &[1e300, -1e308, 1e308]] {
            both(outliers, Scaling::MinMax);
            both(outliers, Scaling::Standard);
        }
        // Heavy tails are no outliers, and neither are the few that are not 0.
        check(Scaling::MinMax, &[0.0, 0.0, 0.0, 5e4, 1e5], 0, &[(Some(5e4), 0.5)]);
    }

    #[test]
    fn a_constant_column_and_a_huge_one_are_left_as_they_are() {
        check(Scaling::MinMax, &[4.0, 4.0], 0, &[(Some(4.0), 4.0)]);
        check(Scaling::Standard, &[4.0, 4.0], 0, &[(Some(5.0), 5.0)]);
        check(Scaling::MinMax, &[-1.7e308, 1.7e308], 0, &[(Some(2.0), 2.0)]);
        check(Scaling::Standard, &[-1.7e308, 1.7e308], 0, &[(Some(2.0), 2.0)]);
    }
}
