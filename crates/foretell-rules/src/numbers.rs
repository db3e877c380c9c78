//! Numbers of CEL: comparison across types, and arithmetic within a type.

use std::cmp::Ordering;

use crate::error::Undefined;

/// The order of an int and a double on one line of numbers, exactly; none for NaN.
pub(crate) fn compare_int_double(int: i64, double: f64) -> Option<Ordering> {
    // The first double above every int; the smallest int is a double.
    const END: f64 = 9_223_372_036_854_775_808.0;
    if double.is_nan() {
        return None;
    }
    if double >= END {
        return Some(Ordering::Less);
    }
    if double < -END {
        return Some(Ordering::Greater);
    }
    #[expect(clippy::cast_possible_truncation, reason = "it is in the range of an int")]
    let whole = double.trunc() as i64;
    Some(int.cmp(&whole).then_with(|| 0.0.partial_cmp(&double.fract()).unwrap_or(Ordering::Equal)))
}

/// The order of a uint and a double on one line of numbers, exactly; none for NaN.
pub(crate) fn compare_uint_double(uint: u64, double: f64) -> Option<Ordering> {
    const END: f64 = 18_446_744_073_709_551_616.0;
    if double.is_nan() {
        return None;
    }
    if double >= END {
        return Some(Ordering::Less);
    }
    if double < 0.0 {
        return Some(Ordering::Greater);
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is in range")]
    let whole = double.trunc() as u64;
    Some(uint.cmp(&whole).then_with(|| 0.0.partial_cmp(&double.fract()).unwrap_or(Ordering::Equal)))
}

/// The order of an int and a uint.
pub(crate) fn compare_int_uint(int: i64, uint: u64) -> Ordering {
    u64::try_from(int).map_or(Ordering::Less, |int| int.cmp(&uint))
}

/// An arithmetic operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl Arithmetic {
    pub(crate) fn of_ints(self, left: i64, right: i64) -> Result<i64, Undefined> {
        if right == 0 && matches!(self, Self::Divide | Self::Remainder) {
            return Err(Undefined::DivisionByZero);
        }
        let result = match self {
            Self::Add => left.checked_add(right),
            Self::Subtract => left.checked_sub(right),
            Self::Multiply => left.checked_mul(right),
            Self::Divide => left.checked_div(right),
            Self::Remainder => left.checked_rem(right),
        };
        result.ok_or(Undefined::Overflow)
    }

    pub(crate) fn of_uints(self, left: u64, right: u64) -> Result<u64, Undefined> {
        if right == 0 && matches!(self, Self::Divide | Self::Remainder) {
            return Err(Undefined::DivisionByZero);
        }
        let result = match self {
            Self::Add => left.checked_add(right),
            Self::Subtract => left.checked_sub(right),
            Self::Multiply => left.checked_mul(right),
            Self::Divide => left.checked_div(right),
            Self::Remainder => left.checked_rem(right),
        };
        result.ok_or(Undefined::Overflow)
    }

    /// None for the remainder, which doubles do not have.
    pub(crate) fn of_doubles(self, left: f64, right: f64) -> Option<f64> {
        Some(match self {
            Self::Add => left + right,
            Self::Subtract => left - right,
            Self::Multiply => left * right,
            Self::Divide => left / right,
            Self::Remainder => return None,
        })
    }
}

/// The double without its fraction.
pub(crate) fn int_of_double(double: f64) -> Result<i64, Undefined> {
    // As in the specification, both ends are out of range.
    const END: f64 = 9_223_372_036_854_775_808.0;
    if double > -END && double < END {
        #[expect(clippy::cast_possible_truncation, reason = "it is in range")]
        return Ok(double as i64);
    }
    Err(Undefined::NotConvertible)
}

/// The double without its fraction.
pub(crate) fn uint_of_double(double: f64) -> Result<u64, Undefined> {
    const END: f64 = 18_446_744_073_709_551_616.0;
    if double > -1.0 && double < END {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range")]
        return Ok(double as u64);
    }
    Err(Undefined::NotConvertible)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Ordering::{Equal, Greater, Less};

    #[test]
    fn ints_and_doubles_are_compared_exactly() {
        let check = |int, double, expected| {
            assert_eq!(compare_int_double(int, double), expected, "{int} {double}");
        };
        check(25, 25.0, Some(Equal));
        check(25, 24.5, Some(Greater));
        check(-25, -24.5, Some(Less));
        check(-25, -25.5, Some(Greater));
        check(0, -0.0, Some(Equal));
        check(0, -0.5, Some(Greater));
        check(9_007_199_254_740_993, 9_007_199_254_740_992.0, Some(Greater));
        check(i64::MAX, 9_223_372_036_854_775_808.0, Some(Less));
        check(i64::MIN, -9_223_372_036_854_775_808.0, Some(Equal));
        check(i64::MIN, f64::NEG_INFINITY, Some(Greater));
        check(i64::MAX, f64::INFINITY, Some(Less));
        check(1, f64::NAN, None);
    }

    #[test]
    fn uints_are_compared_exactly() {
        assert_eq!(compare_uint_double(u64::MAX, 18_446_744_073_709_551_616.0), Some(Less));
        assert_eq!(compare_uint_double(3, 3.5), Some(Less));
        assert_eq!(compare_uint_double(0, -0.5), Some(Greater));
        assert_eq!(compare_uint_double(0, f64::NAN), None);
        assert_eq!(compare_int_uint(-1, 0), Less);
        assert_eq!(compare_int_uint(i64::MAX, u64::MAX), Less);
        assert_eq!(compare_int_uint(7, 7), Equal);
    }

    #[test]
    fn doubles_out_of_range_are_not_converted() {
        assert_eq!(int_of_double(-3.9), Ok(-3));
        assert_eq!(int_of_double(f64::NAN), Err(Undefined::NotConvertible));
        assert_eq!(int_of_double(-9_223_372_036_854_775_808.0), Err(Undefined::NotConvertible));
        assert_eq!(int_of_double(9_223_372_036_854_774_784.0), Ok(9_223_372_036_854_774_784));
        assert_eq!(uint_of_double(3.9), Ok(3));
        assert_eq!(uint_of_double(-0.5), Ok(0));
        assert_eq!(uint_of_double(-1.0), Err(Undefined::NotConvertible));
        assert_eq!(uint_of_double(18_446_744_073_709_551_616.0), Err(Undefined::NotConvertible));
    }
}
