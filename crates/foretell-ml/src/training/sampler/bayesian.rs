//! Bayesian optimisation: a Gaussian process models the loss, and the point with the highest expected improvement is next
//! (Jones, Schonlau, Welch: "Efficient global optimization of expensive black-box functions", 1998).

use std::collections::VecDeque;

use rand::{RngExt as _, rngs::StdRng};

use crate::training::{
    domain::Axis,
    sampler::{Sampler, gaussian_process::GaussianProcess, random},
};

/// Newest points that the process is fitted to. The time of a fit grows with its cube: 0.3 s for 200.
const POINTS_MAX: usize = 200;
/// Random points of which the one with the highest expected improvement is taken.
const CANDIDATES: usize = 1000;
/// Candidates near the points with the lowest losses.
const NEAR_CANDIDATES: usize = 500;
/// Number of those points.
const NEAR_POINTS: usize = 5;
/// Rounds in which the best candidate is moved along each axis.
const REFINEMENTS: i32 = 6;

pub(super) struct Bayesian {
    axes: Vec<Axis>,
    points: VecDeque<(Vec<f64>, f64)>,
}

impl Bayesian {
    pub(super) fn new(axes: Vec<Axis>) -> Self {
        Self { axes, points: VecDeque::new() }
    }

    /// The losses, so that the process is not dominated by the worst: a failed trial, and one that is farther above the median
    /// than three times the best is below it, count as the worst of the others.
    fn bounded_losses(&self) -> Vec<f64> {
        let mut finite: Vec<f64> =
            self.points.iter().map(|told| told.1).filter(|loss| loss.is_finite()).collect();
        finite.sort_by(f64::total_cmp);
        let Some((least, median)) = finite.first().zip(finite.get(finite.len() / 2)) else {
            return vec![0.0; self.points.len()];
        };
        let most = median + 3.0 * (median - least);
        self.points.iter().map(|told| told.1.min(most)).collect()
    }
}

impl Sampler for Bayesian {
    fn ask(&mut self, random: &mut StdRng) -> Vec<f64> {
        let losses = self.bounded_losses();
        let points: Vec<Vec<f64>> = self.points.iter().map(|told| told.0.clone()).collect();
        let point = |random: &mut StdRng| -> Vec<f64> {
            self.axes.iter().map(|axis| random::coordinate(*axis, random)).collect()
        };
        let Some(process) = GaussianProcess::fit(&self.axes, &points, &losses) else {
            return point(random);
        };
        let mut order: Vec<usize> = (0..points.len()).collect();
        order.sort_by(|a, b| losses[*a].total_cmp(&losses[*b]).then(a.cmp(b)));
        // The losses are noisy, so what is to be improved on is the function at the best point, not its loss.
        let means = points.iter().map(|point| process.predict(point).0);
        let least = means.fold(f64::INFINITY, f64::min);
        let improvement = |point: &[f64]| {
            let (mean, deviation) = process.predict(point);
            expected_improvement(least, mean, deviation)
        };
        let mut best = (f64::NEG_INFINITY, point(random));
        for number in 0..CANDIDATES + NEAR_CANDIDATES {
            let candidate = match number.checked_sub(CANDIDATES) {
                None => point(random),
                Some(near) => {
                    let center = &points[order[near % NEAR_POINTS.min(points.len())]];
                    nearby(&self.axes, center, random)
                }
            };
            let found = improvement(&candidate);
            if found > best.0 {
                best = (found, candidate);
            }
        }
        refine(&self.axes, best, improvement)
    }

    fn tell(&mut self, point: &[f64], loss: f64) {
        // The kernel has no distance from a value that is not on its axis.
        if point.iter().any(|coordinate| coordinate.is_nan()) {
            return;
        }
        if self.points.len() == POINTS_MAX {
            self.points.pop_front();
        }
        // Losses beyond it would overflow when they are squared.
        self.points.push_back((point.to_vec(), loss.max(-1e100)));
    }
}

/// A point near another: on each line a step of up to a tenth of it, seldom another choice.
fn nearby(axes: &[Axis], center: &[f64], random: &mut StdRng) -> Vec<f64> {
    let near = |(axis, center): (&Axis, &f64)| {
        let draw: f64 = random.random();
        match axis {
            Axis::Line => (center + 0.2 * (draw - 0.5)).clamp(0.0, 1.0),
            Axis::Choices(_) if draw < 0.1 => random::coordinate(*axis, random),
            Axis::Choices(_) => *center,
        }
    };
    axes.iter().zip(center).map(near).collect()
}

