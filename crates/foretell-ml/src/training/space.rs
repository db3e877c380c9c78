//! The search space of the tuner: one range per parameter.

use serde::{Deserialize, Serialize};

use crate::training::{LEAVES_MAX, Params, TrainingError, within};

/// The range of values that the tuner may give a parameter, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// Smallest value.
    pub low: f64,
    /// Largest value; equal to `low` to fix the parameter.
    pub high: f64,
    /// Whether the range is searched on a logarithmic scale; `low` must then be above 0.
    #[serde(default)]
    pub log: bool,
}

impl Range {
    /// A range that is searched on a linear scale.
    #[must_use]
    pub const fn linear(low: f64, high: f64) -> Self {
        Self { low, high, log: false }
    }

    /// A range that is searched on a logarithmic scale.
    #[must_use]
    pub const fn log(low: f64, high: f64) -> Self {
        Self { low, high, log: true }
    }

    /// The value at `fraction` of the way from `low` (0) to `high` (1).
    fn value_at(self, fraction: f64) -> f64 {
        let value = match self.log {
            true => (self.low.ln() + fraction * (self.high / self.low).ln()).exp(),
            false => self.low + fraction * (self.high - self.low),
        };
        self.clamp(value)
    }

    /// The inverse of [`Self::value_at`]; 0 or 1 for a value outside the range.
    fn fraction_of(self, value: f64) -> f64 {
        let fraction = match self.log {
            true => (value.max(self.low) / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        };
        // In a range of one value this is 0 / 0 for the value itself.
        if fraction.is_nan() { 0.0 } else { fraction.clamp(0.0, 1.0) }
    }

    /// The nearest value in the range.
    fn clamp(self, value: f64) -> f64 {
        value.clamp(self.low, self.high)
    }
}

/// Ranges of LightGBM's parameters that the study searches. A range that is not set has its default; with `low = high` the
/// parameter is fixed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Space {
    /// Leaves of one tree: whole numbers from 2 to 1024.
    pub num_leaves: Option<Range>,
    /// How much each tree contributes: above 0 and up to 1. Below 0.02 a study takes long and gains little.
    pub learning_rate: Option<Range>,
    /// Examples that a leaf must have: a whole number, 0 or more.
    pub min_data_in_leaf: Option<Range>,
    /// Share of the features that each tree may use: above 0 and up to 1.
    pub feature_fraction: Option<Range>,
    /// Share of the examples that each tree learns from: above 0 and up to 1.
    pub bagging_fraction: Option<Range>,
    /// L1 regularisation of the leaves' values: 0 or more.
    pub lambda_l1: Option<Range>,
    /// L2 regularisation of the leaves' values: 0 or more.
    pub lambda_l2: Option<Range>,
    /// Smoothing of categories with few examples: 0 or more.
    pub cat_smooth: Option<Range>,
    /// L2 regularisation of splits by category: 0 or more.
    pub cat_l2: Option<Range>,
}

impl Default for Space {
    fn default() -> Self {
        Self {
            num_leaves: Some(Range::log(7.0, 63.0)),
            learning_rate: Some(Range::log(0.03, 0.3)),
            min_data_in_leaf: Some(Range::log(5.0, 200.0)),
            feature_fraction: Some(Range::linear(0.3, 1.0)),
            bagging_fraction: Some(Range::linear(0.5, 1.0)),
            lambda_l1: Some(Range::log(1e-3, 10.0)),
            lambda_l2: Some(Range::log(1e-3, 10.0)),
            cat_smooth: Some(Range::log(5.0, 200.0)),
            cat_l2: Some(Range::log(1.0, 100.0)),
        }
    }
}

/// A parameter that can be searched: its bounds, and access to its range and its value.
pub(super) struct Dimension {
    pub(super) name: &'static str,
    whole: bool,
    /// Smallest and largest value that LightGBM allows.
    bounds: (f64, f64),
    range: fn(&Space) -> Option<Range>,
    get: fn(&Params) -> f64,
    set: fn(&mut Params, f64),
}

impl Dimension {
    /// The parameter's value as a fraction of its range, from 0 to 1; `None` if it is not searched.
    pub(super) fn fraction(&self, space: &Space, params: &Params) -> Option<f64> {
        (self.range)(space).map(|range| range.fraction_of((self.get)(params)))
    }

    /// Sets the parameter to a fraction of its range, from 0 to 1, if it is searched.
    pub(super) fn set_fraction(&self, space: &Space, params: &mut Params, fraction: f64) {
        if let Some(range) = (self.range)(space) {
            self.set_value(params, range.value_at(fraction));
        }
    }

