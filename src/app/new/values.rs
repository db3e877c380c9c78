//! What a cell spells: a number with a decimal point or a decimal comma, a date or a time, a boolean, or nothing.

use chrono::{Datelike as _, Timelike as _};

use crate::events::questionnaire::MomentKind;

/// The texts that mean "no answer" by default. Words are compared without regard to case.
pub(super) const MISSING: &[&str] = &[
    "NA", "N/A", "#N/A", "<NA>", "NULL", "None", "NaN", "nil", "\\N", "?", "-", "--", ".",
    "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#NULL!",
];
/// Those of them that mean "no label". Others, such as `None`, may be the name of a class.
const MISSING_LABELS: &[&str] = &["NA", "N/A", "#N/A", "<NA>", "NULL", "NaN", "\\N", "?"];

/// The texts that mean "no answer".
#[derive(Clone, Debug)]
pub(super) struct MissingMarks {
    marks: Vec<String>,
    /// Those that are whole numbers, which may be written otherwise in the file: `-999` as `-999.0`.
    numbers: Vec<i64>,
    is_default: bool,
}

impl MissingMarks {
    /// The default ones, unless the user names others.
    pub(super) fn new(named: Option<&[String]>) -> Self {
        let marks: Vec<String> = match named {
            Some(named) => named.iter().map(|mark| mark.trim().to_owned()).collect(),
            None => MISSING.iter().map(|mark| (*mark).to_owned()).collect(),
        };
        let numbers = marks.iter().filter_map(|mark| whole_value(mark)).collect();
        Self { marks, numbers, is_default: named.is_none() }
    }

    /// Whether a trimmed cell is blank or a mark.
    pub(super) fn contains(&self, text: &str) -> bool {
        text.is_empty()
            || self.marks.iter().any(|mark| mark.eq_ignore_ascii_case(text))
            || (!self.numbers.is_empty()
                && whole_value(text).is_some_and(|number| self.numbers.contains(&number)))
    }

    /// Whether a trimmed label is blank or a mark.
    pub(super) fn is_no_label(&self, text: &str) -> bool {
        if self.is_default {
            return text.is_empty()
                || MISSING_LABELS.iter().any(|mark| mark.eq_ignore_ascii_case(text));
        }
        self.contains(text)
    }
}

/// The whole number that a trimmed cell spells, with a decimal comma only if it is no number with a point.
fn whole_value(text: &str) -> Option<i64> {
    let number = Number::parse(text, DecimalMark::Point);
    number.or_else(|| Number::parse(text, DecimalMark::Comma))?.whole_value()
}

/// The character between the whole digits of a number and the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DecimalMark {
    /// `1.5`, with thousands as `1,234.5`.
    Point,
    /// `1,5`, with thousands as `1.234,5`.
    Comma,
}

/// The parts of a number as it is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Number<'t> {
    is_negative: bool,
    whole: &'t str,
    /// The character between groups of three digits.
    pub(super) group: Option<char>,
    pub(super) fraction: Option<&'t str>,
    pub(super) exponent: Option<&'t str>,
}