/// Moves a point along each line while that improves it, in steps that halve.
fn refine(axes: &[Axis], start: (f64, Vec<f64>), improvement: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let (mut most, mut point) = start;
    for round in 0..REFINEMENTS {
        let step = 0.08 * 0.5_f64.powi(round);
        for index in (0..axes.len()).filter(|index| axes[*index] == Axis::Line) {
            for step in [step, -step] {
                let mut other = point.clone();
                other[index] = (other[index] + step).clamp(0.0, 1.0);
                let found = improvement(&other);
                if found > most {
                    (most, point) = (found, other);
                }
            }
        }
    }
    point
}

/// By how much a normally distributed value is expected to be below `least`.
fn expected_improvement(least: f64, mean: f64, deviation: f64) -> f64 {
    let z = (least - mean) / deviation;
    let density = (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt();
    deviation * (z * normal_below(z) + density).max(0.0)
}

/// The probability that a standard normal value is below `z`, with a relative error under 1.2e-7 (Press et al., "Numerical
/// Recipes", `erfcc`).
fn normal_below(z: f64) -> f64 {
    const COEFFICIENTS: [f64; 10] = [
        0.170_872_77,
        -0.822_152_23,
        1.488_515_87,
        -1.135_203_98,
        0.278_868_07,
        -0.186_288_06,
        0.096_784_18,
        0.374_091_96,
        1.000_023_68,
        -1.265_512_23,
    ];
    let x = z.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.5 * x);
    let exponent = COEFFICIENTS.iter().fold(0.0, |sum, coefficient| sum * t + coefficient);
    let tail = 0.5 * t * (-x * x + exponent).exp();
    if z > 0.0 { 1.0 - tail } else { tail }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn the_normal_distribution_is_known() {
        let check = |z: f64, expected: f64| {
            let found = normal_below(z);
            assert!((found / expected - 1.0).abs() < 2e-7, "{z}: {found}");
        };
        check(0.0, 0.5);
        check(1.0, 0.841_344_746_068_543);
        check(-1.0, 0.158_655_253_931_457);
        check(-3.0, 0.001_349_898_031_630_095);
        check(-8.0, 6.220_960_574_271_785e-16);
    }

    #[test]
    fn an_improvement_is_expected_from_a_low_mean_or_a_large_deviation() {
        let check = |mean: f64, deviation: f64, expected: f64| {
            let found = expected_improvement(1.0, mean, deviation);
            assert!((found - expected).abs() < 1e-6, "{mean} {deviation}: {found}");
        };
        check(0.0, 1e-6, 1.0);
        check(1.0, 1.0, 0.398_942_28);
        check(2.0, 1.0, 0.083_315_47);
        check(9.0, 0.1, 0.0);
    }

    #[test]
    fn failed_and_bad_trials_do_not_dominate() {
        let mut sampler = Bayesian::new(vec![Axis::Line]);
        assert!(sampler.bounded_losses().is_empty());
        sampler.tell(&[0.1], f64::INFINITY);
        assert_eq!(sampler.bounded_losses(), [0.0]);
        for loss in [1.0, 1.1, 1.2, 50.0, 1.15] {
            sampler.tell(&[0.1], loss);
        }
        let found = sampler.bounded_losses();
        assert!((found[0] - 1.6).abs() < 0.06 && (found[4] - found[0]).abs() < 1e-12, "{found:?}");
    }

    #[test]
    fn the_oldest_points_are_forgotten() {
        let (mut sampler, mut random) = (Bayesian::new(vec![Axis::Line]), StdRng::seed_from_u64(1));
        for number in 0..POINTS_MAX + 10 {
            sampler.tell(&[number as f64 / 1000.0], 1.0 / (1.0 + number as f64));
        }
        sampler.tell(&[f64::NAN], 0.0);
        assert_eq!(sampler.points.len(), POINTS_MAX);
        assert!((sampler.points[0].0[0] - 0.01).abs() < 1e-12);
        // The loss falls with the coordinate, so the next point is at a higher one than most.
        assert!(sampler.ask(&mut random)[0] > 0.15);
    }
}
