//! Where the tuner looks: a range a parameter.

use serde::{Deserialize, Serialize};

use crate::training::{LEAVES_MAX, Params, TrainingError, within};

/// The values a parameter may take.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// The least.
    pub low: f64,
    /// The most.
    pub high: f64,
    /// Whether it is searched by factors rather than by differences; `low` must then be above 0.
    #[serde(default)]
    pub log: bool,
}

impl Range {
    /// By differences.
    #[must_use]
    pub const fn linear(low: f64, high: f64) -> Self {
        Self { low, high, log: false }
    }

    /// By factors.
    #[must_use]
    pub const fn log(low: f64, high: f64) -> Self {
        Self { low, high, log: true }
    }

    /// The value at a place in the range, from 0 to 1.
    fn at(self, place: f64) -> f64 {
        let value = match self.log {
            true => (self.low.ln() + place * (self.high / self.low).ln()).exp(),
            false => self.low + place * (self.high - self.low),
        };
        value.clamp(self.low, self.high)
    }

    /// The place of a value, from 0 to 1; what lies outside is at its end.
    fn place(self, value: f64) -> f64 {
        let place = match self.log {
            true => (value.max(self.low) / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        };
        // A range of one value has its every place at the start.
        if place.is_nan() { 0.0 } else { place.clamp(0.0, 1.0) }
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

/// One parameter: how to read its range, and to read and write it.
pub(super) struct Dimension {
    pub(super) name: &'static str,
    whole: bool,
    /// What LightGBM allows.
    bounds: (f64, f64),
    range: fn(&Space) -> Option<Range>,
    get: fn(&Params) -> f64,
    set: fn(&mut Params, f64),
}

impl Dimension {
    /// Where a parameter is in its range, from 0 to 1; none if it is not searched.
    pub(super) fn place(&self, space: &Space, params: &Params) -> Option<f64> {
        (self.range)(space).map(|range| range.place((self.get)(params)))
    }

    /// Takes a parameter over, if it is searched.
    pub(super) fn copy(&self, space: &Space, from: &Params, to: &mut Params) {
        if (self.range)(space).is_some() {
            (self.set)(to, (self.get)(from));
        }
    }

    /// Sets a parameter to a place in its range.
    pub(super) fn set(&self, space: &Space, params: &mut Params, place: f64) {
        if let Some(range) = (self.range)(space) {
            let value = range.at(place);
            (self.set)(params, if self.whole { value.round() } else { value });
        }
    }
}

/// Every parameter that can be searched. Their order decides which random number goes to which.
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
    /// Refuses ranges that are upside down, not finite, or beyond what LightGBM allows.
    ///
    /// # Errors
    /// [`TrainingError::Setting`] names the first.
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
    reason = "the ranges were checked: none goes below 0 or above 1e9"
)]
fn whole(value: f64) -> u32 {
    value as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_and_its_value_go_back_and_forth() {
        let check = |range: Range, place: f64, value: f64| {
            assert!(
                (range.at(place) - value).abs() < 1e-9,
                "{range:?} at {place}: {}",
                range.at(place)
            );
            assert!(
                (range.place(value) - place).abs() < 1e-9,
                "{range:?} of {value}: {}",
                range.place(value)
            );
        };
        check(Range::linear(2.0, 6.0), 0.25, 3.0);
        check(Range::log(0.01, 100.0), 0.5, 1.0);
        check(Range::log(0.01, 100.0), 1.0, 100.0);
        check(Range::linear(3.0, 3.0), 0.0, 3.0);
        check(Range::log(3.0, 3.0), 0.0, 3.0);
    }

    #[test]
    fn a_value_outside_is_at_the_end() {
        assert!(Range::log(0.01, 1.0).place(0.0).abs() < 1e-9);
        assert!((Range::linear(0.0, 1.0).place(7.0) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn every_dimension_sets_its_own_parameter() {
        let space = Space::default();
        for dimension in &DIMENSIONS {
            let mut params = Params::default();
            dimension.set(&space, &mut params, 0.77);
            let place = dimension.place(&space, &params).unwrap();
            assert!((place - 0.77).abs() < 0.02, "{}: {place}", dimension.name);
            params.check().unwrap();
            let unsearched = Space { num_leaves: None, ..Space::default() };
            assert_eq!(
                dimension.place(&unsearched, &params).is_none(),
                dimension.name == "num_leaves"
            );
        }
    }

    #[test]
    fn ranges_are_checked() {
        let check = |range: Range, right: bool| {
            let space = Space { lambda_l1: Some(range), ..Space::default() };
            assert_eq!(space.check().is_ok(), right, "{range:?}");
        };
        check(Range::linear(0.0, 1.0), true);
        check(Range::log(0.0, 1.0), false);
        check(Range::linear(1.0, 0.0), false);
        check(Range::linear(f64::NAN, 1.0), false);
        check(Range::linear(0.0, f64::INFINITY), false);
        check(Range::linear(-1.0, 1.0), false);
        assert_eq!(Space::default().check(), Ok(()));
    }
}