impl<'t> Number<'t> {
    /// The number that a trimmed cell spells with this decimal mark.
    pub(super) fn parse(text: &'t str, mark: DecimalMark) -> Option<Self> {
        let (is_negative, unsigned) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            byte if byte.is_ascii_digit() || matches!(byte, b'.' | b',') => (false, text),
            _ => return None,
        };
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, Some(exponent)),
            None => (unsigned, None),
        };
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if let Some(exponent) = exponent {
            let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if unsigned.is_empty() || unsigned.len() > 3 || !digits(unsigned) {
                return None;
            }
        }
        let point = if mark == DecimalMark::Point { '.' } else { ',' };
        let (whole, fraction) = match mantissa.split_once(point) {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (mantissa, None),
        };
        if !digits(fraction.unwrap_or(""))
            || (whole.is_empty() && fraction.unwrap_or("").is_empty())
        {
            return None;
        }
        let group = group_of(whole, mark)?;
        Some(Self { is_negative, whole, group, fraction, exponent })
            .filter(|number| number.value().is_finite())
    }

    /// Whether it has digits only, and maybe a sign.
    pub(super) fn is_whole(&self) -> bool {
        self.fraction.is_none() && self.exponent.is_none()
    }

    /// Whether it begins with a 0 before other digits, as codes do.
    pub(super) fn is_code(&self) -> bool {
        self.is_whole() && self.whole.len() > 1 && self.whole.starts_with('0')
    }

    pub(super) fn value(&self) -> f64 {
        self.text().parse().unwrap_or(f64::NAN)
    }

    /// The number if it is written as a whole one and fits into 64 bits.
    pub(super) fn whole(&self) -> Option<i64> {
        if self.is_whole() { self.text().parse().ok() } else { None }
    }

    /// The number if its value is whole, also with zeros after the decimal mark, as in `-999.0`, and fits into 64 bits.
    pub(super) fn whole_value(&self) -> Option<i64> {
        let has_zeros = self.fraction.is_none_or(|fraction| fraction.bytes().all(|b| b == b'0'));
        let whole = Self { fraction: None, ..*self };
        whole.whole().filter(|_| has_zeros && self.exponent.is_none())
    }

    /// The number as it is written in Avro's JSON: a decimal point, no groups, no plus.
    pub(super) fn text(&self) -> String {
        let mut text = String::with_capacity(self.whole.len() + 8);
        if self.is_negative {
            text.push('-');
        }
        text.extend(self.whole.chars().filter(char::is_ascii_digit));
        if self.whole.is_empty() {
            text.push('0');
        }
        if let Some(fraction) = self.fraction.filter(|fraction| !fraction.is_empty()) {
            text.push('.');
            text.push_str(fraction);
        }
        if let Some(exponent) = self.exponent {
            text.push('e');
            text.push_str(exponent);
        }
        text
    }
}

/// The character between groups of three digits; `Some(None)` if there are no groups.
fn group_of(whole: &str, mark: DecimalMark) -> Option<Option<char>> {
    let Some(group) = whole.chars().find(|character| !character.is_ascii_digit()) else {
        return Some(None);
    };
    let other = if mark == DecimalMark::Point { ',' } else { '.' };
    if ![other, ' ', '\u{a0}', '\u{202f}', '\'', '’'].contains(&group) {
        return None;
    }
    let mut groups = whole.split(group);
    let first = groups.next()?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_grouped = is_number(first) && first.len() <= 3 && !first.starts_with('0');
    let rest_is_grouped = groups.all(|group| group.len() == 3 && is_number(group));
    (is_grouped && rest_is_grouped).then_some(Some(group))
}

/// The order of day and month in dates such as `05/04/2026`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DayOrder {
    /// 5 April 2026.
    DayFirst,
    /// 4 May 2026.
    MonthFirst,
}

/// A date, or a date and a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment {
    /// Milliseconds since 1970 in UTC.
    pub(super) millis: i64,
    /// Whether there is no time of day.
    pub(super) is_date: bool,
}

const TIMESTAMP: MomentKind = MomentKind::Timestamp { per_second: 1_000 };

impl Moment {
    /// The moment that a trimmed cell spells: ISO 8601, `2026/05/17`, or day, month and year in this order.
    pub(super) fn parse(text: &str, order: DayOrder) -> Option<Self> {
        let starts = text.as_bytes().first().is_some_and(u8::is_ascii_digit);
        if !starts || text.len() < 8 || text.len() > 40 || !text.contains(['-', '/', '.']) {
            return None;
        }
        let text = text.strip_suffix(" UTC").unwrap_or(text);
        if let Some(millis) = TIMESTAMP.parse(text) {
            return Some(Self { millis, is_date: !text.contains([':', 'T', 't', ' ']) });
        }
        let (day, clock) = match text.split_once([' ', 'T']) {
            Some((day, clock)) => (day, Some(clock.trim())),
            None => (text, None),
        };
        let iso = format!("{}{}", iso_date(day, order)?, iso_clock(clock)?);
        Some(Self { millis: TIMESTAMP.parse(&iso)?, is_date: clock.is_none() })
    }

    /// The moment of a number of seconds or of milliseconds since 1970, if it is in this century.
    pub(super) fn of_epoch(number: i64, per_second: i64) -> Option<Self> {
        const CENTURY: std::ops::Range<i64> = 946_684_800..4_102_444_800;
        let is_time = CENTURY.contains(&number.div_euclid(per_second));
        is_time.then(|| Self { millis: number * (1_000 / per_second), is_date: false })
    }

