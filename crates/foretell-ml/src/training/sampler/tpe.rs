//! The tree-structured Parzen estimator (TPE; Bergstra et al., "Algorithms for Hyper-Parameter Optimization", 2011), one for
//! each axis.

use rand::rngs::StdRng;
use tpe::{TpeOptimizer, TpeOptimizerBuilder, histogram_estimator, parzen_estimator};

use crate::training::{domain::Axis, sampler::Sampler};

/// TPE's quantile γ: it models the best quarter of the trials as the good ones.
const GAMMA: f64 = 0.25;

pub(super) struct Tpe {
    /// One for each axis, with the number of its choices.
    estimators: Vec<(TpeOptimizer, Option<usize>)>,
}

impl Tpe {
    pub(super) fn new(axes: &[Axis]) -> Self {
        let mut builder = TpeOptimizerBuilder::new();
        builder.gamma(GAMMA);
        let estimator = |axis: &Axis| match axis {
            // The estimators work on fractions of a range, which also covers ranges of one value: `tpe` has no empty range.
            Axis::Line => {
                let range = tpe::range(0.0, 1.0).expect("0 is less than 1");
                (builder.build(parzen_estimator(), range).expect("gamma is a share"), None)
            }
            Axis::Choices(number) => {
                let range = tpe::categorical_range(*number).expect("a choice is not empty");
                let built = builder.build(histogram_estimator(), range);
                (built.expect("gamma is a share"), Some(*number))
            }
        };
        Self { estimators: axes.iter().map(estimator).collect() }
    }
}

impl Sampler for Tpe {
    fn ask(&mut self, random: &mut StdRng) -> Vec<f64> {
        let ask = |(estimator, choices): &mut (TpeOptimizer, Option<usize>)| {
            let coordinate = match estimator.ask(random) {
                Ok(coordinate) => coordinate,
                Err(never) => match never {},
            };
            choices.map_or(coordinate, |number| coordinate.floor().clamp(0.0, (number - 1) as f64))
        };
        self.estimators.iter_mut().map(ask).collect()
    }

    fn tell(&mut self, point: &[f64], loss: f64) {
        for ((estimator, choices), coordinate) in self.estimators.iter_mut().zip(point) {
            // Its range excludes the end. NaN means to it that the parameter was not searched.
            let end = choices.map_or(1.0 - f64::EPSILON, |number| (number - 1) as f64);
            let coordinate = if coordinate.is_nan() { f64::NAN } else { coordinate.min(end) };
            estimator
                .tell(coordinate, loss)
                .expect("the coordinate is in range, the loss a number");
        }
    }
}
