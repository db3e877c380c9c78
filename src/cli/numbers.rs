//! Parsers of numbers on the command line, with their bounds.

use std::num::FpCategory;

/// About one respondent in a quarter of an hour. A smaller rate is probably meant in another unit.
const RATE_MIN: f64 = 0.001;

/// A rate per second.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    let number = number(text).filter(|number| *number >= RATE_MIN);
    number.ok_or_else(|| format!("it must be a number of at least {RATE_MIN}, such as 0.5 or 20"))
}

/// A rate per second, or 0 for no limit.
pub(super) fn rate_or_zero(text: &str) -> Result<f64, String> {
    let number =
        number(text).filter(|number| number.classify() == FpCategory::Zero || *number >= RATE_MIN);
    number.ok_or_else(|| {
        format!("it must be 0, or a number of at least {RATE_MIN}, such as 0.5 or 600")
    })
}

/// A whole number, 1 or more.
pub(super) fn at_least_one(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "it must be a whole number, 1 or more".to_owned())
}

/// Whole seconds, 1 or more.
pub(super) fn seconds(text: &str) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "it must be a whole number of seconds, 1 or more".to_owned())
}

/// A share, from 0 to 1.
pub(super) fn share(text: &str) -> Result<f64, String> {
    let number = number(text).filter(|number| (0.0..=1.0).contains(number));
    number.ok_or_else(|| "it must be a share of 0 to 1, such as 0.1".to_owned())
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}
