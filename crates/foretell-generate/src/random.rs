//! Random numbers that no release of a library changes, so that a table stays the same.

/// The increment of SplitMix64's state: 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The generator SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
pub(crate) struct Random {
    state: u64,
}

impl Random {
    /// The numbers of one row, for one purpose: those of other rows and purposes are independent of them.
    pub(crate) fn of_row(seed: u64, purpose: u64, row: u64) -> Self {
        let mut state = seed;
        for part in [purpose, row] {
            state = mix(state.wrapping_add(GOLDEN)) ^ part;
        }
        Self { state: mix(state.wrapping_add(GOLDEN)) }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mix(self.state)
    }

    /// A number from 0 up to, but not including 1: a multiple of 2^-53.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number from `low` to below `high`.
    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// A whole number from 0 to below `bound`.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        let product = u64::from(bound) * (self.next() >> 32);
        u32::try_from(product >> 32).expect("it is below a 32-bit bound")
    }
}

fn mix(mut state: u64) -> u64 {
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_uniform_over_rows() {
        let mut counts = [0_u32; 10];
        for row in 0..100_000 {
            let mut random = Random::of_row(7, 1, row);
            counts[usize::try_from(random.below(10)).unwrap()] += 1;
            assert!((0.0..1.0).contains(&random.unit()));
        }
        // Five standard deviations, each of 95.
        assert!(counts.iter().all(|count| count.abs_diff(10_000) < 475), "{counts:?}");
    }

    #[test]
    fn purposes_and_seeds_have_numbers_of_their_own() {
        let first = |seed, purpose| Random::of_row(seed, purpose, 5).next();
        let numbers = [first(1, 0), first(1, 1), first(2, 0), first(2, 1)];
        for (index, number) in numbers.iter().enumerate() {
            assert!(!numbers[..index].contains(number), "{numbers:?}");
        }
    }
}
