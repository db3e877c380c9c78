//! Arithmetic on a block of numbers at a time, in vector registers.

use std::ops::{Add, Mul};

/// Numbers in a block. Of 4, 6 and 8, 6 is fastest with 200 trees of 63 leaves.
pub(super) const LANES: usize = 6;

/// A block of numbers. Aligned, so that the compiler pairs them in the same way everywhere: 128-bit registers hold two.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(align(16))]
pub(super) struct Lanes(pub(super) [f64; LANES]);

impl Lanes {
    pub(super) const ZERO: Self = Self([0.0; LANES]);
    pub(super) const ONE: Self = Self([1.0; LANES]);

    #[inline]
    pub(super) fn inverse(self) -> Self {
        Self(self.0.map(|number| 1.0 / number))
    }

    #[inline]
    pub(super) fn sum(self) -> f64 {
        let (low, high) = self.0.split_at(LANES / 2);
        low.iter().zip(high).fold(0.0, |sum, (a, b)| sum + (a + b))
    }
}

impl Add for Lanes {
    type Output = Self;

    #[inline]
    fn add(mut self, other: Self) -> Self {
        for (lane, other) in self.0.iter_mut().zip(other.0) {
            *lane += other;
        }
        self
    }
}

impl Mul for Lanes {
    type Output = Self;

    #[inline]
    fn mul(mut self, other: Self) -> Self {
        for (lane, other) in self.0.iter_mut().zip(other.0) {
            *lane *= other;
        }
        self
    }
}

impl Mul<f64> for Lanes {
    type Output = Self;

    #[inline]
    fn mul(self, factor: f64) -> Self {
        Self(self.0.map(|lane| lane * factor))
    }
}