    /// ISO 8601.
    pub(super) fn text(self) -> String {
        let time = chrono::DateTime::from_timestamp_millis(self.millis);
        let Some(time) = time else { return self.millis.to_string() };
        let date = format!("{:04}-{:02}-{:02}", time.year(), time.month(), time.day());
        if self.is_date {
            return date;
        }
        let millis = match self.millis.rem_euclid(1_000) {
            0 => String::new(),
            millis => format!(".{millis:03}"),
        };
        format!("{date}T{:02}:{:02}:{:02}{millis}Z", time.hour(), time.minute(), time.second())
    }
}

/// `17.5.2026`, `5/17/2026`, `2026/5/17` as `2026-05-17`.
fn iso_date(text: &str, order: DayOrder) -> Option<String> {
    let separator = text.chars().find(|character| !character.is_ascii_digit())?;
    let mut parts = text.split(separator);
    let (first, second, third) = (parts.next()?, parts.next()?, parts.next()?);
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if parts.next().is_some() || ![first, second, third].into_iter().all(is_number) {
        return None;
    }
    let (year, month, day) = match (first.len(), third.len(), separator, order) {
        (4, 1 | 2, '/' | '.' | '-', _) => (first, second, third),
        // With points, the day is always first.
        (1 | 2, 4, '.', _) | (1 | 2, 4, '/' | '-', DayOrder::DayFirst) => (third, second, first),
        (1 | 2, 4, '/' | '-', DayOrder::MonthFirst) => (third, first, second),
        _ => return None,
    };
    Some(format!("{year}-{month:0>2}-{day:0>2}"))
}

/// `9:05`, `9:05:30.5`, `9:05 PM` as `T21:05`; nothing if there is none.
fn iso_clock(clock: Option<&str>) -> Option<String> {
    let Some(clock) = clock else { return Some(String::new()) };
    let upper = clock.to_ascii_uppercase();
    let (time, noon) = if let Some(time) = upper.strip_suffix("PM") {
        (time.trim_end(), Some(true))
    } else if let Some(time) = upper.strip_suffix("AM") {
        (time.trim_end(), Some(false))
    } else {
        (upper.as_str(), None)
    };
    let (hour, rest) = time.split_once(':')?;
    let hour: u8 = hour.parse().ok()?;
    let hour = match noon {
        None => hour,
        Some(_) if hour == 0 || hour > 12 => return None,
        Some(is_afternoon) => hour % 12 + if is_afternoon { 12 } else { 0 },
    };
    Some(format!("T{hour:02}:{rest}"))
}

/// Pairs of words for false and true.
const BOOLEANS: &[(&str, &str)] = &[
    ("false", "true"),
    ("no", "yes"),
    ("n", "y"),
    ("f", "t"),
    ("off", "on"),
    ("nein", "ja"),
    ("non", "oui"),
];

