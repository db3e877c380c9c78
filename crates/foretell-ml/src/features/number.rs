//! Scaling of numeric columns, and the encoding of missing numbers.

use serde::{Deserialize, Serialize};

/// Scaling of numeric columns. Trees do not depend on it; it is for readers of the features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scaling {
    /// No scaling.
    #[default]
    None,
    /// The smallest number of the training becomes 0, the largest 1; outliers millions of times farther from the median
    /// than other numbers are ignored.
    MinMax,
    /// The mean becomes 0, the standard deviation 1; the same outliers are ignored.
    Standard,
}

/// The fitted scale of a numeric column: a feature is `(number - shift) / span`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Scale {
    shift: f64,
    span: f64,
    /// Smallest and largest number of the training; `None` if there was none.
    range: Option<(f64, f64)>,
    /// Replacement of a missing number, before scaling; `None` leaves it NaN.
    fill: Option<f64>,
}

impl Scale {
    /// Fits the scale to the finite `numbers` of a column that had `missing` other values.
    pub(super) fn fit(scaling: Scaling, mut numbers: Vec<f64>, missing: usize) -> Self {
        let Some((median, least, most)) = median_and_range(&mut numbers) else {
            return Self { shift: 0.0, span: 1.0, range: None, fill: None };
        };
        let (shift, span) = match scaling {
            Scaling::None => (0.0, 1.0),
            Scaling::MinMax | Scaling::Standard => {
                numbers.sort_unstable_by(f64::total_cmp);
                match (scaling, without_outliers(&numbers)) {
                    (Scaling::None, _) | (_, []) => (0.0, 1.0),
                    (Scaling::MinMax, [only]) => (*only, 0.0),
                    (Scaling::MinMax, [least, .., most]) => (*least, most - least),
                    (Scaling::Standard, numbers) => mean_and_deviation(numbers),
                }
            }
        };
        // The span of a constant column is 0; numbers near f64::MAX can have an infinite one.
        let usable = shift.is_finite() && span.is_finite() && span > 0.0;
        let (shift, span) = if usable { (shift, span) } else { (0.0, 1.0) };
        let range = Some((least, most));
        Self { shift, span, range, fill: (missing == 0).then_some(median) }
    }

    /// Whether a number lies in the range of the training.
    pub(super) fn is_in_range(&self, number: f64) -> bool {
        self.range.is_some_and(|(least, most)| (least..=most).contains(&number))
    }

    /// The number, or the replacement of a missing one, before scaling.
    pub(super) fn filled(&self, number: Option<f64>) -> Option<f64> {
        number.or(self.fill)
    }

    /// The feature of a number: finite, or NaN for a missing number without a replacement.
    pub(super) fn encode(&self, number: Option<f64>) -> f64 {
        match self.filled(number) {
            // A number far beyond the range could overflow to infinity.
            Some(number) => ((number - self.shift) / self.span).clamp(f64::MIN, f64::MAX),
            None => f64::NAN,
        }
    }

    /// Whether a deserialised scale is valid: finite, with a positive span.
    pub(super) fn is_valid(&self) -> bool {
        let finite = self.shift.is_finite() && self.span.is_finite();
        finite && self.span > 0.0 && self.fill.is_none_or(f64::is_finite)
    }
}

/// The median, the smallest and the largest of finite numbers, in linear time; the order of the numbers changes.
fn median_and_range(numbers: &mut [f64]) -> Option<(f64, f64, f64)> {
    let least = numbers.iter().copied().min_by(f64::total_cmp)?;
    let most = numbers.iter().copied().max_by(f64::total_cmp)?;
    let middle = numbers.len() / 2;
    let (_, median, _) = numbers.select_nth_unstable_by(middle, f64::total_cmp);
    Some((*median, least, most))
}

/// The sorted `numbers` without outliers, so that a single 1e308 does not scale all others to nearly the same value. An
/// outlier is more than a million times as far from the median as the typical number that differs from it.
fn without_outliers(numbers: &[f64]) -> &[f64] {
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
        assert!(scale.is_valid());
        for (number, expected) in cases {
            let feature = scale.encode(*number);
            let same =
                feature.to_bits() == expected.to_bits() || (feature.is_nan() && expected.is_nan());
            assert!(same, "{scaling:?} {number:?}: {feature}, not {expected}");
        }
    }

    #[test]
    fn the_range_includes_its_ends() {
        let scale = Scale::fit(Scaling::MinMax, vec![5.0, 1.0, 3.0], 1);
        let in_range = [0.99, 1.0, 2.0, 5.0, 5.01].map(|number| scale.is_in_range(number));
        assert_eq!(in_range, [false, true, true, true, false]);
        assert!(!Scale::fit(Scaling::None, Vec::new(), 1).is_in_range(0.0));
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
    fn a_missing_number_is_nan_if_training_had_missing_ones() {
        check(Scaling::MinMax, &[1.0, 5.0], 1, &[(None, f64::NAN)]);
        check(Scaling::MinMax, &[], 3, &[(None, f64::NAN), (Some(7.0), 7.0)]);
    }

    #[test]
    fn outliers_do_not_change_the_scale_of_other_numbers() {
        let mut numbers: Vec<f64> = (0..=300).map(f64::from).collect();
        let mut compare = |outliers: &[f64], scaling| {
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
            compare(outliers, Scaling::MinMax);
            compare(outliers, Scaling::Standard);
        }
        // Heavy tails are no outliers, and neither are a few numbers other than 0.
        check(Scaling::MinMax, &[0.0, 0.0, 0.0, 5e4, 1e5], 0, &[(Some(5e4), 0.5)]);
    }

    #[test]
    fn a_column_without_a_usable_span_is_not_scaled() {
        check(Scaling::MinMax, &[4.0, 4.0], 0, &[(Some(4.0), 4.0)]);
        check(Scaling::Standard, &[4.0, 4.0], 0, &[(Some(5.0), 5.0)]);
        check(Scaling::MinMax, &[-1.7e308, 1.7e308], 0, &[(Some(2.0), 2.0)]);
        check(Scaling::Standard, &[-1.7e308, 1.7e308], 0, &[(Some(2.0), 2.0)]);
    }
}
