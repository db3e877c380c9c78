//! The population stability index.

/// Pseudo-count of each bin, which keeps the index finite where a bin is empty (Jeffreys' prior).
const PSEUDO_COUNT: f64 = 0.5;

/// The population stability index of two histograms with the same bins: the sum of `(live - trained) ln(live / trained)` over
/// the shares of the bins, after half an observation is added to each bin. It is 0 for equal shares; by convention, 0.1 is a
/// small and 0.25 a large change (Siddiqi, Credit Risk Scorecards, 2006).
///
/// Without any change, its expectation is `(bins - 1) (1/n + 1/m)` for n live and m trained observations, and the index divided
/// by `1/n + 1/m` has a chi-squared distribution with `bins - 1` degrees of freedom (Yurdakul, Statistical Properties of
/// Population Stability Index, 2018). So with 12 bins and 1,000 of each, one window in 1,000 exceeds 0.063.
///
/// `None` if one of them is empty, or the numbers of bins differ.
#[must_use]
pub fn psi(trained: &[u64], live: &[u64]) -> Option<f64> {
    let total = |counts: &[u64]| counts.iter().sum::<u64>();
    if trained.len() != live.len() || total(trained) == 0 || total(live) == 0 {
        return None;
    }
    let smoothed = PSEUDO_COUNT * trained.len() as f64;
    let totals = [total(trained), total(live)].map(|total| total as f64 + smoothed);
    let terms = trained.iter().zip(live).map(|(trained, live)| {
        let trained = (*trained as f64 + PSEUDO_COUNT) / totals[0];
        let live = (*live as f64 + PSEUDO_COUNT) / totals[1];
        (live - trained) * (live / trained).ln()
    });
    Some(terms.sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

    #[test]
    fn equal_shares_have_an_index_of_zero() {
        let check = |trained: &[u64], live: &[u64], expected: Option<f64>| {
            let found = psi(trained, live);
            let same = match (found, expected) {
                (Some(found), Some(expected)) => (found - expected).abs() < 1e-3,
                (found, expected) => found == expected,
            };
            assert!(same, "{trained:?} {live:?}: {found:?}, not {expected:?}");
        };
        check(&[1_000, 3_000], &[10_000, 30_000], Some(0.0));
        // (.5 - .25) ln(.5 / .25) + (.5 - .75) ln(.5 / .75)
        check(&[10_000, 30_000], &[20_000, 20_000], Some(0.2747));
        check(&[1, 2], &[1, 2, 3], None);
        check(&[0, 0], &[1, 2], None);
        check(&[1, 2], &[0, 0], None);
    }

    #[test]
    fn an_empty_bin_gives_a_finite_index() {
        let found = psi(&[1_000, 0], &[0, 1_000]).unwrap();
        assert!(found > 10.0 && found.is_finite(), "{found}");
    }

    /// The mean and the critical value that the documentation of [`psi`] gives.
    #[test]
    fn without_a_change_the_index_is_as_large_as_chance_makes_it() {
        let mut random = StdRng::seed_from_u64(7);
        let mut draw = || {
            let mut counts = [0; 12];
            for _ in 0..1_000 {
                counts[random.random_range(0..12_usize)] += 1;
            }
            counts
        };
        let found: Vec<f64> = (0..2_000).map(|_| psi(&draw(), &draw()).unwrap()).collect();
        let mean = found.iter().sum::<f64>() / 2_000.0;
        assert!((mean - 11.0 * 0.002).abs() < 0.001, "{mean}");
        let beyond = found.iter().filter(|index| **index > 0.063).count();
        assert!(beyond <= 8, "{beyond} of 2,000");
    }
}
