//! Exact Gaussian process regression with a Matérn 5/2 kernel, for some hundreds of points (Rasmussen and Williams, "Gaussian
//! Processes for Machine Learning", 2006, algorithm 2.1).
//!
//! The arithmetic is plain loops in one order: libraries of linear algebra choose their instructions by the CPU, and with them
//! the last bits, so two machines would propose different parameters.

use crate::training::domain::Axis;

/// Length scales and noise of the kernel, by their natural logarithms.
#[derive(Clone, Debug, PartialEq)]
struct Scales {
    /// Distance along each axis over which the loss changes.
    lengths: Vec<f64>,
    /// Variance of the noise as a share of the variance of the function.
    noise: f64,
}

/// A process that was fitted to points and their values.
pub(super) struct GaussianProcess<'p> {
    axes: &'p [Axis],
    points: &'p [Vec<f64>],
    /// 1 divided by the length scale of each axis.
    inverse_lengths: Vec<f64>,
    /// Mean and standard deviation of the values, which are standardised.
    mean: f64,
    deviation: f64,
    /// The lower Cholesky factor of the kernel matrix, row by row.
    factor: Vec<Vec<f64>>,
    /// The kernel matrix's inverse times the values.
    weights: Vec<f64>,
    /// Variance of the function.
    variance: f64,
}

impl<'p> GaussianProcess<'p> {
    /// Fits a process by its maximum a posteriori. `None` if the values are all the same, or the points too few.
    pub(super) fn fit(axes: &'p [Axis], points: &'p [Vec<f64>], values: &[f64]) -> Option<Self> {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
        let deviation = (squares / count).sqrt();
        if values.len() < 3 || !deviation.is_finite() || deviation <= mean.abs() * 1e-12 {
            return None;
        }
        let standard: Vec<f64> = values.iter().map(|value| (value - mean) / deviation).collect();
        let scales = best_scales(axes, points, &standard)?;
        let Solved { factor, weights, variance, .. } = solve(axes, points, &standard, &scales)?;
        let inverse_lengths = scales.inverse_lengths();
        Some(Self { axes, points, inverse_lengths, mean, deviation, factor, weights, variance })
    }

    /// Mean and standard deviation of the function at a point, without the noise.
    pub(super) fn predict(&self, point: &[f64]) -> (f64, f64) {
        let inverse = &self.inverse_lengths;
        let of_points: Vec<f64> =
            self.points.iter().map(|other| kernel(self.axes, inverse, point, other)).collect();
        let mean = dot(&of_points, &self.weights);
        let solved = solve_lower(&self.factor, &of_points);
        let variance = (1.0 - dot(&solved, &solved)).max(1e-12) * self.variance;
        (self.mean + self.deviation * mean, self.deviation * variance.sqrt())
    }
}

impl Scales {
    fn inverse_lengths(&self) -> Vec<f64> {
        self.lengths.iter().map(|length| (-length).exp()).collect()
    }
}

/// The scales with the highest posterior density: first the best of a grid with one length for all axes, then each scale by
/// itself, in steps that get smaller. About 90 evaluations with 9 axes.
fn best_scales(axes: &[Axis], points: &[Vec<f64>], values: &[f64]) -> Option<Scales> {
    let density = |scales: &Scales| {
        let solved = solve(axes, points, values, scales);
        solved.map_or(f64::NEG_INFINITY, |solved| solved.log_likelihood + log_prior(scales))
    };
    let mut best: Option<(f64, Scales)> = None;
    for length in [0.15_f64, 0.3, 0.6, 1.2, 2.4] {
        for noise in [1e-4_f64, 1e-3, 1e-2, 1e-1] {
            let scales = Scales { lengths: vec![length.ln(); axes.len()], noise: noise.ln() };
            let found = density(&scales);
            if found.is_finite() && best.as_ref().is_none_or(|(most, _)| found > *most) {
                best = Some((found, scales));
            }
        }
    }
    let (mut most, mut scales) = best?;
    for step in [1.0, 0.5, 0.25] {
        // The last one is the noise.
        for index in 0..=axes.len() {
            for step in [step, -step] {
                let mut other = scales.clone();
                match other.lengths.get_mut(index) {
                    Some(length) => *length += step,
                    None => other.noise += step,
                }
                let found = density(&other);
                if found > most {
                    (most, scales) = (found, other);
                    break;
                }
            }
        }
    }
    Some(scales)
}