    /// Copies the parameter from one set to another if it is searched.
    pub(super) fn copy(&self, space: &Space, from: &Params, to: &mut Params) {
        if (self.range)(space).is_some() {
            (self.set)(to, (self.get)(from));
        }
    }

    /// Moves the parameter to the nearest value of its range, if it is searched.
    ///
    /// A parameter's default counts as within its default range: `lambda_l1` is 0 by default, which its logarithmic
    /// default range cannot contain, and a study of the default space starts from the defaults.
    fn clamp(&self, space: &Space, params: &mut Params) {
        let Some(range) = (self.range)(space) else { return };
        let value = (self.get)(params);
        let is_default = value.to_bits() == (self.get)(&Params::default()).to_bits();
        if is_default && (self.range)(&Space::default()) == Some(range) {
            return;
        }
        self.set_value(params, range.clamp(value));
    }

    fn set_value(&self, params: &mut Params, value: f64) {
        (self.set)(params, if self.whole { value.round() } else { value });
    }
}

/// Every parameter that can be searched. Their order decides which random number goes to which, so it must not change.
pub(super) const DIMENSIONS: [Dimension; 9] = [
    Dimension {
        name: "num_leaves",
        whole: true,
        bounds: (2.0, LEAVES_MAX as f64),
        range: |space| space.num_leaves,
        get: |params| params.num_leaves.into(),
        set: |params, value| params.num_leaves = whole(value),
    },
    Dimension {
        name: "learning_rate",
        whole: false,
        bounds: (1e-6, 1.0),
        range: |space| space.learning_rate,
        get: |params| params.learning_rate,
        set: |params, value| params.learning_rate = value,
    },
    Dimension {
        name: "min_data_in_leaf",
        whole: true,
        bounds: (0.0, 1e9),
        range: |space| space.min_data_in_leaf,
        get: |params| params.min_data_in_leaf.into(),
        set: |params, value| params.min_data_in_leaf = whole(value),
    },
    Dimension {
        name: "feature_fraction",
        whole: false,
        bounds: (1e-6, 1.0),
        range: |space| space.feature_fraction,
        get: |params| params.feature_fraction,
        set: |params, value| params.feature_fraction = value,
    },
    Dimension {
        name: "bagging_fraction",
        whole: false,
        bounds: (1e-6, 1.0),
        range: |space| space.bagging_fraction,
        get: |params| params.bagging_fraction,
        set: |params, value| params.bagging_fraction = value,
    },
    Dimension {
        name: "lambda_l1",
        whole: false,
        bounds: (0.0, 1e9),
        range: |space| space.lambda_l1,
        get: |params| params.lambda_l1,
        set: |params, value| params.lambda_l1 = value,
    },
    Dimension {
        name: "lambda_l2",
        whole: false,
        bounds: (0.0, 1e9),
        range: |space| space.lambda_l2,
        get: |params| params.lambda_l2,
        set: |params, value| params.lambda_l2 = value,
    },
    Dimension {
        name: "cat_smooth",
        whole: false,
        bounds: (0.0, 1e9),
        range: |space| space.cat_smooth,
        get: |params| params.cat_smooth,
        set: |params, value| params.cat_smooth = value,
    },
    Dimension {
        name: "cat_l2",
        whole: false,
        bounds: (0.0, 1e9),
        range: |space| space.cat_l2,
        get: |params| params.cat_l2,
        set: |params, value| params.cat_l2 = value,
    },
];

impl Space {
    /// `params` with each searched parameter moved to the nearest value of its range; the others are kept.
    pub(super) fn clamp(&self, mut params: Params) -> Params {
        for dimension in &DIMENSIONS {
            dimension.clamp(self, &mut params);
        }
        params
    }

    /// Checks that each range has `low <= high`, is finite, and lies within LightGBM's bounds.
    ///
    /// # Errors
    /// [`TrainingError::Setting`] for the first range that does not.
    pub fn check(&self) -> Result<(), TrainingError> {
        for dimension in &DIMENSIONS {
            if let Some(range) = (dimension.range)(self) {
                let (low, high) = dimension.bounds;
                let low = if range.log { low.max(f64::MIN_POSITIVE) } else { low };
                within(dimension.name, range.low, low, high)?;
                within(dimension.name, range.high, range.low, high)?;
            }
        }
        Ok(())
    }
}

