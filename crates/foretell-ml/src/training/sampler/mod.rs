//! Samplers: what proposes the parameters of the next trial. A sampler sees points of coordinates and their losses, and knows
//! neither parameters nor models.

mod bayesian;
mod gaussian_process;
mod random;
mod tpe;

use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

use crate::training::domain::Axis;

/// How a study chooses the parameters of its trials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SamplerKind {
    /// Tree-structured Parzen estimator, as in Hyperopt and Optuna: each parameter by itself, from where the better quarter of
    /// the trials are dense and the others are not. Its time grows least with the number of trials.
    #[default]
    Tpe,
    /// Gaussian process with expected improvement, as in scikit-optimize: a model of the loss over all parameters together.
    Gp,
    /// Random values: the baseline that the others have to beat.
    Random,
}

impl SamplerKind {
    /// All samplers.
    pub const ALL: [Self; 3] = [Self::Tpe, Self::Gp, Self::Random];

    /// The name in configurations and records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tpe => "tpe",
            Self::Gp => "gp",
            Self::Random => "random",
        }
    }

    /// Trials that cover the space evenly before the sampler proposes any.
    pub(super) fn covering_trials(self) -> usize {
        match self {
            Self::Tpe | Self::Gp => 5,
            Self::Random => 0,
        }
    }

    pub(super) fn sampler(self, axes: Vec<Axis>) -> Box<dyn Sampler> {
        match self {
            Self::Tpe => Box::new(tpe::Tpe::new(&axes)),
            Self::Gp => Box::new(bayesian::Bayesian::new(axes)),
            Self::Random => Box::new(random::Random::new(axes)),
        }
    }
}

/// Proposes points with a low loss: ask and tell.
///
/// A point has one coordinate for each axis: on a line, a number from 0 to 1; of choices, an index. The same points, losses
/// and state of `random` give the same proposals on every machine.
pub(super) trait Sampler {
    /// The next point to try.
    fn ask(&mut self, random: &mut StdRng) -> Vec<f64>;

    /// Records the loss of a point, which need not be one that was asked for. A coordinate is NaN if the trial had another
    /// value there than the axis has. The loss is not NaN; it is infinite if the trial failed.
    fn tell(&mut self, point: &[f64], loss: f64);
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    /// A bowl with its minimum of 0 at 0.3 on each line and at index 1 of the choices.
    fn bowl(point: &[f64]) -> f64 {
        let line = |x: &f64| (x - 0.3) * (x - 0.3);
        let choice = if point[4] >= 1.0 && point[4] < 2.0 { 0.0 } else { 0.2 };
        point[..4].iter().map(line).sum::<f64>() + choice
    }

    fn axes() -> Vec<Axis> {
        let mut axes = vec![Axis::Line; 4];
        axes.push(Axis::Choices(3));
        axes
    }

    fn study(kind: SamplerKind, seed: u64, trials: usize) -> Vec<(Vec<f64>, f64)> {
        let (mut random, mut sampler) = (StdRng::seed_from_u64(seed), kind.sampler(axes()));
        let mut told = Vec::new();
        for _ in 0..trials {
            let point = sampler.ask(&mut random);
            let loss = bowl(&point);
            sampler.tell(&point, loss);
            told.push((point, loss));
        }
        told
    }

    /// Mean over seeds of the lowest loss.
    fn best(kind: SamplerKind) -> f64 {
        let best = |seed| study(kind, seed, 40).iter().map(|told| told.1).fold(1.0, f64::min);
        (0..8).map(best).sum::<f64>() / 8.0
    }

    #[test]
    fn samplers_that_learn_find_lower_losses_than_random_values() {
        let (tpe, gp, random) =
            (best(SamplerKind::Tpe), best(SamplerKind::Gp), best(SamplerKind::Random));
        assert!(tpe < random * 0.6, "{tpe} {random}");
        assert!(gp < random * 0.1, "{gp} {random}");
    }

    #[test]
    fn the_same_seed_gives_the_same_points_and_another_seed_others() {
        for kind in SamplerKind::ALL {
            assert_eq!(study(kind, 1, 12), study(kind, 1, 12), "{kind:?}");
            assert_ne!(study(kind, 1, 12), study(kind, 2, 12), "{kind:?}");
        }
    }

    #[test]
    fn points_lie_within_their_axes_whatever_is_told() {
        for kind in SamplerKind::ALL {
            let (mut random, mut sampler) = (StdRng::seed_from_u64(3), kind.sampler(axes()));
            let strange = [
                (vec![0.0; 5], f64::INFINITY),
                (vec![1.0, 1.0, 1.0, 1.0, 2.0], f64::INFINITY),
                (vec![f64::NAN; 5], 0.5),
                (vec![0.5; 5], 0.5),
                (vec![0.5; 5], 0.5),
                (vec![0.5; 5], 1e300),
                (vec![0.2; 5], -1e300),
            ];
            for (point, loss) in strange {
                for _ in 0..3 {
                    let asked = sampler.ask(&mut random);
                    assert_eq!(asked.len(), 5);
                    assert!(asked[..4].iter().all(|x| (0.0..=1.0).contains(x)), "{asked:?}");
                    assert!((0.0..3.0).contains(&asked[4]), "{asked:?}");
                }
                sampler.tell(&point, loss);
            }
        }
    }

    #[test]
    fn a_sampler_has_one_name_in_configurations_and_records() {
        for kind in SamplerKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }
}
