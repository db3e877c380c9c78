//! Numbers and booleans as texts spell them.

/// The finite number that a text spells, if any.
pub(super) fn number_in(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|number: &f64| number.is_finite())
}

/// Whether two texts spell the same number. Whole numbers are compared exactly.
pub(crate) fn is_same_number(one: &str, other: &str) -> bool {
    match (whole_in(one), whole_in(other)) {
        (Some(one), Some(other)) => one == other,
        (_, _) => number_in(one).zip(number_in(other)).is_some_and(|(one, other)| same(one, other)),
    }
}

#[expect(clippy::float_cmp, reason = "a value for missing answers is compared exactly")]
pub(super) fn same(mark: f64, number: f64) -> bool {
    mark == number
}

/// The whole number of 64 bits that a text spells exactly. This includes `39.0`, which an export of a column with missing values
/// has, and `1.8e18`.
pub(super) fn whole_in(text: &str) -> Option<i64> {
    const DIGITS_MAX: i64 = 19;
    let text = text.trim();
    let (sign, unsigned) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        None => (unsigned, 0),
        Some((mantissa, exponent)) => (mantissa, i64::from(exponent.parse::<i32>().ok()?)),
    };
    let (before, after) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{before}{after}");
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let significant = digits.trim_end_matches('0');
    let length = |text: &str| i64::try_from(text.len()).unwrap_or(i64::MAX);
    // The number of zeros between the significant digits and the point.
    let zeros = exponent - length(after) + length(&digits) - length(significant);
    let significant = significant.trim_start_matches('0');
    if significant.is_empty() {
        return Some(0);
    }
    if zeros < 0 || length(significant) + zeros > DIGITS_MAX {
        return None;
    }
    let power = 10_i128.pow(u32::try_from(zeros).ok()?);
    let number = significant.parse::<i128>().ok()? * power * sign;
    i64::try_from(number).ok()
}

/// `true` or `false`, in any case.
pub(crate) fn flag_in(text: &str) -> Option<bool> {
    text.to_ascii_lowercase().parse().ok()
}