#[expect(
    clippy::cast_sign_loss,
    reason = "ranges and parameters were checked: none is below 0 or above 1e9"
)]
fn whole(value: f64) -> u32 {
    value as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_and_values_convert_into_each_other() {
        let check = |range: Range, fraction: f64, value: f64| {
            assert!(
                (range.value_at(fraction) - value).abs() < 1e-9,
                "{range:?} at {fraction}: {}",
                range.value_at(fraction)
            );
            assert!(
                (range.fraction_of(value) - fraction).abs() < 1e-9,
                "{range:?} of {value}: {}",
                range.fraction_of(value)
            );
        };
        check(Range::linear(2.0, 6.0), 0.25, 3.0);
        check(Range::log(0.01, 100.0), 0.5, 1.0);
        check(Range::log(0.01, 100.0), 1.0, 100.0);
        check(Range::linear(3.0, 3.0), 0.0, 3.0);
        check(Range::log(3.0, 3.0), 0.0, 3.0);
    }

    #[test]
    fn a_value_outside_the_range_has_the_fraction_of_the_nearest_end() {
        assert!(Range::log(0.01, 1.0).fraction_of(0.0).abs() < 1e-9);
        assert!((Range::linear(0.0, 1.0).fraction_of(7.0) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_range_of_one_value_gives_exactly_that_value() {
        for value in [0.1, 0.3, 7.0, 63.0, 1e-3, 123.456] {
            for range in [Range::linear(value, value), Range::log(value, value)] {
                for fraction in [0.0, 0.1, 0.5, 0.99, 1.0] {
                    assert_eq!(range.value_at(fraction).to_bits(), value.to_bits(), "{range:?}");
                }
                for other in [0.0, value, 1e9] {
                    assert!((0.0..=1.0).contains(&range.fraction_of(other)), "{range:?} {other}");
                }
            }
        }
        let zero = Range::linear(0.0, 0.0);
        assert_eq!(zero.value_at(0.7).to_bits(), 0.0_f64.to_bits());
    }

    #[test]
    fn parameters_are_moved_to_the_nearest_value_of_their_ranges() {
        let check = |range: Range, expected: u32| {
            let space = Space { num_leaves: Some(range), ..Space::default() };
            let params = space.clamp(Params::default());
            assert_eq!(params, Params { num_leaves: expected, ..Params::default() }, "{range:?}");
        };
        check(Range::linear(63.0, 63.0), 63);
        check(Range::log(63.0, 63.0), 63);
        check(Range::linear(40.0, 50.0), 40);
        check(Range::log(3.0, 15.0), 15);
        check(Range::linear(2.0, 1024.0), Params::default().num_leaves);
        let fixed = |lambda_l1| {
            let space = Space { lambda_l1: Some(lambda_l1), ..Space::default() };
            space.clamp(Params::default()).lambda_l1.to_bits()
        };
        assert_eq!(fixed(Range::log(0.5, 0.5)), 0.5_f64.to_bits());
        assert_eq!(fixed(Range::log(1e-3, 5.0)), 1e-3_f64.to_bits());
        assert_eq!(fixed(Range::linear(0.0, 0.0)), 0.0_f64.to_bits());
    }

    #[test]
    fn the_default_space_and_unsearched_parameters_keep_the_defaults() {
        assert_eq!(Space::default().clamp(Params::default()), Params::default());
        let unsearched = Space { num_leaves: None, ..Space::default() };
        let params = Params { num_leaves: 1000, ..Params::default() };
        assert_eq!(unsearched.clamp(params.clone()), params);
    }

    #[test]
    fn every_dimension_sets_its_own_parameter() {
        let space = Space::default();
        for dimension in &DIMENSIONS {
            let mut params = Params::default();
            dimension.set_fraction(&space, &mut params, 0.77);
            let fraction = dimension.fraction(&space, &params).unwrap();
            assert!((fraction - 0.77).abs() < 0.02, "{}: {fraction}", dimension.name);
            params.check().unwrap();
            let unsearched = Space { num_leaves: None, ..Space::default() };
            assert_eq!(
                dimension.fraction(&unsearched, &params).is_none(),
                dimension.name == "num_leaves"
            );
        }
    }

    #[test]
    fn ranges_are_checked() {
        let check = |range: Range, is_valid: bool| {
            let space = Space { lambda_l1: Some(range), ..Space::default() };
            assert_eq!(space.check().is_ok(), is_valid, "{range:?}");
        };
        check(Range::linear(0.0, 1.0), true);
        check(Range::linear(0.5, 0.5), true);
        check(Range::log(0.5, 0.5), true);
        check(Range::log(0.0, 1.0), false);
        check(Range::linear(1.0, 0.0), false);
        check(Range::linear(f64::NAN, 1.0), false);
        check(Range::linear(0.0, f64::INFINITY), false);
        check(Range::linear(-1.0, 1.0), false);
        assert_eq!(Space::default().check(), Ok(()));
    }
}
