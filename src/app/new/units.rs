//! Units around the numbers of a column, such as `$4,780.17`, `95.6%` and `75 kg`.

use std::borrow::Cow;

use crate::app::new::values::{DecimalMark, Number};

/// Signs that are a unit before or after a number.
const SIGNS: &[char] = &['$', '€', '£', '¥', '₹', '₽', '₩', '₺', '₴', '₦', '₫', '฿', '%', '‰', '°'];
/// Units before or after a number. Others, such as the `A` of `A12`, are parts of a code.
const CURRENCIES: &[&str] = &[
    "$", "US$", "€", "£", "¥", "₹", "₽", "₩", "₺", "₴", "₦", "₫", "฿", "USD", "EUR", "GBP", "JPY",
    "CNY", "INR", "CHF", "CAD", "AUD", "SEK", "NOK", "DKK", "PLN", "CZK", "Rs", "Rs.", "kr", "kr.",
    "zł",
];
/// Units after a number.
const MEASURES: &[&str] = &[
    "%", "‰", "°", "°C", "°F", "kg", "mg", "µg", "lb", "lbs", "oz", "km", "cm", "mm", "mi", "ft",
    "ml", "kW", "kWh", "MB", "GB", "Hz", "ms", "sec", "min", "mins", "hrs", "hours", "minutes",
    "seconds", "days", "weeks", "months", "years", "km/h", "mph", "m²", "m2", "km²", "sqft",
];
/// Units after a number and a space; without the space, they may be a part of a code.
const LETTERS: &[&str] = &["g", "t", "m", "l", "L", "h", "s", "K", "V", "W", "A"];

/// What is around each number of a column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Unit {
    before: Box<str>,
    after: Box<str>,
}

impl Unit {
    /// The unit of a trimmed cell; none if there is none.
    pub(super) fn find(text: &str) -> Option<Self> {
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        let is_inner = |character: char| {
            character.is_ascii_digit() || matches!(character, '-' | '+' | '.' | ',')
        };
        let start = unsigned.find(is_inner)?;
        // The full stop of `Rs.` is not that of a number.
        let start = if unsigned[start..].starts_with(". ") { start + 1 } else { start };
        let end = unsigned.rfind(|character: char| character.is_ascii_digit())? + 1;
        if start >= end {
            return None;
        }
        let (before, after) = (unsigned[..start].trim_end(), &unsigned[end..]);
        let is_spaced = after.starts_with(char::is_whitespace);
        let after = after.trim_start();
        let is_before = before.is_empty() || CURRENCIES.contains(&before);
        let is_after = after.is_empty()
            || CURRENCIES.contains(&after)
            || MEASURES.contains(&after)
            || (is_spaced && LETTERS.contains(&after));
        let is_one = before.is_empty() != after.is_empty();
        (is_before && is_after && is_one)
            .then(|| Self { before: before.into(), after: after.into() })
    }

    /// The unit of a trimmed cell that is a number, which may be no unit; none if the cell is no number.
    pub(super) fn of_number(text: &str) -> Option<Self> {
        let unit = Self::find(text).unwrap_or_default();
        let number = unit.strip(text)?;
        let is_number = |mark| Number::parse(&number, mark).is_some();
        (is_number(DecimalMark::Point) || is_number(DecimalMark::Comma)).then_some(unit)
    }

    pub(super) fn is_none(&self) -> bool {
        self.before.is_empty() && self.after.is_empty()
    }

    /// A trimmed cell without this unit; none if the cell has not this one.
    pub(super) fn strip<'t>(&self, text: &'t str) -> Option<Cow<'t, str>> {
        if self.is_none() {
            return Some(Cow::Borrowed(text));
        }
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        let sign = &text[..text.len() - unsigned.len()];
        let number = unsigned.strip_prefix(&*self.before)?.strip_suffix(&*self.after)?.trim();
        // No second sign, as in `-$-5`.
        let is_signed = number.starts_with(['-', '+']);
        (sign.is_empty() || !is_signed).then(|| match sign {
            "" => Cow::Borrowed(number),
            sign => Cow::Owned(format!("{sign}{number}")),
        })
    }

    /// The unit, for users.
    pub(super) fn name(&self) -> &str {
        if self.before.is_empty() { &self.after } else { &self.before }
    }
}

/// Whether a text has a sign of a unit, which ids do not have.
pub(super) fn has_sign(text: &str) -> bool {
    text.contains(SIGNS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_found_and_left_out() {
        let check = |text: &str, unit: &str, number: &str| {
            let found = Unit::find(text).unwrap_or_else(|| panic!("{text} has a unit"));
            assert_eq!(found.name(), unit, "{text}");
            assert_eq!(found.strip(text).as_deref(), Some(number), "{text}");
        };
        check("$4,780.17", "$", "4,780.17");
        check("-$5", "$", "-5");
        check("$-5", "$", "-5");
        check("US$ 5", "US$", "5");
        check("Rs. 500", "Rs.", "500");
        check("95.6%", "%", "95.6");
        check("1.556,82 €", "€", "1.556,82");
        check("75 kg", "kg", "75");
        check("75\u{a0}g", "g", "75");
        check("20°C", "°C", "20");
        for text in ["", "5", "-5", "A12", "Room 5", "12A", "5m", "$", "%", "$5 kg", "k9x", "1.5."]
        {
            assert_eq!(Unit::find(text), None, "{text}");
        }
        let dollar = Unit::find("$5").unwrap();
        for text in ["5", "€5", "5$", "-$-5"] {
            assert_eq!(dollar.strip(text), None, "{text}");
        }
    }
}
