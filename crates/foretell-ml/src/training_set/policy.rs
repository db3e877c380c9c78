//! Which examples are kept and how much they count.

use serde::{Deserialize, Serialize};

use crate::random::{self, GOLDEN};

/// Maximum number of examples of a training set: LightGBM counts rows in 31 bits.
pub const EXAMPLES_MAX: usize = (1 << 31) - 1;

/// Smallest weight, 2^-30: an old example never vanishes, which LightGBM would count towards the size of a leaf but not
/// towards its value.
const WEIGHT_MIN: f64 = 1.0 / (1_u64 << 30) as f64;

/// Treatment of the initial data when examples come from the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InitialPolicy {
    /// Every training uses them, with a weight of 1.
    #[default]
    Keep,
    /// They age like the examples from the stream, as the oldest of them: `last`, `reservoir` and `half_life` apply to
    /// them as well.
    Age,
}

/// Examples from the stream that are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retention {
    /// All of them.
    #[default]
    All,
    /// This many, the newest in the order of the log.
    Last(usize),
    /// Those whose event time is less than this many milliseconds before the newest event time.
    Within(i64),
    /// A random sample of this many of all examples, drawn with the seed.
    Reservoir(usize),
}

/// Which examples a training uses and how much they count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataPolicy {
    /// Examples from the stream that are kept.
    pub retention: Retention,
    /// Milliseconds of event time in which the weight of an example halves; `None`: every example counts the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub half_life: Option<i64>,
    /// Treatment of the initial data.
    #[serde(default)]
    pub initial: InitialPolicy,
}

impl DataPolicy {
    /// Whether it is the default: everything, with equal weights.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Weight of an example whose event time is `age` milliseconds before the newest one: 1 for the newest, half after
    /// each half-life, but never less than 2^-30.
    pub(super) fn weight(&self, age: i64) -> f32 {
        let Some(half_life) = self.half_life else { return 1.0 };
        let halves = age.max(0) as f64 / half_life.max(1) as f64;
        (-halves).exp2().max(WEIGHT_MIN) as f32
    }
}

/// The priority of an example in the reservoir, which has those with the smallest. It depends on nothing but the seed and
/// the example, so the sample does not depend on when it is drawn, and an example that was dropped never returns.
pub(super) fn priority(seed: u64, id: u128) -> u64 {
    let [low, high] = [id as u64, (id >> 64) as u64];
    mix(mix(seed ^ mix(low)) ^ high)
}

/// A hash of a number.
fn mix(number: u64) -> u64 {
    random::mix(number.wrapping_add(GOLDEN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_halves_with_every_half_life_and_has_a_minimum() {
        let policy = DataPolicy { half_life: Some(1_000), ..DataPolicy::default() };
        let check = |age: i64, expected: f32| {
            assert!((policy.weight(age) - expected).abs() < 1e-7, "{age}");
        };
        check(0, 1.0);
        check(1_000, 0.5);
        check(3_000, 0.125);
        check(500, 0.5_f32.sqrt());
        check(-5, 1.0);
        assert!(policy.weight(i64::MAX) > 0.0);
        assert!((DataPolicy::default().weight(1_000_000) - 1.0).abs() < f32::EPSILON);
    }

    #[test]
    fn a_priority_must_never_change() {
        // An old model is reproduced with the same sample.
        assert_eq!(priority(42, 7), 2_801_148_421_061_206_741);
        assert_ne!(priority(42, 7), priority(43, 7));
        assert_ne!(priority(42, 7), priority(42, 7 << 64));
    }
}
