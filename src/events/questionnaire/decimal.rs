//! Avro's decimals: a whole number in big-endian two's complement with a fixed number of digits after the point. They are
//! converted to the nearest 64-bit float.

/// The logical type `decimal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    /// Maximum number of digits.
    pub(super) precision: usize,
    /// Number of digits after the point.
    pub(super) scale: usize,
    /// Number of bytes, if the type is `fixed`.
    pub(super) size: Option<usize>,
}

/// Powers of ten up to this are exact in 64-bit floats, as is every whole number below 2^53, so their quotient is the nearest
/// float.
const EXACT_SCALE_MAX: usize = 22;
const EXACT_WHOLE_MAX: u64 = 1 << 53;

impl Decimal {
    pub(super) fn wanted(&self) -> String {
        format!(
            "a number of at most {} digits, {} of them after the point",
            self.precision, self.scale
        )
    }

    /// The float nearest to the decimal in `bytes`; 0 if there are none.
    pub(super) fn number(&self, bytes: &[u8]) -> f64 {
        let (is_negative, magnitude) = magnitude(bytes);
        let short: Option<u64> = magnitude
            .iter()
            .try_fold(0_u64, |whole, byte| Some(whole.checked_mul(256)? + u64::from(*byte)))
            .filter(|whole| *whole < EXACT_WHOLE_MAX);
        let number = match short {
            Some(whole) if self.scale <= EXACT_SCALE_MAX => {
                let scale = i32::try_from(self.scale).unwrap_or(i32::MAX);
                whole as f64 / 10_f64.powi(scale)
            }
            _ => {
                let text = format!("{}e-{}", digits(magnitude), self.scale);
                text.parse().unwrap_or(f64::NAN)
            }
        };
        if is_negative { -number } else { number }
    }

    /// The bytes of a number; none if it has too many digits for the type.
    pub(super) fn bytes(&self, number: f64) -> Option<Vec<u8>> {
        let text = number.abs().to_string();
        let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
        let zeros = self.scale.checked_sub(fraction.len())?;
        let digits = format!("{whole}{fraction}{}", "0".repeat(zeros));
        if digits.trim_start_matches('0').len() > self.precision {
            return None;
        }
        let unscaled: i128 = digits.parse().ok()?;
        let unscaled = if number < 0.0 { -unscaled } else { unscaled };
        let bytes = unscaled.to_be_bytes();
        let filler = if unscaled < 0 { 0xff } else { 0 };
        // Leading bytes that only repeat the sign of the next byte.
        let is_idle = |pair: &&[u8]| pair[0] == filler && (pair[1] ^ filler) & 0x80 == 0;
        let idle = bytes.windows(2).take_while(is_idle).count();
        let needed = &bytes[idle..];
        match self.size {
            None => Some(needed.to_vec()),
            Some(size) => {
                let mut padded = vec![filler; size.checked_sub(needed.len())?];
                padded.extend_from_slice(needed);
                Some(padded)
            }
        }
    }
}

/// The sign and the bytes of the absolute value.
fn magnitude(bytes: &[u8]) -> (bool, Vec<u8>) {
    let is_negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    let mut magnitude = bytes.to_vec();
    if is_negative {
        let mut carry = true;
        for byte in magnitude.iter_mut().rev() {
            (*byte, carry) = (!*byte).overflowing_add(u8::from(carry));
        }
    }
    (is_negative, magnitude)
}

/// The decimal digits of a big-endian number, by repeated division by ten.
fn digits(mut magnitude: Vec<u8>) -> String {
    let mut reversed = Vec::new();
    while magnitude.iter().any(|byte| *byte != 0) {
        let mut rest = 0_u16;
        for byte in &mut magnitude {
            let value = rest * 256 + u16::from(*byte);
            *byte = u8::try_from(value / 10).unwrap_or(u8::MAX);
            rest = value % 10;
        }
        reversed.push(char::from(b'0' + u8::try_from(rest).unwrap_or(0)));
    }
    if reversed.is_empty() { "0".to_owned() } else { reversed.into_iter().rev().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(scale: usize, bytes: &[u8], number: f64) {
        let decimal = Decimal { precision: 38, scale, size: None };
        assert_eq!(decimal.number(bytes).to_bits(), number.to_bits(), "{bytes:?}");
        assert_eq!(decimal.bytes(number).as_deref(), Some(bytes), "{number}");
    }

    #[test]
    fn numbers_and_bytes_convert_to_each_other() {
        check(2, &[0x04, 0xd2], 12.34);
        check(2, &[0xfb, 0x2e], -12.34);
        check(0, &[0x00, 0x80], 128.0);
        check(0, &[0x80], -128.0);
        check(1, &[0x01], 0.1);
        check(3, &[0x00], 0.0);
        let large = Decimal { precision: 38, scale: 2, size: None };
        let bytes = 12_345_678_901_234_567_891_i128.to_be_bytes();
        let number: f64 = "123456789012345678.91".parse().unwrap();
        assert_eq!(large.number(&bytes).to_bits(), number.to_bits());
        assert_eq!(
            large.number(&[0xff; 40]).to_bits(),
            (-0.01_f64).to_bits(),
            "more than 128 bits"
        );
    }

    #[test]
    fn numbers_with_too_many_digits_are_rejected() {
        let decimal = Decimal { precision: 4, scale: 2, size: Some(3) };
        assert_eq!(decimal.bytes(12.34), Some(vec![0, 0x04, 0xd2]));
        assert_eq!(decimal.bytes(-0.5), Some(vec![0xff, 0xff, 0xce]));
        for number in [123.4, 0.001, 1e300] {
            assert_eq!(decimal.bytes(number), None, "{number}");
        }
        let tiny = Decimal { precision: 4, scale: 0, size: Some(1) };
        assert_eq!(tiny.bytes(200.0), None);
    }
}
