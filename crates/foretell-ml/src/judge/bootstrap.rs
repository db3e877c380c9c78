//! Resampling of examples, and the percentile interval of a statistic of the resamples.

use crate::{judge::Settings, random::SplitMix64};

/// Maximum number of examples that are resampled, which bounds the time: 1,000 resamples of 50,000 examples take one
/// or two seconds. Of more examples, this many are drawn once, and the width of the interval is scaled by the square root of the
/// ratio, since a standard error falls with the square root of the number of examples.
const RESAMPLED_MAX: usize = 50_000;

/// The percentile interval of a statistic of `examples` examples, whose value for them is `estimate`. `statistic` gets the
/// rows that are resampled, in ascending order; what it returns is called with the number of times that each of those rows
/// was drawn, and returns the value of the statistic. `None` if the value is undefined for more than 1 % of the resamples.
pub(super) fn resample<S>(
    examples: usize,
    estimate: f64,
    settings: &Settings,
    statistic: impl FnOnce(&[u32]) -> S,
) -> Option<(f64, f64)>
where
    S: Fn(&[u32]) -> Option<f64>,
{
    let mut random = SplitMix64::new(settings.seed.0);
    let rows = draw(examples, RESAMPLED_MAX, &mut random);
    let statistic = statistic(&rows);
    let resamples = usize::try_from(settings.resamples).expect("at most 10,000");
    let mut counts = vec![1_u32; rows.len()];
    let of_rows = statistic(&counts)?;
    let mut values = Vec::with_capacity(resamples);
    for _ in 0..resamples {
        counts.fill(0);
        for _ in 0..rows.len() {
            counts[random.below(rows.len())] += 1;
        }
        values.extend(statistic(&counts));
    }
    let undefined = resamples - values.len();
    if undefined * 100 > resamples {
        return None;
    }
    values.sort_unstable_by(f64::total_cmp);
    let tail = (1.0 - settings.confidence) / 2.0;
    let (low, high) = (quantile(&values, tail), quantile(&values, 1.0 - tail));
    if rows.len() == examples {
        return Some((low, high));
    }
    let scale = (rows.len() as f64 / examples as f64).sqrt();
    Some((estimate + (low - of_rows) * scale, estimate + (high - of_rows) * scale))
}

/// All rows, or a random `most` of them, in ascending order (Knuth's selection sampling).
fn draw(examples: usize, most: usize, random: &mut SplitMix64) -> Vec<u32> {
    let mut rows = Vec::with_capacity(examples.min(most));
    for row in 0..examples {
        let wanted = examples.min(most) - rows.len();
        if random_below_all(examples - row, wanted, random) {
            rows.push(u32::try_from(row).expect("a sample has at most 2^31 examples"));
        }
    }
    rows
}

/// Whether the next of `left` rows is one of the `wanted`; without a random number if all of them are.
fn random_below_all(left: usize, wanted: usize, random: &mut SplitMix64) -> bool {
    wanted == left || random.below(left) < wanted
}

/// A quantile of sorted values, between the two nearest of them: a share `at` of the population is expected below it.
fn quantile(sorted: &[f64], at: f64) -> f64 {
    let last = sorted.len() - 1;
    let position = (at * (sorted.len() + 1) as f64 - 1.0).clamp(0.0, last as f64);
    #[expect(clippy::cast_sign_loss, reason = "it is at least 0")]
    let below = position.floor() as usize;
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * (position - below as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_lies_between_the_nearest_values() {
        let check = |sorted: &[f64], at: f64, expected: f64| {
            assert!((quantile(sorted, at) - expected).abs() < 1e-12, "{sorted:?} {at}");
        };
        check(&[1.0, 2.0, 3.0], 0.5, 2.0);
        check(&[1.0, 2.0, 3.0], 0.25, 1.0);
        check(&[1.0, 2.0, 3.0], 0.375, 1.5);
        check(&[1.0, 2.0, 3.0], 0.001, 1.0);
        check(&[1.0, 2.0, 3.0], 0.999, 3.0);
        check(&[4.0], 0.5, 4.0);
    }

    #[test]
    fn a_draw_has_all_rows_or_as_many_as_asked_for_each_with_the_same_chance() {
        let mut random = SplitMix64::new(1);
        assert_eq!(draw(4, 9, &mut random), [0, 1, 2, 3]);
        let mut counts = [0_u32; 20];
        for _ in 0..10_000 {
            let rows = draw(20, 5, &mut random);
            assert!(rows.len() == 5 && rows.is_sorted_by(|a, b| a < b), "{rows:?}");
            for row in rows {
                counts[row as usize] += 1;
            }
        }
        // Five standard deviations, each of 43.
        assert!(counts.iter().all(|count| count.abs_diff(2_500) < 217), "{counts:?}");
    }

    /// The interval of the mean of `examples` numbers.
    fn of_mean(examples: usize) -> (f64, f64) {
        let number = |row: usize| SplitMix64::new(row as u64).next() as f64 / u64::MAX as f64;
        let mean = (0..examples).map(number).sum::<f64>() / examples as f64;
        let settings = Settings { resamples: 200, ..Settings::default() };
        let interval = resample(examples, mean, &settings, |rows| {
            let numbers: Vec<f64> = rows.iter().map(|row| number(*row as usize)).collect();
            move |counts: &[u32]| {
                let sum =
                    numbers.iter().zip(counts).map(|(number, count)| number * f64::from(*count));
                Some(sum.sum::<f64>() / numbers.len() as f64)
            }
        });
        interval.unwrap()
    }

    #[test]
    fn the_interval_of_very_many_examples_is_as_wide_as_theory_says() {
        for examples in [1_000, 200_000] {
            let (low, high) = of_mean(examples);
            // Uniform numbers have a standard deviation of √(1/12).
            let expected = 2.0 * 1.96 * (1.0 / 12.0 / examples as f64).sqrt();
            let ratio = (high - low) / expected;
            assert!((0.8..1.2).contains(&ratio), "{examples}: {ratio}");
            assert!((low..high).contains(&0.5) || examples == 1_000, "{low} {high}");
        }
    }

    #[test]
    fn a_statistic_that_is_often_undefined_has_no_interval() {
        let settings = Settings::default();
        let with = |is_defined: fn(&[u32]) -> bool| {
            resample(40, 1.0, &settings, |_| {
                move |counts: &[u32]| is_defined(counts).then_some(1.0)
            })
        };
        assert_eq!(with(|_| true), Some((1.0, 1.0)));
        // The probability that one row is not drawn is .36, and that none of ten is drawn 1e-5.
        assert_eq!(with(|counts| counts[0] > 0), None);
        assert_eq!(with(|counts| counts[..10].iter().any(|count| *count > 0)), Some((1.0, 1.0)));
    }
}