/// The logarithm of the prior's density, but for a constant: lengths of about half an axis, and a noise of a hundredth of the
/// function's variance. It keeps few points from being explained by noise, or by one axis, alone.
fn log_prior(scales: &Scales) -> f64 {
    let normal = |value: f64, mean: f64, deviation: f64| {
        -0.5 * ((value - mean) / deviation) * ((value - mean) / deviation)
    };
    let lengths: f64 = scales.lengths.iter().map(|length| normal(*length, -0.5, 1.0)).sum();
    lengths + normal(scales.noise, -4.6, 1.5)
}

struct Solved {
    factor: Vec<Vec<f64>>,
    weights: Vec<f64>,
    variance: f64,
    log_likelihood: f64,
}

/// `None` if the kernel matrix is not positive definite in floating point.
fn solve(axes: &[Axis], points: &[Vec<f64>], values: &[f64], scales: &Scales) -> Option<Solved> {
    // The noise is bounded, so that equal points do not make the matrix singular.
    let noise = scales.noise.exp().max(1e-8);
    let inverse = scales.inverse_lengths();
    let mut matrix: Vec<Vec<f64>> = Vec::with_capacity(points.len());
    for (row, point) in points.iter().enumerate() {
        let mut line: Vec<f64> =
            points[..row].iter().map(|other| kernel(axes, &inverse, point, other)).collect();
        line.push(1.0 + noise);
        matrix.push(line);
    }
    let factor = cholesky(matrix)?;
    let half = solve_lower(&factor, values);
    let count = values.len() as f64;
    // The variance with the highest likelihood follows from the other scales.
    let variance = (dot(&half, &half) / count).max(1e-12);
    let log_determinant: f64 =
        factor.iter().enumerate().map(|(index, row)| row[index].ln()).sum::<f64>() * 2.0;
    let log_likelihood = -0.5 * (count * variance.ln() + log_determinant);
    let weights = solve_upper(&factor, half);
    Some(Solved { factor, weights, variance, log_likelihood })
}

/// The Matérn 5/2 kernel of two points; two choices are one apart.
fn kernel(axes: &[Axis], inverse_lengths: &[f64], one: &[f64], other: &[f64]) -> f64 {
    let mut square = 0.0;
    for (index, axis) in axes.iter().enumerate() {
        let apart = match axis {
            Axis::Line => one[index] - other[index],
            Axis::Choices(_) => f64::from(u8::from(one[index].to_bits() != other[index].to_bits())),
        };
        let scaled = apart * inverse_lengths[index];
        square += scaled * scaled;
    }
    let distance = (5.0 * square).sqrt();
    (1.0 + distance + distance * distance / 3.0) * (-distance).exp()
}

/// The lower factor of a symmetric matrix, of which the lower rows are given; `None` if it is not positive definite.
fn cholesky(mut rows: Vec<Vec<f64>>) -> Option<Vec<Vec<f64>>> {
    for row in 0..rows.len() {
        let (above, rest) = rows.split_at_mut(row);
        let this = &mut rest[0];
        for (column, other) in above.iter().enumerate() {
            let sum = dot(&this[..column], &other[..column]);
            this[column] = (this[column] - sum) / other[column];
        }
        let diagonal = this[row] - dot(&this[..row], &this[..row]);
        if diagonal.is_nan() || diagonal <= 0.0 {
            return None;
        }
        this[row] = diagonal.sqrt();
    }
    Some(rows)
}

/// Solves `factor · x = values`.
fn solve_lower(factor: &[Vec<f64>], values: &[f64]) -> Vec<f64> {
    let mut solved: Vec<f64> = Vec::with_capacity(values.len());
    for (row, value) in factor.iter().zip(values) {
        let sum = dot(&row[..solved.len()], &solved);
        solved.push((value - sum) / row[solved.len()]);
    }
    solved
}

