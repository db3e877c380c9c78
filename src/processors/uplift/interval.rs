//! The difference of two shares and its interval of confidence: Newcombe's hybrid score interval (method 10 in "Interval estimation
//! for the difference between independent proportions", 1998). It holds for few examples and for shares near 0 and 1, where the
//! textbook interval does not.

use serde::Serialize;

/// The 97.5 % quantile of the standard normal distribution, for an interval of 95 %.
const Z: f64 = 1.959_963_984_540_054;

/// Number of examples of a group, and of those with a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) of_label: u64,
    pub(super) all: u64,
}

/// The difference of two shares, with an interval that covers the true one in 95 of 100 cases.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The difference.
    pub difference: f64,
    /// The lower bound.
    pub low: f64,
    /// The upper bound.
    pub high: f64,
}

impl Share {
    /// The share; none without examples.
    pub(super) fn rate(self) -> Option<f64> {
        (self.all > 0).then(|| self.of_label as f64 / self.all as f64)
    }

    /// Wilson's score interval.
    fn interval(self) -> Option<(f64, f64)> {
        let (rate, all) = (self.rate()?, self.all as f64);
        let scale = 1.0 + Z * Z / all;
        let centre = (rate + Z * Z / (2.0 * all)) / scale;
        let half = Z * (rate * (1.0 - rate) / all + Z * Z / (4.0 * all * all)).sqrt() / scale;
        Some(((centre - half).max(0.0), (centre + half).min(1.0)))
    }
}

impl Difference {
    /// The first share less the second; none if one has no examples.
    pub(super) fn of(first: Share, second: Share) -> Option<Self> {
        let (one, other) = (first.rate()?, second.rate()?);
        let ((one_low, one_high), (other_low, other_high)) =
            (first.interval()?, second.interval()?);
        let difference = one - other;
        Some(Self {
            difference,
            low: difference - (one - one_low).hypot(other_high - other),
            high: difference + (one_high - one).hypot(other - other_low),
        })
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

    use super::*;

    /// Examples of table II of the paper, method 10.
    #[test]
    fn the_interval_is_that_of_the_paper() {
        let check = |first: (u64, u64), second: (u64, u64), low: f64, high: f64| {
            let share = |(of_label, all)| Share { of_label, all };
            let found = Difference::of(share(first), share(second)).unwrap();
            let near = |a: f64, b: f64| (a - b).abs() < 5e-5;
            assert!(near(found.low, low) && near(found.high, high), "{found:?}, not {low} {high}");
        };
        check((56, 70), (48, 80), 0.0524, 0.3339);
        check((9, 10), (3, 10), 0.1705, 0.8090);
        check((6, 7), (2, 7), 0.0582, 0.8062);
        check((5, 56), (0, 29), -0.0381, 0.1926);
        check((0, 10), (0, 20), -0.1611, 0.2775);
        check((10, 10), (0, 20), 0.6791, 1.0);
    }

    #[test]
    fn without_examples_of_a_group_there_is_no_difference() {
        let (none, some) = (Share { of_label: 0, all: 0 }, Share { of_label: 1, all: 2 });
        assert_eq!(Difference::of(none, some), None);
        assert_eq!(Difference::of(some, none), None);
    }

    #[test]
    fn the_interval_covers_the_truth_as_often_as_it_says() {
        let mut random = StdRng::seed_from_u64(4);
        for (one, other, all) in [(0.3, 0.2, 300), (0.02, 0.01, 500), (0.9, 0.9, 50)] {
            let mut share = |rate: f64| {
                let drawn = (0..all).filter(|_| random.random_range(0.0..1.0) < rate).count();
                Share { of_label: drawn as u64, all }
            };
            let covers = (0..2_000).filter(|_| {
                let found = Difference::of(share(one), share(other)).unwrap();
                (found.low..=found.high).contains(&(one - other))
            });
            let covered = covers.count();
            // 1,900 are expected, with a standard deviation of 10.
            assert!((1_860..=1_985).contains(&covered), "{covered} of 2000");
        }
    }
}
