//! Random points, by which other samplers are measured.

use rand::{RngExt as _, rngs::StdRng};

use crate::training::{domain::Axis, sampler::Sampler};

pub(super) struct Random {
    axes: Vec<Axis>,
}

impl Random {
    pub(super) fn new(axes: Vec<Axis>) -> Self {
        Self { axes }
    }
}

impl Sampler for Random {
    fn ask(&mut self, random: &mut StdRng) -> Vec<f64> {
        self.axes.iter().map(|axis| coordinate(*axis, random)).collect()
    }

    fn tell(&mut self, _point: &[f64], _loss: f64) {}
}

/// A random coordinate of an axis.
pub(super) fn coordinate(axis: Axis, random: &mut StdRng) -> f64 {
    match axis {
        Axis::Line => random.random(),
        Axis::Choices(number) => random.random_range(0..number) as f64,
    }
}