/// Solves `factorᵀ · x = values`.
fn solve_upper(factor: &[Vec<f64>], mut values: Vec<f64>) -> Vec<f64> {
    for row in (0..values.len()).rev() {
        values[row] /= factor[row][row];
        let value = values[row];
        for (above, entry) in values.iter_mut().zip(&factor[row][..row]) {
            *above -= entry * value;
        }
    }
    values
}

fn dot(one: &[f64], other: &[f64]) -> f64 {
    one.iter().zip(other).map(|(one, other)| one * other).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(xs: &[f64]) -> Vec<Vec<f64>> {
        xs.iter().map(|x| vec![*x]).collect()
    }

    #[test]
    fn a_matrix_is_the_product_of_its_factor() {
        let rows = vec![vec![4.0], vec![2.0, 5.0], vec![-2.0, 1.0, 6.0]];
        let factor = cholesky(rows.clone()).unwrap();
        for (row, line) in rows.iter().enumerate() {
            for (column, expected) in line.iter().enumerate() {
                let found = dot(&factor[row][..=column], &factor[column]);
                assert!((found - expected).abs() < 1e-12, "{row} {column}: {found}");
            }
        }
        let solved = solve_upper(&factor, solve_lower(&factor, &[2.0, -3.0, 9.0]));
        let full = [[4.0, 2.0, -2.0], [2.0, 5.0, 1.0], [-2.0, 1.0, 6.0]];
        for (row, expected) in full.iter().zip([2.0, -3.0, 9.0]) {
            assert!((dot(row, &solved) - expected).abs() < 1e-12, "{solved:?}");
        }
        assert_eq!(cholesky(vec![vec![1.0], vec![2.0, 1.0]]), None);
    }

    #[test]
    fn a_smooth_function_is_interpolated_and_uncertain_far_from_its_points() {
        let f = |x: f64| (5.0 * x).sin() + 100.0;
        let xs: Vec<f64> = (0..9).map(|n| f64::from(n) / 12.0).collect();
        let (points, values) = (line(&xs), xs.iter().map(|x| f(*x)).collect::<Vec<_>>());
        let process = GaussianProcess::fit(&[Axis::Line], &points, &values).unwrap();
        for x in [0.04, 0.3, 0.55] {
            let (mean, deviation) = process.predict(&[x]);
            assert!((mean - f(x)).abs() < 0.03, "{mean} {}", f(x));
            assert!(deviation < 0.1, "{deviation}");
        }
        assert!(process.predict(&[1.0]).1 > 2.0 * process.predict(&[0.5]).1);
    }

    #[test]
    fn an_axis_without_influence_gets_a_long_length() {
        let pairs = (0..30).map(|n| (f64::from(n * 7 % 30) / 30.0, f64::from(n * 11 % 30) / 30.0));
        let points: Vec<Vec<f64>> = pairs.map(|(x, y)| vec![x, y]).collect();
        let values: Vec<f64> = points.iter().map(|point| (6.0 * point[0]).sin()).collect();
        let axes = [Axis::Line, Axis::Line];
        let process = GaussianProcess::fit(&axes, &points, &values).unwrap();
        let inverse = &process.inverse_lengths;
        assert!(inverse[1] * 2.5 < inverse[0], "{inverse:?}");
    }

    #[test]
    fn choices_are_told_apart() {
        let points: Vec<Vec<f64>> = (0..12).map(|n| vec![f64::from(n % 3)]).collect();
        let values: Vec<f64> = points
            .iter()
            .map(|point| 2.0 - f64::from(u8::from((point[0] - 1.0).abs() < 0.5)))
            .collect();
        let process = GaussianProcess::fit(&[Axis::Choices(3)], &points, &values).unwrap();
        assert!(process.predict(&[1.0]).0 < 1.2 && process.predict(&[2.0]).0 > 1.8);
    }

    #[test]
    fn values_without_a_difference_and_too_few_points_give_no_process() {
        let points = line(&[0.1, 0.2, 0.3]);
        assert!(GaussianProcess::fit(&[Axis::Line], &points, &[0.3; 3]).is_none());
        assert!(GaussianProcess::fit(&[Axis::Line], &points[..2], &[0.3, 0.4]).is_none());
        let same = line(&[0.1; 5]);
        assert!(GaussianProcess::fit(&[Axis::Line], &same, &[1.0, 2.0, 3.0, 1.0, 2.0]).is_some());
    }
}
