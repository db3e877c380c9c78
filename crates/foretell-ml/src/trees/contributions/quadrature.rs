//! Gauss–Legendre quadrature on [0, 1], which integrates polynomials exactly.

use crate::trees::contributions::lanes::{LANES, Lanes};

/// Maximum number of factors of a product, from which one is left out, that a block of points integrates exactly: n
/// points integrate polynomials of degree 2n - 1.
const FACTORS_PER_BLOCK: usize = 2 * LANES;

/// A block of points t. The integral of f is the sum of `weight × f(t)` over the points of all blocks.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Points {
    /// t
    pub(super) at: Lanes,
    /// 1 - t, exact in every digit also near t = 1.
    pub(super) rest: Lanes,
    /// 1 / (1 - t)
    pub(super) over_rest: Lanes,
    pub(super) weight: Lanes,
}

/// Number of blocks that integrate products of `factors` linear factors, without one of them, exactly.
pub(super) fn blocks_for(factors: usize) -> usize {
    factors.div_ceil(FACTORS_PER_BLOCK)
}

/// The quadrature of `blocks` blocks.
pub(super) fn quadrature(blocks: usize) -> Vec<Points> {
    const { assert!(LANES.is_multiple_of(2), "the points are pairs") };
    let none = Lanes::ZERO;
    let mut points = vec![Points { at: none, rest: none, over_rest: none, weight: none }; blocks];
    let n = blocks * LANES;
    for index in 0..n / 2 {
        let (below, weight) = lower_point(n, index);
        // The points are symmetric: t of one is 1 - t of the other.
        let above = 1.0 - below;
        for (index, at, rest) in [(index, below, above), (n - 1 - index, above, below)] {
            let (block, lane) = (&mut points[index / LANES], index % LANES);
            block.at.0[lane] = at;
            block.rest.0[lane] = rest;
            block.over_rest.0[lane] = 1.0 / rest;
            block.weight.0[lane] = weight;
        }
    }
    points
}

/// The point with this index, of n, which is below 1/2; and its weight. Points are roots of the Legendre polynomial of degree n.
fn lower_point(n: usize, index: usize) -> (f64, f64) {
    /// Newton's method doubles the number of correct digits, of which the first guess has two or more.
    const ITERATIONS: usize = 5;
    let angle = std::f64::consts::PI * (index as f64 + 0.75) / (n as f64 + 0.5);
    let mut at = (angle / 2.0).sin().powi(2);
    for _ in 0..ITERATIONS {
        let (value, slope) = legendre(n, at);
        at -= value / slope;
    }
    let (_, slope) = legendre(n, at);
    (at, 1.0 / (at * (1.0 - at) * slope * slope))
}

/// The value and the slope of the Legendre polynomial of degree n ≥ 1, shifted to [0, 1].
fn legendre(n: usize, at: f64) -> (f64, f64) {
    // The difference of the polynomials of two degrees, by which values near 0 keep their digits.
    let (mut value, mut difference) = (1.0 - 2.0 * at, -2.0 * at);
    for degree in 1..n {
        let degree = degree as f64;
        let change = 2.0 * (2.0 * degree + 1.0) * at * value;
        difference = (degree * difference - change) / (degree + 1.0);
        value += difference;
    }
    (value, n as f64 * (difference - 2.0 * at * value) / (2.0 * at * (1.0 - at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_below_twice_the_number_of_points_are_integrated_exactly() {
        for blocks in [1, 2, 3, 8, 40] {
            let points = quadrature(blocks);
            let degree_max = 2 * blocks * LANES - 1;
            for degree in (0..=degree_max).filter(|d| *d < 20 || *d + 5 > degree_max) {
                let degree = i32::try_from(degree).unwrap();
                let (mut of_at, mut of_rest) = (0.0, 0.0);
                for points in &points {
                    for lane in 0..LANES {
                        of_at += points.weight.0[lane] * points.at.0[lane].powi(degree);
                        of_rest += points.weight.0[lane]
                            * points.over_rest.0[lane]
                            * points.rest.0[lane].powi(degree + 1);
                    }
                }
                for integral in [of_at, of_rest] {
                    let error = (integral * f64::from(degree + 1) - 1.0).abs();
                    assert!(error < 1e-12, "{blocks} blocks, degree {degree}: {error:e}");
                }
            }
        }
    }

    #[test]
    fn a_block_is_for_two_factors_a_point() {
        for (factors, expected) in [(0, 0), (1, 1), (12, 1), (13, 2), (24, 2), (25, 3)] {
            assert_eq!(blocks_for(factors), expected, "{factors} factors");
        }
    }
}