/// The pair whose words a column's texts are, in any case, if both occur.
pub(super) fn boolean_words<'t>(
    texts: impl Iterator<Item = &'t str> + Clone,
) -> Option<(&'static str, &'static str)> {
    BOOLEANS.iter().copied().find(|(no, yes)| {
        let is_word = |text: &str| text.eq_ignore_ascii_case(no) || text.eq_ignore_ascii_case(yes);
        let has = |word: &str| texts.clone().any(|text| text.eq_ignore_ascii_case(word));
        texts.clone().all(is_word) && has(no) && has(yes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_by_decimal_mark() {
        let check = |text: &str, point: Option<&str>, comma: Option<&str>| {
            let read = |mark| Number::parse(text, mark).map(|number| number.text());
            assert_eq!(read(DecimalMark::Point).as_deref(), point, "{text:?} with a point");
            assert_eq!(read(DecimalMark::Comma).as_deref(), comma, "{text:?} with a comma");
        };
        check("12", Some("12"), Some("12"));
        check("-0", Some("-0"), Some("-0"));
        check("1.5", Some("1.5"), None);
        check("1,5", None, Some("1.5"));
        check("1.234", Some("1.234"), Some("1234"));
        check("1,234", Some("1234"), Some("1.234"));
        check("1,234,567", Some("1234567"), None);
        check("1.234.567,8", None, Some("1234567.8"));
        check("1 234", Some("1234"), Some("1234"));
        check("1\u{a0}234,5", None, Some("1234.5"));
        check("1'234.50", Some("1234.50"), None);
        check("+2e-3", Some("2e-3"), Some("2e-3"));
        check(".5", Some("0.5"), None);
        check("5.", Some("5"), None);
        check("0,123", None, Some("0.123"));
        for text in [
            "", "-", ".", "e5", "1e", "1e9999", "1e400", "--1", "1 23", "12 345 6", "0x10", "inf",
            "nan", "1_000", "é",
        ] {
            check(text, None, None);
        }
    }

    #[test]
    fn whole_values_may_have_zeros_after_the_mark() {
        let check = |text: &str, mark, expected| {
            let number = Number::parse(text, mark).unwrap();
            assert_eq!(number.whole_value(), expected, "{text}");
        };
        for text in ["-999", "-999.", "-999.0", "-999.00", "-0999.000"] {
            check(text, DecimalMark::Point, Some(-999));
        }
        check("-9,999.0", DecimalMark::Point, Some(-9_999));
        check("-999,0", DecimalMark::Comma, Some(-999));
        check("9999.0", DecimalMark::Point, Some(9_999));
        for text in ["-999.5", "-999.01", "-9.99e2", "99999999999999999999.0"] {
            check(text, DecimalMark::Point, None);
        }
    }

    #[test]
    fn marks_that_are_numbers_may_be_written_otherwise() {
        let marks = MissingMarks::new(Some(&["-999".to_owned(), "gone".to_owned()]));
        for text in ["-999", "-999.0", "-999,00", "GONE", ""] {
            assert!(marks.contains(text), "{text}");
        }
        for text in ["999", "-999.5", "-9990", "NA"] {
            assert!(!marks.contains(text), "{text}");
        }
        assert!(!MissingMarks::new(Some(&["1".to_owned()])).contains("1,000"));
    }

    #[test]
    fn moments_by_order() {
        let check = |text: &str, day: Option<&str>, month: Option<&str>| {
            let read = |order| Moment::parse(text, order).map(Moment::text);
            assert_eq!(read(DayOrder::DayFirst).as_deref(), day, "{text:?}, day first");
            assert_eq!(read(DayOrder::MonthFirst).as_deref(), month, "{text:?}, month first");
        };
        let both = |text: &str, time: &str| check(text, Some(time), Some(time));
        both("2026-05-17", "2026-05-17");
        both("2026-05-17T09:05:30+01:00", "2026-05-17T08:05:30Z");
        both("2026-05-17 09:05:30.25", "2026-05-17T09:05:30.250Z");
        both("2026-05-17 09:05:30 UTC", "2026-05-17T09:05:30Z");
        both("2012/1/31", "2012-01-31");
        both("31.1.2012", "2012-01-31");
        both("31.01.2012 7:05", "2012-01-31T07:05:00Z");
        check("05/04/2026", Some("2026-04-05"), Some("2026-05-04"));
        check("25/04/2026", Some("2026-04-25"), None);
        check("4/25/2026 1:05 PM", None, Some("2026-04-25T13:05:00Z"));
        check("12/12/2026 12:00 AM", Some("2026-12-12T00:00:00Z"), Some("2026-12-12T00:00:00Z"));
        for text in [
            "",
            "20260517",
            "1/2/26",
            "2026-13-01",
            "1.2.3.4",
            "10.5.1",
            "2026-05-17 noon",
            "1/2/2026 25:00",
            "12-345678",
        ] {
            check(text, None, None);
        }
        assert_eq!(Moment::of_epoch(1_600_000_000, 1).unwrap().text(), "2020-09-13T12:26:40Z");
        assert_eq!(
            Moment::of_epoch(1_600_000_000_250, 1_000).unwrap().text(),
            "2020-09-13T12:26:40.250Z"
        );
        assert_eq!(Moment::of_epoch(i64::MIN, 1), None);
    }

    #[test]
    fn booleans() {
        let check = |texts: &[&str], expected| {
            assert_eq!(boolean_words(texts.iter().copied()), expected, "{texts:?}");
        };
        check(&["TRUE", "false"], Some(("false", "true")));
        check(&["Yes", "no", "NO"], Some(("no", "yes")));
        check(&["t", "f"], Some(("f", "t")));
        check(&["yes"], None);
        check(&["yes", "true"], None);
        check(&["0", "1"], None);
    }
}
